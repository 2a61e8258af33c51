"""A view is reach: who sees a service is who may reach it, as the reference says."""

import random
from dataclasses import replace
from ipaddress import ip_network
from itertools import count

import pytest
from tests.policy import cases, reference
from tests.policy.worlds import NINE, nine, np, world

from sixfold.balancing.plan import BalancingPlanner
from sixfold.manifest import decode
from sixfold.model.names import EVERYTHING, FIRST_POD_OWNER, NOTHING, sees
from sixfold.policy.plan import PolicyCompiler
from sixfold.policy.views import ViewPlanner
from sixfold.routing.plan import RoutingPlan, plan_routing
from sixfold.trust.hidden import why_hidden
from sixfold.trust.question import Place

WEB = {"name": "web", "port": 80, "targetPort": 80}
ANY_PORTS = [(protocol, port) for protocol in cases.PROTOCOLS for port in (1, *range(79, 84), 9999)]


def service(name, selector, *ports, headless=False):
    namespace, _, bare = name.partition("/")
    spec = {
        "selector": selector,
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
    }
    if ports:
        spec["ports"] = list(ports)
    if headless:
        spec["clusterIP"] = "None"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": bare, "namespace": namespace},
        "spec": spec,
    }


def random_services(pick):
    found = []
    for namespace in "xyz":
        for at in range(pick.randint(0, 2)):
            selector = {pick.choice(cases.KEYS): pick.choice(cases.VALUES)}
            protocol = pick.choice(cases.PROTOCOLS)
            target = pick.choice((80, 81, 82, "web", "dns"))
            port = {"name": "p", "port": 1000, "protocol": protocol, "targetPort": target}
            ports = [port] if pick.random() < 0.8 else [port, {**WEB, "protocol": "TCP"}]
            headless = protocol == "SCTP" or pick.random() < 0.3  # no SCTP behind an address
            found.append(service(f"{namespace}/s{at}", selector, *ports, headless=headless))
    return found


class Planners:
    """The planners that a view needs, kept from world to world."""

    def __init__(self):
        self.identities, self.numbers, self.ids = {}, {}, {}
        self.balancing = BalancingPlanner(self.number)
        self.policies = PolicyCompiler()
        self.views = ViewPlanner(self.number, count(EVERYTHING + 1).__next__)

    def number(self, key):
        return self.numbers.setdefault(key, 1 + 600 * len(self.numbers))

    def plan(self, here):
        balancing = self.balancing.plan(here)
        policies = self.policies.compile(here)
        return self.views.plan(here, policies, balancing.slices, balancing.changed)


def numbered(case, ids, identities):
    """Endpoint numbers that stay with their pods, as in an agent."""
    here = world(case, identities)
    endpoints = {
        key: replace(one, id=ids.setdefault((key, one.subject), 1 + len(ids)))
        for key, one in here.endpoints.items()
    }
    return replace(here, endpoints=endpoints)


def told(plan, here, key):
    """The services that a pod's view shows."""
    view = plan.of[here.endpoints[key].id]
    return {name for name in here.services if plan.sees(view, name)}


def wanted(case, pod):
    """The same by brute force: any port of any pod behind it, in either family."""
    found = set()
    for one in case["services"]:
        namespace, spec = one["metadata"]["namespace"], one["spec"]
        behind = [
            other
            for other in case["pods"]
            if other["pod"].startswith(f"{namespace}/")
            and all(other["labels"].get(k) == v for k, v in spec["selector"].items())
        ]
        for other in behind:
            ports = ANY_PORTS if spec.get("clusterIP") == "None" else ports_of(spec, other)
            if other is pod or any(
                reference.allowed(case, cases.side(pod, v), cases.side(other, v), *port)
                for v in (4, 6)
                for port in ports
            ):
                found.add(f"{namespace}/{one['metadata']['name']}")
    return found


def ports_of(spec, pod):
    for port in spec["ports"]:
        target, protocol = port["targetPort"], port.get("protocol", "TCP")
        if isinstance(target, int):
            yield protocol, target
        for named in pod["ports"]:
            if (named["name"], named["protocol"]) == (target, protocol):
                yield protocol, named["port"]


@pytest.mark.parametrize("seed", range(15))
def test_who_sees_a_service_may_reach_it_and_the_other_way_round(seed):
    """Over a history of changes, with the same planners as from nothing."""
    pick = random.Random(seed)
    case = {**cases.case(seed, "zero-trust"), "services": random_services(pick)}
    planners = Planners()
    for step in range(5):
        here = numbered(case, planners.ids, planners.identities)
        plan = planners.plan(here)
        for pod in case["pods"]:
            siblings = [
                other
                for other in case["pods"]
                if here.endpoints[other["pod"]].subject == here.endpoints[pod["pod"]].subject
            ]
            mine = set().union(*(wanted(case, one) for one in siblings if one is pod))
            assert mine <= told(plan, here, pod["pod"]), (seed, step, pod["pod"])
            extra = told(plan, here, pod["pod"]) - mine
            own = set().union(*(wanted(case, one) for one in siblings))
            assert extra <= own, (seed, step, pod["pod"], extra)
        policies = planners.policies.compile(here)
        for pod in case["pods"]:
            endpoint = here.endpoints[pod["pod"]]
            client = Place(pod["pod"], endpoint.identity, endpoint)
            explained = {
                key
                for key, one in here.services.items()
                if not why_hidden(here, policies, RoutingPlan({}, {}), client, one)
            }
            assert explained == told(plan, here, pod["pod"])
        fresh = Planners()
        fresh.numbers, fresh.identities = planners.numbers, planners.identities
        again = fresh.plan(here)
        assert {i: again.seen.get(v, {}) for i, v in again.of.items()} == {
            i: plan.seen.get(v, {}) for i, v in plan.of.items()
        }
        case = cases.change(case, seed * 100 + step)
        if pick.random() < 0.5:
            case = {**case, "services": random_services(pick)}


OPEN_A = np(
    "open",
    {"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{"podSelector": {}}]}]},
)
FROM_B = np(
    "out", {"podSelector": {"matchLabels": {"pod": "b"}}, "egress": [{"to": [{"podSelector": {}}]}]}
)
SERVICES = [service("x/a", {"pod": "a"}, WEB), service("y/c", {"pod": "c"}, WEB)]


def planned(*policies, planners=None, more=(), **settings):
    planners = planners or Planners()
    case = nine(*policies, services=[*SERVICES, *more], **{"posture": "zero-trust", **settings})
    here = numbered(case, planners.ids, planners.identities)
    return planners, here, planners.plan(here)


def test_without_policies_zero_trust_tells_nobody_but_who_serves():
    _, here, plan = planned()
    assert {key: told(plan, here, key) for key in here.endpoints if told(plan, here, key)} == {
        "x/a": {"x/a"},
        "y/c": {"y/c"},
    }
    assert {plan.of[here.endpoints[key].id] for key in ("x/b", "z/a")} == {NOTHING}


def test_posture_kubernetes_tells_everybody_everything():
    _, here, plan = planned(posture="kubernetes")
    assert set(plan.of.values()) == {EVERYTHING}
    assert plan.clients is None
    assert told(plan, here, "z/c") == {"x/a", "y/c"}


def test_it_takes_a_rule_of_each_side():
    for policies, seen in (((OPEN_A,), set()), ((FROM_B,), set()), ((OPEN_A, FROM_B), {"x/a"})):
        _, here, plan = planned(*policies)
        assert told(plan, here, "x/b") == seen


def test_what_is_in_audit_is_told():
    audited = {
        **OPEN_A,
        "metadata": {**OPEN_A["metadata"], "annotations": {"sixfold.dev/enforcement": "audit"}},
    }
    _, here, _ = planned()
    whole = replace(here, config=replace(here.config, audit=True))
    assert set(Planners().plan(whole).of.values()) == {EVERYTHING}
    _, here, plan = planned(audited, FROM_B)
    assert told(plan, here, "x/b") == {"x/a"}


def test_a_namespace_may_tell_everybody():
    planners, here, plan = planned()
    assert told(plan, here, "z/b") == set()
    plan = planners.plan(replace(here, told=frozenset({"y"})))
    assert {name for key in here.endpoints for name in told(plan, here, key)} == {"x/a", "y/c"}
    assert told(plan, here, "z/b") == {"y/c"}
    assert told(planners.plan(here), here, "z/b") == set()


def test_pods_that_see_the_same_share_a_view():
    _, here, plan = planned(OPEN_A, FROM_B, np("b", FROM_B["spec"], "z"))
    views = {key: plan.of[one.id] for key, one in here.endpoints.items()}
    assert len(plan.seen) == len({views["x/b"], views["x/a"], views["y/c"]} - {NOTHING})
    assert views["z/b"] == NOTHING


def test_nobody_is_moved_to_a_number_whose_content_others_still_have():
    planners = Planners()
    pick = random.Random(7)
    before = None
    for step in range(30):
        chosen = [one for one in (OPEN_A, FROM_B) if pick.random() < 0.6]
        chosen += [np("c", {"podSelector": {"matchLabels": {"pod": "c"}}, "egress": [{}]})][
            : step % 2
        ]
        plan = planned(*chosen, planners=planners)[2]
        for view in before.seen.keys() & plan.seen.keys() if before else ():
            if before.seen[view] != plan.seen[view]:
                holders = {id_ for id_, one in before.of.items() if one == view}
                assert {plan.of.get(id_) for id_ in holders} == {view}
        before = plan


def test_pods_have_names_where_dns_has_them():
    _, here, _ = planned(OPEN_A, FROM_B)
    here = replace(here, config=replace(here.config, dns_pods="verified"))
    plan = Planners().plan(here)
    view = plan.of[here.endpoints["x/b"].id]
    seen = {one["pod"] for one in NINE if plan.sees(view, one["ip"])}
    assert seen == {"x/a", "x/b"}
    a = here.endpoints["x/a"]
    assert plan.owners[str(a.ipv4)] == FIRST_POD_OWNER + a.id
    assert sees(plan.seen[view], FIRST_POD_OWNER + a.id)


def test_nothing_changed_is_the_same_plan():
    planners, here, plan = planned(OPEN_A, FROM_B)
    assert planners.plan(here) is plan
    ready = {key: replace(one, ready=False) for key, one in here.endpoints.items()}
    assert planners.plan(replace(here, endpoints=ready)) is plan


def alias(name, of):
    made = service(name, {})
    return {**made, "spec": {"type": "ExternalName", "externalName": of}}


def test_an_alias_of_a_service_is_told_to_who_is_told_of_the_service():
    aliases = (
        alias("z/a", "a.x.svc.cluster.local"),
        alias("z/twice", "a.z.svc.cluster.local"),
        alias("z/nobody", "nobody.x.svc.cluster.local"),
        alias("z/round", "round.z.svc.cluster.local"),
    )
    planners, here, plan = planned(OPEN_A, FROM_B, more=aliases)
    assert told(plan, here, "x/b") == {"x/a", "z/a", "z/twice"}
    policies = planners.policies.compile(here)
    for name, one in here.services.items():
        client = Place("x/b", here.endpoints["x/b"].identity, here.endpoints["x/b"])
        why = why_hidden(here, policies, RoutingPlan({}, {}), client, one)
        assert bool(why) == (name not in told(plan, here, "x/b")), name
    _, here, plan = planned(OPEN_A, planners=planners, more=aliases)
    assert told(plan, here, "x/b") == set(), "it goes with the service"


def test_what_the_host_serves_is_told_to_whom_its_own_policy_lets_in():
    """A pod with hostNetwork is the host: its address is behind the service, by a slice."""
    address = "192.168.0.1"
    serves = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web",
            "namespace": "x",
            "labels": {"kubernetes.io/service-name": "node"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": 80}],
        "endpoints": [{"addresses": [address]}],
    }
    node = service("x/node", {}, {"name": "web", "port": 80})
    del node["spec"]["selector"]
    anywhere = np("out", {"podSelector": {"matchLabels": {"pod": "b"}}, "egress": [{}]})
    planners = Planners()
    seen = []
    for entity in (None, "world", "cluster", "world", None):
        policies = [] if entity is None else [for_the_host(entity)]
        case = {**nine(anywhere, *policies, posture="zero-trust"), "services": [node]}
        here = numbered(case, planners.ids, planners.identities)
        config = replace(here.config, pod_ipv4=ip_network("192.168.0.0/16"))
        assert str(config.host_ipv4) == address
        here = replace(here, config=config, slices={"x/web": decode(serves).object})
        plan = planners.plan(here)
        seen.append("x/node" in told(plan, here, "x/b"))
        b = here.endpoints["x/b"]
        client = Place("x/b", b.identity, b)
        policy = planners.policies.compile(here)
        routing = plan_routing(here, policy.covering_cidr, (), policy.cidrs)
        hidden = why_hidden(here, policy, routing, client, here.services["x/node"])
        assert bool(hidden) != seen[-1], hidden
    assert seen == [True, False, True, False, True]


def for_the_host(entity):
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "host"},
        "spec": {"nodeSelector": {}, "ingress": [{"fromEntities": [entity]}]},
    }
