"""gateway.networking.k8s.io/v1 HTTPRoute and GRPCRoute, as far as a mesh reads them (GAMMA).

Source: Gateway API 1.4. A parent is a Service: the route says what happens to requests for it.
Durations are texts of GEP-2257 ("1h30m", "250ms").
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written

PathType = Literal["Exact", "PathPrefix", "RegularExpression"]
ValueType = Literal["Exact", "RegularExpression"]
Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
FilterType = Literal[
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "RequestMirror",
    "CORS",
]


class ParentReference(Object):
    """What a route is attached to; here a Service, or one port of it."""

    name: str
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    namespace: str = ""  # "": the route's own
    section_name: str = ""
    port: int | None = None


class BackendReference(Object):
    """Where requests go: a port of a Service, with a share of them."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""  # "": the route's own
    port: int | None = None
    weight: int = 1


class PathMatch(Object):
    type: PathType = "PathPrefix"
    value: str = "/"


class ValueMatch(Object):
    """Of a header or a query parameter."""

    name: str
    value: str
    type: ValueType = "Exact"


class HTTPMatch(Object):
    """All of it must hold."""

    path: PathMatch = msgspec.field(default_factory=PathMatch)
    headers: list[ValueMatch] = []
    query_params: list[ValueMatch] = []
    method: Method | None = None


class Header(Object):
    name: str
    value: str


class HeaderModifier(Object):
    set: list[Header] = []
    add: list[Header] = []
    remove: list[str] = []


class PathModifier(Object):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class Redirect(Object):
    scheme: Literal["http", "https"] | None = None
    hostname: str = ""
    path: PathModifier | None = None
    port: int | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class Rewrite(Object):
    hostname: str = ""
    path: PathModifier | None = None


class Fraction(Object):
    numerator: int
    denominator: int = 100


class Mirror(Object):
    backend_ref: BackendReference
    percent: int | None = None
    fraction: Fraction | None = None


class Cors(Object):
    allow_origins: list[str] = []
    allow_credentials: bool = False
    allow_methods: list[str] = []
    allow_headers: list[str] = []
    expose_headers: list[str] = []
    max_age: int = 5  # seconds


class Filter(Object):
    """One step; exactly the field that its type names."""

    type: FilterType
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: Redirect | None = None
    url_rewrite: Rewrite | None = None
    request_mirror: Mirror | None = None
    cors: Cors | None = None


class HTTPBackend(BackendReference):
    filters: list[Filter] = []


class Timeouts(Object):
    """Of the whole request, tries included; of each try. "0s" is none."""

    request: str | None = None
    backend_request: str | None = None


class Retry(Object):
    codes: list[int] = []
    attempts: int = 1
    backoff: str | None = None


class CookieConfig(Object):
    """A permanent one lasts for the absolute timeout, one of a session until its client ends."""

    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(Object):
    """GEP-1619: who was once served by a backend is so again, as long as it is there."""

    session_name: str = ""
    absolute_timeout: str | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None


class HTTPRule(Object):
    name: str = ""
    matches: list[HTTPMatch] = []  # any of them; none: every request
    filters: list[Filter] = []
    backend_refs: list[HTTPBackend] = []
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None


class HTTPRouteSpec(Object):
    parent_refs: list[ParentReference] = []
    hostnames: list[str] = []
    rules: list[HTTPRule] = msgspec.field(default_factory=lambda: [HTTPRule()])


class HTTPRoute(Object):
    metadata: ObjectMeta
    spec: HTTPRouteSpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("HTTPRoute")
    status: dict[str, Any] = {}


class GRPCMethodMatch(Object):
    type: ValueType = "Exact"
    service: str = ""
    method: str = ""


class GRPCMatch(Object):
    method: GRPCMethodMatch | None = None
    headers: list[ValueMatch] = []


class GRPCRule(Object):
    name: str = ""
    matches: list[GRPCMatch] = []
    filters: list[Filter] = []
    backend_refs: list[HTTPBackend] = []
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(Object):
    parent_refs: list[ParentReference] = []
    hostnames: list[str] = []
    rules: list[GRPCRule] = msgspec.field(default_factory=lambda: [GRPCRule()])


class GRPCRoute(Object):
    metadata: ObjectMeta
    spec: GRPCRouteSpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("GRPCRoute")
    status: dict[str, Any] = {}


Route = HTTPRoute | GRPCRoute
ROUTE_KINDS = ("HTTPRoute", "GRPCRoute")
