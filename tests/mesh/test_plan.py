"""The plan follows the world: what did not change is the same, the rest is as planned afresh."""

from dataclasses import replace

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from tests.mesh.worlds import meshed, netns_of
from tests.policy import cases
from tests.policy.test_compile import keep

from sixfold.mesh.messages import CLUSTER, LISTENER, ROUTE
from sixfold.mesh.plan import MeshPlanner
from sixfold.policy.plan import PolicyCompiler


def compiler():
    numbers, cidrs = {}, {}
    return PolicyCompiler(
        lambda rule: numbers.setdefault(rule, len(numbers) + 1),
        lambda net: cidrs.setdefault(net, (1 << 24) + len(cidrs)),
    )


def versions(plan):
    return {name: one.version for name, one in plan.resources.items()}


def test_following_changes_equals_planning_afresh():
    for seed in range(25):
        case = cases.case(seed, "zero-trust" if seed % 2 else "kubernetes")
        identities, policies, planner = {}, compiler(), MeshPlanner(netns_of)
        before = meshed(case, identities)
        planner.plan(before, policies.compile(before))
        for step in range(8):
            case = cases.change(case, seed * 100 + step)
            here = keep(before, meshed(case, identities))
            policy = policies.compile(here)
            followed, fresh = planner.plan(here, policy), MeshPlanner(netns_of).plan(here, policy)
            assert versions(followed) == versions(fresh), f"seed {seed} step {step}"
            assert followed.members == fresh.members
            before = here


def test_a_pod_has_listeners_routes_and_a_way_to_each_address():
    here = meshed(cases.case(1))
    key, endpoint = next(iter(here.endpoints.items()))
    plan = MeshPlanner(netns_of).plan(here, compiler().compile(here))
    names = {
        (LISTENER, f"outbound|{key}"),
        (LISTENER, f"inbound|{key}"),
        (ROUTE, f"inbound|{key}"),
        (CLUSTER, f"pod|{endpoint.ipv4}"),
    }
    assert names <= plan.resources.keys()


def test_what_is_as_it_was_is_the_same_plan():
    here, planner, policies = meshed(cases.case(1)), MeshPlanner(netns_of), compiler()
    first = planner.plan(here, policies.compile(here))
    again = planner.plan(here, policies.compile(here))
    assert again.resources is first.resources


def test_readiness_changes_nothing():
    here, planner, policies = meshed(cases.case(1)), MeshPlanner(netns_of), compiler()
    first = planner.plan(here, policies.compile(here))
    unready = {key: replace(one, ready=False) for key, one in here.endpoints.items()}
    there = replace(here, endpoints=unready)
    assert planner.plan(there, policies.compile(there)).resources is first.resources


def test_a_pod_that_goes_takes_all_of_its_own_with_it():
    here, planner, policies = meshed(cases.case(1)), MeshPlanner(netns_of), compiler()
    planner.plan(here, policies.compile(here))
    key = next(iter(here.endpoints))
    there = replace(here, endpoints={k: one for k, one in here.endpoints.items() if k != key})
    plan = planner.plan(there, policies.compile(there))
    assert not [name for _, name in plan.resources if name.endswith(f"|{key}")]
    assert key not in plan.members


def test_a_pod_made_anew_under_its_name_has_listeners_in_its_new_namespace():
    here, planner, policies = meshed(cases.case(1)), MeshPlanner(netns_of), compiler()
    first = planner.plan(here, policies.compile(here))
    key, endpoint = next(iter(here.endpoints.items()))
    anew = {**here.endpoints, key: replace(endpoint, netns_cookie=4711)}
    there = replace(here, endpoints=anew)
    plan = planner.plan(there, policies.compile(there))
    name = (LISTENER, f"inbound|{key}")
    assert b"/run/netns/4711" in plan.resources[name].body.value
    assert plan.resources[name].version != first.resources[name].version


def test_each_pods_listeners_close_what_is_more_than_its_share():
    here = meshed(cases.case(1))
    key = next(iter(here.endpoints))
    plan = MeshPlanner(netns_of, 7).plan(here, compiler().compile(here))
    for side in ("outbound", "requests"):
        listener = listener_pb2.Listener()
        plan.resources[LISTENER, f"{side}|{key}"].body.Unpack(listener)
        first = listener.filter_chains[0].filters[0]
        limit = connection_limit_pb2.ConnectionLimit()
        assert first.typed_config.Unpack(limit)
        assert limit.max_connections.value == 7
