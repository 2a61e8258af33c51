"""What is wrong with a TrafficPolicy, beyond its shape."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import between, said
from sixfold.manifest.path import Finding, Path
from sixfold.manifest.requests import is_token
from sixfold.manifest.routes import header_values
from sixfold.model.duration import seconds
from sixfold.model.trafficpolicy import (
    FaultInjection,
    OutlierDetection,
    PolicyTimeouts,
    TargetReference,
    TrafficPolicy,
    TrafficPolicySpec,
)

TARGETS_MAX = 16
LIMIT_PER_MIN_S = 0.05  # Envoy fills no faster
GATEWAY = "gateway.networking.k8s.io"
TARGETS = (("", "Service"), (GATEWAY, "HTTPRoute"), (GATEWAY, "GRPCRoute"))
_SPEC: Path = ("spec",)


def traffic_policy(obj: TrafficPolicy) -> Iterator[Finding]:
    """Findings about the spec."""
    spec = obj.spec
    if not 1 <= len(spec.target_refs) <= TARGETS_MAX:
        yield Finding((*_SPEC, "targetRefs"), f"give 1 to {TARGETS_MAX}")
    for index, target in enumerate(spec.target_refs):
        yield from _target((*_SPEC, "targetRefs", index), target)
    if spec.outlier_detection is not None:
        yield from _outliers((*_SPEC, "outlierDetection"), spec.outlier_detection)
    yield from _of_backends(spec)
    yield from _timeouts((*_SPEC, "timeouts"), spec.timeouts)
    yield from _retry((*_SPEC, "retry"), spec)
    for index, limit in enumerate(spec.rate_limits):
        here = (*_SPEC, "rateLimits", index)
        yield from between((*here, "requests"), limit.requests, 1)
        yield from duration((*here, "per"), limit.per, LIMIT_PER_MIN_S)
    if spec.fault_injection is not None:
        yield from _fault((*_SPEC, "faultInjection"), spec.fault_injection)
    if (limits := spec.circuit_breaker) is not None:
        path = (*_SPEC, "circuitBreaker")
        yield from between((*path, "maxConnections"), limits.max_connections, 1)
        yield from between((*path, "maxPendingRequests"), limits.max_pending_requests, 0)
        yield from between((*path, "maxRequests"), limits.max_requests, 0)
        yield from between((*path, "maxRetries"), limits.max_retries, 0)


def _target(path: Path, target: TargetReference) -> Iterator[Finding]:
    if (target.group, target.kind) not in TARGETS:
        what = f"{target.kind} of {target.group or 'core'}"
        message = f"{what} is no target; give kind: Service, or a route with group: {GATEWAY}"
        yield Finding((*path, "kind"), message, also=((*path, "group"),))
    right = names.dns_label if target.kind == "Service" else names.dns_subdomain
    yield from said((*path, "name"), right(target.name))
    if target.section_name:
        yield from said((*path, "sectionName"), names.dns_label(target.section_name))


def _of_backends(spec: TrafficPolicySpec) -> Iterator[Finding]:
    """What is about backends is no matter of routes: others lead to the same backends."""
    given = {
        ("outlierDetection",): spec.outlier_detection,
        ("circuitBreaker",): spec.circuit_breaker,
        ("consistentHash",): spec.consistent_hash,
        ("timeouts", "connect"): spec.timeouts.connect,
        ("retry", "budget"): spec.retry.budget,
    }
    if any(target.kind != "Service" for target in spec.target_refs):
        for field, value in given.items():
            if value is not None:
                message = "is for Services; remove it, or the targetRefs that are routes"
                yield Finding((*_SPEC, *field), message)
    if (hashed := spec.consistent_hash) is not None:
        path = (*_SPEC, "consistentHash")
        if (hashed.header is None) == (hashed.cookie is None):
            yield Finding(path, "give exactly one of header, cookie")
        if hashed.header is not None and not is_token(hashed.header):
            yield Finding((*path, "header"), f"{names.quoted(hashed.header)} is no header's name")
        if hashed.cookie is not None:
            if not is_token(hashed.cookie.name):
                message = f"{names.quoted(hashed.cookie.name)} is no cookie's name"
                yield Finding((*path, "cookie", "name"), message)
            yield from duration((*path, "cookie", "ttl"), hashed.cookie.ttl, 1)


def _timeouts(path: Path, timeouts: PolicyTimeouts) -> Iterator[Finding]:
    yield from duration((*path, "connect"), timeouts.connect)
    yield from duration((*path, "request"), timeouts.request, 0)
    yield from duration((*path, "backendRequest"), timeouts.backend_request, 0)


def _retry(path: Path, spec: TrafficPolicySpec) -> Iterator[Finding]:
    if spec.retry.methods is not None and not spec.retry.methods:
        yield Finding((*path, "methods"), "is empty; remove retry.codes of the route instead")
    if (budget := spec.retry.budget) is None:
        return
    yield from between((*path, "budget", "percent"), budget.percent, 0, 100)
    yield from between((*path, "budget", "minConcurrent"), budget.min_concurrent, 0)
    if spec.circuit_breaker is not None and spec.circuit_breaker.max_retries is not None:
        message = "means nothing beside circuitBreaker.maxRetries; keep one of them"
        yield Finding((*path, "budget"), message)


def _fault(path: Path, fault: FaultInjection) -> Iterator[Finding]:
    if fault.delay is None and fault.abort is None:
        yield Finding(path, "injects nothing; give delay, abort or both")
    if (delay := fault.delay) is not None:
        yield from duration((*path, "delay", "duration"), delay.duration)
        yield from between((*path, "delay", "percent"), delay.percent, 0, 100)
    if (abort := fault.abort) is not None:
        yield from between((*path, "abort", "status"), abort.status, 200, 599)
        yield from between((*path, "abort", "grpcStatus"), abort.grpc_status, 0, 16)
        yield from between((*path, "abort", "percent"), abort.percent, 0, 100)
        if (abort.status is None) == (abort.grpc_status is None):
            yield Finding((*path, "abort"), "give exactly one of status, grpcStatus")
    yield from header_values((*path, "headers"), fault.headers)


def _outliers(path: Path, outliers: OutlierDetection) -> Iterator[Finding]:
    yield from between((*path, "consecutiveErrors"), outliers.consecutive_errors, 1, 1000)
    yield from between((*path, "maxEjectionPercent"), outliers.max_ejection_percent, 0, 100)
    for field in ("interval", "base_ejection_time", "max_ejection_time"):
        yield from duration((*path, _camel(field)), getattr(outliers, field))


def duration(path: Path, text: str | None, least_s: float = 0.001) -> Iterator[Finding]:
    if text is None:
        return
    try:
        if seconds(text) < least_s:
            yield Finding(path, f"{text} is too short; give {least_s:g} s or more")
    except ValueError as error:
        yield Finding(path, str(error))


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(part.title() for part in rest)
