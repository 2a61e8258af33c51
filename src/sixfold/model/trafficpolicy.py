"""sixfold.dev/v1 TrafficPolicy: how requests to a Service are carried. Ours.

Nothing of the Gateway API says these things. Terms are Envoy's. Durations are texts of GEP-2257
("1h30m", "250ms").
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.httproute import ValueMatch
from sixfold.model.meta import Object, ObjectMeta, written

TRAFFIC_POLICY = "TrafficPolicy"


class TargetReference(Object):
    """What it is about, in its own namespace: a Service, an HTTPRoute or a GRPCRoute.

    section_name  of a Service: name of a port; of a route: name of a rule; "": all of them
    """

    name: str
    group: str = ""
    kind: str = "Service"
    section_name: str = ""


class OutlierDetection(Object):
    """A backend that fails again and again gets nothing for a while, longer each time.

    consecutive_errors    answers of 500 and above, or none at all
    base_ejection_time    times how often it was ejected
    max_ejection_percent  of the backends; one may be, whatever this says
    """

    consecutive_errors: int = 5
    interval: str = "10s"
    base_ejection_time: str = "30s"
    max_ejection_time: str = "5m"
    max_ejection_percent: int = 50


class CircuitBreaker(Object):
    """More than so many at once are answered 503; None: no limit.

    max_connections       of the proxy to the pods' processes; each pod has one at least
    max_pending_requests  that wait for a connection to a process
    max_requests          sent and not answered yet
    max_retries           of those, tried again
    """

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None


class HashedCookie(Object):
    """With a ``ttl`` the proxy gives one to who has none."""

    name: str
    ttl: str | None = None


class ConsistentHash(Object):
    """What is equal leads to the same backend; exactly one. Who has none is told by its address."""

    header: str | None = None
    cookie: HashedCookie | None = None


class PolicyTimeouts(Object):
    """Where a route says nothing else. "0s" is none."""

    connect: str | None = None
    request: str | None = None
    backend_request: str | None = None


class RetryBudget(Object):
    """How many may be tried again at once: percent of what is under way, and so many anyway."""

    percent: int = 20
    min_concurrent: int = 3


class PolicyRetry(Object):
    """``methods``: those whose answers with a route's codes are tried again."""

    budget: RetryBudget | None = None
    methods: list[Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]] | None = None


class RateLimit(Object):
    """So many in so long, refilled steadily; more are answered 429.

    each  whose they are counted as: one SPIFFE ID's, or those of all clients of a namespace
    """

    requests: int
    per: str = "1s"
    each: Literal["Identity", "Namespace"] = "Identity"


class Delay(Object):
    duration: str
    percent: int = 100


class Abort(Object):
    """Exactly one of both: an HTTP status, or gRPC's."""

    status: int | None = None
    grpc_status: int | None = None
    percent: int = 100


class FaultInjection(Object):
    """``headers``: of requests with all of these only."""

    delay: Delay | None = None
    abort: Abort | None = None
    headers: list[ValueMatch] = []


class TrafficPolicySpec(Object):
    """What is above the line is of backends: Services only; below of requests, of routes too."""

    target_refs: list[TargetReference]
    outlier_detection: OutlierDetection | None = None
    circuit_breaker: CircuitBreaker | None = None
    consistent_hash: ConsistentHash | None = None
    # ---
    timeouts: PolicyTimeouts = msgspec.field(default_factory=PolicyTimeouts)
    retry: PolicyRetry = msgspec.field(default_factory=PolicyRetry)
    rate_limits: list[RateLimit] = []
    fault_injection: FaultInjection | None = None


class TrafficPolicy(Object):
    metadata: ObjectMeta
    spec: TrafficPolicySpec
    api_version: str = written("sixfold.dev/v1")
    kind: str = written(TRAFFIC_POLICY)
    status: dict[str, Any] = {}
