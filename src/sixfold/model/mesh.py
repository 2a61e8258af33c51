"""The numbers and words of the mesh: modes, ports, marks. Enums are the kernel's, too."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, NamedTuple

from sixfold.model.endpoint import EndpointId

Mtls = Literal["strict", "permissive", "disabled"]  # of everything that nothing else says more of

OUTBOUND_PORT = 15001  # on each pod's loopback: where connections that it opens are captured
HTTP_PORT = 15002  # likewise, where requests are looked at
OUTWARD_PORT = 15003  # likewise, what leaves under the proxy's eyes
COPIES_PORT = 15004  # likewise, while a route makes copies: where the proxy sends them to
NAMED_PORT = 15005  # likewise, while a TLSRoute is about a Service: handshakes are looked at
TUNNEL_PORT = 15008  # at each pod's addresses: HTTP/2 CONNECT in TLS, as Istio's HBONE
TUNNEL_PROTOCOL = "sixfold-tunnel"  # beside h2, in handshakes of tunnels that carry no requests
DESTINATION = "x-sixfold-destination"  # header between proxies: address and port of a request
# Likewise: the cluster that leads to ``COPIES_PORT``, and the one that a copy is for.
COPIES, COPY_TO = "x-sixfold-copies", "x-sixfold-copy-to"
CLIENT_PORT = "x-sixfold-client-port"  # likewise: of the connection that a request came by
# What of a request's headers is kept for as long as it lasts: those that rules look at.
HEADERS_KEPT, HEADERS_ABSENT = "sixfold.headers", "sixfold.headers.absent"
SHARE_ENFORCED = "sixfold.share"  # whether a pod has its share of the proxy only; of its runtime
OUTWARD_MARK = 0x60  # in pods: sockets of the proxy to the world
ORIGINAL_SOURCE_MARK = 0x5F  # in pods: what the proxy sends under a client's address


class Mode(IntEnum):
    """Whether TCP from other pods has to come through the tunnel; of one port of one pod."""

    DISABLED = 0  # it goes past the proxy
    PERMISSIVE = 1  # who is in the mesh comes through the tunnel, plaintext is let in, and counted
    STRICT = 2  # plaintext is dropped


MODES: dict[Mtls, Mode] = {
    "disabled": Mode.DISABLED,
    "permissive": Mode.PERMISSIVE,
    "strict": Mode.STRICT,
}


class RoutedBy(IntEnum):
    """What the proxy reads of connections to a service's port."""

    REQUEST = 1  # or nothing: a TCPRoute
    NAME = 2  # in the handshake: a TLSRoute


PROVIDER = "sixfold"  # of certificates of gRPC clients that need no proxy, in their bootstrap
ANY_PORT = 0  # every port that has no line of its own


class PortMode(NamedTuple):
    """One line of what the kernel is told; a pod is in the mesh if it has one of ``ANY_PORT``."""

    endpoint: EndpointId
    port: int
    mode: Mode
    ifindex: int  # of the endpoint
    looked_into: bool = False  # a policy is about requests to it: what comes must be HTTP
    looks_out: bool = False  # of ``ANY_PORT``: the proxy has to see some of what the pod dials


SPEAKERS_MAX = 32
Owner = tuple[int | None, int | None]  # of a process: user and group; None: any


class Speakers(NamedTuple):
    """Whose processes of a pod the proxy speaks for, when not everybody's: one of these."""

    endpoint: EndpointId
    owners: tuple[Owner, ...]
