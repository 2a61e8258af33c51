"""JWT-SVIDs: what a workload shows where no TLS of its own reaches.

Pure: times are arguments. Source: JWT-SVID 1.0; only ES256, the algorithm of our own key.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import jwt

from sixfold.model.spiffe import SpiffeId, parse
from sixfold.trust.authority import JwtAuthority
from sixfold.trust.keyring import Keyring

ALGORITHM = "ES256"
ALGORITHMS = [f"{kind}{size}" for kind in ("RS", "ES", "PS") for size in (256, 384, 512)]
NOBODY: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({})


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
    keyring: Keyring,
    token: str,
    audience: str,
    now: datetime,
    foreign: Mapping[str, Sequence[Mapping[str, Any]]] = NOBODY,
) -> tuple[SpiffeId, dict[str, Any]]:
    """Whose token this is, and its claims; ValueError when it is not valid for the audience.

    foreign  JSON Web Keys of other trust domains, by their names
    """
    try:
        claimed = parse(
            str(jwt.decode(token, options={"verify_signature": False}).get("sub"))
        ).trust_domain
        kid = jwt.get_unverified_header(token).get("kid")
        if claimed == keyring.trust_domain:
            own = (one.authority for one in keyring.jwt_authorities)
            keys = [one.key.public_key() for one in own if one.id == kid]
            algorithms = [ALGORITHM]
        elif claimed in foreign:
            keys = [jwt.PyJWK(dict(it)).key for it in foreign[claimed] if it.get("kid") == kid]
            algorithms = ALGORITHMS
        else:
            raise ValueError(f"spiffe://{claimed}: another trust domain, and none that is known")
        if len(keys) != 1:
            raise ValueError("the key ID is not one of this trust domain")
        claims: dict[str, Any] = jwt.decode(
            token,
            keys[0],
            algorithms,
            audience=audience,
            options={"require": ["sub", "aud", "exp"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.PyJWTError as error:
        raise ValueError(str(error)) from None
    if now.timestamp() >= float(claims["exp"]):
        raise ValueError("Signature has expired")
    return parse(claims["sub"]), claims


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
