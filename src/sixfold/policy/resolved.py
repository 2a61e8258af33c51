"""One NetworkPolicy with its selectors resolved: whom it applies to, whom it names, what it grants.

Pure. Source: NetworkPolicy v1. A rule in a direction that the policy does not isolate is inert,
and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from sixfold.model.datapath import EGRESS, INGRESS, IPNetwork
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import Identity, NamedPort, Subject
from sixfold.model.policy import NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from sixfold.model.rule import Direction, Rule
from sixfold.policy.block import Blocks, holds, parse_cidr
from sixfold.policy.entries import Clause, Entries, grants, port_matches
from sixfold.policy.selector import EVERYTHING, Selection, SelectorIndex

DIRECTIONS: tuple[tuple[int, Direction], ...] = ((INGRESS, "ingress"), (EGRESS, "egress"))


@dataclass(slots=True, eq=False)
class Resolved:
    """A policy in force.

    by_address  a rule allows a named port on a block: then it depends on pod addresses
    cidrs       those that it names, as ``PolicyCompiler`` counted them
    """

    key: str  # namespace/name
    subject: Selection
    isolates: frozenset[int]  # directions
    clauses: tuple[Clause, ...]
    by_address: bool
    cidrs: frozenset[IPNetwork] = frozenset()
    grants: dict[tuple[NamedPort, ...], Entries] = field(default_factory=dict)

    @property
    def peers(self) -> set[Selection]:
        """Every selection whose members its rules name."""
        named = {one for clause in self.clauses for one in clause.selections}
        return named | {one.everyone for one in self.clauses if one.everyone is not None}

    @property
    def names_own_ports(self) -> bool:
        return any(clause.names for clause in self.clauses if clause.direction == INGRESS)

    def named_cidrs(self, endpoints: Iterable[Endpoint]) -> frozenset[IPNetwork]:
        """Blocks, exceptions, and the pods whose named ports a block brings in."""
        blocks = [block for clause in self.clauses for block in clause.blocks]
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
        endpoints: Iterable[Endpoint],
    ) -> Entries:
        """What it grants to one kind of workload; of two rules for one key the first is named."""
        ports = subject.named_ports if self.names_own_ports else ()
        if (known := self.grants.get(ports)) is not None:
            return known
        found: Entries = {}
        for clause in reversed(self.clauses):
            inside = [cidrs[one] for block in clause.blocks for one in blocks.inside(block)]
            pods = [(cidrs[cidr], port) for cidr, port in _named_addresses(clause, endpoints)]
            found.update(grants(clause, subject, subjects, inside, pods))
        self.grants[ports] = found
        return found


def resolve(
    key: str, policy: NetworkPolicy, index: SelectorIndex, number: Callable[[Rule], int]
) -> Resolved:
    """Resolve a policy's selectors against the index, which then keeps them up to date."""
    spec, namespace = policy.spec, policy.metadata.namespace
    isolates = frozenset(
        direction for direction, name in DIRECTIONS if name.capitalize() in spec.isolates
    )
    clauses = []
    for direction, name in DIRECTIONS:
        if direction not in isolates:
            continue
        rules = (
            [(rule.from_, rule.ports) for rule in spec.ingress or ()]
            if direction == INGRESS
            else [(rule.to, rule.ports) for rule in spec.egress or ()]
        )
        for at, (peers, ports) in enumerate(rules):
            rule = Rule("NetworkPolicy", namespace, policy.metadata.name, name, at)
            clauses.append(_clause(direction, number(rule), namespace, peers, ports, index))
    subject = index.select(namespace, EVERYTHING, spec.pod_selector)
    resolved = Resolved(key, subject, isolates, tuple(clauses), any(map(_by_address, clauses)))
    for selection in resolved.peers:
        selection.peer_of.add(key)
    subject.subject_of.add(key)
    return resolved


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
    direction: int,
    number: int,
    namespace: str,
    peers: list[NetworkPolicyPeer] | None,
    ports: list[NetworkPolicyPort] | None,
    index: SelectorIndex,
) -> Clause:
    matches, names = port_matches(ports)
    selections = tuple(
        _select(peer, namespace, index) for peer in peers or () if peer.ip_block is None
    )
    blocks = tuple(peer.ip_block for peer in peers or () if peer.ip_block is not None)
    any_named_peer = not peers and names and direction == EGRESS
    everyone = index.select(None, EVERYTHING, EVERYTHING) if any_named_peer else None
    return Clause(direction, number, matches, names, not peers, selections, blocks, everyone)


def _select(peer: NetworkPolicyPeer, namespace: str, index: SelectorIndex) -> Selection:
    """A peer with only a podSelector means the policy's own namespace."""
    pods = peer.pod_selector if peer.pod_selector is not None else EVERYTHING
    if peer.namespace_selector is None:
        return index.select(namespace, EVERYTHING, pods)
    return index.select(None, peer.namespace_selector, pods)


def _by_address(clause: Clause) -> bool:
    return clause.direction == EGRESS and bool(clause.names) and bool(clause.blocks)


def _named_addresses(
    clause: Clause, endpoints: Iterable[Endpoint]
) -> list[tuple[IPNetwork, NamedPort]]:
    """Pods inside the blocks that have a port of a name: identity cannot tell them apart."""
    if not _by_address(clause):
        return []
    return [
        (ip_network(address), port)
        for endpoint in endpoints
        for address in (endpoint.ipv4, endpoint.ipv6)
        if address is not None and any(holds(block, address) for block in clause.blocks)
        for port in endpoint.subject.named_ports
        if (port.name, port.protocol) in clause.names
    ]
