"""One policy with its selectors resolved: whom it applies to, whom it names, what it grants.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from typing import NamedTuple, assert_never

import msgspec

from sixfold.model.datapath import EGRESS, INGRESS, IPNetwork
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import ANY_POD, OUTSIDE, Identity, NamedPort, Subject
from sixfold.model.policy import IPBlock
from sixfold.model.rule import Rule
from sixfold.policy import ir
from sixfold.policy.block import Blocks, holds, parse_cidr
from sixfold.policy.domains import DomainIndex
from sixfold.policy.entries import ANY_PEER, Clause, Piece, grants, port_matches
from sixfold.policy.selector import Selection, SelectorIndex

Endpoints = Callable[[], Iterable[Endpoint]]  # asked only where it matters: they are many
Titles = tuple[tuple[str, ...], tuple[str, ...]]  # by direction
Pieces = tuple[tuple[Piece, ...], tuple[Piece, ...]]  # by direction
NO_TITLES: Titles = ((), ())
NO_PIECES: Pieces = ((), ())


class Grant(NamedTuple):
    """What a policy says for one kind of workload; or several, of equal standing, together.

    titles  of those that isolate it
    """

    titles: Titles
    pieces: Pieces
    tier: ir.Tier = ir.Tier.NETWORK_POLICY
    audit: bool = False


class Resolved(msgspec.Struct, eq=False):
    """A policy in force.

    tie         how many policies of the same tier and priority come first
    by_address  a rule means a named port on a block: then it depends on pod addresses
    follows     what it grants stays true when other workloads are selected
    cidrs       those that it names, as ``PolicyCompiler`` counted them
    """

    policy: ir.Policy
    tie: int
    subject: Selection
    clauses: tuple[Clause, ...]
    by_address: bool = False
    names_blocks: bool = False
    names_own_ports: bool = False
    follows: bool = True
    cidrs: frozenset[IPNetwork] = frozenset()
    grants: dict[tuple[NamedPort, ...], Grant] = {}  # one of its own: msgspec copies it

    @property
    def key(self) -> str:
        return self.policy.key

    @property
    def peers(self) -> set[Selection]:
        """Every selection whose members its rules name."""
        named = {one for clause in self.clauses for one in clause.selections}
        return named | {one.everyone for one in self.clauses if one.everyone is not None}

    @property
    def patterns(self) -> set[str]:
        """Every domain pattern that its rules name."""
        return {pattern for clause in self.clauses for pattern in clause.domains}

    def named_cidrs(self, endpoints: Endpoints) -> frozenset[IPNetwork]:
        """Blocks, exceptions, and the pods whose named ports a block brings in."""
        if not self.names_blocks:
            return frozenset()
        blocks = [block for clause in self.clauses for block in clause.all_blocks]
        written = {parse_cidr(text) for block in blocks for text in (block.cidr, *block.except_)}
        pods = {
            network for clause in self.clauses for network, _ in _named_addresses(clause, endpoints)
        }
        return frozenset(written | pods)

    @property
    def steady(self) -> bool:
        """What it grants is the same for everybody that it selects, and stays so."""
        policy = self.policy
        return (
            self.follows
            and not self.names_own_ports
            and policy.tier is ir.Tier.NETWORK_POLICY
            and not policy.audit
        )

    def grant(
        self,
        subject: Subject,
        subjects: Mapping[Identity, Subject],
        blocks: Blocks,
        cidrs: Mapping[IPNetwork, Identity],
        endpoints: Endpoints,
        domains: DomainIndex,
    ) -> Grant:
        """What it says for one kind of workload, in the order of its lines."""
        ports = subject.named_ports if self.names_own_ports else ()
        if (known := self.grants.get(ports)) is not None:
            return known
        found: tuple[list[Piece], list[Piece]] = ([], [])
        for clause in self.clauses:
            inside: list[Identity] = []
            pods: list[tuple[Identity, NamedPort]] = []
            if self.names_blocks:
                inside = [cidrs[one] for block in clause.blocks for one in blocks.inside(block)]
                inside += [
                    Identity(cidrs[one] + OUTSIDE)
                    for block in clause.outside
                    for one in blocks.inside(block)
                ]
                pods = [(cidrs[cidr], port) for cidr, port in _named_addresses(clause, endpoints)]
            if clause.domains:
                inside += [one for pattern in clause.domains for one in domains.named(pattern)]
            found[clause.direction].extend(grants(clause, subject, subjects, inside, pods))
        self.grants[ports] = granted = _grant(self.policy, (tuple(found[0]), tuple(found[1])))
        return granted


def _grant(policy: ir.Policy, pieces: Pieces) -> Grant:
    return Grant(_titles(policy.isolates, policy.title), pieces, policy.tier, policy.audit)


def _titles(isolates: frozenset[int], title: str) -> Titles:
    one = (title,)
    return (one if INGRESS in isolates else (), one if EGRESS in isolates else ())


def resolve(
    policy: ir.Policy, tie: int, index: SelectorIndex, number: Callable[[Rule], int]
) -> Resolved:
    """Resolve a policy's selectors against the index, which then keeps them up to date."""
    if isinstance(policy.subject, ir.Nodes):
        subject = index.select_nodes(policy.subject)
    else:
        subject = index.select(policy.subject)
    subject.apply(policy.key)
    if not policy.lines:
        return Resolved(policy, tie, subject, (), grants={(): _grant(policy, NO_PIECES)})
    clauses = tuple([_clause(policy, at, tie, index, number) for at in range(len(policy.lines))])
    by_address = names_blocks = names_own_ports = False
    follows = True
    for clause in clauses:
        for selection in clause.selections:
            selection.peer_of.add(policy.key)
        if clause.everyone is not None:
            clause.everyone.peer_of.add(policy.key)
        if clause.blocks or clause.outside:
            names_blocks = True
            by_address = by_address or _by_address(clause)
        if clause.names:
            follows = False
            names_own_ports = names_own_ports or clause.direction == INGRESS
        elif not clause.follows:
            follows = False
    return Resolved(
        policy, tie, subject, clauses, by_address, names_blocks, names_own_ports, follows
    )


def release(resolved: Resolved, successor: Resolved | None, index: SelectorIndex) -> None:
    """Undo ``resolve``: the policy is gone, or ``successor`` has taken its place."""
    kept = _uses(successor) if successor is not None else set()
    for selection, use in _uses(resolved) - kept:
        if use == "subject":
            selection.withdraw(resolved.key)
        else:
            selection.peer_of.discard(resolved.key)
        index.release(selection)


def _uses(resolved: Resolved) -> set[tuple[Selection, str]]:
    peers = {(one, "peer") for one in resolved.peers}
    return peers | {(resolved.subject, "subject")}


def _clause(
    policy: ir.Policy,
    at: int,
    tie: int,
    index: SelectorIndex,
    number: Callable[[Rule], int],
) -> Clause:
    line = policy.lines[at]
    matches, names = port_matches(line.ports)
    identities: set[Identity] = {ANY_PEER} if line.peers is None else set()
    selections: list[Selection] = []
    blocks: list[IPBlock] = []
    outside: list[IPBlock] = []
    domains: list[str] = []
    for peer in line.peers or ():
        match peer:
            case ir.Pods():
                if peer.everyone:
                    identities.add(ANY_POD)
                else:
                    selections.append(index.select(peer))
            case ir.Addresses():
                (outside if peer.outside else blocks).append(peer.block)
            case ir.Reserved():
                identities.add(peer.identity)
            case ir.DomainName():
                domains.append(peer.pattern)
            case _:
                assert_never(peer)
    may_name_anyone = names and line.direction == EGRESS and identities & {ANY_PEER, ANY_POD}
    return Clause(
        policy.title,
        line.direction,
        number(line.rule),
        line.verdict,
        ir.precedence(policy, tie, at),
        policy.tier is ir.Tier.ADMIN,
        matches,
        names,
        frozenset(identities),
        tuple(selections),
        tuple(blocks),
        tuple(outside),
        tuple(domains),
        everyone=index.select(ir.Pods()) if may_name_anyone else None,
    )


def _by_address(clause: Clause) -> bool:
    return clause.direction == EGRESS and bool(clause.names) and bool(clause.blocks)


def _named_addresses(clause: Clause, endpoints: Endpoints) -> list[tuple[IPNetwork, NamedPort]]:
    """Pods inside the blocks that have a port of a name: identity cannot tell them apart."""
    if not _by_address(clause):
        return []
    return [
        (ip_network(address), port)
        for endpoint in endpoints()
        for address in endpoint.addresses
        if any(holds(block, address) for block in clause.blocks)
        for port in endpoint.subject.named_ports
        if (port.name, port.protocol) in clause.names
    ]
