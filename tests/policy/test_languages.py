"""All policy languages together: the compiled tables against the brute-force reference."""

import random

import msgspec
import pytest
from tests.policy import languages
from tests.policy.reference import allowed
from tests.policy.test_compile import keep
from tests.policy.worlds import passes, world

from sixfold.model import domain
from sixfold.model.datapath import ALLOW, DENY, PASS
from sixfold.policy import entries, ir, resolved, table
from sixfold.policy.languages import cilium, cilium_labels, clusternetworkpolicy
from sixfold.policy.plan import PolicyCompiler, compile_policies


def difference(case, plan, here, pick, count):
    """The first flow that engine and reference judge differently."""
    for source, destination, protocol, port, version in languages.flows(case, pick, count):
        if source.get("pod") == destination.get("pod") and "pod" in source:
            continue
        engine = passes(plan, here, (source, destination, protocol, port), version)
        if engine != allowed(case, source, destination, protocol, port):
            return source, destination, protocol, port, engine
    return None


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
def test_compiled_tables_equal_the_reference(posture):
    for seed in range(150):
        case = languages.case(seed, posture)
        here = world(case)
        found = difference(case, compile_policies(here), here, random.Random(seed), 120)
        assert found is None, f"seed {seed}: {found}"


def test_following_changes_equals_compiling_afresh():
    for seed in range(60):
        case = languages.case(seed, "zero-trust" if seed % 2 else "kubernetes")
        numbers, cidrs, names, identities = {}, {}, {}, {}
        number = lambda rule, numbers=numbers: numbers.setdefault(rule, len(numbers) + 1)  # noqa: E731
        cidr = lambda net, cidrs=cidrs: cidrs.setdefault(net, (1 << 24) + len(cidrs))  # noqa: E731
        name = lambda them, names=names: names.setdefault(them, (1 << 26) + len(names))  # noqa: E731
        compiler = PolicyCompiler(number, cidr, name)
        before = world(case, identities)
        compiler.compile(before)
        for step in range(8):
            case = languages.change(case, seed * 100 + step)
            here = keep(before, world(case, identities))
            followed = compiler.compile(here)
            fresh = compile_policies(here, number, cidr, name)
            assert followed.tables == fresh.tables, f"seed {seed} step {step}"
            assert followed.host == fresh.host, f"seed {seed} step {step}"
            assert followed.cidrs == fresh.cidrs, f"seed {seed} step {step}"
            assert followed.domains == fresh.domains, f"seed {seed} step {step}"
            assert followed.endpoint_cidrs == fresh.endpoint_cidrs, f"seed {seed} step {step}"
            before = here


def priority_reversed(policy, tie, line, right=ir.precedence):
    if policy.tier is ir.Tier.NETWORK_POLICY:
        return right(policy, tie, line)
    return right(msgspec.structs.replace(policy, priority=1000 - policy.priority), tie, line)


def last_line_wins(policy, tie, line, right=ir.precedence):
    if policy.tier is ir.Tier.NETWORK_POLICY:
        return right(policy, tie, line)
    return right(
        msgspec.structs.replace(policy, lines=policy.lines[::-1]), tie, len(policy.lines) - 1 - line
    )


def deny_is_just_a_rule(policy, tie, line, right=ir.precedence):
    found = right(policy, tie, line)
    if policy.tier is not ir.Tier.NETWORK_POLICY:
        return found
    return ir.NETWORK_POLICY - (policy.lines[line].verdict == DENY)


def baseline_in_isolation(pieces, isolated, *rest, right=table._settled):
    return right(pieces, False, *rest)


def pass_in_baseline_denies(pieces, isolated, default, is_open, right=table._settled):
    return right(pieces, isolated, default, False)


def isolates_always(spec):
    return [0, 1]


def isolates_by_rules_only(spec, right=cilium._isolates):
    return right(msgspec.structs.replace(spec, enable_default_deny=None))


def denies_do_not_isolate(spec, right=cilium._isolates):
    return right(msgspec.structs.replace(spec, ingress_deny=None, egress_deny=None))


def nothing_is_anybody(self, rule, ports, right=cilium._Lowering._peers):
    found = right(self, rule, ports)
    return None if found == () else found


def of_all_namespaces(selector, namespace, right=cilium_labels.endpoints):
    return right(selector, None)


def protocol_absent_is_tcp(port, right=cilium._port):
    return right(msgspec.structs.replace(port, protocol=port.protocol or "TCP"))


def any_icmp(field, right=cilium._icmp):
    return ir.Port(right(field).protocol)


def verdicts(accept, passing, deny):
    return {"Accept": accept, "Allow": accept, "Pass": passing, "Deny": deny}


def not_outside(policy, at, *rest, right=resolved._clause):
    clause = right(policy, at, *rest)
    return msgspec.structs.replace(clause, blocks=clause.all_blocks, outside=())


def named_is_every_port(ports, right=entries.port_matches):
    matches, names = right(ports)
    return ((*matches, entries.ANYTHING) if names else matches), names


SEEDED = {
    "priority is reversed": (ir, "precedence", priority_reversed),
    "the last line wins": (ir, "precedence", last_line_wins),
    "pass is allow": (clusternetworkpolicy, "VERDICTS", verdicts(ALLOW, ALLOW, DENY)),
    "pass is deny": (clusternetworkpolicy, "VERDICTS", verdicts(ALLOW, DENY, DENY)),
    "accept is pass": (clusternetworkpolicy, "VERDICTS", verdicts(PASS, PASS, DENY)),
    "deny is pass": (clusternetworkpolicy, "VERDICTS", verdicts(ALLOW, PASS, PASS)),
    "baseline is admin": (clusternetworkpolicy, "_tier", lambda _: ir.Tier.ADMIN),
    "baseline is heard in isolation": (table, "_settled", baseline_in_isolation),
    "pass in baseline denies": (table, "_settled", pass_in_baseline_denies),
    "the longest match wins": (table, "_prune", lambda entries: entries),
    "a deny loses": (ir, "precedence", deny_is_just_a_rule),
    "a CIDR means pods": (resolved, "_clause", not_outside),
    "every policy isolates": (cilium, "_isolates", isolates_always),
    "enableDefaultDeny is ignored": (cilium, "_isolates", isolates_by_rules_only),
    "denies do not isolate": (cilium, "_isolates", denies_do_not_isolate),
    "a rule without peers is anybody": (cilium._Lowering, "_peers", nothing_is_anybody),
    "endpoints are of all namespaces": (cilium, "endpoints", of_all_namespaces),
    "protocol absent is TCP": (cilium, "_port", protocol_absent_is_tcp),
    "ICMP types are ignored": (cilium, "_icmp", any_icmp),
    "labels keep their source": (cilium_labels, "plain_key", lambda key: key),
    "service accounts are not seen": (ir, "SERVICE_ACCOUNT_LABEL", "nobody's"),
    "a named port is every port": (resolved, "port_matches", named_is_every_port),
    "a star is the whole label": (domain, "_matches_label", lambda pattern, label: "*" in pattern),
    "exceptions are ignored": (cilium, "_within", lambda *_: False),
}


@pytest.mark.parametrize("bug", SEEDED)
def test_a_seeded_bug_is_noticed(bug, monkeypatch):
    monkeypatch.setattr(*SEEDED[bug])
    for seed in range(500):
        case = languages.case(seed)
        here = world(case)
        if difference(case, compile_policies(here), here, random.Random(seed), 120):
            return
    pytest.fail(f"500 cases do not notice: {bug}")
