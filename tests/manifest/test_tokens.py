"""What is wrong with a RequestAuthentication, beyond its shape."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"issuer": ""}, "issuer: is empty; give what tokens have as iss"),
        (
            {"issuer": "me"},
            'issuer: "me" is no URL of http or https, where keys could be fetched; give jwks or '
            "jwksUri",
        ),
        (
            {"jwksUri": "file:///etc/shadow"},
            'jwksUri: "file:///etc/shadow" is no URL of http or https, where keys could be '
            "fetched; give jwks or jwksUri",
        ),
        ({"jwks": '{"keys":[]}', "jwksUri": "https://x"}, "jwksUri: stands beside jwks; keep one"),
        ({"jwks": "[]"}, 'jwks: is no JSON Web Key Set: give {"keys": [...]}'),
        ({"timeout": "soon"}, "timeout: 'soon' is no duration; write it as 1h30m, 10s or 250ms"),
        (
            {"fromHeaders": [{"name": "x y"}]},
            'fromHeaders[0].name: "x y": no header is so called',
        ),
    ],
)
def test_what_a_rule_cannot_mean_is_refused(said, make, rule, message):
    assert said(make.request_authentication(**rule)) == [f"spec.jwtRules[0].{message}"]


def test_tokens_are_not_audited(said, make):
    raw = make.request_authentication()
    raw["metadata"]["annotations"] = {"sixfold.dev/enforcement": "audit"}
    (found,) = said(raw)
    assert "a token is good or not" in found
