"""Which TrafficPolicy holds for which port, and what Envoy is told of it."""

from dataclasses import replace

import msgspec
from tests.mesh.standalone import route, world

from sixfold.mesh.resilience import limits_connections, of_application, of_service, outliers
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.traffic import Traffic, plan_requests, status_of
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
