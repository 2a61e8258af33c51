"""The trust bundle, told to whoever asks by https; and the keys of tokens, as OpenID has them.

Public by intent: all that is here are public keys. GET only. Sources: SPIFFE Federation 1.0 §5
(``https_web``, ``https_spiffe``), OpenID Connect Discovery 1.0 §4, as SPIRE's provider has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sixfold.trust.bundle import REFRESH_HINT_S, document
from sixfold.trust.jwt_svid import ALGORITHM, public_jwk
from sixfold.trust.keyring import Keyring

BUNDLE = "/bundle"


def application(keyring: Callable[[], Keyring], issuer: str) -> Starlette:
    """issuer  URL; "": there is no OpenID provider"""

    async def bundle(_: Request) -> Response:
        return _told(document(keyring()))

    async def keys(_: Request) -> Response:
        found = [
            {**public_jwk(one.authority), "use": "sig", "alg": ALGORITHM}
            for one in keyring().jwt_authorities
        ]
        return _told(_text({"keys": found}))

    async def configuration(_: Request) -> Response:
        return _told(_text(discovery(issuer)))

    routes = [Route(BUNDLE, bundle, methods=["GET"])]
    if issuer:
        routes += [
            Route("/.well-known/openid-configuration", configuration, methods=["GET"]),
            Route("/keys", keys, methods=["GET"]),
        ]
    return Starlette(routes=routes)


def discovery(issuer: str) -> dict[str, Any]:
    """Nobody logs in here, so there is no endpoint for that; the field is required all the same."""
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/keys",
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }


def _text(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def _told(body: bytes) -> Response:
    headers = {"Cache-Control": f"max-age={REFRESH_HINT_S}"}
    return Response(body, media_type="application/json", headers=headers)
