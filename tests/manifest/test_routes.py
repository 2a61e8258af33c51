"""What an HTTPRoute, a GRPCRoute or a rule about requests cannot be."""

from __future__ import annotations

import pytest


def filtered(kind, **fields):
    return {"filters": [{"type": kind, **fields}]}


@pytest.mark.parametrize(
    "rule",
    [
        {"matches": [{"path": {"type": "Exact", "value": "/a"}, "method": "GET"}]},
        {"matches": [{"path": {"type": "RegularExpression", "value": "/a|/b"}}]},
        {"matches": [], "timeouts": {"request": "10s", "backendRequest": "2s"}},
        {"retry": {"codes": [500, 503], "attempts": 3, "backoff": "100ms"}},
        {"backendRefs": [{"name": "a", "port": 80, "weight": 0}]},
        filtered("RequestMirror", requestMirror={"backendRef": {"name": "b", "port": 80}}),
    ],
)
def test_rules_of_the_api_are_taken(said, make, rule):
    assert said(make.http_route(rule=rule)) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"matches": [{"path": {"value": "a"}}]}, 'matches[0].path.value: "a" does not begin'),
        ({"matches": [{"path": {"value": "/a//b"}}]}, "requests are compared without //"),
        (
            {"matches": [{"path": {"type": "RegularExpression", "value": "("}}]},
            "is no regular expression",
        ),
        (
            {
                "matches": [
                    {"headers": [{"name": "x", "value": "(?=a)", "type": "RegularExpression"}]}
                ]
            },
            "RE2 has no look-around",
        ),
        ({"matches": [{"headers": [{"name": "a b", "value": "x"}]}]}, "headers[0].name"),
        ({"backendRefs": [{"name": "a"}]}, "backendRefs[0].port: is required for a Service"),
        ({"backendRefs": [{"name": "a", "port": 80, "weight": -1}]}, "backendRefs[0].weight"),
        (filtered("CORS", urlRewrite={"hostname": "x"}), "type CORS goes with exactly cors"),
        (
            filtered("RequestRedirect", requestRedirect={"port": 8080}),
            "backendRefs: means nothing beside a RequestRedirect",
        ),
        (
            {
                "matches": [{"path": {"type": "Exact", "value": "/a"}}],
                **filtered(
                    "URLRewrite",
                    urlRewrite={"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
                ),
            },
            "ReplacePrefixMatch goes with exactly one match",
        ),
        (
            filtered(
                "URLRewrite",
                urlRewrite={"path": {"type": "ReplaceFullPath", "replacePrefixMatch": "/"}},
            ),
            "type ReplaceFullPath goes with exactly replaceFullPath",
        ),
        (
            filtered(
                "RequestHeaderModifier",
                requestHeaderModifier={"set": [{"name": "Host", "value": "x"}]},
            ),
            "Host says where a request goes",
        ),
        ({"timeouts": {"request": "soon"}}, "is no duration"),
        ({"timeouts": {"request": "1s", "backendRequest": "2s"}}, "2s is longer than request: 1s"),
        ({"retry": {"codes": [200]}}, "retry.codes[0]"),
        (filtered("CORS", cors={"allowOrigins": ["*"], "allowCredentials": True}), "name origins"),
        ({"sessionPersistence": {}}, ""),
    ],
)
def test_what_a_rule_cannot_be_is_said_where_it_is(said, make, rule, message):
    problems = said(make.http_route(rule=rule))
    if message:
        assert any(message in one for one in problems), problems


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"parentRefs": []}, "spec.parentRefs: has 0; give 1 to 32"),
        ({"parentRefs": [{"name": "edge", "kind": "Mesh"}]}, "spec.parentRefs[0].kind: Mesh"),
        (
            {"parentRefs": [{"group": "", "kind": "Service", "name": "a", "sectionName": "x"}]},
            "a Service has no sections",
        ),
        ({"rules": []}, "spec.rules: has 0"),
    ],
)
def test_what_a_route_cannot_be_is_said_where_it_is(said, make, spec, message):
    assert any(message in one for one in said(make.http_route(spec)))


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"method": {}}, "give service, method or both"),
        ({"method": {"service": "a/b"}}, "is no name of gRPC"),
    ],
)
def test_calls_are_named_as_grpc_names_them(said, make, match, message):
    route = make.http_route(rule={"matches": [match]}, kind="GRPCRoute")
    assert any(message in one for one in said(route))


def looked_into(make, **each):
    ports = {"ports": [{"port": "80", "protocol": "TCP"}], **each}
    return make.cilium_policy({"ingress": [{"fromEndpoints": [{}], "toPorts": [ports]}]})


@pytest.mark.parametrize(
    ("each", "message"),
    [
        ({"rules": {"http": []}}, "rules.http: is empty"),
        ({"rules": {}}, "rules.http: is empty"),
        ({"rules": {"http": [{"path": "("}]}}, "rules.http[0].path"),
        ({"rules": {"http": [{"headers": ["a b: c"]}]}}, 'give "Name: value"'),
        (
            {"ports": [{"port": "80", "protocol": "UDP"}], "rules": {"http": [{}]}},
            "HTTP is over TCP",
        ),
        ({"ports": [{"port": "0"}], "rules": {"http": [{}]}}, "for one port each"),
        ({"ports": [{"port": "80", "endPort": 90}], "rules": {"http": [{}]}}, "for one port each"),
    ],
)
def test_what_a_rule_about_requests_cannot_be(said, make, each, message):
    problems = said(looked_into(make, **each))
    assert any(message in one for one in problems), problems


def test_requests_are_judged_where_they_arrive(said, make):
    ports = {"ports": [{"port": "80"}], "rules": {"http": [{}]}}
    one = make.cilium_policy({"egress": [{"toEndpoints": [{}], "toPorts": [ports]}]})
    assert any("judged where they arrive" in line for line in said(one))


@pytest.mark.parametrize(
    ("kind", "spec", "place"),
    [
        ("TLSRoute", {"hostnames": []}, "spec.hostnames: has 0"),
        ("TLSRoute", {"hostnames": ["a_b"]}, "spec.hostnames[0]"),
        ("TCPRoute", {"rules": []}, "spec.rules: has 0"),
        ("TCPRoute", {"rules": [{}]}, "spec.rules[0].backendRefs: has 0"),
        (
            "TCPRoute",
            {"rules": [{"backendRefs": [{"name": "db"}]}]},
            "spec.rules[0].backendRefs[0].port: is required",
        ),
        (
            "TLSRoute",
            {"parentRefs": [{"group": "", "kind": "Service", "name": "db", "sectionName": "x"}]},
            "spec.parentRefs[0].sectionName: a Service has no sections; give port",
        ),
    ],
)
def test_what_a_route_of_connections_cannot_be_is_said_where_it_is(make, said, kind, spec, place):
    assert any(line.startswith(place) for line in said(make.stream_route(kind, **spec)))


BACKEND = {"name": "web", "port": 80}


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
@pytest.mark.parametrize(
    ("session", "backends", "message"),
    [
        ({}, 1, None),
        ({"type": "Header", "sessionName": "x-session"}, 1, None),
        ({"absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}, 1, None),
        ({"idleTimeout": "1m"}, 1, "sessionPersistence.idleTimeout"),
        ({"absoluteTimeout": "1h"}, 1, "absoluteTimeout goes with cookieConfig.lifetimeType"),
        ({"cookieConfig": {"lifetimeType": "Permanent"}}, 1, "absoluteTimeout goes with"),
        ({"type": "Header", "absoluteTimeout": "1h"}, 1, "a header has no end"),
        ({"type": "Header", "cookieConfig": {}}, 1, "cookieConfig: means nothing of a header"),
        ({"sessionName": "a b"}, 1, "sessionPersistence.sessionName"),
        ({}, 2, "a session is kept within one Service"),
    ],
)
def test_sessions_that_can_be_kept_are_taken(said, make, kind, session, backends, message):
    rule = {"sessionPersistence": session, "backendRefs": [BACKEND] * backends, "filters": []}
    found = said(make.http_route(kind=kind, rule=rule))
    assert found == [] if message is None else any(message in one for one in found), found
