"""Does what an author asserts hold for all workloads, all ports and all addresses?

Pure. An assertion is proved over the groups of ``reach_parties``, which leave nobody out, and over
whole sets of ports; nothing is sampled. One that does not hold comes with a flow that shows it.
An assertion about nobody proves nothing, and fails unless it says ``mayBeEmpty``.

What is built in (DNS to the node's resolver, the node to its pods) counts only against assertions
that name the host: nobody can take it away by policy. Nor does what is between the host and the
world count against others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from sixfold.model.datapath import EGRESS, INGRESS, PolicyTable
from sixfold.model.domain import an_example
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN
from sixfold.model.meta import namespace_labels
from sixfold.policy.block import parse_cidr
from sixfold.policy.reach import Value, pairs_of, reach
from sixfold.policy.reach_parties import VERSIONS, Group, View, flow_ports, parties
from sixfold.policy.reach_ports import EVERY_PORT, NO_PORT, PortSet
from sixfold.policy.reach_probe import Probes
from sixfold.policy.verify_assertion import Assertion, End, Flows, Kind, port_set


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an assertion holds; if not, why, and the flow that shows it.

    pairs    how many pairs of groups it was proved for
    example  a probe with its answer, as ``reach_probe`` gives it
    """

    assertion: Assertion
    holds: bool
    why: str = ""
    pairs: int = 0
    example: dict[str, Any] | None = None


def verify(view: View, assertions: Sequence[Assertion]) -> list[Outcome]:
    """Judge every assertion; raises ValueError for one that has not exactly one kind."""
    return _Prover(view, assertions).outcomes()


class _Prover:
    """One world, its groups cut so that no assertion's CIDR straddles one."""

    def __init__(self, view: View, assertions: Sequence[Assertion]) -> None:
        self.view = view
        self.assertions = assertions
        cidrs = {end.cidr for one in assertions for end in one.ends if end.cidr}
        self.named = sorted({name for one in assertions for name in one.workloads})
        self.groups = parties(
            [view], sorted(map(parse_cidr, cidrs), key=str), self._apart, names_anywhere=True
        )
        self.blocks = reach([view], self.groups)
        self.probes = Probes(view)

    def _apart(self, key: str) -> tuple[object, ...]:
        """What tells workloads apart here even when no policy does."""
        endpoint = self.view.world.endpoints[key]
        called = tuple(self._is_called(name, key) for name in self.named)
        return (*called, endpoint.subject if endpoint.identity == UNKNOWN else None)

    def outcomes(self) -> list[Outcome]:
        judges: dict[Kind, Callable[[Assertion], Outcome]] = {
            "deny": self._deny,
            "allow": self._allow,
            "only": self._only,
            "isolated": self._isolated,
        }
        found = []
        for assertion in self.assertions:
            if len(assertion.kinds) != 1:
                raise ValueError("give one of deny, allow, only, isolated")
            found.append(judges[assertion.kinds[0]](assertion))
        return found

    def _deny(self, assertion: Assertion) -> Outcome:
        assert assertion.deny is not None
        flows = assertion.deny
        sources, destinations = self._side(flows.from_), self._side(flows.to)
        return self._forbidden(assertion, flows, sources, destinations)

    def _only(self, assertion: Assertion) -> Outcome:
        assert assertion.only is not None
        flows = assertion.only
        sources, destinations = self._side(flows.from_), self._side(flows.to)
        everybody = set(range(len(self.groups)))
        if flows.guards == "from":
            return self._forbidden(assertion, flows, sources, everybody - destinations)
        return self._forbidden(assertion, flows, everybody - sources, destinations)

    def _forbidden(
        self, assertion: Assertion, flows: Flows, sources: set[int], destinations: set[int]
    ) -> Outcome:
        if empty := self._empty(assertion, sources, destinations):
            return empty
        wanted = port_set(flows.ports)
        host_is_named = any(end.host for end in assertion.ends)
        for block in self.blocks:
            if not (sources.intersection(block.sources) and any(_cut(block.ports, wanted))):
                continue
            for source, destination in pairs_of(block, self.groups):
                if source not in sources or destination not in destinations:
                    continue
                if not host_is_named and not self._is_about_workloads(source, destination):
                    continue
                ports = _cut(block.ports, wanted)
                if not host_is_named:
                    ports = _less(ports, self._built_in(source, destination))
                if any(ports):
                    example = self._example(source, destination, ports)
                    return Outcome(assertion, False, "a flow is allowed", example=example)
        return Outcome(assertion, True, pairs=len(sources) * len(destinations))

    def _is_about_workloads(self, *ends: int) -> bool:
        return any(self.groups[end].kind == "workloads" for end in ends)

    def _allow(self, assertion: Assertion) -> Outcome:
        assert assertion.allow is not None
        flows = assertion.allow
        sources, destinations = (
            {n for n in self._side(side) if side is not None or self.groups[n].kind == "workloads"}
            for side in (flows.from_, flows.to)
        )
        if empty := self._empty(assertion, sources, destinations):
            return empty
        wanted, pairs = port_set(flows.ports), 0
        for source in sorted(sources):
            for destination in sorted(destinations):
                one, other = self.groups[source], self.groups[destination]
                if (one.unjudged and other.unjudged) or (one is other and one.alone):
                    continue
                pairs += 1
                allowed = flow_ports([self.view], one, other)
                if all(ports is None for ports in allowed):
                    names = " and ".join(self._name(n, 4) for n in (source, destination))
                    return Outcome(assertion, False, f"{names} have no IP version in common")
                missing = tuple(ports if ports is None else wanted - ports for ports in allowed)
                if any(missing):
                    example = self._example(source, destination, missing)
                    return Outcome(assertion, False, "a flow is denied", example=example)
        return Outcome(assertion, True, pairs=pairs)

    def _isolated(self, assertion: Assertion) -> Outcome:
        wanted = assertion.isolated
        assert wanted is not None
        end = End(wanted.namespace, wanted.namespace_selector, wanted.pod_selector, wanted.workload)
        numbers = self._side([end])
        if empty := self._empty(assertion, numbers, numbers):
            return empty
        directions = {"ingress": (INGRESS,), "egress": (EGRESS,), "both": (INGRESS, EGRESS)}
        for number in sorted(numbers):
            for table in {face.table for face in self.groups[number].faces if face is not None}:
                for direction in directions[wanted.direction]:
                    if table is not None and not self._is_isolated(table, direction):
                        name = "ingress" if direction == INGRESS else "egress"
                        why = f"{self._name(number, 4)} is open: no policy isolates its {name}"
                        return Outcome(assertion, False, why)
        return Outcome(assertion, True, pairs=len(numbers))

    def _is_isolated(self, table: PolicyTable, direction: int) -> bool:
        number = table.ingress_default if direction == INGRESS else table.egress_default
        return self.view.plan.rules[number].name == "default-deny"

    def _side(self, ends: Sequence[End] | None) -> set[int]:
        if ends is None:
            return set(range(len(self.groups)))
        return {
            number
            for number, group in enumerate(self.groups)
            if any(self._matches(end, group) for end in ends)
        }

    def _matches(self, end: End, group: Group) -> bool:
        if end.host or end.world or end.cidr:
            if group.kind == "host":
                return end.host
            in_cidr = bool(end.cidr) and _inside(group, end.cidr)
            return group.kind in ("world", "name") and (end.world or in_cidr)
        if group.kind != "workloads":
            return False
        first = group.members[0]  # the others are like it in all that is asked here
        if end.workload and not self._is_called(end.workload, first):
            return False
        return self._selects(end, self.view.world.endpoints[first])

    def _selects(self, end: End, endpoint: Endpoint) -> bool:
        namespace = endpoint.namespace
        if end.namespace and end.namespace != namespace:
            return False
        around = self.view.world.namespaces.get(namespace) or namespace_labels(namespace, {})
        if end.namespace_selector is not None and not end.namespace_selector.matches(around):
            return False
        return end.pod_selector is None or end.pod_selector.matches(endpoint.labels)

    def _is_called(self, name: str, key: str) -> bool:
        endpoint = self.view.world.endpoints[key]
        kind, _, short = endpoint.workload.partition("/")
        where = endpoint.namespace
        own = "" if endpoint.is_template else f"{where}/Pod/{endpoint.pod}"
        return name in (key, own, f"{where}/{short}", f"{where}/{kind}/{short}")

    def _empty(
        self, assertion: Assertion, sources: set[int], destinations: set[int]
    ) -> Outcome | None:
        if sources and destinations:
            return None
        side = "from" if not sources else "to"
        if assertion.isolated is not None:
            side = "isolated"
        why = f"{side} selects nobody, which proves nothing; correct it, or say mayBeEmpty: true"
        return Outcome(assertion, assertion.may_be_empty, why)

    def _built_in(self, source: int, destination: int) -> PortSet:
        """What no policy can take away from this pair."""
        one, other = self.groups[source], self.groups[destination]
        if other.kind == "resolver":
            return PortSet.of("TCP", 53, 53) | PortSet.of("UDP", 53, 53)
        if one.kind != "host" or other.outside:
            return NO_PORT
        if self.view.world.config.posture == "kubernetes":
            return EVERY_PORT
        probed = (self.view.world.endpoints[key].probe_ports for key in other.members)
        spans = (PortSet.of("TCP", port, port).spans for ports in probed for port in ports)
        return PortSet.join(span for some in spans for span in some)

    def _example(self, source: int, destination: int, ports: Value) -> dict[str, Any]:
        at, found = next((at, found) for at, found in enumerate(ports) if found)
        version = VERSIONS[at]
        protocol, port = found.least()
        probe = {
            "from": self._name(source, version, len(ports) > 1),
            "to": self._name(destination, version, len(ports) > 1, other_than=source),
            "protocol": protocol,
            "port": port,
        }
        return self.probes.answer(probe)

    def _name(
        self, number: int, version: int, exact: bool = False, other_than: int | None = None
    ) -> str:
        """Somebody of a group; by an address of this version where the version matters."""
        group = self.groups[number]
        if group.kind == "world":
            return self._free_address(group, version)
        if group.pattern:
            return an_example(group.pattern)
        if group.outside:
            return group.kind
        same = number == other_than
        key = group.members[-1 if same else 0]
        endpoint = self.view.world.endpoints[key]
        address = endpoint.ipv4 if version == 4 else endpoint.ipv6
        return str(address) if exact and address is not None else key

    def _free_address(self, group: Group, version: int) -> str:
        make = IPv4Address if version == 4 else IPv6Address
        for address in _addresses(group, version):
            if not self.probes.end(str(make(address))).pods:
                return str(make(address))
        raise AssertionError("a group of addresses that are all taken")


def _inside(group: Group, cidr: str) -> bool:
    """Whether a group of addresses lies in a network; groups are cut at its bounds."""
    if not group.ranges:
        return False
    network, (version, first, _) = parse_cidr(cidr), group.ranges[0]
    start = int(network.network_address)
    return version == network.version and start <= first < start + network.num_addresses


def _addresses(group: Group, version: int) -> Iterator[int]:
    """All of a group; the first of a network last, because it is no host's."""
    for v, first, last in group.ranges:
        if v == version:
            yield from range(first + 1, last + 1)
            yield first


def _cut(ports: Value, wanted: PortSet) -> Value:
    return tuple(one and one & wanted for one in ports)


def _less(ports: Value, built_in: PortSet) -> Value:
    return tuple(one and one - built_in for one in ports)
