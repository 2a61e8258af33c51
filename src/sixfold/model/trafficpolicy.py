"""sixfold.dev/v1 TrafficPolicy: how requests to a Service are carried. Ours.

Nothing of the Gateway API says these things. Terms are Envoy's. Durations are texts of GEP-2257
("1h30m", "250ms").
"""

from __future__ import annotations

from typing import Any

from sixfold.model.meta import Object, ObjectMeta, written

TRAFFIC_POLICY = "TrafficPolicy"


class TargetReference(Object):
    """What it is about, in its own namespace; of a Service ``section_name`` names a port."""

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


class TrafficPolicySpec(Object):
    target_refs: list[TargetReference]
    outlier_detection: OutlierDetection | None = None
    circuit_breaker: CircuitBreaker | None = None


class TrafficPolicy(Object):
    metadata: ObjectMeta
    spec: TrafficPolicySpec
    api_version: str = written("sixfold.dev/v1")
    kind: str = written(TRAFFIC_POLICY)
    status: dict[str, Any] = {}
