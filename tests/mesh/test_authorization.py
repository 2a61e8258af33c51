"""RBAC as compiled, read by a reference of Envoy's words, against the kernel's tables."""

import random

import pytest
from tests.mesh.rbac import allows
from tests.mesh.worlds import meshed, netns_of
from tests.policy import cases
from tests.policy.worlds import np

from sixfold.mesh.authorization import rule_of
from sixfold.mesh.member import authority
from sixfold.mesh.messages import ROUTE
from sixfold.mesh.plan import MeshPlanner
from sixfold.mesh.resources import RBAC_FILTER
from sixfold.model.datapath import INGRESS, PROTOCOL_NUMBERS
from sixfold.policy.decide import lookup, party_of
from sixfold.policy.plan import compile_policies

TCP = PROTOCOL_NUMBERS["TCP"]
PORTS = (0, 1, 79, 80, 81, 82, 443, 8080, 9999, 65535)


def rules_of(plan, pod):
    """The RBAC of a pod's one route, out of the message that Envoy is sent."""
    from envoy.config.route.v3.route_pb2 import RouteConfiguration
    from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBACPerRoute

    routes = RouteConfiguration()
    assert plan.resources[ROUTE, f"inbound|{pod}"].body.Unpack(routes)
    (host,) = routes.virtual_hosts
    (route,) = host.routes
    only = RBACPerRoute()
    assert route.typed_per_filter_config[RBAC_FILTER].Unpack(only)
    return only.rbac.rules


def pairs(here):
    """Every two pods that reach each other, at each address."""
    for source in here.endpoints.values():
        for destination in here.endpoints.values():
            if source is not destination:
                for one in source.addresses:
                    for other in destination.addresses:
                        if one.version == other.version:
                            yield source, one, destination, other


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
def test_the_proxy_allows_what_the_tables_allow_and_names_the_same_rule(posture):
    for seed in range(60):
        here = meshed(cases.case(seed, posture))
        policy = compile_policies(here)
        plan = MeshPlanner(netns_of).plan(here, policy)
        pick = random.Random(seed)
        rules = {key: rules_of(plan, key) for key in here.endpoints}
        for source, address, destination, at in pairs(here):
            table, party = policy.tables[destination.key], party_of(policy, source, at.version)
            for port in pick.sample(PORTS, 4):
                wanted = lookup(table, INGRESS, party, TCP, port)
                found = allows(
                    rules[destination.key],
                    plan.members[source.key].id,
                    str(address),
                    authority(at, port),
                )
                wanted_rule = wanted.rule if wanted.allow else 0
                told = (seed, source.key, destination.key, port)
                assert (rule_of(found) if found else 0) == wanted_rule, told


ALL = {"namespaces": {"x": {}}, "posture": "zero-trust"}


def three(policies):
    pods = [
        {"pod": f"x/{name}", "labels": {"pod": name}, "ip": f"10.244.0.{at}", "ports": []}
        for at, name in enumerate("abc", 2)
    ]
    return meshed({**ALL, "pods": pods, "policies": policies})


def rules_for_b(*policies):
    here = three(policies)
    return rules_of(MeshPlanner(netns_of).plan(here, compile_policies(here)), "x/b")


def from_a(**peer):
    spec = {
        "podSelector": {"matchLabels": {"pod": "b"}},
        "ingress": [{"from": [{"podSelector": peer}], "ports": [{"port": 80}]}],
    }
    return np("p", spec)


A = {"matchLabels": {"pod": "a"}}
ID = "spiffe://cluster.local/ns/x/sa/default"


def test_a_shared_service_account_is_not_enough():
    rules = rules_for_b(from_a(**A))
    assert allows(rules, ID, "10.244.0.2", "10.244.0.3:80")
    assert not allows(rules, ID, "10.244.0.4", "10.244.0.3:80")


def test_the_address_of_an_allowed_caller_is_not_enough():
    rules = rules_for_b(from_a(**A))
    assert not allows(rules, f"{ID}2", "10.244.0.2", "10.244.0.3:80")


def test_a_tunnel_to_another_pod_than_the_one_it_ends_in_is_refused():
    rules = rules_for_b(from_a(**A))
    assert not allows(rules, ID, "10.244.0.2", "10.244.0.4:80")


def test_a_rule_for_every_pod_does_not_list_them():
    everybody = [{"from": [{"namespaceSelector": {}}]}]
    rules = rules_for_b(np("p", {"podSelector": {}, "ingress": everybody}))
    assert allows(rules, ID, "10.244.0.200", "10.244.0.3:80")
    assert not allows(rules, "spiffe://elsewhere/ns/x/sa/a", "10.244.0.200", "10.244.0.3:80")


def test_a_policy_is_named_after_the_rule():
    (name,) = rules_for_b(from_a(**A)).policies
    assert name.endswith(" x/p ingress[0]")


def test_a_pod_without_a_table_is_reached_by_nobody():
    here = three([])
    policy = compile_policies(here)
    plan = MeshPlanner(netns_of).plan(here, type(policy)())
    assert not rules_of(plan, "x/b").policies
