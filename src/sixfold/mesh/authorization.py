"""Who may open a tunnel to which port of a pod: the compiled policy as Envoy's RBAC.

Pure. The tables that the kernel has are read with the kernel's own words (``policy.decide``), so
that the proxy says of the inner destination what the kernel says of a packet. A caller is an
identity *and* an address: pods that policy tells apart by their labels may share a service
account, and so a SPIFFE ID. Only what is allowed is written; the name of a policy is the rule's
number and name. Whoever no rule names is meant by those that are for every pod: they are not
listed, but any member of the trust domain with a pod's address is taken, less those that are
named, so that a rule for all does not grow with all.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import pairwise
from typing import Any, NamedTuple

from envoy.config.rbac.v3 import rbac_pb2

from sixfold.mesh.member import Member, authority
from sixfold.mesh.ports import Span, less, pattern
from sixfold.model.datapath import (
    ANY_PROTOCOL,
    INGRESS,
    PROTOCOL_NUMBERS,
    IPAddress,
    IPNetwork,
    PolicyTable,
    Section,
)
from sixfold.model.identity import ANY_POD, Identity
from sixfold.model.rule import Rule
from sixfold.policy.decide import lookup_names
from sixfold.policy.entries import ANY_PEER

PORTS = 1 << 16
TCP = PROTOCOL_NUMBERS["TCP"]
ANYBODY = (ANY_POD, ANY_PEER)  # names of a pod that no rule names
Names = tuple[Identity, ...]  # of a peer, the most specific first
Everybody = tuple[str, IPNetwork]  # start of every SPIFFE ID, pool of all pods' addresses


class Caller(NamedTuple):
    """A pod by what policy calls it, and by what the proxy sees of it."""

    names: Names
    id: str
    address: IPAddress


class Allowed(NamedTuple):
    """Ports that one rule opens to a peer."""

    rule: int
    spans: tuple[Span, ...]


def _named(table: PolicyTable) -> frozenset[Identity]:
    """In force or in audit."""
    return frozenset(
        peer
        for section in _sections(table, INGRESS)
        for peer in section.peers
        if peer not in ANYBODY
    )


def _sections(table: PolicyTable, direction: int) -> list[Section]:
    """All that may decide about a direction, or name the rule that would."""
    tables = [table] if table.audit is None else [table, table.audit]
    return [section for one in tables for section in (one.main[direction], one.admin[direction])]


def allowed(table: PolicyTable, names: Names, direction: int = INGRESS) -> tuple[Allowed, ...]:
    """All TCP ports that a table lets a peer of these names use, or be dialled at, by rule."""
    bounds = {0, PORTS}
    for section in _sections(table, direction):
        for name in names:
            for rule in section.peers.get(name, ()):
                if rule.protocol in (ANY_PROTOCOL, TCP):
                    size = 1 << (16 - rule.port_bits)
                    first = rule.port & -size
                    bounds |= {first, first + size}
    found: defaultdict[int, list[Span]] = defaultdict(list)
    for first, after in pairwise(sorted(bounds)):
        decision = lookup_names(table, direction, names, TCP, first)
        if not decision.allow:
            continue
        spans = found[decision.rule]
        if spans and spans[-1][1] == first - 1:
            spans[-1] = (spans[-1][0], after - 1)
        else:
            spans.append((first, after - 1))
    return tuple(Allowed(rule, tuple(spans)) for rule, spans in found.items())


class Authorization:
    """Follows who is where, and says what tables mean for them."""

    def __init__(self) -> None:
        self._callers: dict[str, tuple[Caller, ...]] = {}  # of a pod, one for each address
        # By IP version: together whom policy does not tell apart.
        self._alike: dict[int, dict[Names, dict[str, Caller]]] = {4: {}, 6: {}}
        self._called: defaultdict[Identity, set[Names]] = defaultdict(set)
        self._named: dict[PolicyTable, frozenset[Identity]] = {}
        self._allowed: dict[tuple[PolicyTable, Names], tuple[Allowed, ...]] = {}

    def move(self, pod: str, callers: tuple[Caller, ...] = ()) -> set[Identity]:
        """A pod came, went (no callers) or changed; returns all its names, old and new."""
        before = self._callers.pop(pod, ())
        if callers:
            self._callers[pod] = callers
        if before == callers:
            return set()
        for one in before:
            del self._alike[one.address.version][one.names][pod]
        for one in callers:
            self._alike[one.address.version].setdefault(one.names, {})[pod] = one
            for name in one.names:
                self._called[name].add(one.names)
        return {name for one in (*before, *callers) for name in one.names} - set(ANYBODY)

    def names(self, table: PolicyTable) -> frozenset[Identity]:
        """Everybody whom a table's rules for ingress name."""
        if (known := self._named.get(table)) is None:
            known = self._named[table] = _named(table)
        return known

    def policies(
        self,
        address: IPAddress,
        table: PolicyTable,
        everybody: Everybody,
        rules: Mapping[int, Rule],
        without: frozenset[int] = frozenset(),
    ) -> Iterator[tuple[str, rbac_pb2.Policy]]:
        """RBAC policies with their rule's name, for tunnels to one address, less some ports."""
        alike = self._alike[address.version]
        named = {names for peer in self.names(table) for names in self._called.get(peer, ())}
        theirs = {names: them for names in sorted(named) if (them := alike.get(names))}
        principals: defaultdict[Allowed, list[Any]] = defaultdict(list)
        for names, callers in theirs.items():
            for one in self._open(table, names):
                principals[one] += _members(callers.values())
        for one in self._open(table, ANYBODY):
            principals[one].append(_others(everybody, theirs.values()))
        for one, who in sorted(principals.items()):
            if spans := less(one.spans, without):
                yield (
                    policy_name(one.rule, rules),
                    rbac_pb2.Policy(permissions=[_ports(address, spans)], principals=who),
                )

    def forget(self, tables: Set[PolicyTable]) -> None:
        """Keep what is known of these tables only."""
        self._named = {one: it for one, it in self._named.items() if one in tables}
        self._allowed = {key: it for key, it in self._allowed.items() if key[0] in tables}
        for alike in self._alike.values():
            for names in [names for names, them in alike.items() if not them]:
                del alike[names]
        living = {names for alike in self._alike.values() for names in alike}
        for name, called in list(self._called.items()):
            called &= living
            if not called:
                del self._called[name]

    def _open(self, table: PolicyTable, names: Names) -> tuple[Allowed, ...]:
        if (known := self._allowed.get((table, names))) is None:
            known = self._allowed[table, names] = allowed(table, names)
        return known


def policy_name(number: int, rules: Mapping[int, Rule]) -> str:
    return f"{number} {rules[number]}" if number in rules else str(number)


def rule_of(policy: str) -> int:
    """The number of the rule that a policy is named after; 0 when it is none of ours."""
    digits = policy.partition(" ")[0]
    return int(digits) if digits.isdigit() else 0


def _ports(address: IPAddress, spans: tuple[Span, ...]) -> dict[str, Any]:
    (first, last), *more = spans
    host = authority(address, "")
    if (first, last) == (0, PORTS - 1):
        match: dict[str, Any] = {"prefix": host}
    elif first == last and not more:
        match = {"exact": f"{host}{first}"}
    else:
        match = {"safe_regex": {"regex": f"{re.escape(host)}({pattern(spans)})"}}
    return {"header": {"name": ":authority", "string_match": match}}


def from_any_of(members: Iterable[Member]) -> list[dict[str, Any]]:
    """Principals: these pods, each by its identity and its addresses."""
    return _members(
        Caller((), member.id, address) for member in members for address in member.addresses
    )


def _members(callers: Iterable[Caller]) -> list[dict[str, Any]]:
    """One principal per SPIFFE ID: that identity, from one of its addresses."""
    by_id: defaultdict[str, list[IPAddress]] = defaultdict(list)
    for one in callers:
        by_id[one.id].append(one.address)
    return [
        _all(
            {"authenticated": {"principal_name": {"exact": id_}}},
            _any(map(_from, sorted(addresses, key=lambda one: (one.version, one)))),
        )
        for id_, addresses in sorted(by_id.items())
    ]


def _others(everybody: Everybody, named: Iterable[Mapping[str, Caller]]) -> dict[str, Any]:
    prefix, pool = everybody
    source = {"address_prefix": str(pool.network_address), "prefix_len": {"value": pool.prefixlen}}
    found: list[dict[str, Any]] = [
        {"authenticated": {"principal_name": {"prefix": prefix}}},
        {"direct_remote_ip": source},
    ]
    if exceptions := sorted(one.address for them in named for one in them.values()):
        found.append({"not_id": _any(map(_from, exceptions))})
    return _all(*found)


def _from(address: IPAddress) -> dict[str, Any]:
    length = {"value": address.max_prefixlen}
    return {"direct_remote_ip": {"address_prefix": str(address), "prefix_len": length}}


def _all(*principals: dict[str, Any]) -> dict[str, Any]:
    return {"and_ids": {"ids": list(principals)}}


def _any(principals: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found = list(principals)
    return found[0] if len(found) == 1 else {"or_ids": {"ids": found}}
