"""One policy with its selectors resolved: whom it applies to, whom it names, what it grants.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from typing import assert_never

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
Grants = tuple[tuple[Piece, ...], tuple[Piece, ...]]  # by direction
NO_GRANTS: Grants = ((), ())


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
    grants: dict[tuple[NamedPort, ...], Grants] = {}  # one of its own: msgspec copies it

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

    def entries(
        self,
        subject: Subject,
        subjects: Mapping[Identity, Subject],
        blocks: Blocks,
        cidrs: Mapping[IPNetwork, Identity],
        endpoints: Endpoints,
        domains: DomainIndex,
    ) -> Grants:
        """What it grants to one kind of workload, in the order of its lines."""
        if not self.clauses:
            return NO_GRANTS
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
            inside += [one for pattern in clause.domains for one in domains.named(pattern)]
            found[clause.direction].extend(grants(clause, subject, subjects, inside, pods))
        self.grants[ports] = granted = (tuple(found[INGRESS]), tuple(found[EGRESS]))
        return granted


def resolve(
    policy: ir.Policy, tie: int, index: SelectorIndex, number: Callable[[Rule], int]
) -> Resolved:
    """Resolve a policy's selectors against the index, which then keeps them up to date."""
    clauses = tuple(_clause(policy, at, tie, index, number) for at in range(len(policy.lines)))
    subject = index.select(policy.subject)
    subject.subject_of.add(policy.key)
    if not clauses:
        return Resolved(policy, tie, subject, clauses)
    for clause in clauses:
        for selection in clause.selections:
            selection.peer_of.add(policy.key)
        if clause.everyone is not None:
            clause.everyone.peer_of.add(policy.key)
    return Resolved(
        policy,
        tie,
        subject,
        clauses,
        by_address=any(map(_by_address, clauses)),
        names_blocks=any(clause.blocks or clause.outside for clause in clauses),
        names_own_ports=any(one.names for one in clauses if one.direction == INGRESS),
        follows=all(one.follows and not one.names for one in clauses),
    )


def release(resolved: Resolved, successor: Resolved | None, index: SelectorIndex) -> None:
    """Undo ``resolve``: the policy is gone, or ``successor`` has taken its place."""
    kept = _uses(successor) if successor is not None else set()
    for selection, use in _uses(resolved) - kept:
        (selection.subject_of if use == "subject" else selection.peer_of).discard(resolved.key)
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
        policy=policy.title,
        direction=line.direction,
        number=number(line.rule),
        verdict=line.verdict,
        precedence=ir.precedence(policy, tie, at),
        admin=policy.tier is ir.Tier.ADMIN,
        matches=matches,
        names=names,
        identities=frozenset(identities),
        selections=tuple(selections),
        blocks=tuple(blocks),
        outside=tuple(outside),
        domains=tuple(domains),
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
        for address in (endpoint.ipv4, endpoint.ipv6)
        if address is not None and any(holds(block, address) for block in clause.blocks)
        for port in endpoint.subject.named_ports
        if (port.name, port.protocol) in clause.names
    ]
