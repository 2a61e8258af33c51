"""networking.istio.io ServiceEntry and DestinationRule, of services outside, as written.

Source: Istio 1.27. An entry says what an external service is called and what its ports speak; a
DestinationRule, how TLS to it is begun. Whether anybody may go there, policy says.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written

SERVICE_ENTRY, DESTINATION_RULE = "ServiceEntry", "DestinationRule"
API = "networking.istio.io/v1"
Protocol = Literal["HTTP", "HTTPS", "TLS", "TCP"]
WITH_NAME = ("HTTPS", "TLS")  # the handshake names the host
AUTHORITIES = ("ca.crt", "cacert")  # keys of a Secret: who vouches for the server


class EntryPort(Object):
    """``target_port``: of the server; absent: the same."""

    number: int
    protocol: Protocol
    name: str
    target_port: int | None = None


class WorkloadEntry(Object):
    """A server. ``ports``: its own, by the names of the entry's."""

    address: str
    ports: dict[str, int] = {}
    weight: int | None = None


class ServiceEntrySpec(Object):
    """``addresses`` are dialled, ``endpoints`` answer: of resolution STATIC."""

    hosts: list[str]
    ports: list[EntryPort] = []
    location: Literal["MESH_EXTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "DNS", "STATIC"] = "NONE"
    addresses: list[str] = []
    endpoints: list[WorkloadEntry] = []


class ServiceEntry(Object):
    metadata: ObjectMeta
    spec: ServiceEntrySpec
    api_version: str = written(API)
    kind: str = written(SERVICE_ENTRY)
    status: dict[str, Any] = {}


class ClientTLS(Object):
    """``credential_name``: a Secret of the namespace: who vouches for the server, and of MUTUAL
    what is shown to it. ``sni`` absent: the host."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL"] = "DISABLE"
    credential_name: str = ""
    sni: str = ""
    subject_alt_names: list[str] = []


class PortNumber(Object):
    number: int


class PortTrafficPolicy(Object):
    port: PortNumber
    tls: ClientTLS | None = None


class DestinationTrafficPolicy(Object):
    tls: ClientTLS | None = None
    port_level_settings: list[PortTrafficPolicy] = []


class DestinationRuleSpec(Object):
    host: str
    traffic_policy: DestinationTrafficPolicy = msgspec.field(
        default_factory=DestinationTrafficPolicy
    )

    def tls_of(self, port: int) -> ClientTLS | None:
        """Of one port; what is said of it goes before what is said of all."""
        for one in self.traffic_policy.port_level_settings:
            if one.port.number == port:
                return one.tls
        return self.traffic_policy.tls


class DestinationRule(Object):
    metadata: ObjectMeta
    spec: DestinationRuleSpec
    api_version: str = written(API)
    kind: str = written(DESTINATION_RULE)
    status: dict[str, Any] = {}
