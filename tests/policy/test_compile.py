"""The compiled tables against the brute-force reference, and the classic bugs it must notice."""

import random

import msgspec
import pytest
from tests.policy import cases
from tests.policy.reference import allowed
from tests.policy.worlds import passes, world

from sixfold.model.meta import LabelSelectorRequirement
from sixfold.model.policy import NetworkPolicyPeer, NetworkPolicySpec
from sixfold.policy import entries, resolved, table
from sixfold.policy.ir import EVERYTHING, Pods
from sixfold.policy.languages import networkpolicy
from sixfold.policy.plan import PolicyCompiler, compile_policies


def difference(case, plan, here, pick, count):
    """The first flow that engine and reference judge differently."""
    for source, destination, protocol, port, version in cases.flows(case, pick, count):
        if source.get("pod") == destination.get("pod") and "pod" in source:
            continue
        engine = passes(plan, here, (source, destination, protocol, port), version)
        if engine != allowed(case, source, destination, protocol, port):
            return source, destination, protocol, port, engine
    return None


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
def test_compiled_tables_equal_the_reference(posture):
    for seed in range(120):
        case = cases.case(seed, posture)
        here = world(case)
        found = difference(case, compile_policies(here), here, random.Random(seed), 150)
        assert found is None, f"seed {seed}: {found}"


def test_following_changes_equals_compiling_afresh():
    for seed in range(40):
        case = cases.case(seed, "zero-trust" if seed % 2 else "kubernetes")
        numbers, cidrs, identities = {}, {}, {}
        number = lambda rule, numbers=numbers: numbers.setdefault(rule, len(numbers) + 1)  # noqa: E731
        cidr = lambda net, cidrs=cidrs: cidrs.setdefault(net, (1 << 24) + len(cidrs))  # noqa: E731
        compiler = PolicyCompiler(number, cidr)
        before = world(case, identities)
        compiler.compile(before)
        for step in range(8):
            case = cases.change(case, seed * 100 + step)
            here = keep(before, world(case, identities))
            followed, fresh = compiler.compile(here), compile_policies(here, number, cidr)
            assert followed.tables == fresh.tables, f"seed {seed} step {step}"
            assert followed.cidrs == fresh.cidrs, f"seed {seed} step {step}"
            assert followed.endpoint_cidrs == fresh.endpoint_cidrs, f"seed {seed} step {step}"
            before = here


def keep(before, after):
    """Unchanged objects are the same objects, as in the agent's worlds."""
    for field in ("endpoints", "policies", "namespaces"):
        old, new = getattr(before, field), getattr(after, field)
        for key in old.keys() & new.keys():
            if old[key] == new[key]:
                new[key] = old[key]
    return after


def either_selector(peers, namespace, right=networkpolicy._peers):
    halves = []
    for peer in peers or ():
        if peer.namespace_selector is not None and peer.pod_selector is not None:
            halves.append(NetworkPolicyPeer(namespace_selector=peer.namespace_selector))
            halves.append(
                NetworkPolicyPeer(namespace_selector=EVERYTHING, pod_selector=peer.pod_selector)
            )
        else:
            halves.append(peer)
    return right(halves, namespace)


def not_in_needs_the_key(self, labels):
    value = labels.get(self.key)
    match self.operator:
        case "In":
            return value in self.values
        case "NotIn":
            return value is not None and value not in self.values
        case "Exists":
            return value is not None
        case _:
            return value is None


def types_by_section(self):
    sections = {"Ingress": self.ingress, "Egress": self.egress}
    return frozenset(self.policy_types or (name for name, rules in sections.items() if rules))


def any_protocol(ports, right=entries.port_matches):
    matches, names = right(ports)
    return tuple((0, 0, 0) if bits == 0 else (6, port, bits) for _, port, bits in matches), names


def exclusive_end(first, last, right=entries.port_prefixes):
    return right(first, max(first, last - 1))


def any_named_protocol(named, names):
    wanted = {name for name, _ in names}
    return [(entries.PROTOCOL_NUMBERS[p.protocol], p.port, 16) for p in named if p.name in wanted]


def last_policy_wins(policies, *rest, right=table.build_table):
    return right(policies[-1:], *rest)


def nobody_from_nothing(peers, namespace, right=networkpolicy._peers):
    return () if peers == [] else right(peers, namespace)


def nothing_from_no_ports(ports, right=networkpolicy._ports):
    return () if ports == [] else right(ports)


def everywhere(peer, namespace, right=networkpolicy._peer):
    found = right(peer, namespace)
    return msgspec.structs.replace(found, namespace=None) if isinstance(found, Pods) else found


CLASSIC_BUGS = {
    "and becomes or in a peer": [(networkpolicy, "_peers", either_selector)],
    "NotIn needs the key": [(LabelSelectorRequirement, "matches", not_in_needs_the_key)],
    "policy types ignore egress": [
        (NetworkPolicySpec, "isolates", property(lambda self: frozenset({"Ingress"})))
    ],
    "port without protocol": [(resolved, "port_matches", any_protocol)],
    "endPort is exclusive": [(entries, "port_prefixes", exclusive_end)],
    "named port with the wrong protocol": [(entries, "named_matches", any_named_protocol)],
    "last policy wins": [("sixfold.policy.plan", "build_table", last_policy_wins)],
    "from: [] is nobody": [(networkpolicy, "_peers", nobody_from_nothing)],
    "ports: [] is nothing": [(networkpolicy, "_ports", nothing_from_no_ports)],
    "no types and no rules isolates nothing": [
        (NetworkPolicySpec, "isolates", property(types_by_section))
    ],
    "policies of other namespaces select too": [(networkpolicy, "_peer", everywhere)],
    "except is ignored": [
        ("sixfold.policy.block.Blocks", "inside", lambda self, block: [
            one for one in self._by_span.values()
            if one.version == resolved.parse_cidr(block.cidr).version
            and one.subnet_of(resolved.parse_cidr(block.cidr))
        ])
    ],
    "nested blocks are forgotten": [
        ("sixfold.policy.block.Blocks", "inside",
         lambda self, block: [resolved.parse_cidr(block.cidr)])
    ],
}  # fmt: skip


@pytest.mark.parametrize("bug", CLASSIC_BUGS)
def test_a_classic_bug_is_noticed(bug, monkeypatch):
    for target, name, wrong in CLASSIC_BUGS[bug]:
        if isinstance(target, str):
            monkeypatch.setattr(f"{target}.{name}", wrong)
        else:
            monkeypatch.setattr(target, name, wrong)
    for seed in range(120):
        case = cases.case(seed)
        here = world(case)
        if difference(case, compile_policies(here), here, random.Random(seed), 150):
            return
    pytest.fail(f"120 cases do not notice: {bug}")
