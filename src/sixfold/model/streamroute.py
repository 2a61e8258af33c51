"""gateway.networking.k8s.io/v1 TLSRoute and TCPRoute: where connections go that nobody reads.

Source: Gateway API 1.4. A TLSRoute goes by the name in the handshake (SNI).
"""

from __future__ import annotations

from typing import Any

from sixfold.model.httproute import BackendReference, ParentReference
from sixfold.model.meta import Object, ObjectMeta, written


class StreamRule(Object):
    name: str = ""
    backend_refs: list[BackendReference] = []


class TLSRouteSpec(Object):
    parent_refs: list[ParentReference] = []
    hostnames: list[str] = []
    rules: list[StreamRule] = []


class TLSRoute(Object):
    metadata: ObjectMeta
    spec: TLSRouteSpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("TLSRoute")
    status: dict[str, Any] = {}


class TCPRouteSpec(Object):
    parent_refs: list[ParentReference] = []
    rules: list[StreamRule] = []


class TCPRoute(Object):
    metadata: ObjectMeta
    spec: TCPRouteSpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("TCPRoute")
    status: dict[str, Any] = {}


StreamRoute = TLSRoute | TCPRoute
STREAM_KINDS = ("TLSRoute", "TCPRoute")
