"""What is wrong with a RequestAuthentication, beyond its shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

from sixfold.manifest import names
from sixfold.manifest.authorization import targets
from sixfold.manifest.path import Finding, Path
from sixfold.manifest.requests import is_token
from sixfold.model.duration import seconds
from sixfold.model.enforcement import ENFORCEMENT
from sixfold.model.requestauthentication import JWTRule, RequestAuthentication


def request_authentication(obj: RequestAuthentication) -> Iterator[Finding]:
    """Findings about the spec."""
    if ENFORCEMENT in obj.metadata.annotations:
        message = "a token is good or not; audit the AuthorizationPolicies, or the Namespace"
        yield Finding(("metadata", "annotations", ENFORCEMENT), message)
    yield from targets(obj)
    for at, rule in enumerate(obj.spec.jwt_rules):
        yield from _rule(("spec", "jwtRules", at), rule)


def _rule(path: Path, rule: JWTRule) -> Iterator[Finding]:
    if not rule.issuer:
        yield Finding((*path, "issuer"), "is empty; give what tokens have as iss")
    if rule.jwks and rule.jwks_uri:
        yield Finding((*path, "jwksUri"), "stands beside jwks; keep one")
    elif rule.jwks:
        yield from _keys((*path, "jwks"), rule.jwks)
    elif rule.issuer and urlsplit(rule.keys_at).scheme not in ("http", "https"):
        at, text = ("jwksUri", rule.jwks_uri) if rule.jwks_uri else ("issuer", rule.issuer)
        message = "is no URL of http or https, where keys could be fetched; give jwks or jwksUri"
        yield Finding((*path, at), f"{names.quoted(text)} {message}")
    headers = [("fromHeaders", at, "name", one.name) for at, one in enumerate(rule.from_headers)]
    headers += [
        ("outputClaimToHeaders", at, "header", one.header)
        for at, one in enumerate(rule.output_claim_to_headers)
    ]
    for name, index, field, text in headers:
        if not is_token(text):
            yield Finding(
                (*path, name, index, field), f"{names.quoted(text)}: no header is so called"
            )
    if rule.output_payload_to_header and not is_token(rule.output_payload_to_header):
        yield Finding((*path, "outputPayloadToHeader"), "no header is so called")
    if rule.timeout:
        try:
            if not seconds(rule.timeout):
                yield Finding((*path, "timeout"), "is nothing; give a duration above zero")
        except ValueError as error:
            yield Finding((*path, "timeout"), str(error))


def _keys(path: Path, text: str) -> Iterator[Finding]:
    try:
        found = json.loads(text)
    except ValueError as error:
        yield Finding(path, f"is no JSON: {error}")
        return
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        yield Finding(path, 'is no JSON Web Key Set: give {"keys": [...]}')
