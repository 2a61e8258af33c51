"""Which CIDRs do policies name, and which of them is an address in?

Pure. An address has the identity of the longest CIDR around it, beside that of its workload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress, IPNetwork
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.model.layers import Layers
from sixfold.policy.block import Blocks, Span, includes, span
from sixfold.policy.resolved import Resolved

Placed = tuple[Identity, Identity]


class CidrIndex:
    """CIDRs with their identities, kept in step with policies and endpoints.

    placed  CIDR identities of an endpoint's IPv4 and IPv6 address, 0 = none; who has neither is
            left out
    """

    def __init__(self, config: Config, identity: Callable[[IPNetwork], Identity]) -> None:
        self._identity = identity
        self._matches_pods = config.ipblock_matches_pods
        self._naming: set[str] = set()  # policies that name CIDRs
        self._uses: Counter[IPNetwork] = Counter()
        self.identities: dict[IPNetwork, Identity] = {}
        self.blocks = Blocks()
        self.placed: Layers[str, Placed] = Layers()

    def follow(
        self,
        resolved: Mapping[str, Resolved],
        outdated: Iterable[Resolved],
        stale_policies: set[str],
        endpoints: Mapping[str, Endpoint],
        *,
        readdressed: bool,
    ) -> list[Span]:
        """Count the CIDRs that policies name; returns those that came or went."""
        naming = {
            key
            for key in stale_policies
            if (one := resolved.get(key)) is not None and one.names_blocks
        }
        self._naming -= stale_policies
        self._naming |= naming
        if readdressed:
            moved = {key for key in self._naming if resolved[key].by_address}
            stale_policies |= moved
            naming |= moved
        before = Counter(cidr for one in outdated for cidr in one.cidrs)
        after: Counter[IPNetwork] = Counter()
        for key in naming:
            policy = resolved[key]
            before.update(policy.cidrs)
            policy.cidrs = policy.named_cidrs(lambda: self.addressed(endpoints))
            after.update(policy.cidrs)
        if before == after:
            return []
        self._uses = self._uses - before + after
        used = set(self._uses)
        changed = [span(cidr) for cidr in used ^ self.identities.keys()]
        if changed:
            self.identities = {cidr: self._identity(cidr) for cidr in sorted(used, key=span)}
            self.blocks = Blocks(used)
            others = self._naming - stale_policies
            stale_policies |= {key for key in others if _is_around(resolved[key], changed)}
        return changed

    def addressed(self, endpoints: Mapping[str, Endpoint]) -> Collection[Endpoint]:
        """Endpoints whose addresses an ipBlock may mean."""
        return endpoints.values() if self._matches_pods else ()

    def place(
        self, endpoints: Mapping[str, Endpoint], moved: Collection[str], changed: list[Span]
    ) -> None:
        """Find the CIDR identities of addresses that moved, or whose CIDRs changed."""
        known = self.placed
        if not self.identities and not known:
            return
        affected = moved
        if changed:
            affected = {*moved} | {
                key
                for key, endpoint in endpoints.items()
                for address in endpoint.addresses
                if any(one.covers(address) for one in changed)
            }
        puts: dict[str, Placed] = {}
        if self.identities and self._matches_pods:
            for key in affected:
                if (endpoint := endpoints.get(key)) is not None:
                    placed = self._identity_of(endpoint.ipv4), self._identity_of(endpoint.ipv6)
                    if any(placed):
                        puts[key] = placed
        gone = [key for key in affected if key in known and key not in puts]
        self.placed = known.changed(puts, gone)

    def _identity_of(self, address: IPAddress | None) -> Identity:
        network = None if address is None else self.blocks.covering(address)
        return UNKNOWN if network is None else self.identities[network]


def _is_around(policy: Resolved, changed: Iterable[Span]) -> bool:
    """Whether one of the changed CIDRs is part of a block that it names."""
    return any(
        includes(block, inner)
        for clause in policy.clauses
        for block in clause.all_blocks
        for inner in changed
    )
