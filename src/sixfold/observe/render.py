"""Flows as others read them: Hubble's JSON, and one line for people.

Pure. JSON is that of ``hubble observe -o json``: flow.proto with proto field names, enums by
name, 64-bit numbers as strings. What Hubble has no field for is under "sixfold".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import RESERVED_NAMES
from sixfold.model.reason import DropReason
from sixfold.model.rule import Rule

# Hubble's number and name of each reason (flow.proto, DropReason).
HUBBLE_DROPS: dict[DropReason, tuple[int, str]] = {
    DropReason.INVALID_SOURCE_MAC: (130, "INVALID_SOURCE_MAC"),
    DropReason.INVALID_SOURCE_IP: (132, "INVALID_SOURCE_IP"),
    DropReason.POLICY_DENIED: (133, "POLICY_DENIED"),
    DropReason.INVALID_PACKET: (134, "INVALID_PACKET_DROPPED"),
    DropReason.UNSUPPORTED_L4: (142, "UNKNOWN_L4_PROTOCOL"),
    DropReason.CT_FULL: (155, "CT_MAP_INSERTION_FAILED"),
    DropReason.EXTENSION_HEADERS: (156, "INVALID_IPV6_EXTENSION_HEADER"),
    DropReason.FRAGMENT_UNKNOWN: (175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND"),
    DropReason.NO_BACKEND: (158, "SERVICE_BACKEND_NOT_FOUND"),
    DropReason.UNSUPPORTED_L2: (166, "UNSUPPORTED_L2_PROTOCOL"),
    DropReason.NO_NAT_MAPPING: (167, "NO_MAPPING_FOR_NAT_MASQUERADE"),
    DropReason.SOURCE_RANGE: (177, "DENIED_BY_LB_SRC_RANGE_CHECK"),
    DropReason.NO_ENDPOINT: (165, "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION"),
    DropReason.POLICY_DENY: (181, "POLICY_DENY"),
}
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
PROTOCOLS = {1: "ICMPv4", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
EVENT_DROP, EVENT_POLICY_VERDICT = 1, 5  # Cilium's monitor message types
DENIALS = (Verdict.DROPPED, Verdict.AUDIT)  # AUDIT: a rule denies, but is not in force
POLICY_DROPS = (DropReason.POLICY_DENIED, DropReason.POLICY_DENY)


def to_hubble(flow: Flow) -> dict[str, Any]:
    """The flow as Hubble's Flow message."""
    dropped = flow.verdict is Verdict.DROPPED
    number, desc = HUBBLE_DROPS.get(flow.drop_reason, (0, "DROP_REASON_UNKNOWN"))
    record: dict[str, Any] = {
        "time": timestamp(flow.time_ns),
        "verdict": flow.verdict.name,
        "IP": {
            "source": str(flow.source.address),
            "destination": str(flow.destination.address),
            "ipVersion": f"IPv{flow.source.address.version}",
        },
        "l4": _l4(flow),
        "source": _endpoint(flow.source),
        "destination": _endpoint(flow.destination),
        "source_names": list(flow.source.names),
        "destination_names": list(flow.destination.names),
        "Type": "L3_L4",
        "node_name": flow.node,
        "event_type": {"type": EVENT_DROP, "sub_type": number}
        if dropped
        else {"type": EVENT_POLICY_VERDICT},
        "traffic_direction": flow.direction.upper(),
        "is_reply": flow.is_reply,
        "Summary": summary(flow),
        **_rules(flow),
    }
    if dropped:
        record |= {"drop_reason": number, "drop_reason_desc": desc}
    if flow.ifindex:
        record["interface"] = {"index": flow.ifindex}
    if flow.service:
        namespace, _, name = flow.service.partition("/")
        record["destination_service"] = {"name": name, "namespace": namespace}
    record["sixfold"] = _ours(flow)
    return {key: value for key, value in record.items() if value not in ({}, [], "")}


def response(flow: Flow) -> dict[str, Any]:
    """One line of ``hubble observe -o json``: the flow in its GetFlowsResponse."""
    return {"flow": to_hubble(flow), "node_name": flow.node, "time": timestamp(flow.time_ns)}


def compact(flow: Flow) -> str:
    """One line, as ``hubble observe -o compact`` prints it, and the rule behind the verdict."""
    moment = datetime.fromtimestamp(flow.time_ns // 10**9, UTC)
    millis = flow.time_ns // 10**6 % 1000
    left, right = peer_text(flow.source), peer_text(flow.destination)
    arrow = "<-" if flow.is_reply else "->"
    if flow.is_reply:
        left, right = right, left
    parts = [
        f"{moment:%b %d %H:%M:%S}.{millis:03}: {left} {arrow} {right}",
        f"{event_text(flow)} {flow.verdict.name} ({summary(flow)})",
    ]
    if flow.service:
        port = f":{flow.service_port}" if flow.service_port else ""  # none of a hidden name
        parts.append(f"service {flow.service}{port}")
    if stale := stale_text(flow):
        parts.append(f"stale {stale}")
    if rule := rule_text(flow):
        parts.append(f"rule {rule}")
    if who := flow.extra.get("source_id"):
        parts.append(f"mtls {who} -> {flow.extra['destination_id']}")
    if asked := flow.extra.get("http"):
        parts.append(f"http {asked}")
    if named := flow.extra.get("sni"):
        parts.append(f"sni {named}")
    if asked := flow.extra.get("asked"):
        parts.append(f"dns {asked}")
    if lacks := flow.extra.get("capability"):
        parts.append(f"lacks {lacks}")
    if runs := flow.extra.get("process"):
        parts.append(f"process {runs} uid {flow.extra['uid']}")
    if untold := flow.extra.get("untold"):
        parts.append(f"and {untold} before it")
    if what := flow.extra.get("mesh"):
        parts.append(f"mesh {what}")
    if (sent := flow.extra.get("bytes_sent")) is not None:
        parts.append(f"bytes {sent} sent {flow.extra['bytes_received']} received")
    if state := flow.extra.get("state"):
        parts.append(state)
    if logs := _logs(flow):
        parts.append(f"log {', '.join(logs)}")
    return " ".join(parts)


def stale_text(flow: Flow) -> str:
    """What is wrong with how the client knows the address; "" when nothing is."""
    words = [flow.dial.name] if flow.dial else []
    return ",".join([*words, *(["REDIRECTED"] if flow.redirected else [])])


def event_text(flow: Flow) -> str:
    """What happened: a policy verdict and its direction, or the reason of another drop."""
    if flow.verdict is Verdict.ERROR:
        return "mesh"
    if flow.verdict is Verdict.DROPPED and flow.drop_reason not in POLICY_DROPS:
        return f"drop:{flow.drop_reason.name.lower().replace('_', '-')}"
    return f"policy-verdict:{flow.direction}"


def rule_text(flow: Flow) -> str:
    """The rules behind the verdict: of the side that denied, or of both sides."""
    if flow.verdict in DENIALS:
        rule = flow.egress_rule if flow.direction == "egress" else flow.ingress_rule
        return _named(rule, flow.direction) if rule else ""
    rules = ((flow.egress_rule, "egress"), (flow.ingress_rule, "ingress"))
    return ", ".join(_named(rule, side) for rule, side in rules if rule)


def peer_text(peer: Peer) -> str:
    """``shop/web-1:41234 (ID:1234)``, or the address and its reserved name."""
    address = f"[{peer.address}]" if peer.address.version == 6 and peer.port else peer.address
    who = f"{peer.namespace}/{peer.pod}" if peer.pod else f"{address}"
    if peer.names:
        who = f"{peer.names[-1]} ({address})"
    port = f":{peer.port}" if peer.port else ""
    reserved = RESERVED_NAMES.get(peer.identity, "").removeprefix("reserved:")
    return f"{who}{port} ({reserved})" if reserved else f"{who}{port} (ID:{peer.identity})"


def summary(flow: Flow) -> str:
    """Hubble's Summary: protocol and flags."""
    if call := flow.extra.get("system_call"):
        return f"system call {call} {flow.extra.get('path', '')}".rstrip()
    name = PROTOCOLS.get(flow.protocol, f"protocol {flow.protocol}")
    if flow.protocol == 6 and (flags := _tcp_flags(flow.tcp_flags)):
        return f"TCP Flags: {', '.join(flags)}"
    if flow.protocol in (1, 58):
        return f"{name} type {flow.icmp_type} code {flow.icmp_code}"
    return name


def timestamp(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9:09}Z"


def _named(rule: Rule, side: str) -> str:
    text = str(rule)
    return text if rule.index >= 0 else f"{side} {text}"


def _tcp_flags(bits: int) -> list[str]:
    return [name for position, name in enumerate(TCP_FLAGS) if bits >> position & 1]


def _l4(flow: Flow) -> dict[str, Any]:
    name = PROTOCOLS.get(flow.protocol)
    if name is None:
        return {}
    if flow.protocol in (1, 58):
        return {name: {"type": flow.icmp_type, "code": flow.icmp_code}}
    ports: dict[str, Any] = {
        "source_port": flow.source.port,
        "destination_port": flow.destination.port,
    }
    if flow.protocol == 6:
        ports["flags"] = dict.fromkeys(_tcp_flags(flow.tcp_flags), True)
    return {name: ports}


def _endpoint(peer: Peer) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if peer.endpoint_id:
        record["ID"] = peer.endpoint_id
    record["identity"] = int(peer.identity)
    if peer.pod:
        record["cluster_name"] = "default"
        record["namespace"] = peer.namespace
    record["labels"] = list(peer.labels)
    if peer.pod:
        record["pod_name"] = peer.pod
        kind, _, name = peer.workload.partition("/")
        record["workloads"] = [{"name": name, "kind": kind}]
    return record


def _logs(flow: Flow) -> list[str]:
    """What Cilium policies want said of flows that their rules decide: ``log.value``."""
    return [rule.log for rule in (flow.egress_rule, flow.ingress_rule) if rule and rule.log]


def _rules(flow: Flow) -> dict[str, Any]:
    """Which rules allowed or denied. Egress is judged first: an ingress denial passed it."""
    egress, ingress = _policy(flow.egress_rule), _policy(flow.ingress_rule)
    logs = _logs(flow)
    return {**_judged_by(flow, egress, ingress), **({"policy_log": logs} if logs else {})}


def _judged_by(
    flow: Flow, egress: list[dict[str, Any]], ingress: list[dict[str, Any]]
) -> dict[str, Any]:
    if flow.verdict not in DENIALS:
        return {"egress_allowed_by": egress, "ingress_allowed_by": ingress}
    if flow.drop_reason not in POLICY_DROPS:
        return {}
    if flow.direction == "egress":
        return {"egress_denied_by": egress}
    return {"egress_allowed_by": egress, "ingress_denied_by": ingress}


def _policy(rule: Rule | None) -> list[dict[str, Any]]:
    if rule is None:
        return []
    policy: dict[str, Any] = {"name": rule.name, "namespace": rule.namespace, "kind": rule.kind}
    if rule.because:
        policy["labels"] = [f"sixfold:because={rule.because}"]
    return [{key: value for key, value in policy.items() if value}]


def _ours(flow: Flow) -> dict[str, Any]:
    ours: dict[str, Any] = {"rule": rule_text(flow), "length": flow.length}
    if flow.verdict is Verdict.DROPPED:
        ours["drop_reason"] = flow.drop_reason.name
    if flow.service:
        ours["service_port"] = flow.service_port
    if flow.dial:
        ours["stale"] = flow.dial.name
    if flow.redirected:
        ours["redirected"] = True
    for side, rule in (("egress", flow.egress_rule), ("ingress", flow.ingress_rule)):
        if rule is not None:
            ours[f"{side}_rule"] = {"index": rule.index, "text": str(rule)}
    return {**ours, **flow.extra}
