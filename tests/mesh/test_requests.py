"""Rules about requests: what a policy says, as Envoy would judge it."""

from __future__ import annotations

import pytest
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from tests.mesh.rbac import allows
from tests.mesh.worlds import meshed, netns_of

from sixfold.mesh.messages import ROUTE
from sixfold.mesh.plan import MeshPlanner
from sixfold.mesh.ports import less
from sixfold.mesh.resources import RBAC_FILTER
from sixfold.model.mesh import DESTINATION
from sixfold.policy.plan import PolicyCompiler, compile_policies
from sixfold.policy.requests import Requests

POD_ID = "spiffe://cluster.local/ns/x/sa/default"
B = "10.244.0.3:80"
WITHOUT = {"ports": [{"port": "80", "protocol": "TCP"}]}


def http(*requests, port="80"):
    return {"ports": [{"port": port, "protocol": "TCP"}], "rules": {"http": list(requests)}}


def cnp(name, *rules, who="b"):
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"endpointSelector": {"matchLabels": {"pod": who}}, "ingress": list(rules)},
    }


def from_pod(name, *ports):
    return {"fromEndpoints": [{"matchLabels": {"pod": name}}], "toPorts": list(ports)}


OUT = [
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "out", "namespace": "x"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
]


def world_of(*policies, egress=True):
    pods = [
        {"pod": f"x/{name}", "labels": {"pod": name}, "ip": f"10.244.0.{at}"}
        for at, name in enumerate("abc", 2)
    ]
    for pod in pods:
        pod["ports"] = [{"name": "web", "protocol": "TCP", "port": 80}]
    case = {
        "namespaces": {"x": {}},
        "posture": "zero-trust",
        "pods": pods,
        "policies": [*policies, *(OUT if egress else [])],
    }
    return meshed(case)


def plan_of(*policies, egress=True):
    here = world_of(*policies, egress=egress)
    return MeshPlanner(netns_of).plan(here, compile_policies(here))


def rules_of(plan, kind, shadow=False):
    """RBAC of tunnels to x/b, or of requests to it; ``shadow``: told only, if there is some."""
    table = route_pb2.RouteConfiguration()
    plan.resources[ROUTE, "inbound|x/b"].body.Unpack(table)
    routes = table.virtual_hosts[0].routes
    (found,) = (one for one in routes if one.name == kind)
    only = rbac_pb2.RBACPerRoute()
    found.typed_per_filter_config[RBAC_FILTER].Unpack(only)
    if shadow:
        return only.rbac.shadow_rules if only.rbac.HasField("shadow_rules") else None
    return only.rbac.rules


def asks(plan, who="10.244.0.2", method="GET", path="/", to=B, **headers):
    more = {DESTINATION.replace("-", "_"): to, "method": method, "path": path}
    return allows(rules_of(plan, "requests"), POD_ID, who, "web", **more, **headers)


@pytest.mark.parametrize(
    ("wanted", "asked", "allowed"),
    [
        ({}, {}, True),
        ({"method": "GET"}, {"method": "GET"}, True),
        ({"method": "GET"}, {"method": "POST"}, False),
        ({"method": "GET|HEAD"}, {"method": "HEAD"}, True),
        ({"method": "GE"}, {"method": "GET"}, False),
        ({"path": "/v1"}, {"path": "/v1"}, True),
        ({"path": "/v1"}, {"path": "/v1?x=1"}, True),
        ({"path": "/v1"}, {"path": "/v1/x"}, False),
        ({"path": "/v1/.*"}, {"path": "/v1/x"}, True),
        ({"host": "web"}, {}, True),
        ({"host": "we"}, {}, False),
        ({"headers": ["X-Team"]}, {}, False),
        ({"headers": ["X-Team"]}, {"x_team": "any"}, True),
        ({"headers": ["X-Team: red"]}, {"x_team": "red"}, True),
        ({"headers": ["X-Team: red"]}, {"x_team": "blue"}, False),
        ({"headerMatches": [{"name": "X-Team", "value": "red"}]}, {"x_team": "red"}, True),
        ({"headerMatches": [{"name": "X-Team", "value": "red"}]}, {}, False),
        ({"method": "GET", "path": "/a"}, {"method": "POST", "path": "/a"}, False),
    ],
)
def test_a_request_must_be_all_that_a_rule_says(wanted, asked, allowed):
    plan = plan_of(cnp("p", from_pod("a", http(wanted))))
    assert bool(asks(plan, **asked)) is allowed


def test_any_of_several_rules_is_enough():
    plan = plan_of(cnp("p", from_pod("a", http({"path": "/a"}, {"path": "/b"}))))
    assert asks(plan, path="/b")
    assert not asks(plan, path="/c")


def test_who_asks_must_be_whom_the_rule_names():
    plan = plan_of(cnp("p", from_pod("a", http({}))))
    assert asks(plan)
    assert not asks(plan, who="10.244.0.4")
    assert not asks(plan, to="10.244.0.3:81")
    assert not asks(plan, to="10.244.0.4:80")


def test_a_rule_without_requests_lets_its_own_peers_ask_everything():
    plan = plan_of(
        cnp("p", from_pod("a", http({"path": "/a"})), from_pod("c", WITHOUT)),
    )
    assert not asks(plan, path="/x")
    assert asks(plan, who="10.244.0.4", path="/x")


def test_nothing_passes_a_port_unseen_that_is_looked_into():
    plan = plan_of(
        cnp("p", from_pod("a", http({"path": "/a"})), from_pod("c", WITHOUT)),
    )
    tunnels = rules_of(plan, "tunnel")
    assert not allows(tunnels, POD_ID, "10.244.0.2", B)
    assert not allows(tunnels, POD_ID, "10.244.0.4", B)


def test_other_ports_are_left_alone():
    rule = {
        "fromEndpoints": [{"matchLabels": {"pod": "a"}}],
        "toPorts": [http({}), {"ports": [{"port": "81"}]}],
    }
    plan = plan_of(cnp("p", rule))
    assert allows(rules_of(plan, "tunnel"), POD_ID, "10.244.0.2", "10.244.0.3:81")
    assert plan.http.ports == {"x/b": frozenset({80})}


def test_a_port_may_be_named():
    plan = plan_of(cnp("p", from_pod("a", http({}, port="web"))))
    assert plan.http.ports == {"x/b": frozenset({80})}
    assert asks(plan)


def test_what_the_callers_own_policy_denies_it_may_not_ask():
    plan = plan_of(cnp("p", from_pod("a", http({}))), egress=False)
    assert not asks(plan)


def test_a_deny_beats_what_is_allowed_by_request():
    deny = cnp("d")
    deny["spec"] = {
        "endpointSelector": {"matchLabels": {"pod": "b"}},
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"pod": "a"}}]}],
    }
    assert not asks(plan_of(cnp("p", from_pod("a", http({}))), deny))


def test_the_rule_gives_the_policy_its_name():
    plan = plan_of(cnp("p", from_pod("a", http({}))))
    assert "x/p ingress[0]" in asks(plan)


@pytest.mark.parametrize(
    ("spans", "holes", "left"),
    [
        (((1, 9),), (5,), ((1, 4), (6, 9))),
        (((1, 9),), (1, 9), ((2, 8),)),
        (((5, 5),), (5,), ()),
        (((1, 2), (5, 6)), (3, 5), ((1, 2), (6, 6))),
    ],
)
def test_ports_are_taken_out_of_ranges(spans, holes, left):
    assert less(spans, holes) == left


def test_ports_are_looked_into_while_a_policy_is_about_requests_to_them():
    get = cnp("l7", from_pod("a", http({"method": "GET"})))
    plain = cnp("l7", from_pod("a", WITHOUT))
    compiler, found = PolicyCompiler(), []
    for policies in ((), (get,), (get, cnp("other", from_pod("c", WITHOUT))), (plain,), (get,), ()):
        here = world_of(*policies)
        plan = compiler.compile(here)
        found.append(Requests(here, plan).ports(here.endpoints["x/b"]))
    assert found == [set(), {80}, {80}, set(), {80}, set()]


def test_what_is_in_audit_is_told_as_it_would_be_judged_and_lets_pass():
    rule = cnp("p", from_pod("a", http({"path": "/a"})))
    assert rules_of(plan_of(rule), "requests", shadow=True) is None
    rule["metadata"]["annotations"] = {"sixfold.dev/enforcement": "audit"}
    plan = plan_of(rule)
    assert asks(plan, path="/b")
    told = rules_of(plan, "requests", shadow=True)
    more = {DESTINATION.replace("-", "_"): B, "method": "GET"}
    assert allows(told, POD_ID, "10.244.0.2", "web", path="/a", **more)
    assert not allows(told, POD_ID, "10.244.0.2", "web", path="/b", **more)


def test_a_policy_in_force_beside_one_in_audit_denies_as_ever():
    audited = cnp("p", from_pod("a", http({"path": "/a"})))
    audited["metadata"]["annotations"] = {"sixfold.dev/enforcement": "audit"}
    plan = plan_of(audited, cnp("q", from_pod("a", http({"path": "/q"}))))
    assert asks(plan, path="/a")  # what it allows, it allows
    assert not asks(plan, path="/b")
    assert rules_of(plan, "requests", shadow=True) is None
