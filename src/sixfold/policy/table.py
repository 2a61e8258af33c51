"""One policy table: what the policies that select a workload add up to, and the built-ins.

Pure. Order of evaluation: see ``ir``. A direction that no policy isolates is open in posture
``kubernetes`` and shut in posture ``zero-trust``. Built-in exceptions come before every policy;
they are few, and rules with names like any other: the node's resolver, the node's own probes.
What is in audit is not in force: the table without it has the one with it beside it. So has the
table of a workload some of whose ports are: it lets everybody dial those, before every policy.

Allows only add up, so tables of allows are merged as they are. Where a policy denies or is of an
ordered tier, precedence decides, and what could never be read the right way is pruned.

The host has a table only while a policy selects it. A direction that none isolates is open then,
whatever the posture, and of the built-ins it needs one: its probes get out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set

import msgspec

from sixfold.errors import ManifestError, Problem
from sixfold.model.config import Config
from sixfold.model.datapath import (
    ALLOW,
    DENY,
    EGRESS,
    INGRESS,
    NOTHING,
    PASS,
    PROTOCOL_NUMBERS,
    PolicyTable,
    PortRule,
    PortRules,
    Section,
    narrowest_first,
)
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import ANY_POD, HOST, RESOLVER, Identity
from sixfold.model.rule import Direction, Rule
from sixfold.policy import ir
from sixfold.policy.entries import ANY_PEER, ANYTHING, Clause, Match, Piece
from sixfold.policy.languages.networkpolicy import DIRECTIONS
from sixfold.policy.pile import RULES_MAX, Pile, TooManyRulesError
from sixfold.policy.resolved import NO_TITLES, Grant
from sixfold.policy.told import ENFORCED, Told

Numbering = Callable[[Rule], int]
Profile = frozenset[int]  # ports that the node's probes dial, where that matters
NO_PROFILE: Profile = frozenset()

RESOLVER_RULE = Rule("builtin", "", "resolver", "egress")
PROBES_RULE = Rule("builtin", "", "node-probes", "ingress")
PROBES_OUT_RULE = Rule("builtin", "", "node-probes", "egress")
DNS_PORT = 53
PEERS_MAX = 1 << 22  # of all sections built in one go: four times what the kernel's map holds
FEW = 8  # pieces that are not worth a look whether one says the same as another


def profile_of(endpoint: Endpoint, config: Config) -> Profile:
    """What, beside its identity, an endpoint's table depends on."""
    return endpoint.probe_ports if config.posture == "zero-trust" else NO_PROFILE


def default_rule(direction: Direction, isolated_by: Sequence[str], config: Config) -> Rule:
    """What is named when no rule matches: the isolating policies, else the posture."""
    if isolated_by:
        because = ",".join(dict.fromkeys(isolated_by))
        return Rule("posture", "", "default-deny", direction, -1, because)
    name = "default-deny" if config.posture == "zero-trust" else "default-allow"
    return Rule("posture", "", name, direction, because=config.posture)


Said = dict[Identity, PortRules]  # by peer


class Sections:
    """The sections that are built in one go, one for each set of policies and shared by tables."""

    def __init__(
        self,
        config: Config,
        number: Numbering,
        *,
        of_host: bool = False,
        told: PortRules = (),
    ) -> None:
        """``told``: ports that everybody may dial, by what else would decide told only."""
        self.config = config
        self.number = number
        self.of_host = of_host
        self._told = told
        is_open = of_host or config.posture == "kubernetes"
        self.opened = frozenset({INGRESS, EGRESS}) if is_open else frozenset()
        # Keys hold the ``id`` of pieces: that they stay alive is what the values are for.
        self._built: dict[tuple[object, ...], tuple[list[Piece], Section]] = {}
        self._builtins: dict[tuple[int, Profile, int], Said] = {}
        self._peers = 0

    def of(self, direction: int, pieces: list[Piece], profile: Profile, last: int = 0) -> Section:
        """What these say, and the built-in exceptions; ``last``: else all is allowed, by it."""
        key = (direction, profile, last, *map(id, pieces))
        if (known := self._built.get(key)) is None:
            known = self._built[key] = pieces, self._build(direction, pieces, profile, last)
            self._peers += len(known[1].peers)
            if self._peers > PEERS_MAX:
                raise _too_many_peers(pieces)
        return known[1]

    def default(self, direction: int, titles: Sequence[str], *, audited: bool) -> int:
        """The number of the rule that is named when nothing matches."""
        name = DIRECTIONS[direction][1]
        if audited:
            return self.number(Rule("posture", "", "audit", name, because="its policies"))
        if self.of_host and not titles:
            return self.number(Rule("posture", "", "default-allow", name, because="the host"))
        return self.number(default_rule(name, titles, self.config))

    def _build(self, direction: int, pieces: list[Piece], profile: Profile, last: int) -> Section:
        said = self._said(direction, profile, last)
        if len(pieces) <= FEW and (found := _disjoint(said, pieces)) is not None:
            return Section(found)
        pile = Pile()
        try:
            for peer, rules in said.items():
                pile.add((peer,), rules)
            for piece in _distinct(pieces):
                pile.add(piece.peers, piece.rules)
            return pile.section(None if all(map(_only_allows, pieces)) else _prune)
        except TooManyRulesError:
            raise _too_many(pieces) from None

    def _said(self, direction: int, profile: Profile, last: int) -> Said:
        """What is said whatever the policies say."""
        key = (direction, profile, last)
        if (known := self._builtins.get(key)) is None:
            if self.of_host:
                known = _host_builtins(profile, self.number)[direction]
            else:
                known = _builtins(profile, self.config, self.number)[direction]
            anybody = [*self._told] if direction == INGRESS else []
            if last:
                anybody.append(_allow(ANYTHING, last, ir.POSTURE))
            if anybody:
                known[ANY_PEER] = narrowest_first(anybody)
            self._builtins[key] = known
        return known


def build_table(
    policies: Sequence[Grant],
    profile: Profile,
    sections: Sections,
    told: Told = ENFORCED,
) -> PolicyTable:
    """What is in force, and beside it what would be, if some of it is in audit.

    ``told``: whose word puts the whole workload in audit, or some of its ports.
    """
    full = _merge_policies(policies, profile, sections)
    if told.everything:
        return _open_table(told.everything, sections.number, full)
    if not told.ports and not any(one.audit for one in policies):
        return full
    relaxed = [_relax(one) for one in policies]
    opened = {
        direction
        for direction, _ in DIRECTIONS
        if any(one.titles[direction] for one in policies)
        and not any(one.titles[direction] for one in relaxed)
    }
    # What is relaxed lives but here.
    ports = narrowest_first(
        _allow(match, sections.number(Rule("posture", "", "audit", "ingress", because=because)))
        for match, because in told.ports.items()
    )
    apart = Sections(sections.config, sections.number, of_host=sections.of_host, told=ports)
    table = _merge_policies(relaxed, profile, apart, opened)
    same = table.sections == full.sections
    return table if same else msgspec.structs.replace(table, audit=full)


def _relax(grant: Grant) -> Grant:
    """A policy in audit isolates nobody and denies nothing; what it allows, it allows."""
    if not grant.audit:
        return grant
    into, out = (tuple(one for one in some if one.clause.verdict != DENY) for some in grant.pieces)
    return grant._replace(titles=NO_TITLES, pieces=(into, out))


def _open_table(audited: str, number: Numbering, full: PolicyTable) -> PolicyTable:
    ingress, egress = (
        number(Rule("posture", "", "audit", name, because=audited)) for _, name in DIRECTIONS
    )
    into, out = (Section({ANY_PEER: (_allow(ANYTHING, rule),)}) for rule in (ingress, egress))
    return PolicyTable((into, out), (NOTHING, NOTHING), ingress, egress, full)


def _merge_policies(
    policies: Sequence[Grant],
    profile: Profile,
    sections: Sections,
    opened: Set[int] = frozenset(),
) -> PolicyTable:
    """Merge what policies say; where two say the same of one key the first is named.

    ``opened``: directions that are open, whatever the posture, unless something denies.
    """
    is_open = sections.opened | opened
    ordered = any(one.tier is not ir.Tier.NETWORK_POLICY for one in policies)
    admin, main, defaults = [NOTHING, NOTHING], [], []
    for direction, _ in DIRECTIONS:
        titles = [title for one in policies for title in one.titles[direction]]
        default = sections.default(direction, titles, audited=direction in opened)
        pieces = [piece for one in policies for piece in one.pieces[direction]]
        if ordered:
            tiers: dict[ir.Tier, list[Piece]] = {tier: [] for tier in ir.Tier}
            for one in policies:
                tiers[one.tier] += one.pieces[direction]
            if tiers[ir.Tier.ADMIN]:
                admin[direction] = sections.of(direction, tiers[ir.Tier.ADMIN], profile)
            settled = _settled(tiers[ir.Tier.BASELINE], bool(titles), default, direction in is_open)
            pieces = tiers[ir.Tier.NETWORK_POLICY] + settled
        last = default if not titles and direction in is_open else 0
        main.append(sections.of(direction, pieces, profile, last))
        defaults.append(default)
    return PolicyTable((main[0], main[1]), (admin[0], admin[1]), defaults[0], defaults[1])


def _settled(baseline: Iterable[Piece], isolated: bool, default: int, is_open: bool) -> list[Piece]:
    """What counts of Baseline. It comes after isolation; its PASS is the posture."""
    if isolated:
        return []
    posture = ALLOW if is_open else DENY
    return [
        piece._replace(
            rules=tuple(
                rule._replace(verdict=posture, rule=default) if rule.verdict == PASS else rule
                for rule in piece.rules
            )
        )
        for piece in baseline
    ]


def _disjoint(said: Said, pieces: Iterable[Piece]) -> Said | None:
    """All together where no peer is meant twice, as is usual; else None."""
    found = said.copy()
    for clause, peers, rules in pieces:
        if len(rules) > 1 and clause.precedence != ir.NETWORK_POLICY:
            return None
        for peer in peers:
            if peer in found:
                return None
            found[peer] = rules
    return found


def _distinct(pieces: Sequence[Piece]) -> Iterable[Piece]:
    """Less the clauses that say the very same as an earlier one."""
    if len(pieces) <= FEW:
        return pieces
    first: dict[tuple[object, ...], Clause] = {}
    return [
        piece
        for piece in pieces
        if first.setdefault(piece.clause.scope, piece.clause) is piece.clause
    ]


def _only_allows(piece: Piece) -> bool:
    """Whether it may be merged with others of the kind without a look at precedence."""
    return piece.clause.verdict == ALLOW and piece.clause.precedence == ir.NETWORK_POLICY


def _prune(rules: PortRules) -> PortRules:
    """Leave out what a broader rule for the same peer overrules: only the longest is read."""
    kept: dict[Match, PortRule] = {}
    lengths = sorted({rule.port_bits for rule in rules}, reverse=True)
    for rule in reversed(rules):
        protocol, port, bits = rule[:3]
        around = (
            kept.get((protocol, port >> (16 - n) << (16 - n), n)) for n in lengths if n < bits
        )
        broader = next((one for one in around if one is not None), kept.get(ANYTHING))
        if broader is None or broader.strength <= rule.strength:
            kept[protocol, port, bits] = rule
    return tuple(rule for rule in rules if rule[:3] in kept)


def _too_many(pieces: Iterable[Piece]) -> ManifestError:
    sizes: Counter[str] = Counter()
    for piece in pieces:
        sizes[piece.clause.policy] += len(piece.peers) * len(piece.rules)
    (largest, size), *others = sizes.most_common()
    message = (
        f"{size} pairs of peers and ports, beside those of {len(others)} policies for the same "
        f"pods; {RULES_MAX} that differ are the most; name fewer ports, or the same for all peers"
    )
    return ManifestError([Problem(largest, 0, "", message)])


def _too_many_peers(pieces: Iterable[Piece]) -> ManifestError:
    largest = max(pieces, key=lambda piece: len(piece.peers))
    message = (
        f"{len(largest.peers)} peers for one kind of pods, of many: {PEERS_MAX} for all kinds are "
        "the most; select by one policy all who have the same peers (pods whose labels are the "
        "same are one peer, and one kind)"
    )
    return ManifestError([Problem(largest.clause.policy, 0, "", message)])


def closed_table(number: Numbering) -> PolicyTable:
    """Nothing in, nothing out: for an endpoint that has no identity yet."""
    ingress, egress = (
        number(Rule("posture", "", "default-deny", name, because="no identity"))
        for _, name in DIRECTIONS
    )
    return PolicyTable((NOTHING, NOTHING), (NOTHING, NOTHING), ingress, egress)


def _builtins(profile: Profile, config: Config, number: Numbering) -> list[Said]:
    """By direction."""
    resolver, probes = number(RESOLVER_RULE), number(PROBES_RULE)
    dns = [(PROTOCOL_NUMBERS[protocol], DNS_PORT, 16) for protocol in ("UDP", "TCP")]
    if config.posture == "kubernetes":  # upstream: a node reaches its own pods, always
        probed = [ANYTHING]
    else:
        probed = [(PROTOCOL_NUMBERS["TCP"], port, 16) for port in profile]
    into = {HOST: narrowest_first(_allow(match, probes) for match in probed)} if probed else {}
    out = {RESOLVER: narrowest_first(_allow(match, resolver) for match in dns)}
    return [into, out]


def _host_builtins(probed: Profile, number: Numbering) -> list[Said]:
    """By direction. Whether a pod takes a probe on a port is for the pod's own table to say."""
    if not probed:
        return [{}, {}]
    rule, tcp = number(PROBES_OUT_RULE), PROTOCOL_NUMBERS["TCP"]
    return [{}, {ANY_POD: narrowest_first(_allow((tcp, port, 16), rule) for port in probed)}]


def _allow(match: Match, rule: int, precedence: int = ir.BUILT_IN) -> PortRule:
    return PortRule(*match, ALLOW, rule, precedence)
