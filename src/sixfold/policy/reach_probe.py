"""One flow after another: allowed or denied, and by which rule of each side?

Pure. A probe is ``{"from": …, "to": …, "protocol": "TCP", "port": 80}``; the answer is the same
mapping with "verdict", "egress" and "ingress", or with "error". Ends are workloads (``ns/name``, or
``ns/Kind/name`` where two kinds share a name), addresses, domain names, or "host". The address of a
pod is the pod; any other address is the world outside, and so is what a name resolves to.
Workloads of the host's network are the host. "audit": true says that the rule
that is named would deny it, were it in force.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from sixfold.errors import NotFoundError
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.model.datapath import PROTOCOL_NUMBERS, IPAddress
from sixfold.model.domain import plain_name
from sixfold.model.endpoint import Endpoint, by_address
from sixfold.model.identity import HOST, RESOLVER, WORLD, Identity
from sixfold.model.rule import Rule
from sixfold.policy.decide import Decision, Party, Verdict, decide, party_at, party_named, party_of
from sixfold.policy.explain import NO_TABLE
from sixfold.policy.reach_parties import VERSIONS, View, has_version

PING = {PROTOCOL_NUMBERS["ICMP"]: 8, PROTOCOL_NUMBERS["ICMPv6"]: 128}
ALLOWED, DENIED = "ALLOWED", "DENIED"
_PROTOCOLS = {name.upper(): name for name in PROTOCOL_NUMBERS}


@dataclass(frozen=True, slots=True)
class End:
    """What one name of a probe means; several pods when a workload runs several."""

    name: str
    pods: tuple[Endpoint, ...] = ()
    identity: Identity = WORLD
    address: IPAddress | None = None
    domain: str = ""

    def parties(self, view: View, version: int) -> list[Party]:
        """Everybody it means; a pod without an address of this version is in no ipBlock."""
        if self.pods:
            return [party_of(view.plan, pod, version) for pod in self.pods]
        if self.domain:
            return [party_named(view.plan, self.domain)]
        address = self.address
        if address is None and self.identity == HOST:
            config = view.world.config
            address = config.host_ipv4 if version == 4 else config.host_ipv6
        return [party_at(view.plan, self.identity, address)]


class Probes:
    """Answers probes about one world."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._named = _names(view)
        self._at = by_address(view.world.endpoints.values())
        self._ends: dict[str, End] = {}

    def answer(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        """The probe with its answer, or with "error"."""
        try:
            return {**probe, **self._judge(probe)}
        except (NotFoundError, ValueError) as error:
            return {**probe, "error": str(error)}

    def end(self, text: str) -> End:
        """What a name means; raises NotFoundError."""
        if (known := self._ends.get(text)) is None:
            known = self._ends[text] = self._find(text)
        return known

    def _judge(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        source, destination = (self.end(_text(probe, side)) for side in ("from", "to"))
        protocol = _protocol(probe)
        port = _port(probe, protocol)
        if _is_one_pod(source) and source.pods == destination.pods:
            return {"verdict": ALLOWED, "egress": SELF, "ingress": SELF}
        found: Verdict | None = None
        for version in self._versions(source, destination):
            number = PROTOCOL_NUMBERS[protocol]
            if protocol == "ICMP" and version == 6:
                number = PROTOCOL_NUMBERS["ICMPv6"]
            for one in source.parties(self.view, version):
                for other in destination.parties(self.view, version):
                    if one.key and one.key == other.key and len(source.pods) > 1:
                        continue  # a pod of the workload, and itself
                    asked = PING[number] if port is None else port
                    verdict = decide(self.view.plan, one, other, number, asked)
                    if found is None or (found.allow and not verdict.allow):
                        found = verdict
        assert found is not None, "a name means somebody, and a version is asked about"
        return {
            "verdict": ALLOWED if found.allow else DENIED,
            **({"audit": True} if found.audit else {}),
            "egress": self._side(found.egress, source),
            "ingress": self._side(found.ingress, destination),
        }

    def _side(self, decision: Decision | None, end: End) -> dict[str, Any]:
        if decision is None:
            why = f"{end.name} is no workload: no policy on this side"
            if end.identity == HOST and not end.pods:
                called = "" if end.name == "host" else f"{end.name} is the host: "
                why = f"{called}no policy selects the host"
            return {"verdict": ALLOWED, "policy": None, "rule": None, "default": why}
        side = side_of(decision.allow, self.view.plan.rules.get(decision.rule, NO_TABLE))
        return {**side, "audit": True} if decision.audit else side

    def _find(self, text: str) -> End:
        if text == "host":
            return End(text, identity=HOST)
        try:
            address = ip_address(text)
        except ValueError:
            return self._workload(text)
        if (endpoint := self._at.get(address)) is not None:
            return End(endpoint.key, (endpoint,), endpoint.identity, address)
        if address in (RESOLVER_IPV4, RESOLVER_IPV6):
            return End(text, identity=RESOLVER, address=address)
        config = self.view.world.config
        if address in (config.host_ipv4, config.host_ipv6):
            return End(text, identity=HOST, address=address)
        return End(text, address=address)

    def _workload(self, text: str) -> End:
        found = self._named.get(text, {})
        if len(found) == 1:
            (pods,) = found.values()
            return End(text, tuple(pods)) if pods else End(text, identity=HOST)
        if found:
            kinds = ", ".join(sorted(found))
            raise NotFoundError(f'"{text}" is {len(found)} workloads; give one of {kinds}')
        if "." in text and "/" not in text:
            return End(text, domain=plain_name(text))
        return self._unknown(text)

    def _unknown(self, text: str) -> End:
        from difflib import get_close_matches

        close = get_close_matches(text, self._named, 1)
        hint = f"did you mean {close[0]}?" if close else "give ns/name or an address"
        raise NotFoundError(f'no workload or address "{text}"; {hint}')

    def _versions(self, source: End, destination: End) -> tuple[int, ...]:
        """IP versions to ask about: that of an address in the probe, else all that may differ."""
        for end in (source, destination):
            if end.address is not None:
                return (end.address.version,)
        pods = [*source.pods, *destination.pods]
        spoken = [v for v in VERSIONS if all(has_version(pod, v) for pod in pods)]
        unknown = all(pod.ipv4 is None and pod.ipv6 is None for pod in pods)
        return (4,) if unknown or not spoken else tuple(spoken)


SELF = {"verdict": ALLOWED, "policy": None, "rule": None, "default": "a pod always reaches itself"}


def side_of(allow: bool, rule: Rule) -> dict[str, Any]:
    """One side's verdict: the policy and its rule, or the default that decided."""
    verdict = ALLOWED if allow else DENIED
    if rule.kind == "builtin":
        return {"verdict": verdict, "policy": str(rule), "rule": str(rule), "default": None}
    if rule.index < 0:
        return {"verdict": verdict, "policy": None, "rule": None, "default": str(rule)}
    policy = f"{rule.namespace}/{rule.name}" if rule.namespace else rule.name
    place = f"{rule.section or rule.direction}[{rule.index}]"
    found = {"verdict": verdict, "policy": policy, "rule": place, "default": None}
    return found if rule.kind == "NetworkPolicy" else {**found, "kind": rule.kind}


def _names(view: View) -> dict[str, dict[str, list[Endpoint]]]:
    """Every name that means a workload: its own, its controller's, with and without the kind.

    The pods by ``ns/Kind/name``: a name that means two of these is ambiguous.
    """
    found: defaultdict[str, dict[str, list[Endpoint]]] = defaultdict(dict)
    for endpoint in view.world.endpoints.values():
        kind, _, name = endpoint.workload.partition("/")
        whole = f"{endpoint.namespace}/{kind}/{name}"
        for text in (whole, f"{endpoint.namespace}/{name}"):
            found[text].setdefault(whole, []).append(endpoint)
    for endpoint in view.world.endpoints.values():  # a pod's own name is only its own
        if not endpoint.is_template:
            own = f"{endpoint.namespace}/Pod/{endpoint.pod}"
            found[own] = {own: [endpoint]}
            found[endpoint.key] = {endpoint.key: [endpoint]} | {
                whole: pods
                for whole, pods in found[endpoint.key].items()
                if whole != f"{endpoint.namespace}/Pod/{endpoint.pod}"
            }
    for text in view.world.on_host:
        found[text].setdefault(text, [])
    return dict(found)


def _is_one_pod(end: End) -> bool:
    return len(end.pods) == 1 and not end.pods[0].is_template


def _text(probe: Mapping[str, Any], side: str) -> str:
    text = probe.get(side)
    if not isinstance(text, str) or not text:
        raise ValueError(f'"{side}": {text!r} is no name; give "ns/name" or an address')
    return text


def _protocol(probe: Mapping[str, Any]) -> str:
    text = probe.get("protocol") or "TCP"
    known = _PROTOCOLS.get(text.upper()) if isinstance(text, str) else None
    if known is None:
        raise ValueError(f'"protocol": {text!r}: give one of {", ".join(PROTOCOL_NUMBERS)}')
    return known


def _port(probe: Mapping[str, Any], protocol: str) -> int | None:
    """None: a ping. Of ICMP it is the type of the request."""
    port = probe.get("port")
    if port is None and protocol.startswith("ICMP"):
        return None
    if port is None:
        raise ValueError('"port": is missing; give 1 to 65535')
    if isinstance(port, str) and port.isdecimal():
        port = int(port)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f'"port": {port!r} is no port; give 1 to 65535')
    return port
