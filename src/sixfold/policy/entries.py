"""One line of policy as policy entries: ports become prefixes, peers identities.

Pure. ``Clause`` is a line whose selectors are resolved; ``grants`` spells it out for one kind of
workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from sixfold.model.datapath import ANY_PROTOCOL, INGRESS, PROTOCOL_NUMBERS, PolicyEntry
from sixfold.model.identity import Identity, NamedPort, Subject
from sixfold.model.policy import IPBlock
from sixfold.policy.ir import Port
from sixfold.policy.selector import Selection

ANY_PEER = Identity(0)
EntryKey = tuple[int, Identity, int, int, int]
Entries = dict[EntryKey, PolicyEntry]
Match = tuple[int, int, int]  # protocol, port, port_bits
ANYTHING: Match = (ANY_PROTOCOL, 0, 0)
TRANSPORTS = ("TCP", "UDP", "SCTP")


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One line, its selectors resolved to selections."""

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
    everyone: Selection | None = None  # all identities: whom a name may mean when any pod may

    @property
    def all_blocks(self) -> tuple[IPBlock, ...]:
        return self.blocks + self.outside


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
) -> Entries:
    """Everything that a clause says for one kind of workload.

    cidrs            CIDR identities inside the clause's blocks, with OUTSIDE where so meant, and
                     those of its domain patterns
    named_addresses  CIDR identities of single pods inside the blocks, with a port of each:
                     what a name means when the peer is a block (egress)
    """
    members = {identity for selection in clause.selections for identity in selection.members}
    peers = members | clause.identities
    peers.update(cidrs)
    matches = clause.matches
    if clause.direction == INGRESS:  # the subject is the destination: its own names
        matches += tuple(named_matches(subject.named_ports, clause.names))
    found: Entries = {}
    _add(found, clause, peers, matches)
    if clause.direction != INGRESS and clause.names:
        for peer in clause.everyone.members if clause.everyone is not None else members:
            named = subjects[peer].named_ports
            _add(found, clause, (peer,), tuple(named_matches(named, clause.names)))
        for peer, port in named_addresses:
            _add(found, clause, (peer,), tuple(named_matches((port,), clause.names)))
    return found


def _add(
    found: Entries, clause: Clause, peers: Iterable[Identity], matches: tuple[Match, ...]
) -> None:
    """The hot loop: wide selectors make thousands of entries here."""
    direction, make = clause.direction, PolicyEntry._make
    verdict = (clause.verdict, clause.number, clause.precedence, clause.admin)
    for peer in peers:
        for protocol, port, bits in matches:
            key = (direction, peer, protocol, port, bits)
            found[key] = make(key + verdict)
