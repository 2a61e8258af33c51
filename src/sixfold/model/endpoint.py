"""An endpoint: one pod's attachment to the network, as planners see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

from sixfold.model.identity import Identity, NamedPort, Subject
from sixfold.model.locality import NOWHERE, Locality
from sixfold.model.placement import NODE, Placement

EndpointId = NewType("EndpointId", int)  # stable while the pod lives; 0 is the host
HOST_ENDPOINT = EndpointId(0)
LAST_ENDPOINT = 131071  # the kernel has an array of them


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod with its addresses. Offline, addresses may be None and identity 0."""

    namespace: str
    pod: str
    workload: str  # "Deployment/web", or "Pod/name" for a bare pod
    subject: Subject
    id: EndpointId = EndpointId(0)
    identity: Identity = Identity(0)
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    ifindex: int = 0  # host side of the veth; 0 until attached
    netns: str = ""  # path of the network namespace
    netns_cookie: int = 0
    node: str = ""
    ready: bool = False
    terminating: bool = False
    serving: bool = False  # its containers are ready, even on its way out
    hostname: str = ""
    subdomain: str = ""
    probe_ports: frozenset[int] = frozenset()  # TCP ports that the node's own probes dial
    weight: int = 1  # share of new connections; 0 is maintenance
    locality: Locality = NOWHERE  # what its labels say; nothing: where its node is
    drained: bool = False  # by ``sixfold lb drain``: gets nothing new, whatever its weight
    accelerated: bool = False  # it, or its namespace, asks for acceleration
    redirected: bool = False  # ... for redirects: from retired addresses to who serves now
    placement: Placement = NODE  # of its proxy, when it starts
    publish_ports: tuple[NamedPort, ...] = ()  # all containerPorts, named or not (name "")

    @property
    def key(self) -> str:
        """``namespace/pod``, as users name it."""
        return f"{self.namespace}/{self.pod}"

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Those that it has, IPv4 first."""
        return tuple(one for one in (self.ipv4, self.ipv6) if one is not None)

    @property
    def is_template(self) -> bool:
        """Whether it stands for all pods of a controller, as offline: not one pod, but many."""
        kind, _, name = self.workload.partition("/")
        return kind != "Pod" and self.pod in (name, self.workload)

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.subject.labels)


def by_address(endpoints: Iterable[Endpoint]) -> dict[IPv4Address | IPv6Address, Endpoint]:
    return {address: one for one in endpoints for address in one.addresses}
