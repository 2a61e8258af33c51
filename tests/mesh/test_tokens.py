"""RequestAuthentications: what the filter for tokens is told."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from jwt.algorithms import ECAlgorithm

from sixfold.manifest import decode
from sixfold.mesh.asked import Asked
from sixfold.mesh.tokens import NO_KEY, claims_of, configured, usable

ISSUER = "https://issuer.example"


def key():
    return {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), True)}


def written(name="a", **rule):
    raw = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"jwtRules": [{"issuer": ISSUER, **rule}]},
    }
    return decode(raw).object


def told(*given, keys=None, audit=False):
    found = extension_pb2.TypedExtensionConfig()
    configured("shop/web", given, keys or {}, audit=audit).body.Unpack(found)
    config = config_pb2.JwtAuthentication()
    found.typed_config.Unpack(config)
    return config


def keys_in(config, name="shop/a[0]"):
    return json.loads(config.providers[name].local_jwks.inline_string)["keys"]


def test_keys_are_inline_or_fetched_or_nobodys():
    one = key()
    assert keys_in(told(written(jwks=json.dumps({"keys": [one]})))) == [one]
    at = f"{ISSUER}/.well-known/openid-configuration"
    assert keys_in(told(written(), keys={at: json.dumps({"keys": [one]})})) == [one]
    assert keys_in(told(written())) == [NO_KEY]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        "[]",
        '{"keys": {}}',
        '{"keys": ["a"]}',
        '{"keys": [{"kty": "EC"}]}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
    ],
)
def test_what_is_no_key_of_use_leaves_nobodys(bad):
    assert json.loads(usable(bad))["keys"] == [NO_KEY]


def test_one_bad_key_does_not_spoil_the_others():
    one = key()
    assert json.loads(usable(json.dumps({"keys": [{"kty": "EC"}, one]})))["keys"] == [one]


def test_without_rules_the_filter_does_nothing():
    assert told() == config_pb2.JwtAuthentication()


def test_a_good_token_of_any_issuer_will_do_or_none_at_all_but_no_bad_one():
    (one,) = told(written()).rules
    assert [it.WhichOneof("requires_type") for it in one.requires.requires_any.requirements] == [
        "provider_name",
        "allow_missing",
    ]
    (two,) = told(written(), written("b", issuer="https://other.example")).rules
    *any_, all_ = two.requires.requires_any.requirements
    assert [it.provider_name for it in any_] == ["shop/a[0]", "shop/b[0]"]
    assert len(all_.requires_all.requirements) == 2
    (audited,) = told(written(), audit=True).rules
    last = audited.requires.requires_any.requirements[-1]
    assert last.WhichOneof("requires_type") == "allow_missing_or_failed"


def bearer(claims):
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return Asked(headers={"authorization": f"Bearer e30.{payload}.e30"})


def test_what_a_token_claims_is_read_for_explanations():
    found = claims_of([written()], bearer({"iss": ISSUER, "sub": "a", "scope": "read write"}))
    assert found == {"iss": ISSUER, "sub": "a", "scope": ["read", "write"]}
    assert claims_of([written()], Asked()) == {}
    assert claims_of([], bearer({"iss": "x"})) == {}
    assert claims_of([written()], bearer({"iss": "x"})) is None
    assert claims_of([written()], Asked(headers={"authorization": "Bearer x"})) is None
