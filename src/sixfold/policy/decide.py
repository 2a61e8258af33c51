"""Would this flow pass? The answer by the compiled tables, read as the kernel reads them.

Pure. ``bpf/lib/policy.h`` answers the same question in the kernel; the twin tests hold the two
equal. The peer's identity is asked first, then its CIDR identity, then 0 (any peer); the longest
match on protocol and port in each. Any allow lets the flow pass, unless a deny matches too; the
most specific peer names the rule. No match is the default deny, named by the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sixfold.model.datapath import (
    ANY_PROTOCOL,
    EGRESS,
    INGRESS,
    IPAddress,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.policy.entries import ANY_PEER
from sixfold.policy.plan import PolicyPlan


@dataclass(frozen=True, slots=True)
class Decision:
    """One side's verdict and the number of the rule behind it."""

    allow: bool
    rule: int  # 0: no table is loaded, everything is dropped


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a flow as policy sees it.

    key      of the endpoint; "" when it is none of ours
    address  None when it is not known, as offline; no ipBlock matches then
    """

    identity: Identity
    cidr: Identity = UNKNOWN
    key: str = ""
    address: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both sides; None where that side is no endpoint of ours and so has no policy."""

    egress: Decision | None
    ingress: Decision | None

    @property
    def allow(self) -> bool:
        return all(side is None or side.allow for side in (self.egress, self.ingress))


def lookup(table: PolicyTable, direction: int, peer: Party, protocol: int, port: int) -> Decision:
    """What a table says about one peer, protocol number and port (0 for ICMP)."""
    by_peer = _by_peer(table)
    best: PolicyEntry | None = None
    for identity in (peer.identity, peer.cidr, ANY_PEER):  # a peer without CIDR asks 0 twice
        entries = by_peer.get((direction, identity), ())
        entry = next((one for one in entries if _matches(one, protocol, port)), None)
        if entry is not None and (best is None or (best.allow and not entry.allow)):
            best = entry
    if best is not None:
        return Decision(best.allow, best.rule)
    default = table.ingress_default if direction == INGRESS else table.egress_default
    return Decision(False, default)


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
    cidr = UNKNOWN if address is None else plan.covering_cidr(address)
    return Party(identity, cidr, address=address)


def _side(
    plan: PolicyPlan, subject: Party, direction: int, peer: Party, protocol: int, port: int
) -> Decision | None:
    if not subject.key:
        return None
    table = plan.tables.get(subject.key)
    return Decision(False, 0) if table is None else lookup(table, direction, peer, protocol, port)


def _matches(entry: PolicyEntry, protocol: int, port: int) -> bool:
    if entry.protocol == ANY_PROTOCOL:
        return True
    shift = 16 - entry.port_bits
    return entry.protocol == protocol and entry.port >> shift == port >> shift


@lru_cache(maxsize=1024)
def _by_peer(table: PolicyTable) -> Mapping[tuple[int, Identity], Sequence[PolicyEntry]]:
    """The entries of each direction and peer, longest prefix first."""
    found: dict[tuple[int, Identity], list[PolicyEntry]] = {}
    for entry in table.entries:
        found.setdefault((entry.direction, entry.peer), []).append(entry)
    for entries in found.values():
        entries.sort(key=lambda entry: (entry.protocol != ANY_PROTOCOL, entry.port_bits))
        entries.reverse()
    return found
