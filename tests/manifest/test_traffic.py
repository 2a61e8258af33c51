"""What a TrafficPolicy cannot say."""

import pytest


def test_a_policy_is_taken(said, make):
    assert said(make.traffic_policy()) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"targetRefs": []}, "spec.targetRefs: give 1 to 16"),
        ({"targetRefs": [{"kind": "Pod", "name": "a"}]}, "targetRefs[0].kind: Pod of core is no"),
        ({"targetRefs": [{"name": "A"}]}, "targetRefs[0].name"),
        ({"targetRefs": [{"name": "a", "sectionName": "_"}]}, "targetRefs[0].sectionName"),
        ({"outlierDetection": {"consecutiveErrors": 0}}, "outlierDetection.consecutiveErrors"),
        ({"outlierDetection": {"interval": "soon"}}, "interval: 'soon' is no duration"),
        ({"outlierDetection": {"baseEjectionTime": "0s"}}, "baseEjectionTime: 0s is too short"),
        ({"outlierDetection": {"maxEjectionPercent": 101}}, "maxEjectionPercent"),
        ({"circuitBreaker": {"maxConnections": 0}}, "circuitBreaker.maxConnections"),
        ({"circuitBreaker": {"maxRequests": -1}}, "circuitBreaker.maxRequests"),
        ({"consistentHash": {}}, "consistentHash: give exactly one of header, cookie"),
        ({"consistentHash": {"header": "a b"}}, "consistentHash.header"),
        ({"timeouts": {"request": "1"}}, "timeouts.request: '1' is no duration"),
        ({"retry": {"methods": []}}, "retry.methods: is empty"),
        ({"retry": {"budget": {"percent": 101}}}, "retry.budget.percent"),
        (
            {"retry": {"budget": {}}, "circuitBreaker": {"maxRetries": 1}},
            "retry.budget: means nothing beside circuitBreaker.maxRetries",
        ),
        ({"rateLimits": [{"requests": 0}]}, "rateLimits[0].requests"),
        ({"rateLimits": [{"requests": 1, "per": "1ms"}]}, "rateLimits[0].per: 1ms is too short"),
        ({"faultInjection": {}}, "faultInjection: injects nothing"),
        ({"faultInjection": {"abort": {"status": 99}}}, "faultInjection.abort.status"),
        (
            {"faultInjection": {"abort": {"status": 503, "grpcStatus": 14}}},
            "faultInjection.abort: give exactly one of status, grpcStatus",
        ),
        (
            {
                "targetRefs": [
                    {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
                ]
            },
            "spec.outlierDetection: is for Services",
        ),
        ({"circuitBreaker": {"maxStreams": 1}}, "circuitBreaker.maxStreams: unknown field"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(said, make, spec, message):
    found = said(make.traffic_policy(spec))
    assert any(message in one for one in found), found
