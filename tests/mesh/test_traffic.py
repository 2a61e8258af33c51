"""Which TrafficPolicy holds for which port, and what Envoy is told of it."""

from dataclasses import replace

import msgspec
from tests.mesh.standalone import route, world

from sixfold.mesh.resilience import limits_connections, of_application, of_service, outliers
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.said import of_way, picked, requests_to, shown
from sixfold.mesh.traffic import Traffic, plan_requests, status_of
from sixfold.model.algorithm import Algorithm
from sixfold.model.config import Config
from sixfold.model.trafficpolicy import TrafficPolicy, TrafficPolicySpec

WEB, OTHER = ServicePort("shop/web", 80), ServicePort("shop/web", 81)


def policy(name="p", created="2026-01-01T00:00:00Z", target=None, **spec):
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
            "spec": {"targetRefs": [target or {"name": "web"}], **spec},
        },
        TrafficPolicy,
    )


def with_policies(*policies, **more):
    given = {f"shop/{one.metadata.name}": one for one in policies}
    return replace(world(*more.pop("routes", ())), traffic=given, **more)


def reasons(here, one):
    return [
        condition["reason"]
        for ancestor in status_of(here, one)["ancestors"]
        for condition in ancestor["conditions"]
    ]


def test_of_two_about_one_port_the_oldest_holds_and_the_other_says_so():
    younger = policy("a", "2026-02-01T00:00:00Z")
    older = policy("b", "2026-01-01T00:00:00Z")
    here = with_policies(younger, older)
    assert Traffic(here).by_port == {WEB: older, OTHER: older}
    assert reasons(here, older) == ["Accepted"]
    assert reasons(here, younger) == ["Conflicted"]


def test_a_section_is_one_port():
    one = policy(target={"name": "web", "sectionName": "other"})
    assert set(Traffic(with_policies(one)).by_port) == {OTHER}


def test_a_policy_says_when_there_is_nothing_that_it_is_about():
    lost = policy(target={"name": "nobody"})
    assert reasons(with_policies(lost), lost) == ["TargetNotFound"]
    one = policy()
    assert reasons(with_policies(one, config=Config(mtls="disabled")), one) == ["NoMesh"]


def test_requests_to_a_service_without_a_route_are_looked_at_and_go_to_it():
    here = with_policies(policy())
    (way,) = plan_requests(here, Traffic(here))[WEB].for_clients_of("shop")
    assert [one.to for one in way.backends] == [WEB]


def test_a_route_stays_and_clients_that_it_is_not_for_go_to_the_service():
    theirs = route([{"backendRefs": [{"name": "a", "port": 80}]}], namespace="north")
    here = with_policies(policy(), routes=(theirs,))
    routed = plan_requests(here, Traffic(here))[WEB]
    assert [way.name for way in routed.for_clients_of("north")] != ["shop/web:80"]
    assert [way.name for way in routed.for_clients_of("south")] == ["shop/web:80"]


def test_limits_of_connections_are_where_the_connections_are():
    spec = policy(circuitBreaker={"maxConnections": 3, "maxRequests": 5}).spec
    (last,) = of_application(spec)["thresholds"]
    assert limits_connections(spec)
    assert last["max_connections"] == {"value": 3}
    (first,) = of_service(spec)["thresholds"]
    assert first["max_requests"] == {"value": 5}
    assert first["max_connections"] == last["max_pending_requests"] == {"value": 2**32 - 1}
    assert not limits_connections(policy(circuitBreaker={"maxRequests": 5}).spec)


def test_a_number_of_retries_is_instead_of_the_budget():
    (free,) = of_service(TrafficPolicySpec([]))["thresholds"]
    assert free["retry_budget"]["budget_percent"] == {"value": 20.0}
    (bound,) = of_service(policy(circuitBreaker={"maxRetries": 1}).spec)["thresholds"]
    assert "retry_budget" not in bound
    assert bound["max_retries"] == {"value": 1}


def test_nobody_is_ejected_unasked():
    assert outliers(TrafficPolicySpec([])) is None
    found = outliers(policy(outlierDetection={"consecutiveErrors": 2, "interval": "250ms"}).spec)
    assert found["consecutive_5xx"] == {"value": 2}
    assert found["interval"].total_seconds() == 0.25


def test_what_holds_is_said_in_words():
    one = policy(
        circuitBreaker={"maxRequests": 5, "maxRetries": 1},
        outlierDetection={"consecutiveErrors": 2},
        consistentHash={"cookie": {"name": "user"}},
        rateLimits=[{"requests": 3, "per": "1m"}, {"requests": 9, "each": "Namespace"}],
        timeouts={"request": "2s", "backendRequest": "1s"},
        faultInjection={
            "delay": {"duration": "1s", "percent": 10},
            "abort": {"grpcStatus": 14},
            "headers": [{"name": "x", "value": "1"}],
        },
    )
    here = with_policies(one)
    (way,) = requests_to(here)[WEB].for_clients_of("shop")
    assert list(of_way(way)) == [
        "3 in 1m of each identity",
        "9 in 1s of all clients of a namespace",
        "fault: 10 % delayed by 1s and 100 % answered gRPC 14, with x: 1",
        "timeout 2 s",
        "timeout of a try 1 s",
    ]
    assert shown(here, {"algorithm": "random"}, WEB) == {
        "algorithm": "ring-hash on cookie user",
        "carried": "at once at most 5 requests, 1 retries; ejected after 2 errors for 30s; "
        "by TrafficPolicy shop/p",
    }
    assert picked(Algorithm.MAGLEV, one.spec) == "maglev on cookie user"
    assert picked(Algorithm.LEAST_CONNECTIONS, TrafficPolicySpec([])) == "least-requests"
    assert requests_to(world()) == {}


def test_a_rules_own_words_stand_before_a_policys():
    (rule,) = [
        {"name": "a", "backendRefs": [{"name": "a", "port": 80}], "timeouts": {"request": "9s"}}
    ]
    of_rule = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
    own = policy("own", target={**of_rule, "sectionName": "a"}, timeouts={"backendRequest": "1s"})
    wide = policy("wide", target=of_rule, timeouts={"request": "3s", "backendRequest": "2s"})
    here = with_policies(own, wide, routes=(route([rule, {**rule, "name": "b", "timeouts": {}}]),))
    first, second = requests_to(here)[WEB].for_clients_of("shop")
    assert (first.timeout_s, first.try_s) == (9, 1)
    assert (second.timeout_s, second.try_s) == (3, 2)
    assert reasons(here, own) == reasons(here, wide) == ["Accepted"]
    lost = policy("lost", target={**of_rule, "sectionName": "c"})
    assert reasons(with_policies(lost, routes=(route([rule]),)), lost) == ["TargetNotFound"]
