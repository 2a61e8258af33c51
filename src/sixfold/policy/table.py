"""One policy table: what the policies that select a workload add up to, and the built-ins.

Pure. Order of evaluation: see ``ir``. A direction that no policy isolates is open in posture
``kubernetes`` and shut in posture ``zero-trust``. Built-in exceptions come before every policy;
they are few, and rules with names like any other: the node's resolver, the node's own probes.
What is in audit is not in force: the table without it has the one with it beside it.

Allows only add up, so tables of allows are merged as they are. Where a policy denies or is of an
ordered tier, precedence decides, and what could never be read the right way is pruned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from operator import itemgetter

from sixfold.model.config import Config
from sixfold.model.datapath import (
    ALLOW,
    ANY_PROTOCOL,
    DENY,
    EGRESS,
    INGRESS,
    PASS,
    PROTOCOL_NUMBERS,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST, RESOLVER
from sixfold.model.rule import Direction, Rule
from sixfold.policy import ir
from sixfold.policy.entries import ANY_PEER, Entries, EntryKey
from sixfold.policy.languages.networkpolicy import DIRECTIONS
from sixfold.policy.resolved import Resolved

Numbering = Callable[[Rule], int]
Profile = frozenset[int]  # ports that the node's probes dial, where that matters

RESOLVER_RULE = Rule("builtin", "", "resolver", "egress")
PROBES_RULE = Rule("builtin", "", "node-probes", "ingress")
DNS_PORT = 53
_OF_PEER = itemgetter(0, 1)  # of an entry's key: direction and peer


def profile_of(endpoint: Endpoint, config: Config) -> Profile:
    """What, beside its identity, an endpoint's table depends on."""
    return endpoint.probe_ports if config.posture == "zero-trust" else frozenset()


def default_rule(direction: Direction, isolated_by: Sequence[str], config: Config) -> Rule:
    """What is named when no rule matches: the isolating policies, else the posture."""
    if isolated_by:
        return Rule("posture", "", "default-deny", direction, because=",".join(isolated_by))
    name = "default-deny" if config.posture == "zero-trust" else "default-allow"
    return Rule("posture", "", name, direction, because=config.posture)


Granted = tuple[Resolved, Entries]


def build_table(
    policies: Sequence[Granted],
    profile: Profile,
    config: Config,
    number: Numbering,
    audited: str = "",
) -> PolicyTable:
    """What is in force, and beside it what would be, if some of it is in audit.

    ``audited`` says whose word puts the whole workload in audit; "" if nobody's.
    """
    full = _merge_policies(policies, profile, config, number)
    if audited:
        return _open_table(audited, number, full)
    if not any(one.policy.audit for one, _ in policies):
        return full
    relaxed = [_relax(one) for one in policies]
    opened = {
        direction
        for direction, _ in DIRECTIONS
        if any(direction in one.policy.isolates for one, _ in policies)
        and not any(direction in one.policy.isolates for one, _ in relaxed)
    }
    table = _merge_policies(relaxed, profile, config, number, opened)
    return table if table.entries == full.entries else replace(table, audit=full)


def _relax(granted: Granted) -> Granted:
    """A policy in audit isolates nobody and denies nothing; what it allows, it allows."""
    resolved, entries = granted
    if not resolved.policy.audit:
        return granted
    kept = {key: entry for key, entry in entries.items() if entry.verdict != DENY}
    return replace(resolved, policy=replace(resolved.policy, isolates=frozenset())), kept


def _open_table(audited: str, number: Numbering, full: PolicyTable) -> PolicyTable:
    rules = {
        direction: number(Rule("posture", "", "audit", name, because=audited))
        for direction, name in DIRECTIONS
    }
    anything = (ANY_PEER, ANY_PROTOCOL, 0, 0, ALLOW)
    entries = frozenset(PolicyEntry(way, *anything, rule) for way, rule in rules.items())
    return PolicyTable(entries, rules[INGRESS], rules[EGRESS], full)


def _merge_policies(
    policies: Sequence[Granted],
    profile: Profile,
    config: Config,
    number: Numbering,
    opened: Set[int] = frozenset(),
) -> PolicyTable:
    """Merge what policies say; where two say the same of one key the first is named.

    ``opened``: directions that are open, whatever the posture, unless something denies.
    """
    is_open = {INGRESS, EGRESS} if config.posture == "kubernetes" else opened
    defaults = {}
    main: Entries = {}
    isolated = set()
    for direction, name in DIRECTIONS:
        titles = [one.policy.title for one, _ in policies if direction in one.policy.isolates]
        default = default_rule(name, list(dict.fromkeys(titles)), config)
        if direction in opened:
            default = Rule("posture", "", "audit", name, because="its policies")
        rule = number(default)
        defaults[direction] = rule
        if titles:
            isolated.add(direction)
        elif direction in is_open:
            key = (direction, ANY_PEER, ANY_PROTOCOL, 0, 0)
            main[key] = PolicyEntry(*key, ALLOW, rule, ir.POSTURE)
    for one, granted in reversed(policies):
        if one.only_allows:
            main.update(granted)
    builtins = dict(_builtins(profile, config, number))
    admin: Entries = {}
    if all(one.only_allows for one, _ in policies):
        main.update(builtins)
    else:
        for one, granted in policies:
            if not one.only_allows:
                verdicts = _settled(one.policy.tier, granted, isolated, defaults, is_open)
                _merge(admin if one.policy.tier is ir.Tier.ADMIN else main, verdicts)
        main.update(builtins)
        admin.update(_asked_first(builtins, admin))
        main, admin = _prune(main), _prune(admin)
    entries = frozenset((*main.values(), *admin.values()))
    return PolicyTable(entries, defaults[INGRESS], defaults[EGRESS])


def _settled(
    tier: ir.Tier,
    granted: Entries,
    isolated: Set[int],
    defaults: Mapping[int, int],
    is_open: Set[int],
) -> Iterator[PolicyEntry]:
    """What counts of a policy here. Baseline comes after isolation; its PASS is the posture."""
    for entry in granted.values():
        if tier is not ir.Tier.BASELINE:
            yield entry
        elif entry.direction not in isolated:
            if entry.verdict == PASS:
                verdict = ALLOW if entry.direction in is_open else DENY
                entry = entry._replace(verdict=verdict, rule=defaults[entry.direction])
            yield entry


def _merge(entries: Entries, more: Iterable[PolicyEntry]) -> None:
    for entry in more:
        known = entries.setdefault(entry[:5], entry)
        if known is not entry and entry.strength > known.strength:
            entries[entry[:5]] = entry


def _asked_first(builtins: Entries, admin: Entries) -> Entries:
    """The built-in exceptions once more, where Admin rules would shut them."""
    directions = {entry.direction for entry in admin.values()}
    return {
        key: entry._replace(admin=True)
        for key, entry in builtins.items()
        if entry.direction in directions
    }


def _prune(entries: Entries) -> Entries:
    """Leave out what a broader entry for the same peer overrules: only the longest is read."""
    per_peer = Counter(map(_OF_PEER, entries))
    # Most peers have one entry, and that has nothing around it.
    kept = {key: entry for key, entry in entries.items() if per_peer[_OF_PEER(key)] == 1}
    several = [entry for key, entry in entries.items() if per_peer[_OF_PEER(key)] > 1]
    lengths = sorted({entry.port_bits for entry in several}, reverse=True)
    for entry in sorted(several, key=_breadth):
        direction, peer, protocol, port, bits = entry[:5]
        around = (
            kept.get((direction, peer, protocol, port >> (16 - n) << (16 - n), n))
            for n in lengths
            if n < bits
        )
        anything = kept.get((direction, peer, ANY_PROTOCOL, 0, 0))
        broader = next((one for one in around if one is not None), anything)
        if broader is None or broader.strength <= entry.strength:
            kept[entry[:5]] = entry
    return kept


def _breadth(entry: PolicyEntry) -> tuple[bool, int]:
    return entry.protocol != ANY_PROTOCOL, entry.port_bits


def closed_table(number: Numbering) -> PolicyTable:
    """Nothing in, nothing out: for an endpoint that has no identity yet."""
    ingress, egress = (
        number(Rule("posture", "", "default-deny", name, because="no identity"))
        for _, name in DIRECTIONS
    )
    return PolicyTable(frozenset(), ingress, egress)


def _builtins(
    profile: Profile, config: Config, number: Numbering
) -> Iterator[tuple[EntryKey, PolicyEntry]]:
    resolver, probes = number(RESOLVER_RULE), number(PROBES_RULE)
    for protocol in ("UDP", "TCP"):
        yield _allow((EGRESS, RESOLVER, PROTOCOL_NUMBERS[protocol], DNS_PORT, 16), resolver)
    if config.posture == "kubernetes":  # upstream: a node reaches its own pods, always
        yield _allow((INGRESS, HOST, ANY_PROTOCOL, 0, 0), probes)
    for port in profile:
        yield _allow((INGRESS, HOST, PROTOCOL_NUMBERS["TCP"], port, 16), probes)


def _allow(key: EntryKey, rule: int) -> tuple[EntryKey, PolicyEntry]:
    return key, PolicyEntry(*key, ALLOW, rule, ir.BUILT_IN)
