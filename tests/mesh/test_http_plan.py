"""Plans of requests follow the world: whatever changes, they are what a planner makes afresh."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from tests.mesh import test_backend_tls as tls
from tests.mesh.standalone import route, service
from tests.mesh.test_listeners import CLASS, gateway, listener
from tests.mesh.test_traffic import policy as traffic
from tests.mesh.worlds import meshed, netns_of
from tests.policy.test_compile import keep

from sixfold.balancing.plan import BalancingPlanner
from sixfold.mesh.http_plan import HttpPlanner
from sixfold.mesh.member import member_of
from sixfold.mesh.messages import ROUTE, SCOPE
from sixfold.model.referencegrant import ReferenceGrant
from sixfold.model.streamroute import TCPRoute, TLSRoute
from sixfold.policy.plan import PolicyCompiler

SEEDS, STEPS = 8, 12
NAMES = ("web", "a", "b", "c")
GRANT = msgspec.convert(
    {
        "metadata": {"name": "grant", "namespace": "shop"},
        "spec": {
            "from": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "HTTPRoute",
                    "namespace": "north",
                }
            ],
            "to": [{"group": "", "kind": "Service"}],
        },
    },
    ReferenceGrant,
)
STREAM = msgspec.convert(
    {
        "metadata": {"name": "stream", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "c"}],
            "rules": [{"backendRefs": [{"name": "a", "port": 80}]}],
        },
    },
    TCPRoute,
)
NAMED = msgspec.convert(
    {
        "metadata": {"name": "named", "namespace": "north"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "b", "namespace": "shop"}],
            "hostnames": ["*.example.com"],
            "rules": [{"backendRefs": [{"name": "a", "namespace": "shop", "port": 80}]}],
        },
    },
    TLSRoute,
)
ASKED = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "asked", "namespace": "shop"},
    "spec": {
        "endpointSelector": {"matchLabels": {"pod": "b"}},
        "ingress": [
            {
                "toPorts": [
                    {
                        "ports": [{"port": "80", "protocol": "TCP"}],
                        "rules": {"http": [{"method": "GET"}]},
                    }
                ]
            }
        ],
    },
}
POLICY = traffic(rateLimits=[{"requests": 3}], circuitBreaker={"maxConnections": 4})
CONFIG_MAPS = tls.given().config_maps
OTHERS = {  # by field of the world
    "grants": ("shop/grant", GRANT),
    "streams": ("TCPRoute shop/stream", STREAM),
    "traffic": ("shop/p", POLICY),
    "backend_tls": ("shop/p", tls.policy()),
    "gateways": ("edge/front", gateway(listener())),
    "named": None,  # one more stream
    "asked": None,  # a policy about requests
}


def a_route(chance, number):
    """Of a producer or a consumer, to one of the services or to nobody."""
    name, namespace = f"r{number}", "north" if number == 3 else "shop"
    to = {"name": chance.choice([*NAMES, "nobody"]), "namespace": "shop", "port": 80}
    parent = {"group": "", "kind": "Service", "name": chance.choice(NAMES), "namespace": "shop"}
    front = {"name": "front", "namespace": "edge"}
    match = {"path": {"type": "PathPrefix", "value": f"/{chance.randrange(3)}"}}
    parents = chance.choice([[parent], [parent, front]])
    return route([{"matches": [match], "backendRefs": [to]}], name, namespace, parentRefs=parents)


def a_service(chance, name):
    """Of one pod, under an address that it has for ever."""
    spec = {"clusterIP": f"10.96.0.{NAMES.index(name) + 1}"}
    return service(name, selector={"pod": chance.choice("abc")}, **spec)


def change(parts, chance):
    """One thing comes, goes, or is another."""
    what = chance.choice(["route", "route", "service", "pod", "other", "other"])
    number, name = chance.randrange(4), chance.choice(NAMES)
    match what:
        case "route" if number in parts["routes"] and chance.random() < 0.3:
            del parts["routes"][number]
        case "route":
            parts["routes"][number] = a_route(chance, number)
        case "service" if name in parts["services"] and chance.random() < 0.3:
            del parts["services"][name]
        case "service":
            parts["services"][name] = a_service(chance, name)
        case "pod":
            parts[chance.choice(["pods", "unready"])] ^= {chance.choice("abc")}
        case "other":
            parts["others"] ^= {chance.choice([*OTHERS])}


def world_of(parts, identities):
    pods = [
        {"pod": f"{namespace}/{name}", "labels": {"pod": name}, "ip": f"10.244.{net}.{at}"}
        for net, namespace in enumerate(("shop", "north"))
        for at, name in enumerate("abc", 2)
        if name in parts["pods"]
    ]
    pods += [{"pod": "edge/front-sixfold", "labels": {}, "ip": "10.244.2.2"}]
    policies = [ASKED] if "asked" in parts["others"] else []
    case = {
        "namespaces": {"shop": {}, "north": {}, "edge": {}},
        "posture": "kubernetes",
        "pods": pods,
        "policies": policies,
    }
    others = {
        field: dict([one]) if field in parts["others"] else {}
        for field, one in OTHERS.items()
        if one is not None
    }
    if "named" in parts["others"]:
        others["streams"] = others["streams"] | {"TLSRoute north/named": NAMED}
    here = meshed(case, identities)
    endpoints = {
        key: replace(one, ready=one.pod not in parts["unready"])
        for key, one in here.endpoints.items()
    }
    return replace(
        here,
        endpoints=endpoints,
        services={f"shop/{name}": one for name, one in parts["services"].items()},
        routes={f"HTTPRoute {number}": one for number, one in parts["routes"].items()},
        config_maps=CONFIG_MAPS,
        gateway_classes={"sixfold": CLASS},
        **others,
    )


def members_of(here):
    return {
        key: member_of(one, here.config.trust_domain, netns_of(one))
        for key, one in here.endpoints.items()
    }


def told(plan):
    versions = [{key: one.version for key, one in group.items()} for group in plan.resources]
    rest = plan.routed, plan.ports, plan.judged, plan.gateways, plan.tunnels
    return versions, *rest


class Follower:
    """A planner, and one that remembers what was routed, but begins every plan from nothing."""

    def __init__(self):
        self.policies, self.balancing = PolicyCompiler(), BalancingPlanner(hash)
        self.following, self.afresh = HttpPlanner(), HttpPlanner()

    def plans(self, here):
        policy, frontends = self.policies.compile(here), self.balancing.plan(here).frontends
        parts = here, policy, frontends, members_of(here)
        self.afresh._start()
        return self.following.plan(*parts), self.afresh.plan(*parts)


def test_following_changes_equals_planning_afresh():
    for seed in range(SEEDS):
        chance, identities, follower = random.Random(seed), {}, Follower()
        parts = {"routes": {}, "pods": set("abc"), "unready": set(), "others": set()}
        parts["services"] = {name: a_service(chance, name) for name in NAMES}
        before = None
        for step in range(STEPS):
            change(parts, chance)
            here = world_of(parts, identities)
            here = here if before is None else keep(before, here)
            followed, afresh = follower.plans(here)
            assert told(followed) == told(afresh), f"seed {seed} step {step}"
            before = here


def routed_world(*routes):
    chance = random.Random(1)
    parts = {"services": {name: a_service(chance, name) for name in NAMES}, "others": set()}
    parts |= {"routes": dict(enumerate(routes)), "pods": set("abc"), "unready": set()}
    return world_of(parts, {})


def to(backend, **more):
    return route([{"backendRefs": [{"name": backend, "namespace": "shop", "port": 80}]}], **more)


def test_an_edited_route_is_one_new_table_and_nothing_else():
    others = [
        to("a", name=f"of-{name}", parentRefs=[{"group": "", "kind": "Service", "name": name}])
        for name in ("a", "b", "c")
    ]
    here, follower = routed_world(to("web", name="r"), *others), Follower()
    first, _ = follower.plans(here)
    there = replace(here, routes={**here.routes, "HTTPRoute 0": to("b", name="r")})
    second, _ = follower.plans(there)
    new = [
        key
        for before, after in zip(first.resources, second.resources, strict=True)
        for key, one in after.items()
        if before.get(key) != one
    ]
    assert new == [(ROUTE, "requests|shop/web")]


def test_a_consumers_clients_have_a_host_of_their_own_in_the_services_table():
    plan, _ = Follower().plans(routed_world(to("web"), to("web", name="mine", namespace="north")))
    table = route_pb2.RouteConfiguration()
    tables, scopes = plan.resources[:2]
    tables[ROUTE, "requests|shop/web"].body.Unpack(table)
    assert [list(one.domains) for one in table.virtual_hosts] == [
        ["*:80"],
        ["north:80"],
        ["*:81"],
        ["north:81"],
    ]
    scope = scoped_route_pb2.ScopedRouteConfiguration()
    scopes[SCOPE, "10.96.0.1"].body.Unpack(scope)
    assert scope.route_configuration_name == "requests|shop/web"
    assert scope.key.fragments[0].string_key == "pod|10.96.0.1"
