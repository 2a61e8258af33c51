"""What a TrafficPolicy says of a service, as fields of Envoy's clusters.

Pure. A request passes two clusters: the service's, where its backend is picked, and the
application's, from the proxy to the pod's process. Between the proxies many requests share a
connection, so limits of connections, and of who waits for one, are the application's; all else is
the service's. Source: Envoy's API, config.cluster.v3.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sixfold.mesh.resources import CONNECT_TIMEOUT, no_limits
from sixfold.mesh.said import algorithm_of
from sixfold.model.algorithm import Algorithm
from sixfold.model.duration import seconds
from sixfold.model.trafficpolicy import RetryBudget, TrafficPolicySpec

PICKED = {
    Algorithm.RANDOM: "RANDOM",
    Algorithm.ROUND_ROBIN: "ROUND_ROBIN",
    Algorithm.LEAST_CONNECTIONS: "LEAST_REQUEST",
    Algorithm.MAGLEV: "MAGLEV",
    Algorithm.SOURCE_HASH: "RING_HASH",
}


def picking(algorithm: Algorithm, table_size: int, spec: TrafficPolicySpec) -> dict[str, Any]:
    """How a cluster picks. Weights are those of the endpoints, whatever the algorithm."""
    found: dict[str, Any] = {"lb_policy": PICKED[algorithm_of(algorithm, spec)]}
    if found["lb_policy"] == "MAGLEV":
        found["maglev_lb_config"] = {"table_size": {"value": table_size}}
    return found


def connect_timeout(spec: TrafficPolicySpec) -> timedelta:
    given = spec.timeouts.connect
    return CONNECT_TIMEOUT if given is None else _lasting(given)


def _budget(spec: TrafficPolicySpec) -> dict[str, Any]:
    budget = spec.retry.budget or RetryBudget()
    return {
        "budget_percent": {"value": float(budget.percent)},
        "min_retry_concurrency": {"value": budget.min_concurrent},
    }


def of_service(spec: TrafficPolicySpec) -> dict[str, Any]:
    """Circuit breakers of where the backend is picked."""
    limits = spec.circuit_breaker
    if limits is None:
        return no_limits(retries=_budget(spec))
    retries = _budget(spec) if limits.max_retries is None else None
    given = {"max_requests": limits.max_requests, "max_retries": limits.max_retries}
    return _but_for(no_limits(retries=retries), given)


def limits_connections(spec: TrafficPolicySpec) -> bool:
    limits = spec.circuit_breaker
    return limits is not None and not (
        limits.max_connections is None and limits.max_pending_requests is None
    )


def of_application(spec: TrafficPolicySpec) -> dict[str, Any]:
    """Circuit breakers of the last step."""
    limits = spec.circuit_breaker
    assert limits is not None
    given = {
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
    }
    return _but_for(no_limits(), given)


def outliers(spec: TrafficPolicySpec) -> dict[str, Any] | None:
    """Answers of 500 and above, resets and what never got there count alike."""
    given = spec.outlier_detection
    if given is None:
        return None
    return {
        "consecutive_5xx": {"value": given.consecutive_errors},
        "enforcing_consecutive_5xx": {"value": 100},
        "enforcing_consecutive_gateway_failure": {"value": 0},
        "enforcing_success_rate": {"value": 0},
        "interval": _lasting(given.interval),
        "base_ejection_time": _lasting(given.base_ejection_time),
        "max_ejection_time": _lasting(given.max_ejection_time),
        "max_ejection_percent": {"value": given.max_ejection_percent},
        "always_eject_one_host": {"value": True},
    }


def _but_for(breakers: dict[str, Any], given: dict[str, int | None]) -> dict[str, Any]:
    limits = {name: {"value": value} for name, value in given.items() if value is not None}
    return {"thresholds": [{**breakers["thresholds"][0], **limits}]}


def _lasting(text: str) -> timedelta:
    return timedelta(seconds=seconds(text))
