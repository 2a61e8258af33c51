"""From a kernel event to a flow: numbers become names, monotonic time becomes UTC.

Pure: the clock offset is an argument. What has no name keeps its number or address: an event
is never dropped for lack of a name.
"""

from __future__ import annotations

from typing import Protocol

from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.model.dial import REDIRECTED, Dial
from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import HOST, RESOLVER, WORLD, Identity
from sixfold.model.reason import DropReason
from sixfold.model.rule import Direction, Rule
from sixfold.observe.names import IPAddress, Names, Owner

EVENT_VERDICT, EVENT_DROP, EVENT_TRANSLATION, EVENT_CUT, EVENT_AUDIT = 1, 2, 3, 4, 5
TRANSPORT_MTLS, TRANSPORT_OUTWARD = 1, 3  # of enum transport
VERDICTS = {
    EVENT_VERDICT: Verdict.FORWARDED,
    EVENT_DROP: Verdict.DROPPED,
    EVENT_TRANSLATION: Verdict.TRANSLATED,
    EVENT_CUT: Verdict.DROPPED,
    EVENT_AUDIT: Verdict.AUDIT,
}
RCODES = {0: "NOERROR", 3: "NXDOMAIN"}
WITH_REASON = (EVENT_DROP, EVENT_CUT, EVENT_AUDIT)
SPOOFED = frozenset(
    {DropReason.INVALID_SOURCE_MAC, DropReason.INVALID_SOURCE_IP, DropReason.ARP_STRANGER}
)


class RawEvent(Protocol):
    """``struct flow_event`` of bpf/sixfold.h: ports in host order, IPv4 unmapped.

    ``host/layout.py`` decodes it; this package only reads these attributes.
    """

    @property
    def time_ns(self) -> int: ...
    @property
    def type(self) -> int: ...
    @property
    def reason(self) -> int: ...
    @property
    def protocol(self) -> int: ...
    @property
    def direction(self) -> int: ...
    @property
    def tcp_flags(self) -> int: ...
    @property
    def icmp_type(self) -> int: ...
    @property
    def icmp_code(self) -> int: ...
    @property
    def is_reply(self) -> int: ...
    @property
    def source(self) -> IPAddress: ...
    @property
    def destination(self) -> IPAddress: ...
    @property
    def source_port(self) -> int: ...
    @property
    def destination_port(self) -> int: ...
    @property
    def source_identity(self) -> int: ...
    @property
    def destination_identity(self) -> int: ...
    @property
    def rule(self) -> tuple[int, int]: ...
    @property
    def service(self) -> int: ...
    @property
    def ifindex(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def service_port(self) -> int: ...
    @property
    def answer(self) -> int: ...
    @property
    def dial(self) -> int: ...
    @property
    def transport(self) -> int: ...


def join(event: RawEvent, names: Names, boot_offset_ns: int) -> Flow:
    """Name everything in an event. ``boot_offset_ns`` is CLOCK_REALTIME − CLOCK_MONOTONIC."""
    service = names.services.get(event.service) if event.service else None
    port = event.service_port or (service.port if service else 0)
    return Flow(
        time_ns=event.time_ns + boot_offset_ns,
        verdict=VERDICTS.get(event.type, Verdict.ERROR),
        direction="egress" if event.direction == EGRESS else "ingress",
        protocol=event.protocol,
        source=_source(names, event),
        destination=_destination(names, event),
        drop_reason=_reason(event.reason) if event.type in WITH_REASON else DropReason.NONE,
        egress_rule=_rule(names, event.rule[EGRESS], "egress"),
        ingress_rule=_rule(names, event.rule[INGRESS], "ingress"),
        service=f"{service.namespace}/{service.name}" if service else "",
        service_port=port if event.service else 0,
        tcp_flags=event.tcp_flags,
        icmp_type=event.icmp_type,
        icmp_code=event.icmp_code,
        length=event.length,
        is_reply=bool(event.is_reply),
        ifindex=event.ifindex,
        node=names.node,
        dial=_dial(event.dial & ~REDIRECTED),
        redirected=bool(event.dial & REDIRECTED),
        extra=_extra(event),
    )


def _extra(event: RawEvent) -> dict[str, str]:
    if event.transport == TRANSPORT_MTLS:
        cut = {"connection": "cut"} if event.type == EVENT_CUT else {}
        return {**cut, "mesh": "through mTLS"}
    if event.type == EVENT_CUT:
        return {"connection": "cut"}
    if event.transport == TRANSPORT_OUTWARD:
        return {"mesh": "by the proxy"}
    if event.type == EVENT_DROP and event.reason == DropReason.NAME_HIDDEN:
        return {"dns": "hidden by policy, answered in the kernel: NXDOMAIN"}
    if event.answer:
        return {"dns": f"answered in the kernel: {RCODES.get(event.answer - 1, event.answer - 1)}"}
    return {}


def _source(names: Names, event: RawEvent) -> Peer:
    owner = names.owners.get(event.source)
    if event.type == EVENT_DROP and event.reason in SPOOFED:
        # The address is a lie; the interface it came from is not.
        owner = names.interfaces.get(event.ifindex) if event.direction == EGRESS else None
    return _peer(names, event.source, _port(event, event.source_port), event.source_identity, owner)


def _destination(names: Names, event: RawEvent) -> Peer:
    owner = names.owners.get(event.destination)
    return _peer(
        names,
        event.destination,
        _port(event, event.destination_port),
        event.destination_identity,
        owner,
    )


def _port(event: RawEvent, port: int) -> int:
    """ICMP has none: the kernel keeps the echo identifier in its place."""
    return 0 if event.protocol in (1, 58) else port


def _peer(names: Names, address: IPAddress, port: int, number: int, owner: Owner | None) -> Peer:
    identity = Identity(number)
    if owner is None or identity in (HOST, WORLD, RESOLVER):
        domains = names.domains.get(address, ()) if identity == WORLD else ()
        return Peer(address, port, identity, labels=names.labels_of(identity), names=domains)
    return Peer(
        address=address,
        port=port,
        identity=identity,
        namespace=owner.namespace,
        pod=owner.pod,
        workload=owner.workload,
        labels=names.labels_of(identity),
        endpoint_id=owner.endpoint_id,
    )


def _rule(names: Names, number: int, direction: Direction) -> Rule | None:
    if not number:
        return None
    known = names.rules.get(number)
    return known or Rule("unknown", "", f"rule {number}", direction, because="no longer known")


def _dial(number: int) -> Dial:
    try:
        return Dial(number)
    except ValueError:  # a datapath newer than this agent
        return Dial.FRESH


def _reason(number: int) -> DropReason:
    try:
        return DropReason(number)
    except ValueError:  # a datapath newer than this agent
        return DropReason.INVALID_PACKET
