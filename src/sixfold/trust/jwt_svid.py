"""JWT-SVIDs: what a workload shows where no TLS of its own reaches.

Pure: times are arguments. Source: JWT-SVID 1.0; only ES256, the algorithm of our own key.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import jwt

from sixfold.model.spiffe import SpiffeId, parse
from sixfold.trust.authority import JwtAuthority
from sixfold.trust.keyring import Keyring

ALGORITHM = "ES256"


def issue_jwt(
    authority: JwtAuthority,
    id_: SpiffeId,
    audience: Sequence[str],
    now: datetime,
    lifetime: timedelta,
    issuer: str = "",
) -> str:
    """A token in compact serialization.

    issuer  URL of the OIDC provider that publishes the key, if there is one
    """
    assert audience, "checked by who was asked"
    claims = {
        "sub": str(id_),
        "aud": list(audience),
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
    }
    headers = {"kid": authority.id, "typ": "JWT"}
    named = {"iss": issuer} if issuer else {}
    return jwt.encode({**named, **claims}, authority.key, ALGORITHM, headers)


def validate_jwt(
    keyring: Keyring, token: str, audience: str, now: datetime
) -> tuple[SpiffeId, dict[str, Any]]:
    """Whose token this is, and its claims; ValueError when it is not valid for the audience."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        authority = next(
            (one.authority for one in keyring.jwt_authorities if one.authority.id == kid), None
        )
        if authority is None:
            raise ValueError("the key ID is not one of this trust domain")
        claims: dict[str, Any] = jwt.decode(
            token,
            authority.key.public_key(),
            [ALGORITHM],
            audience=audience,
            options={"require": ["sub", "aud", "exp"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.PyJWTError as error:
        raise ValueError(str(error)) from None
    if now.timestamp() >= float(claims["exp"]):
        raise ValueError("Signature has expired")
    id_ = parse(claims["sub"])
    if id_.trust_domain != keyring.trust_domain:
        raise ValueError(f"{id_}: of another trust domain")
    return id_, claims


def public_jwk(authority: JwtAuthority) -> dict[str, str]:
    """The key that verifies its tokens (RFC 7517)."""
    numbers = authority.key.public_key().public_numbers()
    return {
        "kty": "EC",
        "kid": authority.id,
        "crv": "P-256",
        "x": _encoded(numbers.x),
        "y": _encoded(numbers.y),
    }


def _encoded(number: int) -> str:
    return urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
