"""HTTPRoutes through a real Envoy: every match, every filter, tries and limits."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from tests.mesh.standalone import proxy, route, service, world

from sixfold.mesh.asked import Asked, way_for
from sixfold.mesh.route_tables import plan_routes
from sixfold.mesh.routes import ServicePort, attachments, resolved
from sixfold.model.config import Config
from sixfold.model.mesh import COPIES
from sixfold.model.referencegrant import ReferenceGrant


def to(name, weight=1, **more):
    return {"name": name, "port": 80, "weight": weight, **more}


def path(value, type_="PathPrefix"):
    return {"path": {"type": type_, "value": value}}


def rule(name, *matches, **more):
    return {"matches": list(matches), "backendRefs": [to(name)], **more}


def step(type_, **field):
    return {"type": type_, **field}


def modified(**modifier):
    return [step("RequestHeaderModifier", requestHeaderModifier=modifier)]


def rewritten(kind, value):
    field = kind[0].lower() + kind[1:]
    return [step("URLRewrite", urlRewrite={"path": {"type": kind, field: value}})]


def redirected(**redirect):
    return [step("RequestRedirect", requestRedirect=redirect)]


CASES = {
    "everything": [rule("a")],
    "prefix": [rule("a", path("/v1")), rule("b", path("/v1/deep")), rule("c", path("/"))],
    "trailing": [rule("a", path("/v1/"))],
    "exact": [rule("a", path("/one", "Exact")), rule("b", path("/one"))],
    "regex": [rule("a", path("/v[0-9]+/x", "RegularExpression")), rule("b", path("/v1"))],
    "method": [rule("a", {"method": "POST"}), rule("b")],
    "header": [
        rule("a", {"headers": [{"name": "Version", "value": "two"}]}),
        rule("b", {"headers": [{"name": "x", "value": "a.*c", "type": "RegularExpression"}]}),
        rule("c"),
    ],
    "first-header": [
        rule("a", {"headers": [{"name": "x", "value": "1"}, {"name": "X", "value": "2"}]})
    ],
    "both-headers": [
        rule("a", {"headers": [{"name": "x", "value": "1"}]}),
        rule("b", {"headers": [{"name": "x", "value": "1"}, {"name": "y", "value": "1"}]}),
    ],
    "query": [
        rule("a", {"queryParams": [{"name": "animal", "value": "whale"}]}),
        rule("b", {"queryParams": [{"name": "n", "value": "[0-9]+", "type": "RegularExpression"}]}),
    ],
    "any-of": [rule("a", path("/x"), path("/y", "Exact"))],
    "longest": [
        rule("a", path("/")),
        rule("b", {**path("/api"), "method": "GET"}),
        rule("c", path("/api/x")),
    ],
    "in-order": [rule("a", path("/same")), rule("b", path("/same"))],
    "weights": [{"backendRefs": [to("a", 90), to("b", 10), to("c", 0)]}],
    "no-backends": [{"backendRefs": []}],
    "all-zero": [{"backendRefs": [to("a", 0)]}],
    "missing": [{"backendRefs": [to("nobody")]}],
    "half-missing": [{"backendRefs": [to("a"), to("nobody")]}],
    "headers": [
        rule(
            "a",
            filters=modified(
                set=[{"name": "x-set", "value": "100%"}],
                add=[{"name": "x-add", "value": "more"}],
                remove=["x-gone"],
            ),
        )
    ],
    "response": [
        rule(
            "a",
            filters=[
                step(
                    "ResponseHeaderModifier",
                    responseHeaderModifier={
                        "set": [{"name": "x-new", "value": "1"}],
                        "remove": ["x-backend"],
                    },
                )
            ],
        )
    ],
    "of-backend": [
        {"backendRefs": [to("a", filters=modified(set=[{"name": "x-for", "value": "a"}]))]}
    ],
    "redirect": [{"filters": redirected(hostname="example.org")}],
    "to-https": [{"filters": redirected(scheme="https", statusCode=301)}],
    "to-port": [{"filters": redirected(port=8443, statusCode=307)}],
    "redirect-path": [
        {"filters": redirected(path={"type": "ReplaceFullPath", "replaceFullPath": "/new"})}
    ],
    "redirect-prefix": [
        {
            "matches": [path("/old")],
            "filters": redirected(
                path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}, statusCode=308
            ),
        }
    ],
    "rewrite-host": [
        rule("a", filters=[step("URLRewrite", urlRewrite={"hostname": "inner.example"})])
    ],
    "rewrite-path": [rule("a", path("/x"), filters=rewritten("ReplaceFullPath", "/y"))],
    "rewrite-prefix": [rule("a", path("/foo"), filters=rewritten("ReplacePrefixMatch", "/bar"))],
    "rewrite-slash": [rule("a", path("/foo"), filters=rewritten("ReplacePrefixMatch", "/"))],
    "rewrite-bar-slash": [
        rule("a", path("/foo"), filters=rewritten("ReplacePrefixMatch", "/bar/"))
    ],
    "rewrite-all": [rule("a", path("/"), filters=rewritten("ReplacePrefixMatch", "/bar"))],
    "mirror": [
        rule(
            "a",
            filters=[
                step("RequestMirror", requestMirror={"backendRef": {"name": "b", "port": 80}})
            ],
        )
    ],
    "mirror-none": [
        rule(
            "a",
            filters=[
                step(
                    "RequestMirror",
                    requestMirror={"backendRef": {"name": "b", "port": 80}, "percent": 0},
                )
            ],
        )
    ],
    "cors": [
        rule(
            "a",
            filters=[
                step(
                    "CORS",
                    cors={
                        "allowOrigins": ["https://*.shop.example"],
                        "allowMethods": ["GET", "PUT"],
                        "allowHeaders": ["x-mine"],
                        "maxAge": 60,
                    },
                )
            ],
        )
    ],
    "timeout": [rule("c", timeouts={"request": "200ms"})],
    "retry": [rule("a", retry={"codes": [503], "attempts": 2, "backoff": "1ms"})],
    "retry-once": [rule("a", retry={"codes": [503], "attempts": 1, "backoff": "1ms"})],
    "no-retry": [rule("a")],
    "each-try": [
        rule(
            "c",
            timeouts={"request": "5s", "backendRequest": "200ms"},
            retry={"attempts": 1, "codes": [504]},
        )
    ],
}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("envoy")
    with proxy(directory, {name: world(route(rules)) for name, rules in CASES.items()}) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(envoy):
    for backend in envoy.backends.values():
        backend.script.clear()
        backend.asked.clear()
        backend.pause_s = 0.0


def explained(case, request_):
    """The service that we say it would reach; "" nobody, None: it has no way."""
    ways = plan_routes(world(route(CASES[case])))[ServicePort("shop/web", 80)].producer
    way = way_for(ways, Asked(**request_))
    if way is None:
        return None
    return next((one.to.service.split("/")[1] for one in way.backends if one.to and one.weight), "")


@pytest.mark.parametrize(
    ("case", "request_", "by"),
    [
        ("everything", {"path": "/any/where?x=1"}, "a"),
        ("prefix", {"path": "/v1"}, "a"),
        ("prefix", {"path": "/v1/"}, "a"),
        ("prefix", {"path": "/v1?x"}, "a"),
        ("prefix", {"path": "/v1/x"}, "a"),
        ("prefix", {"path": "/v10"}, "c"),
        ("prefix", {"path": "/v1/deep/er"}, "b"),
        ("trailing", {"path": "/v1"}, "a"),
        ("trailing", {"path": "/v1/x"}, "a"),
        ("exact", {"path": "/one"}, "a"),
        ("exact", {"path": "/one?x=1"}, "a"),
        ("exact", {"path": "/one/"}, "b"),
        ("regex", {"path": "/v1/x"}, "a"),
        ("regex", {"path": "/v1/xx"}, "b"),
        ("method", {"method": "POST"}, "a"),
        ("method", {"method": "GET"}, "b"),
        ("header", {"headers": {"version": "two"}}, "a"),
        ("header", {"headers": {"version": "twofold"}}, "c"),
        ("header", {"headers": {"x": "abbc"}}, "b"),
        ("header", {"headers": {"x": "abbcd"}}, "c"),
        ("first-header", {"headers": {"x": "1"}}, "a"),
        ("both-headers", {"headers": {"x": "1"}}, "a"),
        ("both-headers", {"headers": {"x": "1", "y": "1"}}, "b"),
        ("query", {"path": "/?animal=whale"}, "a"),
        ("query", {"path": "/?n=77&animal=cow"}, "b"),
        ("any-of", {"path": "/x/1"}, "a"),
        ("any-of", {"path": "/y"}, "a"),
        ("longest", {"path": "/api/x/1"}, "c"),
        ("longest", {"path": "/api/y"}, "b"),
        ("longest", {"path": "/api/y", "method": "PUT"}, "a"),
        ("in-order", {"path": "/same"}, "a"),
    ],
)
def test_a_request_goes_to_the_backend_of_its_most_specific_match(envoy, case, request_, by):
    answer = envoy.ask(case, **request_)
    assert (answer.status, answer.by) == (200, by)
    assert explained(case, request_) == by


@pytest.mark.parametrize(
    ("case", "request_", "status"),
    [
        ("trailing", {"path": "/v2"}, 404),
        ("query", {"path": "/?animal=whales"}, 404),
        ("query", {"path": "/?n=7x"}, 404),
        ("first-header", {"headers": {"x": "2"}}, 404),
        ("any-of", {"path": "/y/"}, 404),
        ("no-backends", {}, 500),
        ("all-zero", {}, 500),
        ("missing", {}, 500),
    ],
)
def test_what_has_no_way_or_no_backend_is_answered_so(envoy, case, request_, status):
    assert envoy.ask(case, **request_).status == status
    assert explained(case, request_) is (None if status == 404 else "")


def test_weights_divide_the_requests(envoy):
    found = Counter(envoy.ask("weights").by for _ in range(300))
    assert set(found) == {"a", "b"}
    assert 10 <= found["b"] <= 60  # of 30 expected: six deviations and more


def test_a_missing_backend_costs_its_share_of_the_requests(envoy):
    found = Counter(envoy.ask("half-missing").status for _ in range(100))
    assert set(found) == {200, 500}


def test_headers_are_set_added_and_removed(envoy):
    sent = {"x-set": "old", "x-add": "first", "x-gone": "1"}
    headers = envoy.ask("headers", headers=sent).seen["headers"]
    assert headers["x-set"] == "100%"
    assert "x-gone" not in headers
    assert headers["x-add"] in ("first,more", "more")  # two lines, of which json keeps the last
    answer = envoy.ask("response")
    assert answer.headers["x-new"] == "1"
    assert "x-backend" not in answer.headers
    assert envoy.ask("of-backend").seen["headers"]["x-for"] == "a"


@pytest.mark.parametrize(
    ("case", "asked", "status", "location"),
    [
        ("redirect", "/x?y=1", 302, "http://example.org/x?y=1"),
        ("to-https", "/x", 301, "https://to-https/x"),
        ("to-port", "/x", 307, "http://to-port:8443/x"),
        ("redirect-path", "/x", 302, "http://redirect-path/new"),
        ("redirect-prefix", "/old/x", 308, "http://redirect-prefix/new/x"),
        ("redirect-prefix", "/old", 308, "http://redirect-prefix/new"),
    ],
)
def test_redirects_say_where(envoy, case, asked, status, location):
    answer = envoy.ask(case, asked)
    assert (answer.status, answer.headers["location"]) == (status, location)


@pytest.mark.parametrize(
    ("case", "asked", "path_"),
    [
        ("rewrite-path", "/x/1?q=2", "/y?q=2"),
        ("rewrite-prefix", "/foo/x", "/bar/x"),
        ("rewrite-prefix", "/foo", "/bar"),
        ("rewrite-prefix", "/foo/", "/bar/"),
        ("rewrite-slash", "/foo/x", "/x"),
        ("rewrite-slash", "/foo", "/"),
        ("rewrite-slash", "/foo/?q", "/?q"),
        ("rewrite-bar-slash", "/foo/x", "/bar/x"),
        ("rewrite-bar-slash", "/foo", "/bar"),
        ("rewrite-all", "/x", "/bar/x"),
    ],
)
def test_paths_are_rewritten_by_whole_elements(envoy, case, asked, path_):
    assert envoy.ask(case, asked).seen["path"] == path_


def test_a_host_is_rewritten(envoy):
    assert envoy.ask("rewrite-host").seen["headers"]["host"] == "inner.example"


def test_a_mirror_gets_a_copy_and_has_no_say(envoy):
    envoy.backends["b"].script[:] = [500] * 5
    there = {COPIES: "service|shop/b:80"}  # past the listener for copies, which a pod has
    assert all(envoy.ask("mirror", "/copy", headers=there).by == "a" for _ in range(5))
    seen = envoy.backends["b"].asked
    for _ in range(100):
        if len(seen) == 5:
            break
        time.sleep(0.02)
    assert seen == ["GET /copy"] * 5
    envoy.ask("mirror-none", "/none", headers=there)
    assert "GET /none" not in envoy.backends["b"].asked


def test_cors_answers_for_the_origins_that_are_named(envoy):
    preflight = {"Origin": "https://my.shop.example", "Access-Control-Request-Method": "PUT"}
    answer = envoy.ask("cors", method="OPTIONS", headers=preflight)
    assert answer.headers["access-control-allow-origin"] == "https://my.shop.example"
    assert answer.headers["access-control-allow-methods"] == "GET, PUT"
    assert answer.headers["access-control-max-age"] == "60"
    other = envoy.ask("cors", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_request_that_takes_too_long_is_answered_504(envoy):
    envoy.backends["c"].pause_s = 2.0
    assert envoy.ask("timeout").status == 504


def test_each_try_has_its_own_limit(envoy):
    envoy.backends["c"].pause_s = 2.0
    assert envoy.ask("each-try").status == 504
    assert len(envoy.backends["c"].asked) == 2


@pytest.mark.parametrize(
    ("case", "method", "script", "status", "tries"),
    [
        ("retry", "GET", [503, 503], 200, 3),
        ("retry", "GET", [503, 503, 503], 503, 3),
        ("retry-once", "GET", [503, 503], 503, 2),
        ("retry", "GET", [500], 500, 1),
        ("retry", "PUT", [503], 200, 2),
        ("retry", "POST", [503], 503, 1),
        ("no-retry", "GET", [503], 503, 1),
        ("no-retry", "POST", [0], 503, 1),
    ],
)
def test_only_what_may_be_repeated_is_tried_again(envoy, case, method, script, status, tries):
    envoy.backends["a"].script[:] = script
    assert envoy.ask(case, method=method).status == status
    assert len(envoy.backends["a"].asked) == tries


# --- without a proxy ------------------------------------------------------------------------------


def ways(*routes, namespace="shop", **more):
    routed = plan_routes(world(*routes, **more))[ServicePort("shop/web", 80)]
    return [way.name for way in routed.for_clients_of(namespace) or ()]


def made(at):
    return {"metadata": {"creationTimestamp": at}}


def test_the_oldest_route_comes_first_and_then_the_name():
    young = route([rule("a")], "a", **made("2026-02-01T00:00:00Z"))
    old = route([rule("b")], "b", **made("2026-01-01T00:00:00Z"))
    twin = route([rule("c")], "c", **made("2026-01-01T00:00:00Z"))
    names = ["shop/b", "shop/c", "shop/a"]
    assert [name.split()[0] for name in ways(young, twin, old)] == names


def test_a_consumers_route_holds_for_its_own_namespace_and_instead_of_the_producers():
    own = {"name": "b", "namespace": "shop", "port": 80}
    grant = msgspec.convert(
        {
            "metadata": {"name": "g", "namespace": "shop"},
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
    routes = route([rule("a")]), route([{"backendRefs": [own]}], "c", "north")
    assert ways(*routes, namespace="north", grants=[grant])[0].startswith("north/c")
    assert ways(*routes, namespace="south")[0].startswith("shop/r")


def test_a_backend_of_another_namespace_needs_a_grant():
    own = {"name": "b", "namespace": "shop", "port": 80}
    here = world(route([{"backendRefs": [own]}], "c", "north"))
    condition = resolved(here, here.routes["HTTPRoute north/c"])
    assert (condition.holds, condition.reason) == (False, "RefNotPermitted")
    (way,) = plan_routes(here)[ServicePort("shop/web", 80)].for_clients_of("north")
    assert way.backends[0].to is None


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ({"name": "nobody", "port": 80}, "BackendNotFound"),
        ({"name": "a", "port": 99}, "BackendNotFound"),
        ({"name": "a", "kind": "Bucket", "group": "example.org"}, "InvalidKind"),
        ({"name": "a", "port": 80}, "ResolvedRefs"),
    ],
)
def test_backends_that_are_none_are_said(backend, reason):
    here = world(route([{"backendRefs": [backend]}]))
    condition = resolved(here, here.routes["HTTPRoute shop/r"])
    assert (condition.reason, condition.holds) == (reason, reason == "ResolvedRefs")


def test_a_parent_that_is_none_is_said():
    here = world(
        route([rule("a")], parentRefs=[{"group": "", "kind": "Service", "name": "gone"}]),
    )
    (one,) = attachments(here, here.routes["HTTPRoute shop/r"])
    assert (one.accepted.holds, one.accepted.reason) == (False, "NoMatchingParent")


def test_without_a_mesh_no_route_is_in_force():
    here = replace(world(route([rule("a")])), config=Config(mtls="disabled"))
    (one,) = attachments(here, here.routes["HTTPRoute shop/r"])
    assert (one.accepted.holds, one.accepted.reason) == (False, "NoMesh")
    assert not plan_routes(here)


def test_a_route_of_one_port_leaves_the_others_alone():
    parent = {"group": "", "kind": "Service", "name": "web", "port": 81}
    here = world(route([rule("a")], parentRefs=[parent]), services=[service("x")])
    assert list(plan_routes(here)) == [ServicePort("shop/web", 81)]
