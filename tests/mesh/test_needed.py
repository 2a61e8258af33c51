"""What a proxy is told: its own pods' keys, and the ways that policy opens; against ``decide``."""

from dataclasses import replace

from tests.mesh.test_plan import compiler
from tests.mesh.worlds import meshed, netns_of
from tests.policy import cases

from sixfold.mesh.messages import CLUSTER, LISTENER, ROUTE, SCOPE, SECRET
from sixfold.mesh.needed import Reach, needed_by_node, needed_by_one
from sixfold.mesh.plan import MeshPlanner
from sixfold.mesh.resources import BUNDLE, client_secret, cluster_name
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.policy.decide import decide, party_of

TCP = PROTOCOL_NUMBERS["TCP"]


def ports(tables):
    """Where the word of a table may change."""
    found = {0}
    for table in tables:
        for section in (*table.main, *table.admin):
            for rules in section.peers.values():
                for rule in rules:
                    size = 1 << (16 - rule.port_bits)
                    found |= {rule.port & -size, ((rule.port & -size) + size) % 65536}
    return found


def may_dial(policy, client, server):
    tried = ports({policy.tables[client.key], policy.tables[server.key]})
    return any(
        decide(policy, party_of(policy, client, it), party_of(policy, server, it), TCP, port).allow
        for port in tried
        for it in (4, 6)
    )


def test_who_is_reached_is_whom_policy_lets_dial():
    reach, seen = Reach(), set()
    for seed in range(4):
        here = meshed(cases.case(seed, "zero-trust" if seed % 2 else "kubernetes"))
        policy = compiler().compile(here)
        found = reach.of(here.endpoints, here.endpoints, here.endpoints, policy)
        for client in here.endpoints.values():
            for server in here.endpoints.values():
                if client is not server:
                    allowed = may_dial(policy, client, server)
                    assert (server.key in found[client.key]) == allowed, f"seed {seed}"
                    seen.add(allowed)
    assert seen == {True, False}


def planned():
    here = meshed(cases.case(1))
    plan = MeshPlanner(netns_of).plan(here, compiler().compile(here))
    secrets = {(SECRET, BUNDLE)}
    for one in plan.members.values():
        secrets |= {(SECRET, one.id), (SECRET, client_secret(one.id))}
    return plan, {*plan.resources, *secrets}


def test_a_pods_own_proxy_has_its_listeners_its_keys_and_ways_to_whom_it_may_dial():
    plan, _ = planned()
    pod, reached, *strangers = plan.members
    names = set(needed_by_one(plan, pod, {reached}))
    member = plan.members[pod]
    assert {name for kind, name in names if kind == LISTENER} == {
        f"{side}|{pod}" for side in ("outbound", "requests", "inbound", "copies")
    }
    assert {name for kind, name in names if kind == SECRET} == {
        *(BUNDLE, member.id, client_secret(member.id))
    }
    assert (ROUTE, f"inbound|{pod}") in names
    ways = {name for kind, name in names if kind == CLUSTER and name.startswith("pod|")}
    assert ways == {cluster_name(it) for it in plan.members[reached].addresses}
    assert strangers


def test_the_nodes_proxy_has_no_listener_and_no_key_of_who_has_his_own():
    plan, everything = planned()
    pod = next(iter(plan.members))
    left = everything - set(needed_by_node(plan, everything, {pod}))
    shared = {one.id for key, one in plan.members.items() if key != pod}
    member = plan.members[pod]
    assert {name for kind, name in left if kind == LISTENER} == {
        f"{side}|{pod}" for side in ("outbound", "requests", "inbound")
    }
    assert {name for kind, name in left if kind == SECRET} == (
        set() if member.id in shared else {member.id, client_secret(member.id)}
    )


def test_a_proxy_that_carries_no_pod_is_told_no_tables_of_routes():
    """It would not ask for them, and be waited for."""
    plan, everything = planned()
    first, *others = plan.members
    groups = {(SCOPE, "x"): b""}, {(ROUTE, "x"): b""}
    plan = plan._replace(http=replace(plan.http, resources=groups))
    tables = {(SCOPE, "x"), (ROUTE, "x")}
    everything |= tables
    assert tables <= set(needed_by_node(plan, everything, {first}))
    assert not tables & set(needed_by_node(plan, everything, {first, *others}))


def test_without_such_pods_the_nodes_proxy_has_everything():
    plan, everything = planned()
    assert set(needed_by_node(plan, everything, ())) == everything
