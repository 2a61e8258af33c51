"""What a plan promises beyond verdicts: built-ins, names of defaults, sharing, stable numbers."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.policy.worlds import NAMESPACES, NINE, nine, np, passes, world

from sixfold.errors import ManifestError
from sixfold.model.datapath import EGRESS, INGRESS, PROTOCOL_NUMBERS
from sixfold.model.identity import FIRST_CIDR, HOST, RESOLVER, WORLD, Identity
from sixfold.policy.decide import Party, lookup, party_at
from sixfold.policy.plan import PolicyCompiler, compile_policies

TCP, UDP = PROTOCOL_NUMBERS["TCP"], PROTOCOL_NUMBERS["UDP"]
A, B, C = NINE[0], NINE[1], NINE[2]
ZERO_TRUST = {"posture": "zero-trust"}
OUTSIDE = {"ip": "192.0.2.1"}
NODE = {"ip": "10.244.0.1", "host": True}
DNS = {"ip": "169.254.20.10"}


def judge(case, source, destination, protocol, port):
    here = world(case)
    return passes(compile_policies(here), here, (source, destination, protocol, port))


def rule_named(case, subject, direction, peer, protocol, port):
    """The rule that decides, as text."""
    here = world(case)
    plan = compile_policies(here)
    decision = lookup(plan.tables[subject["pod"]], direction, peer, protocol, port)
    return decision.allow, str(plan.rules[decision.rule])


@pytest.mark.parametrize(("posture", "allowed"), [("kubernetes", True), ("zero-trust", False)])
def test_without_policies_the_posture_decides(posture, allowed):
    assert judge(nine(posture=posture), A, B, "TCP", 80) is allowed
    assert judge(nine(posture=posture), A, OUTSIDE, "TCP", 80) is allowed


def test_zero_trust_names_itself_when_no_policy_isolates():
    peer = Party(Identity(257))
    assert rule_named(nine(**ZERO_TRUST), A, INGRESS, peer, TCP, 80) == (
        False,
        "default-deny (zero-trust)",
    )


def test_a_default_deny_names_the_policies_that_isolate():
    one, two = np("one", {"podSelector": {}}), np("two", {"podSelector": {}})
    decision = rule_named(nine(one, two), A, INGRESS, Party(Identity(257)), TCP, 80)
    assert decision == (False, "default-deny (x/one,x/two)")


def test_an_open_direction_names_the_posture():
    decision = rule_named(nine(), A, EGRESS, Party(WORLD), TCP, 443)
    assert decision == (True, "default-allow (kubernetes)")


def test_of_two_rules_for_the_same_thing_the_first_policy_is_named():
    spec = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}
    case = nine(np("b", spec), np("a", spec))
    peer = Party(world(case).endpoints["x/b"].identity)
    assert rule_named(case, A, INGRESS, peer, TCP, 80) == (True, "x/a ingress[0]")


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
def test_dns_of_the_node_is_allowed_though_egress_is_shut(protocol, posture):
    deny = np("deny", {"podSelector": {}, "policyTypes": ["Egress"]})
    assert judge(nine(deny, posture=posture), A, DNS, protocol, 53)
    assert not judge(nine(deny, posture=posture), A, DNS, protocol, 80)
    assert rule_named(nine(deny), A, EGRESS, Party(RESOLVER), UDP, 53)[1] == "builtin:resolver"


def test_the_node_reaches_every_port_in_posture_kubernetes():
    deny = np("deny", {"podSelector": {}, "policyTypes": ["Ingress"]})
    assert judge(nine(deny), NODE, A, "TCP", 81)
    assert rule_named(nine(deny), A, INGRESS, Party(HOST), TCP, 81)[1] == "builtin:node-probes"


def test_the_node_reaches_probed_ports_only_under_zero_trust():
    probed = {**A, "probes": [8080]}
    case = {**nine(**ZERO_TRUST), "pods": [probed, *NINE[1:]]}
    assert judge(case, NODE, probed, "TCP", 8080)
    assert not judge(case, NODE, probed, "UDP", 8080)
    assert not judge(case, NODE, probed, "TCP", 80)
    assert not judge(case, NODE, B, "TCP", 8080)


def test_equal_workloads_have_equal_tables():
    twin = {**B, "pod": "x/b2", "ip": "192.168.1.99"}
    allow = np("allow", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]})
    here = world({**nine(allow), "pods": [*NINE, twin]})
    tables = compile_policies(here).tables
    assert here.endpoints["x/b"].identity == here.endpoints["x/b2"].identity
    assert tables["x/b"] == tables["x/b2"]
    assert tables["x/b"] != tables["y/b"]


def test_an_endpoint_without_identity_may_not_talk_and_is_nobodys_peer():
    allow = np("allow", {"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]})
    here = world(nine(allow))
    blank = replace(here.endpoints["x/a"], identity=Identity(0))
    here.endpoints["x/a"] = blank
    plan = compile_policies(here)
    assert plan.tables["x/a"].entries == frozenset()
    assert all(entry.peer != 0 or entry.direction == EGRESS for entry in plan.tables["x/b"].entries)


def test_an_endpoint_that_gains_its_identity_gains_its_table():
    here = world(nine())
    blank = replace(here.endpoints["x/a"], identity=Identity(0))
    compiler = PolicyCompiler()
    compiler.compile(replace(here, endpoints={**here.endpoints, "x/a": blank}))
    assert compiler.compile(here).tables["x/a"].entries != frozenset()


def test_cidr_identities_stay_when_another_cidr_comes():
    def block(name, cidr):
        to = [{"ipBlock": {"cidr": cidr}}]
        return np(name, {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to}]})

    compiler = PolicyCompiler()
    before = compiler.compile(world(nine(block("a", "198.51.100.0/24"))))
    case = nine(block("a", "198.51.100.0/24"), block("b", "192.0.2.0/24"))
    after = compiler.compile(world(case))
    outer, inner = ip_network("198.51.100.0/24"), ip_network("192.0.2.0/24")
    assert before.cidrs == {outer: FIRST_CIDR}
    assert after.cidrs == {outer: FIRST_CIDR, inner: FIRST_CIDR + 1}


def test_an_address_has_the_identity_of_its_longest_policy_cidr():
    blocks = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["198.51.100.0/24"]}},
        {"ipBlock": {"cidr": "198.51.100.8/29"}},
    ]
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": blocks}]}
    plan = compile_policies(world(nine(np("out", spec))))
    longest = {
        "192.0.2.1": "0.0.0.0/0",
        "198.51.100.1": "198.51.100.0/24",
        "198.51.100.9": "198.51.100.8/29",
    }
    for address, cidr in longest.items():
        assert plan.covering_cidr(ip_address(address)) == plan.cidrs[ip_network(cidr)]
    assert plan.covering_cidr(ip_address("2001:db8::1")) == 0


def test_a_hole_in_a_block_is_shut_and_a_block_in_the_hole_is_open():
    blocks = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["198.51.100.0/24"]}},
        {"ipBlock": {"cidr": "198.51.100.8/29"}},
    ]
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": blocks}]}
    case = nine(np("out", spec))
    assert judge(case, A, {"ip": "192.0.2.1"}, "TCP", 80)
    assert not judge(case, A, {"ip": "198.51.100.1"}, "TCP", 80)
    assert judge(case, A, {"ip": "198.51.100.9"}, "TCP", 80)


def test_ip_blocks_mean_pods_only_if_configured():
    block = [{"ipBlock": {"cidr": "192.168.1.0/24"}}]
    deny = np("only", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": block}]})
    assert judge(nine(deny), A, B, "TCP", 80)
    assert not judge(nine(deny, ipblock_matches_pods=False), A, B, "TCP", 80)
    assert judge(nine(deny, ipblock_matches_pods=False), A, {"ip": "192.168.1.200"}, "TCP", 80)


def test_a_named_port_in_a_block_means_the_pods_there_and_nobody_else():
    rule = {"to": [{"ipBlock": {"cidr": "192.168.1.8/29"}}], "ports": [{"port": "web"}]}
    only = np("only", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]})
    web = {"name": "web", "protocol": "TCP", "port": 8080}
    pods = [{**A, "ports": [web]}, {**B, "ports": [web]}, {**C, "ports": [{**web, "port": 81}]}]
    far = {**B, "pod": "y/b", "ip": "192.168.2.11", "ports": [web]}
    case = {**nine(only), "namespaces": NAMESPACES, "pods": [*pods, far]}
    assert judge(case, pods[0], pods[1], "TCP", 8080)
    assert not judge(case, pods[0], pods[1], "TCP", 81)
    assert not judge(case, pods[0], pods[2], "TCP", 8080)
    assert not judge(case, pods[0], far, "TCP", 8080)
    assert not judge(case, pods[0], {"ip": "192.168.1.9"}, "TCP", 8080)


def test_rule_numbers_come_from_the_caller():
    numbers = {}

    def number(rule):
        return numbers.setdefault(rule, 1000 + len(numbers))

    plan = compile_policies(world(nine()), number)
    assert set(plan.rules) == set(numbers.values())
    assert all(entry.rule >= 1000 for table in plan.tables.values() for entry in table.entries)


def test_new_posture_compiles_everything_anew():
    compiler = PolicyCompiler()
    here = world(nine())
    assert passes(compiler.compile(here), here, (A, B, "TCP", 80))
    strict = replace(here, config=replace(here.config, posture="zero-trust"))
    assert not passes(compiler.compile(strict), strict, (A, B, "TCP", 80))


def test_a_namespace_that_loses_its_label_is_no_longer_selected():
    peer = [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]
    allow = np("allow", {"podSelector": {}, "ingress": [{"from": peer}]})
    compiler, identities = PolicyCompiler(), {}
    here = world(nine(allow), identities)
    flow = (NINE[3], A, "TCP", 80)
    assert passes(compiler.compile(here), here, flow)
    after = replace(here, namespaces={**here.namespaces, "y": {"ns": "elsewhere"}})
    assert not passes(compiler.compile(after), after, flow)


def test_a_readiness_change_keeps_the_very_same_table():
    compiler = PolicyCompiler()
    here = world(nine())
    before = compiler.compile(here)
    flipped = replace(here.endpoints["x/a"], ready=False)
    after = compiler.compile(replace(here, endpoints={**here.endpoints, "x/a": flipped}))
    assert after.tables["x/a"] is before.tables["x/a"]


def test_a_gone_endpoint_leaves_nothing_behind():
    compiler, identities = PolicyCompiler(), {}
    compiler.compile(world(nine(), identities))
    fewer = {**nine(), "pods": NINE[1:]}
    plan = compiler.compile(world(fewer, identities))
    assert "x/a" not in plan.tables
    assert "x/a" not in plan.endpoint_cidrs


def test_outside_addresses_have_no_policy_of_their_own():
    plan = compile_policies(world(nine()))
    assert party_at(plan, WORLD, ip_address("192.0.2.1")) == Party(
        WORLD, address=ip_address("192.0.2.1")
    )


def test_what_would_fill_the_memory_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("sixfold.policy.pile.RULES_MAX", 40)
    ports = [{"port": number} for number in range(1, 60, 2)]
    peers = [[{"podSelector": {}}], [{"podSelector": {"matchLabels": {"pod": "b"}}}]]
    rules = [{"from": one, "ports": ports} for one in peers]
    case = nine(
        np("narrow", {"podSelector": {}}), np("wide", {"podSelector": {}, "ingress": rules})
    )
    with pytest.raises(ManifestError, match=r"x/wide: 120 pairs of peers and ports.*name fewer"):
        compile_policies(world(case))


def test_so_are_more_peers_than_a_kernel_holds(monkeypatch):
    monkeypatch.setattr("sixfold.policy.table.PEERS_MAX", 20)
    own = [
        np(f"own-{pod}", {"podSelector": {"matchLabels": {"pod": pod}}, "ingress": [{"from": one}]})
        for pod in "abc"
        for one in [[{"namespaceSelector": {"matchLabels": {"ns": "z"}}}, {"podSelector": {}}]]
    ]
    with pytest.raises(ManifestError, match=r"x/own-.: 6 peers for one kind.*20 for all"):
        compile_policies(world(nine(*own)))


def test_of_rules_that_say_the_same_the_first_is_named_whoever_else_its_peers_are_shared_with():
    def allow(name, port, peer):
        rule = {"from": [{"podSelector": peer}], "ports": [{"port": port}]}
        return np(name, {"podSelector": {}, "ingress": [rule]})

    b = {"matchLabels": {"pod": "b"}}
    many = [allow(f"n{at}", 100 + at, {}) for at in range(8)]
    here = world(nine(allow("a", 1, {}), allow("b", 2, b), allow("c", 2, {}), *many))
    plan = compile_policies(here)
    rules = plan.tables["x/a"].main[INGRESS].peers[here.endpoints["x/b"].identity]
    assert {plan.rules[rule.rule].name for rule in rules if rule.port == 2} == {"b"}


def test_a_policy_of_the_whole_cluster_is_one_section_for_all():
    everybody = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "all"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"ns": "z"}}}]}],
        },
    }
    own = np("own", {"podSelector": {"matchLabels": {"pod": "a"}}})
    tables = compile_policies(world(nine(everybody, own))).tables
    assert tables["x/a"].main[INGRESS] is not tables["y/b"].main[INGRESS]
    assert len({id(table.admin[INGRESS]) for table in tables.values()}) == 1
    assert all(table.admin[INGRESS] for table in tables.values())


def test_who_is_selected_by_the_same_policies_has_one_table_whoever_names_it_as_a_peer():
    policies = [
        np(f"from-{pod}", {"podSelector": {}, "ingress": [{"from": [peer]}]})
        for pod in "abc"
        for peer in [{"podSelector": {"matchLabels": {"pod": pod}}}]
    ]
    tables = compile_policies(world(nine(*policies))).tables
    assert tables["x/a"] is tables["x/b"] is tables["x/c"]
    assert tables["x/a"] is not tables["y/a"]


def test_a_pod_that_joins_others_has_their_table():
    here, compiler = world(nine()), PolicyCompiler()
    before = compiler.compile(here)
    twin = replace(here.endpoints["x/a"], pod="late")
    after = compiler.compile(replace(here, endpoints={**here.endpoints, "x/late": twin}))
    assert after.tables["x/late"] is before.tables["x/a"]
    left = {key: one for key, one in here.endpoints.items() if key != "x/a"} | {"x/late": twin}
    assert compiler.compile(replace(here, endpoints=left)).tables["x/late"] == before.tables["x/a"]
