"""A flow record: one new connection or one drop, joined with names and rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from sixfold.model.dial import Dial
from sixfold.model.identity import Identity
from sixfold.model.reason import DropReason
from sixfold.model.rule import Rule


class Verdict(IntEnum):
    """Numbers of Hubble's flow.proto."""

    FORWARDED = 1
    DROPPED = 2
    ERROR = 3
    AUDIT = 4
    REDIRECTED = 5
    TRACED = 6
    TRANSLATED = 7


@dataclass(frozen=True, slots=True)
class Peer:
    """One side of a flow."""

    address: IPv4Address | IPv6Address
    port: int  # 0 for protocols without
    identity: Identity
    namespace: str = ""  # "" when not a pod
    pod: str = ""
    workload: str = ""  # "Deployment/web"
    labels: tuple[str, ...] = ()  # "k8s:app=web", "reserved:world", "cidr:192.0.2.0/24"
    endpoint_id: int = 0
    names: tuple[str, ...] = ()  # domain names that have resolved to the address

    @property
    def name(self) -> str:
        """``namespace/pod``, or the reserved name, or the address."""
        if self.pod:
            return f"{self.namespace}/{self.pod}"
        reserved = [label for label in self.labels if label.startswith("reserved:")]
        return reserved[0].removeprefix("reserved:") if reserved else str(self.address)


@dataclass(frozen=True, slots=True)
class Flow:
    """One record. ``rule`` of a dropped side is the rule that denied, a default deny included."""

    time_ns: int  # UTC, since the epoch
    verdict: Verdict
    direction: str  # "egress" or "ingress": the side that was observed, or that denied
    protocol: int  # IP protocol number
    source: Peer
    destination: Peer
    drop_reason: DropReason = DropReason.NONE
    egress_rule: Rule | None = None  # None where that side has no policy (world, host)
    ingress_rule: Rule | None = None
    service: str = ""  # "namespace/name" when the client dialled a service
    service_port: int = 0
    tcp_flags: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    length: int = 0
    is_reply: bool = False
    ifindex: int = 0
    node: str = ""
    dial: Dial = Dial.FRESH  # of an address that names lead, or led, to; by its client
    redirected: bool = False  # the address was retired: led to who serves ``service`` now
    extra: dict[str, str] = field(default_factory=dict)
