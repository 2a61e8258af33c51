"""RequestAuthentications as Envoy's filter for tokens (jwt_authn).

Pure. Keys come from the agent, which fetches them: of what was not fetched there is a key that
nobody has, by which no token is good. The filter's configuration is a resource of its own (ECDS)
for each pod, so that a change of it drains no listener. Requests only: nobody looks into tunnels.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as api
from jwt import PyJWK, PyJWTError

from sixfold.mesh.asked import Asked
from sixfold.mesh.conditions import PAYLOAD
from sixfold.mesh.messages import Resource, packed, resource, type_url
from sixfold.model.mesh import DESTINATION
from sixfold.model.requestauthentication import JWTRule, RequestAuthentication

# A key that nobody has: x is the first point of P-256 at or after the SHA-256 of "sixfold: a key
# that nobody has". Envoy refuses a set without a key, and would go on with what it had.
NO_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ES256",
    "kid": "nobody's",
    "x": "Lwkg6GbNs62UHo9kB0gIvNu2bX3sNjplITPxOykQCoU",
    "y": "M8yiAyuceCqaxWqfqhVEZqCFWjtPrKph53DhmZcwazo",
}
KEY_TYPES = ("RSA", "EC", "OKP")  # what is no secret; a set that is published holds no other
SEPARATED = ("scope", "permission")  # claims that are lists with spaces between
NO_TOKEN: dict[str, Any] = {}
Keys = Mapping[str, str]  # JWKS by where they were fetched


def filter_name(pod: str) -> str:
    return f"tokens|{pod}"


def discovered(pod: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """The filter in a chain: nothing passes before its configuration is there."""
    url = type_url(api.JwtAuthentication)
    return {
        "name": filter_name(pod),
        "config_discovery": {"config_source": source, "type_urls": [url]},
    }


def configured(
    pod: str,
    written: Sequence[RequestAuthentication],
    keys: Keys,
    audit: bool = False,
    of_gateway: bool = False,
) -> Resource:
    """What one pod's filter is told; ``audit``: no token is refused."""
    rules = {
        f"{one.metadata.namespace}/{one.metadata.name}[{at}]": rule
        for one in written
        for at, rule in enumerate(one.spec.jwt_rules)
    }
    config = api.JwtAuthentication()
    if rules:
        # Tunnels have neither; what comes to a Gateway has no destination yet.
        sent = {"name": DESTINATION, "present_match": True, "invert_match": of_gateway}
        tunnel = {"name": ":method", "string_match": {"exact": "CONNECT"}, "invert_match": True}
        requests = {"prefix": "/", "headers": [sent, tunnel]}
        config = api.JwtAuthentication(
            providers={name: _provider(rule, keys) for name, rule in rules.items()},
            rules=[{"match": requests, "requires": _requirement(list(rules), audit=audit)}],
        )
    name = filter_name(pod)
    wrapped = extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))
    return resource(name, wrapped)


def _requirement(providers: Sequence[str], *, audit: bool) -> dict[str, Any]:
    """A token of any of them; or that each of them finds a good one, or none at all."""
    if audit:
        tolerated = [{"provider_name": name} for name in providers]
        return {"requires_any": {"requirements": [*tolerated, {"allow_missing_or_failed": {}}]}}
    each = [
        {"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}}
        for name in providers
    ]
    if len(each) == 1:
        return each[0]
    all_ = {"requires_all": {"requirements": each}}
    any_ = [{"provider_name": name} for name in providers]
    return {"requires_any": {"requirements": [*any_, all_]}}


def _provider(rule: JWTRule, keys: Keys) -> api.JwtProvider:
    return api.JwtProvider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        local_jwks={"inline_string": usable(rule.jwks or keys.get(rule.keys_at, ""))},
        forward=rule.forward_original_token,
        from_headers=[{"name": it.name, "value_prefix": it.prefix} for it in rule.from_headers],
        from_params=rule.from_params,
        from_cookies=rule.from_cookies,
        forward_payload_header=rule.output_payload_to_header,
        claim_to_headers=[
            {"header_name": one.header, "claim_name": one.claim}
            for one in rule.output_claim_to_headers
        ],
        payload_in_metadata=PAYLOAD,
        normalize_payload_in_metadata={"space_delimited_claims": SEPARATED},
    )


def usable(jwks: str) -> str:
    """A set of the keys that can verify, of those that are none of a secret."""
    try:
        given = json.loads(jwks)["keys"]
    except (ValueError, LookupError, TypeError):
        given = []
    keys = [one for one in given if _is_key(one)] if isinstance(given, list) else []
    return json.dumps({"keys": keys or [NO_KEY]}, sort_keys=True)


def _is_key(one: Any) -> bool:
    try:
        return isinstance(one, dict) and one.get("kty") in KEY_TYPES and bool(PyJWK(one))
    except (PyJWTError, ValueError, TypeError):
        return False


def claims_of(written: Iterable[RequestAuthentication], asked: Asked) -> dict[str, Any] | None:
    """What the bearer token of a request claims, unverified; empty: it has none.

    None: it is none of an issuer that is known, or no token
    """
    scheme, _, token = asked.headers.get("authorization", "").partition(" ")
    rules = [rule for one in written for rule in one.spec.jwt_rules]
    if scheme.lower() != "bearer" or not rules:
        return NO_TOKEN
    try:
        _, payload, _ = token.strip().split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        return None
    if not isinstance(claims, dict) or claims.get("iss") not in {rule.issuer for rule in rules}:
        return None
    for name in SEPARATED:
        if isinstance(claims.get(name), str):
            claims[name] = claims[name].split()
    return claims
