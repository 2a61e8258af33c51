"""Limits, faults, sessions and hashes of a TrafficPolicy or a route, through a real Envoy."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import msgspec
import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from tests.mesh.standalone import proxy, route, world

from sixfold.mesh import http, resources, tokens
from sixfold.mesh.http_filters import CLIENT, CLIENTS
from sixfold.mesh.member import Member
from sixfold.model.trafficpolicy import TrafficPolicy

GATEWAY = "gateway.networking.k8s.io"
A = [{"name": "a", "port": 80}]
ADDRESS = ip_address("10.244.0.2")
RETRY = {"codes": [503], "attempts": 1, "backoff": "1ms"}


def policy(target=None, name="p", **spec):
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": name},
            "spec": {"targetRefs": [target or {"name": "web"}], **spec},
        },
        TrafficPolicy,
    )


def of_route(**spec):
    return policy(
        {"group": GATEWAY, "kind": "HTTPRoute", "name": "r", **spec.pop("ref", {})}, **spec
    )


def limit(requests, **more):
    return {"requests": requests, "per": "1h", **more}


def with_policies(*policies, rules=None):
    return world(route(rules or [{"backendRefs": A}]), traffic=policies)


def paths(*values):
    return [{"path": {"type": "PathPrefix", "value": value}} for value in values]


CASES = {
    "identity": with_policies(policy(rateLimits=[limit(3)])),
    "namespace": with_policies(policy(rateLimits=[limit(3, each="Namespace")])),
    "both": with_policies(
        of_route(rateLimits=[limit(5)], name="a"),
        policy(rateLimits=[limit(3, each="Namespace")], name="b"),
    ),
    "whole-route": with_policies(
        of_route(rateLimits=[limit(3)]),
        rules=[
            {"matches": paths("/x", "/y"), "backendRefs": A, "retry": RETRY},
            {"matches": paths("/z"), "backendRefs": A},
        ],
    ),
    "one-rule": with_policies(
        of_route(rateLimits=[limit(1)], ref={"sectionName": "tight"}),
        rules=[
            {"name": "tight", "matches": paths("/x"), "backendRefs": A},
            {"name": "free", "backendRefs": A},
        ],
    ),
    "abort": with_policies(policy(faultInjection={"abort": {"status": 418}})),
    "half": with_policies(policy(faultInjection={"abort": {"status": 418, "percent": 50}})),
    "some": with_policies(
        policy(
            faultInjection={
                "abort": {"status": 418},
                "headers": [{"name": "x-who", "value": "me|you", "type": "RegularExpression"}],
            }
        )
    ),
    "call": with_policies(policy(faultInjection={"abort": {"grpcStatus": 14}})),
    "delay": with_policies(
        policy(faultInjection={"delay": {"duration": "1h"}}, timeouts={"request": "100ms"})
    ),
    "impatient": with_policies(policy(timeouts={"request": "100ms"})),
    "unsafe": with_policies(
        policy(retry={"methods": ["POST"]}), rules=[{"backendRefs": A, "retry": RETRY}]
    ),
    "cookie": world(route([{"backendRefs": A, "sessionPersistence": {"sessionName": "basket"}}])),
    "lasting": world(
        route(
            [
                {
                    "backendRefs": A,
                    "sessionPersistence": {
                        "absoluteTimeout": "1h",
                        "cookieConfig": {"lifetimeType": "Permanent"},
                    },
                }
            ]
        )
    ),
    "header": world(
        route(
            [
                {
                    "backendRefs": A,
                    "sessionPersistence": {"sessionName": "x-basket", "type": "Header"},
                }
            ]
        )
    ),
}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    with proxy(tmp_path_factory.mktemp("envoy"), CASES) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(envoy):
    for backend in envoy.backends.values():
        backend.script.clear()
        backend.asked.clear()
        backend.pause_s = 0.0


def statuses(envoy, case, number, path="/", client="one", of="shop", **more):
    headers = {CLIENT: client, CLIENTS: of}
    return [envoy.ask(case, path, headers=headers, **more).status for _ in range(number)]


def test_each_identity_has_its_own_limit(envoy):
    assert statuses(envoy, "identity", 5) == [200, 200, 200, 429, 429]
    assert statuses(envoy, "identity", 4, client="two") == [200, 200, 200, 429]


def test_clients_of_a_namespace_share_a_limit(envoy):
    assert statuses(envoy, "namespace", 2) == [200, 200]
    assert statuses(envoy, "namespace", 2, client="two") == [200, 429]
    assert statuses(envoy, "namespace", 4, of="north") == [200, 200, 200, 429]


def test_limits_of_a_route_and_of_its_service_both_hold(envoy):
    assert statuses(envoy, "both", 4) == [200, 200, 200, 429]


def test_a_limit_of_a_route_counts_all_its_matches_methods_and_rules_together(envoy):
    asked = [("/x", "GET"), ("/y", "POST"), ("/z", "GET"), ("/x", "POST"), ("/z", "GET")]
    found = [
        envoy.ask("whole-route", path, method, headers={CLIENT: "one"}).status
        for path, method in asked
    ]
    assert found == [200, 200, 200, 429, 429]


def test_a_limit_of_one_rule_leaves_the_others_alone(envoy):
    assert statuses(envoy, "one-rule", 2, "/x") == [200, 429]
    assert statuses(envoy, "one-rule", 3, "/y") == [200] * 3


def test_a_fault_is_an_answer_without_a_backend(envoy):
    assert statuses(envoy, "abort", 3) == [418] * 3
    assert not envoy.backends["a"].asked


def test_a_fault_hits_its_share(envoy):
    found = Counter(statuses(envoy, "half", 200))
    assert set(found) == {200, 418}
    assert 60 <= found[418] <= 140


def test_a_fault_is_for_requests_with_its_headers(envoy):
    assert envoy.ask("some").status == 200
    assert envoy.ask("some", headers={"x-who": "them"}).status == 200
    assert envoy.ask("some", headers={"x-who": "you"}).status == 418


def test_a_call_is_aborted_in_its_own_terms(envoy):
    answer = envoy.ask("call", "/shop.Cart/Add", "POST", {"content-type": "application/grpc"})
    assert (answer.status, answer.headers["grpc-status"]) == (200, "14")


def test_a_delayed_request_is_not_passed_on_yet(envoy):
    with pytest.raises(TimeoutError):
        envoy.ask("delay", timeout_s=0.3)
    assert not envoy.backends["a"].asked


def test_the_timeout_of_a_policy_holds_where_the_route_has_none(envoy):
    envoy.backends["a"].pause_s = 1.0
    assert envoy.ask("impatient").status == 504


def test_methods_that_may_be_repeated_are_what_a_policy_says(envoy):
    backend = envoy.backends["a"]
    backend.script[:] = [503]
    assert envoy.ask("unsafe", method="POST").status == 200
    backend.script[:] = [503]
    assert envoy.ask("unsafe", method="GET").status == 503


def test_a_session_is_a_cookie_or_a_header_of_the_answer(envoy):
    cookie = envoy.ask("cookie").headers["set-cookie"]
    assert cookie.startswith("basket=")
    assert "Max-Age" not in cookie
    assert "Max-Age=3600" in envoy.ask("lasting").headers["set-cookie"]
    assert envoy.ask("header").headers["x-basket"]


def manager_of(listener, chain=-1):
    found = hcm.HttpConnectionManager()
    chains = listener_pb2.Listener.FromString(listener.body.value).filter_chains
    chains[chain].filters[-1].typed_config.Unpack(found)
    return found


def awake(listener):
    """Filters that every request of a listener has."""
    return [one.name for one in manager_of(listener).http_filters if not one.disabled]


def test_a_request_has_no_filter_that_its_route_says_nothing_of():
    member = Member("shop/web", "spiffe://x/ns/shop/sa/web", "/run/netns/x", (ADDRESS,))
    rbac, router = resources.RBAC_FILTER, "envoy.filters.http.router"
    assert awake(resources.inbound(member)) == [rbac, tokens.filter_name("shop/web"), router]
    assert awake(http.outbound(member)) == [router]


def test_a_silent_tunnel_wakes_up_for_nobody():
    member = Member("shop/web", "spiffe://x/ns/shop/sa/web", "/run/netns/x", (ADDRESS,))
    tunnels, requests = (manager_of(resources.inbound(member), at) for at in (0, 1))
    assert not tunnels.access_log_options.HasField("access_log_flush_interval")
    assert requests.access_log_options.HasField("access_log_flush_interval")
