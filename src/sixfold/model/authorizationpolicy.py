"""security.istio.io AuthorizationPolicy, as written: which connections and requests workloads take.

Without a selector it is for its namespace; in one of ``ROOT_NAMESPACES`` for all of them.
Source: istio.io/latest/docs/reference/config/security/authorization-policy.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written
from sixfold.model.peerauthentication import GatewayTarget, Selecting, WorkloadSelector

AUTHORIZATION_POLICY = "AuthorizationPolicy"
Action = Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"]


class Source(Object):
    """Who asks: all that is written must hold, of each list one is enough."""

    principals: list[str] = []
    not_principals: list[str] = []
    service_accounts: list[str] = []
    not_service_accounts: list[str] = []
    request_principals: list[str] = []
    not_request_principals: list[str] = []
    namespaces: list[str] = []
    not_namespaces: list[str] = []
    ip_blocks: list[str] = []
    not_ip_blocks: list[str] = []


class Operation(Object):
    """What is asked: likewise."""

    hosts: list[str] = []
    not_hosts: list[str] = []
    ports: list[str] = []
    not_ports: list[str] = []
    methods: list[str] = []
    not_methods: list[str] = []
    paths: list[str] = []
    not_paths: list[str] = []


class From(Object):
    source: Source


class To(Object):
    operation: Operation


class When(Object):
    """``key`` names an attribute: ``request.headers[x-team]``."""

    key: str
    values: list[str] = []
    not_values: list[str] = []


class AuthorizationRule(Object):
    """Any of ``from``, any of ``to``, all of ``when``; what is absent holds."""

    from_: list[From] | None = msgspec.field(default=None, name="from")
    to: list[To] | None = None
    when: list[When] | None = None


class AuthorizationPolicySpec(Object):
    """Without rules nothing matches: ALLOW then allows nothing."""

    selector: WorkloadSelector | None = None
    target_refs: list[GatewayTarget] = []
    action: Action = "ALLOW"
    rules: list[AuthorizationRule] | None = None


class AuthorizationPolicy(Selecting):
    metadata: ObjectMeta
    spec: AuthorizationPolicySpec = msgspec.field(default_factory=AuthorizationPolicySpec)
    api_version: str = written("security.istio.io/v1")
    kind: str = written(AUTHORIZATION_POLICY)
    status: dict[str, Any] = {}
