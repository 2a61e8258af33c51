"""One policy table: what the policies that select a workload add up to, and the built-ins.

Pure. Allows only add up (NetworkPolicy v1); a direction that no policy isolates is open in
posture ``kubernetes`` and shut in posture ``zero-trust``. Built-in exceptions are few, and are
rules with names like any other: the node's resolver, and the node's own probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sixfold.model.config import Config
from sixfold.model.datapath import (
    ALLOW,
    ANY_PROTOCOL,
    EGRESS,
    INGRESS,
    PROTOCOL_NUMBERS,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST, RESOLVER
from sixfold.model.rule import Direction, Rule
from sixfold.policy.entries import ANY_PEER, Entries, EntryKey
from sixfold.policy.resolved import DIRECTIONS, Resolved

Numbering = Callable[[Rule], int]
Profile = frozenset[int]  # ports that the node's probes dial, where that matters

RESOLVER_RULE = Rule("builtin", "", "resolver", "egress")
PROBES_RULE = Rule("builtin", "", "node-probes", "ingress")
DNS_PORT = 53


def profile_of(endpoint: Endpoint, config: Config) -> Profile:
    """What, beside its identity, an endpoint's table depends on."""
    return endpoint.probe_ports if config.posture == "zero-trust" else frozenset()


def default_rule(direction: Direction, isolated_by: Sequence[str], config: Config) -> Rule:
    """What is named when no rule matches: the isolating policies, else the posture."""
    if isolated_by:
        return Rule("posture", "", "default-deny", direction, because=",".join(isolated_by))
    name = "default-deny" if config.posture == "zero-trust" else "default-allow"
    return Rule("posture", "", name, direction, because=config.posture)


def build_table(
    policies: Sequence[tuple[Resolved, Entries]],
    profile: Profile,
    config: Config,
    number: Numbering,
) -> PolicyTable:
    """Merge what policies grant, in their order: of two rules for one key the first is named."""
    entries: Entries = dict(_builtins(profile, config, number))
    for _, granted in reversed(policies):
        entries.update(granted)
    defaults = {}
    for direction, name in DIRECTIONS:
        isolated_by = [one.key for one, _ in policies if direction in one.isolates]
        rule = number(default_rule(name, isolated_by, config))
        defaults[direction] = rule
        if not isolated_by and config.posture == "kubernetes":
            entries.update([_allow((direction, ANY_PEER, ANY_PROTOCOL, 0, 0), rule)])
    return PolicyTable(frozenset(entries.values()), defaults[INGRESS], defaults[EGRESS])


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
    return key, PolicyEntry(*key, ALLOW, rule)
