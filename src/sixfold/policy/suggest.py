"""Policies that allow what was seen, and nothing else.

Pure. Flows in (records as ``flows -o json`` prints them, which is Hubble's JSON), NetworkPolicies
out: one for each workload, with both directions, on a deny-all base for each namespace. What is
built in (DNS to the node's resolver, the node's probes) needs no rule and gets none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from sixfold.model.datapath import IPAddress, IPNetwork
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST, RESOLVER
from sixfold.model.meta import NAME_LABEL, LabelSelector, ObjectMeta
from sixfold.model.policy import (
    EgressRule,
    IngressRule,
    IPBlock,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from sixfold.model.workload import Protocol
from sixfold.policy.suggest_selector import common, selector_for

ADDRESSES_MAX = 16  # of the world on one port: above, it is taken to serve everybody
MANAGED_BY = {"app.kubernetes.io/managed-by": "sixfold-suggest"}
BASE_NAME = "default-deny"
_LABEL_PREFIX = "k8s:"
_NOT_LABELS = ("k8s:io.cilium.", "k8s:io.kubernetes.pod.")
PROTOCOLS: tuple[Protocol, ...] = ("TCP", "UDP", "SCTP")


class Workload(NamedTuple):
    """A workload by namespace, kind and name."""

    namespace: str
    kind: str
    name: str


Side = Workload | IPAddress


class Seen(NamedTuple):
    """One kind of flow that was seen."""

    source: Side
    destination: Side
    protocol: Protocol
    port: int


@dataclass(slots=True)
class Observations:
    """What flows tell: who talked to whom, and which labels workloads have."""

    seen: set[Seen] = field(default_factory=set)
    labels: dict[Workload, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))
    skipped: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """A workload that is there, whether it was seen or not."""
        kind, _, name = endpoint.workload.partition("/")
        self.labels[Workload(endpoint.namespace, kind, name)].append(endpoint.labels)

    def add(self, record: Mapping[str, Any], *, denied: bool = False) -> None:
        """Take one record; ``denied``: also flows that policy dropped."""
        flow = record.get("flow", record)
        if why := _unfit(flow, denied=denied):
            self.skipped[why] += 1
            return
        protocol = next(name for name in PROTOCOLS if name in flow["l4"])
        source, destination = (self._side(flow, side) for side in ("source", "destination"))
        if not (isinstance(source, Workload) or isinstance(destination, Workload)):
            self.skipped["no workload on either side"] += 1
            return
        port = int(flow["l4"][protocol].get("destination_port", 0))
        self.seen.add(Seen(source, destination, protocol, port))

    def _side(self, flow: Mapping[str, Any], side: str) -> Side:
        end = flow.get(side, {})
        if not end.get("pod_name"):
            return ip_address(flow["IP"][side])
        owner = next(iter(end.get("workloads") or ()), {"kind": "Pod", "name": end["pod_name"]})
        workload = Workload(end["namespace"], owner["kind"], owner["name"])
        labels = dict(
            text.removeprefix(_LABEL_PREFIX).partition("=")[::2]
            for text in end.get("labels", ())
            if text.startswith(_LABEL_PREFIX) and not text.startswith(_NOT_LABELS)
        )
        if labels not in self.labels[workload]:
            self.labels[workload].append(labels)
        return workload


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Policies, in the order in which they are best read, and what to know about them."""

    policies: tuple[NetworkPolicy, ...]
    notes: tuple[str, ...]


def suggest(
    found: Observations, pods: Iterable[IPNetwork], namespace: str | None = None
) -> Suggestion:
    """Least privilege for what was seen; for one namespace, if one is given.

    pods  networks of pods, which "everybody outside" does not mean
    """
    writer = _Writer(found, tuple(pods))
    workloads = sorted(
        (one for one in found.labels if namespace in (None, one.namespace)),
        key=lambda one: (one.namespace, one.name, one.kind),
    )
    bases = [_base(name) for name in sorted({w.namespace for w in workloads})]
    policies = [*bases, *(writer.policy(workload) for workload in workloads)]
    skipped = [
        f"{count} flows left out: {why}" for why, count in sorted(found.skipped.items()) if count
    ]
    return Suggestion(tuple(policies), (*dict.fromkeys(writer.notes), *skipped))


class _Writer:
    """Writes policies, and notes what a reader must know."""

    def __init__(self, found: Observations, pods: tuple[IPNetwork, ...]) -> None:
        self.found = found
        self.pods = pods
        self.notes: list[str] = []
        self.common = {workload: common(labels) for workload, labels in found.labels.items()}

    def policy(self, workload: Workload) -> NetworkPolicy:
        into = self._rules((s.source, s) for s in self.found.seen if s.destination == workload)
        out = self._rules((s.destination, s) for s in self.found.seen if s.source == workload)
        spec = NetworkPolicySpec(
            pod_selector=self._selector(workload),
            policy_types=["Ingress", "Egress"],
            ingress=[IngressRule(self._peers(s, workload), list(p)) for p, s in into] or None,
            egress=[EgressRule(self._peers(s, workload), list(p)) for p, s in out] or None,
        )
        twins = sum(
            other[::2] == workload[::2] for other in self.found.labels
        )  # the same name, of another kind
        name = workload.name if twins == 1 else f"{workload.name}-{workload.kind.lower()}"
        meta = ObjectMeta(name=name, namespace=workload.namespace, labels=dict(MANAGED_BY))
        return NetworkPolicy(metadata=meta, spec=spec)

    def _rules(
        self, sides: Iterable[tuple[Side, Seen]]
    ) -> list[tuple[tuple[NetworkPolicyPort, ...], list[Side]]]:
        """Peers with the same ports together."""
        ports: defaultdict[Side, set[tuple[Protocol, int]]] = defaultdict(set)
        for side, seen in sides:
            ports[side].add((seen.protocol, seen.port))
        by_ports: defaultdict[tuple[tuple[Protocol, int], ...], list[Side]] = defaultdict(list)
        for side, some in ports.items():
            by_ports[tuple(sorted(some))].append(side)
        return [
            (tuple(NetworkPolicyPort(protocol, port) for protocol, port in some), peers)
            for some, peers in sorted(by_ports.items())
        ]

    def _peers(self, sides: list[Side], subject: Workload) -> list[NetworkPolicyPeer]:
        workloads = sorted(side for side in sides if isinstance(side, Workload))
        addresses = [side for side in sides if not isinstance(side, Workload)]
        peers = []
        for workload in workloads:
            away = workload.namespace != subject.namespace
            around = LabelSelector({NAME_LABEL: workload.namespace}) if away else None
            peers.append(NetworkPolicyPeer(self._selector(workload), around))
        return peers + [
            NetworkPolicyPeer(ip_block=block) for block in self._blocks(addresses, subject)
        ]

    def _blocks(self, addresses: list[IPAddress], subject: Workload) -> list[IPBlock]:
        if len(addresses) <= ADDRESSES_MAX:
            return [IPBlock(str(ip_network(one))) for one in sorted(addresses, key=_order)]
        self.notes.append(
            f"{'/'.join(subject[::2])}: {len(addresses)} addresses outside on one port, taken for "
            "everybody outside; narrow the ipBlock if you know better"
        )
        found = []
        for version, everybody in ((4, "0.0.0.0/0"), (6, "::/0")):
            if any(one.version == version for one in addresses):
                inside = [str(pods) for pods in self.pods if pods.version == version]
                found.append(IPBlock(everybody, inside))
        return found

    def _selector(self, workload: Workload) -> LabelSelector:
        others = [
            labels
            for other, some in self.found.labels.items()
            if other != workload and other.namespace == workload.namespace
            for labels in some
        ]
        selector, alone = selector_for(self.common[workload], others)
        if not alone:
            self.notes.append(
                f"{'/'.join(workload[::2])}: another workload has the same labels, so that rules "
                "mean both; give it a label of its own"
            )
        return selector


def _base(namespace: str) -> NetworkPolicy:
    """Nothing in, nothing out: what the others are exceptions from."""
    return NetworkPolicy(
        metadata=ObjectMeta(name=BASE_NAME, namespace=namespace, labels=dict(MANAGED_BY)),
        spec=NetworkPolicySpec(policy_types=["Ingress", "Egress"]),
    )


def _unfit(flow: Mapping[str, Any], *, denied: bool) -> str:
    """Why a record is no reason for a rule; "" when it is one."""
    if flow.get("is_reply"):
        return "replies, which need no rule"
    verdict = flow.get("verdict")
    if verdict == "DROPPED" and not denied:
        return "dropped (--include-denied takes them)"
    if verdict not in ("FORWARDED", "AUDIT", "REDIRECTED", "DROPPED"):
        return f"verdict {verdict}"
    if verdict == "DROPPED" and not (flow.get("egress_denied_by") or flow.get("ingress_denied_by")):
        return "dropped for another reason than policy"
    if not any(name in flow.get("l4", {}) for name in PROTOCOLS):
        return "protocols that a NetworkPolicy cannot name"
    if flow.get("destination", {}).get("identity") == RESOLVER:
        return "DNS to the node's resolver, which is built in"
    rules = flow.get("ingress_allowed_by", ())
    if flow.get("source", {}).get("identity") == HOST and any(
        rule.get("kind") == "builtin" for rule in rules
    ):
        return "the node's probes, which are built in"
    return ""


def _order(address: IPAddress) -> tuple[int, int]:
    return address.version, int(address)
