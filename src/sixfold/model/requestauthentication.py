"""security.istio.io RequestAuthentication, as written: whose tokens (JWT) requests may carry.

A token that is not good is refused; that there is one, an AuthorizationPolicy has to ask for.
Source: istio.io/latest/docs/reference/config/security/request_authentication.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written
from sixfold.model.peerauthentication import GatewayTarget, Selecting, WorkloadSelector

REQUEST_AUTHENTICATION = "RequestAuthentication"


class JWTHeader(Object):
    """``prefix`` stands before the token, a space included."""

    name: str
    prefix: str = ""


class ClaimToHeader(Object):
    header: str
    claim: str


class JWTRule(Object):
    """Without ``jwks`` and ``jwksUri`` the issuer is asked (OpenID Connect Discovery)."""

    issuer: str
    audiences: list[str] = []
    jwks: str = ""
    jwks_uri: str = ""
    from_headers: list[JWTHeader] = []
    from_params: list[str] = []
    from_cookies: list[str] = []
    forward_original_token: bool = False
    output_payload_to_header: str = ""
    output_claim_to_headers: list[ClaimToHeader] = []
    timeout: str = ""

    @property
    def keys_at(self) -> str:
        """Where its keys are to be fetched; "": they are written here."""
        if self.jwks:
            return ""
        return self.jwks_uri or f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


class RequestAuthenticationSpec(Object):
    selector: WorkloadSelector | None = None
    target_refs: list[GatewayTarget] = []
    jwt_rules: list[JWTRule] = []


class RequestAuthentication(Selecting):
    metadata: ObjectMeta
    spec: RequestAuthenticationSpec = msgspec.field(default_factory=RequestAuthenticationSpec)
    api_version: str = written("security.istio.io/v1")
    kind: str = written(REQUEST_AUTHENTICATION)
    status: dict[str, Any] = {}
