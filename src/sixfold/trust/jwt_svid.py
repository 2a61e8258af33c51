"""JWT-SVIDs: what a workload shows where no TLS of its own reaches.

Pure: times are arguments. Source: JWT-SVID 1.0; only ES256, the algorithm of our own key.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import jwt

from sixfold.model.spiffe import SpiffeId, parse
from sixfold.trust.authority import Authority

ALGORITHM = "ES256"
REFRESH_HINT_S = 300


def issue_jwt(
    authority: Authority,
    id_: SpiffeId,
    audience: Sequence[str],
    now: datetime,
    lifetime: timedelta,
) -> str:
    """A token in compact serialization."""
    assert audience, "checked by who was asked"
    claims = {
        "sub": str(id_),
        "aud": list(audience),
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
    }
    headers = {"kid": authority.jwt_key_id, "typ": "JWT"}
    return jwt.encode(claims, authority.jwt_key, ALGORITHM, headers)


def validate_jwt(
    authority: Authority, token: str, audience: str, now: datetime
) -> tuple[SpiffeId, dict[str, Any]]:
    """Whose token this is, and its claims; ValueError when it is not valid for the audience."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            authority.jwt_key.public_key(),
            [ALGORITHM],
            audience=audience,
            options={"require": ["sub", "aud", "exp"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.PyJWTError as error:
        raise ValueError(str(error)) from None
    if now.timestamp() >= float(claims["exp"]):
        raise ValueError("Signature has expired")
    if jwt.get_unverified_header(token).get("kid") != authority.jwt_key_id:
        raise ValueError("the key ID is not one of this trust domain")
    id_ = parse(claims["sub"])
    if id_.trust_domain != authority.trust_domain:
        raise ValueError(f"{id_}: of another trust domain")
    return id_, claims


def key_set(authority: Authority) -> bytes:
    """The JSON Web Key Set that verifies tokens of this domain (SPIFFE bundle format)."""
    numbers = authority.jwt_key.public_key().public_numbers()
    key = {
        "kty": "EC",
        "use": "jwt-svid",
        "kid": authority.jwt_key_id,
        "crv": "P-256",
        "x": _encoded(numbers.x),
        "y": _encoded(numbers.y),
    }
    return json.dumps({"keys": [key], "spiffe_refresh_hint": REFRESH_HINT_S}).encode()


def _encoded(number: int) -> str:
    return urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
