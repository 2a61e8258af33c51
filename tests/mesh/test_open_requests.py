"""Requests that are open: what may go on when rules have changed, and by which rule it may not."""

from __future__ import annotations

import pytest
from tests.mesh.test_requests import cnp, from_pod, http, world_of

from sixfold.mesh.asked import Asked
from sixfold.mesh.open_requests import Begun, refusal
from sixfold.policy.plan import compile_policies
from sixfold.policy.requests import Requests

NOW_S = 1000.0
ISSUER = "https://issuer.example"
EVERYTHING = cnp("all", from_pod("a", {"ports": [{"port": "80", "protocol": "TCP"}]}))


def istio(kind, name, **spec):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "x"},
        "spec": spec,
    }


def authorization(name="narrow", action="DENY", **rule):
    return istio("AuthorizationPolicy", name, action=action, rules=[rule])


TOKENS = istio("RequestAuthentication", "tokens", jwtRules=[{"issuer": ISSUER}])
TEAM_A = authorization(when=[{"key": "request.headers[x-team]", "values": ["a"]}])


def begun(path="/stream", claims=None, headers=(), **given):
    return Begun(Asked("GET", path, "b", given), claims or {}, {*headers, *given})


def token(**claims):
    return {"iss": ISSUER, "sub": "me", "exp": NOW_S, **claims}


@pytest.mark.parametrize(
    ("policies", "one", "refused"),
    [
        pytest.param([EVERYTHING], begun(), None, id="allowed"),
        pytest.param(
            [], begun(), ("default-deny (zero-trust)", ""), id="the connection would be denied"
        ),
        pytest.param(
            [cnp("some", from_pod("a", http({"path": "/other"})))],
            begun(),
            ("None", "no rule allows this request"),
            id="the request would be denied",
        ),
        pytest.param(
            [EVERYTHING, authorization(to=[{"operation": {"paths": ["/stream"]}}])],
            begun(),
            ("AuthorizationPolicy x/narrow rules[0]", ""),
            id="denied by name",
        ),
        pytest.param(
            [EVERYTHING, TEAM_A],
            begun(**{"x-team": "a"}),
            ("AuthorizationPolicy x/narrow rules[0]", ""),
            id="by a header",
        ),
        pytest.param([EVERYTHING, TEAM_A], begun(**{"x-team": "b"}), None, id="another header"),
        pytest.param([EVERYTHING, TEAM_A], begun(headers=["x-team"]), None, id="without it"),
        pytest.param(
            [EVERYTHING, TEAM_A],
            begun(),
            ("None", "a rule looks at x-team, which was not kept of it"),
            id="a header that nobody kept",
        ),
        pytest.param([EVERYTHING, TOKENS], begun(claims=token()), None, id="a token in its leeway"),
        pytest.param([EVERYTHING, TOKENS], begun(), None, id="no token"),
        pytest.param(
            [EVERYTHING, TOKENS],
            begun(claims=token(exp=NOW_S - 61)),
            ("default-deny (RequestAuthentication x/tokens)", "token: has expired"),
            id="a token that is over",
        ),
        pytest.param(
            [EVERYTHING, TOKENS],
            begun(claims=token(iss="https://other.example")),
            (
                "default-deny (RequestAuthentication x/tokens)",
                "token: of an issuer that is none any more",
            ),
            id="an issuer that is gone",
        ),
        pytest.param([EVERYTHING], begun(claims=token(exp=1)), None, id="nobody wants tokens"),
    ],
)
def test_a_request_goes_on_while_it_would_be_let_in(policies, one, refused):
    world = world_of(*policies)
    requests = Requests(world, compile_policies(world))
    client, server = (world.endpoints[f"x/{name}"] for name in "ab")
    found = refusal(requests, "home", client, server, 80, one, NOW_S)
    assert (None if found is None else (str(found.rule), found.why)) == refused
