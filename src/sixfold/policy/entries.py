"""One line of policy as policy entries: ports become prefixes, peers identities.

Pure. ``Clause`` is a line whose selectors are resolved; ``grants`` spells it out for one kind of
workload, as pieces: the same rules for a set of peers. Peers of one piece share the rules, so a
wide selector costs a set and not an entry for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from sixfold.model.datapath import (
    ANY_PROTOCOL,
    INGRESS,
    PROTOCOL_NUMBERS,
    PortRule,
    PortRules,
    narrowest_first,
)
from sixfold.model.identity import Identity, NamedPort, Subject
from sixfold.model.policy import IPBlock
from sixfold.policy.ir import Port
from sixfold.policy.selector import Selection

ANY_PEER = Identity(0)
Match = tuple[int, int, int]  # protocol, port, port_bits
ANYTHING: Match = (ANY_PROTOCOL, 0, 0)
TRANSPORTS = ("TCP", "UDP", "SCTP")


class Clause(msgspec.Struct, eq=False):
    """One line, its selectors resolved to selections. Not to be changed."""

    policy: str  # its title, for errors
    direction: int
    number: int  # of the rule
    verdict: int
    precedence: int
    admin: bool
    matches: tuple[Match, ...]  # numeric ports
    names: tuple[tuple[str, str], ...]  # named ports: name, protocol
    identities: frozenset[Identity]  # reserved ones, ANY_POD and ANY_PEER among them
    selections: tuple[Selection, ...]
    blocks: tuple[IPBlock, ...]
    outside: tuple[IPBlock, ...]  # blocks that mean no pod and no host
    domains: tuple[str, ...] = ()  # patterns of domain names
    known_scope: tuple[object, ...] | None = None
    everyone: Selection | None = None  # all identities: whom a name may mean when any pod may

    @property
    def all_blocks(self) -> tuple[IPBlock, ...]:
        return self.blocks + self.outside

    @property
    def scope(self) -> tuple[object, ...]:
        """All that it says, but for whose rule it is: of two alike the first is named."""
        if self.known_scope is None:
            self.known_scope = self._scope()
        return self.known_scope

    @property
    def follows(self) -> bool:
        """Whether its peers are those of one selection, whoever they are at the time."""
        others = self.identities or self.blocks or self.outside or self.domains
        return len(self.selections) == 1 and not others

    def _scope(self) -> tuple[object, ...]:
        blocks = (
            tuple((one.cidr, *one.except_) for one in some) for some in (self.blocks, self.outside)
        )
        what = (self.direction, self.verdict, self.precedence, self.admin, self.matches, self.names)
        return (*what, self.identities, self.selections, *blocks, self.domains)


class Piece(NamedTuple):
    """The same rules for each of some peers, as one clause says."""

    clause: Clause
    peers: Collection[Identity]
    rules: PortRules


@lru_cache(maxsize=4096)
def port_prefixes(first: int, last: int) -> tuple[tuple[int, int], ...]:
    """The fewest aligned blocks (port, port_bits) that make up first…last, both included."""
    found = []
    while first <= last:
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size >>= 1
        found.append((first, 17 - size.bit_length()))
        first += size
    return tuple(found)


def port_matches(
    ports: Iterable[Port] | None,
) -> tuple[tuple[Match, ...], tuple[tuple[str, str], ...]]:
    """Numeric ports as prefixes, and named ones by name; None is anything."""
    if ports is None:
        return (ANYTHING,), ()
    matches: list[Match] = []
    names = []
    for port in ports:
        if port.protocol == "ALL":
            matches.append(ANYTHING)
            continue
        for protocol in TRANSPORTS if port.protocol == "ANY" else (port.protocol,):
            number = PROTOCOL_NUMBERS[protocol]
            match port.first:
                case None:
                    matches.append((number, 0, 0))
                case str(name):
                    names.append((name, protocol))
                case first:
                    last = first if port.last is None else port.last
                    matches += ((number, *block) for block in port_prefixes(first, last))
    return tuple(matches), tuple(names)


def named_matches(named: Iterable[NamedPort], names: Iterable[tuple[str, str]]) -> Iterator[Match]:
    """What names mean on a pod with these ports: name and protocol must both agree."""
    wanted = set(names)
    for port in named:
        if (port.name, port.protocol) in wanted:
            yield PROTOCOL_NUMBERS[port.protocol], port.port, 16


def grants(
    clause: Clause,
    subject: Subject,
    subjects: Mapping[Identity, Subject],
    cidrs: Iterable[Identity],
    named_addresses: Iterable[tuple[Identity, NamedPort]],
) -> Iterator[Piece]:
    """Everything that a clause says for one kind of workload.

    cidrs            CIDR identities inside the clause's blocks, with OUTSIDE where so meant, and
                     those of its domain patterns
    named_addresses  CIDR identities of single pods inside the blocks, with a port of each:
                     what a name means when the peer is a block (egress)
    """
    matches = clause.matches
    if (
        clause.names and clause.direction == INGRESS
    ):  # the subject is the destination: its own names
        matches += tuple(named_matches(subject.named_ports, clause.names))
    if matches:
        yield Piece(clause, _peers(clause, cidrs), port_rules(clause, matches))
    if clause.names and clause.direction != INGRESS:
        members = clause.everyone.members if clause.everyone is not None else _members(clause)
        means: dict[tuple[Match, ...], list[Identity]] = {}
        for peer in members:
            found = tuple(named_matches(subjects[peer].named_ports, clause.names))
            means.setdefault(found, []).append(peer)
        for peer, port in named_addresses:
            means.setdefault(tuple(named_matches((port,), clause.names)), []).append(peer)
        for found, peers in means.items():
            if found:
                yield Piece(clause, peers, port_rules(clause, found))


def plain_piece(clause: Clause) -> Piece:
    """All that a clause says which follows one selection and names no ports."""
    return Piece(clause, clause.selections[0].members, port_rules(clause, clause.matches))


def port_rules(clause: Clause, matches: Sequence[Match]) -> PortRules:
    """What a clause says of these ports."""
    said = (clause.verdict, clause.number, clause.precedence)
    if len(matches) == 1:
        return (PortRule(*matches[0], *said),)
    return narrowest_first(PortRule(*match, *said) for match in dict.fromkeys(matches))


def _peers(clause: Clause, cidrs: Iterable[Identity]) -> Collection[Identity]:
    if clause.follows:
        return clause.selections[0].members
    return _members(clause) | clause.identities | set(cidrs)


def _members(clause: Clause) -> set[Identity]:
    return {identity for selection in clause.selections for identity in selection.members}
