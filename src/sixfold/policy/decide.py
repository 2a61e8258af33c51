"""Would this flow pass? The answer by the compiled tables, read as the kernel reads them.

Pure. ``bpf/lib/policy.h`` answers the same question in the kernel; the twin tests hold the two
equal. A peer has several names (``names_of``), the most specific first; under each the longest
match on protocol and port is read, and of what was read the strongest decides; of equals the
most specific names the rule. Entries of the Admin tier are asked first, apart; when they say
nothing, or PASS, the others decide. No match is the default deny, named by the table. What a
table allows is shown to its table in audit, too: that one names the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sixfold.model.datapath import (
    ALLOW,
    ANY_PROTOCOL,
    EGRESS,
    INGRESS,
    PASS,
    IPAddress,
    PolicyTable,
    PortRule,
)
from sixfold.model.domain import matches, plain_name
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import (
    ANY_POD,
    FIRST_ALLOCATED,
    FIRST_CIDR,
    HOST,
    OUTSIDE,
    RESOLVER,
    UNKNOWN,
    WORLD,
    Identity,
)
from sixfold.policy.entries import ANY_PEER
from sixfold.policy.ir import BY_PROXY
from sixfold.policy.plan import PolicyPlan


@dataclass(frozen=True, slots=True)
class Decision:
    """One side's verdict and the number of the rule behind it.

    audit     it is allowed only because the rule that denies it is in audit
    by_proxy  it is, if the proxy does it: nothing else is let past
    """

    allow: bool
    rule: int  # 0: no table is loaded, everything is dropped
    audit: bool = False
    by_proxy: bool = False


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a flow as policy sees it.

    key      of the endpoint; "" when it is none of ours
    address  None when it is not known, as offline; no ipBlock matches then
    domains  identities of the domain patterns that mean its address: of the set of them, or,
             for an address that is not known yet, of each
    """

    identity: Identity
    cidr: Identity = UNKNOWN
    key: str = ""
    address: IPAddress | None = None
    domains: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both sides; None where that side has no policy: the world, a host that none selects."""

    egress: Decision | None
    ingress: Decision | None

    @property
    def allow(self) -> bool:
        return all(side is None or side.allow for side in (self.egress, self.ingress))

    @property
    def audit(self) -> bool:
        """Allowed only because a rule that denies is in audit."""
        return self.allow and any(side and side.audit for side in (self.egress, self.ingress))


def names_of(peer: Party) -> Iterator[Identity]:
    """The peers of a table that mean this party, the most specific first."""
    if peer.identity != WORLD:
        yield from names_of_pod(peer.identity, peer.cidr)
        return
    yield WORLD
    if peer.cidr:
        yield peer.cidr
        yield Identity(peer.cidr + OUTSIDE)
    yield from peer.domains
    yield ANY_PEER


def names_of_pod(identity: Identity, cidr: Identity = UNKNOWN) -> tuple[Identity, ...]:
    """The same, for a workload or the node, whose address may be in a CIDR."""
    some = (cidr, ANY_PEER) if cidr else (ANY_PEER,)
    if FIRST_ALLOCATED <= identity < FIRST_CIDR:  # offline there may be more than 65535
        return (identity, ANY_POD, *some)
    return (identity, *some)


def lookup(table: PolicyTable, direction: int, peer: Party, protocol: int, port: int) -> Decision:
    """What a table says about one peer, protocol number and port (ICMP: the request's type)."""
    return lookup_names(table, direction, tuple(names_of(peer)), protocol, port)


def lookup_names(
    table: PolicyTable, direction: int, names: Sequence[Identity], protocol: int, port: int
) -> Decision:
    """The same for a peer of these names, the most specific first."""
    if table.audit is None:
        return _lookup(table, direction, names, protocol, port)
    real = _lookup(table, direction, names, protocol, port)
    told = _lookup(table.audit, direction, names, protocol, port)
    return Decision(True, told.rule, audit=not told.allow) if real.allow else real


def _lookup(
    table: PolicyTable, direction: int, names: Sequence[Identity], protocol: int, port: int
) -> Decision:
    for admin in (True, False):
        best = _strongest(table, admin, direction, names, protocol, port)
        if best is not None and (best.verdict != PASS or not admin):
            allow = best.verdict == ALLOW
            return Decision(allow, best.rule, by_proxy=allow and best.precedence in BY_PROXY)
    default = table.ingress_default if direction == INGRESS else table.egress_default
    return Decision(False, default)


def _strongest(
    table: PolicyTable,
    admin: bool,
    direction: int,
    names: Sequence[Identity],
    protocol: int,
    port: int,
) -> PortRule | None:
    peers = (table.admin if admin else table.main)[direction].peers
    best: PortRule | None = None
    for identity in names:
        rules = peers.get(identity, ())
        found = next((one for one in rules if _matches(one, protocol, port)), None)
        if found is not None and (best is None or found.strength > best.strength):
            best = found
    return best


def decide(
    plan: PolicyPlan, source: Party, destination: Party, protocol: int, port: int
) -> Verdict:
    """Judge a new flow on both sides. Not for a pod that talks to itself: nobody judges that."""
    return Verdict(
        _side(plan, source, EGRESS, destination, protocol, port),
        _side(plan, destination, INGRESS, source, protocol, port),
    )


def party_of(plan: PolicyPlan, endpoint: Endpoint, version: int = 4) -> Party:
    """An endpoint as a party, by its address of one IP version."""
    cidr4, cidr6 = plan.endpoint_cidrs.get(endpoint.key, (UNKNOWN, UNKNOWN))
    if version == 4:
        return Party(endpoint.identity, cidr4, endpoint.key, endpoint.ipv4)
    return Party(endpoint.identity, cidr6, endpoint.key, endpoint.ipv6)


def party_at(plan: PolicyPlan, identity: Identity, address: IPAddress | None) -> Party:
    """A reserved identity as a party, by its address if one is known."""
    if address is None:
        return Party(identity)
    domain = plan.domains.get(address)
    domains = () if domain is None else (domain,)
    return Party(identity, plan.covering_cidr(address), address=address, domains=domains)


def party_named(plan: PolicyPlan, name: str) -> Party:
    """Whatever address a domain name of the world resolves to; as if it was in no CIDR."""
    found = sorted(one for one in plan.patterns if matches(one, plain_name(name)))
    return Party(WORLD, domains=tuple(plan.domain_sets[frozenset({one})] for one in found))


def _side(
    plan: PolicyPlan, subject: Party, direction: int, peer: Party, protocol: int, port: int
) -> Decision | None:
    if subject.identity == HOST:
        if peer.identity in (HOST, RESOLVER):  # inside the host
            return None
        return None if plan.host is None else lookup(plan.host, direction, peer, protocol, port)
    if not subject.key:
        return None
    table = plan.tables.get(subject.key)
    return Decision(False, 0) if table is None else lookup(table, direction, peer, protocol, port)


def _matches(rule: PortRule, protocol: int, port: int) -> bool:
    if rule.protocol == ANY_PROTOCOL:
        return True
    shift = 16 - rule.port_bits
    return rule.protocol == protocol and rule.port >> shift == port >> shift
