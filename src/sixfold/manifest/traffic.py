"""What is wrong with a TrafficPolicy, beyond its shape."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import between, said
from sixfold.manifest.path import Finding, Path
from sixfold.model.duration import seconds
from sixfold.model.trafficpolicy import OutlierDetection, TargetReference, TrafficPolicy

TARGETS_MAX = 16
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
    if (limits := spec.circuit_breaker) is not None:
        path = (*_SPEC, "circuitBreaker")
        yield from between((*path, "maxConnections"), limits.max_connections, 1)
        yield from between((*path, "maxPendingRequests"), limits.max_pending_requests, 0)
        yield from between((*path, "maxRequests"), limits.max_requests, 0)
        yield from between((*path, "maxRetries"), limits.max_retries, 0)


def _target(path: Path, target: TargetReference) -> Iterator[Finding]:
    if (target.group, target.kind) != ("", "Service"):
        what = f"{target.kind} of {target.group or 'core'}"
        yield Finding((*path, "kind"), f"{what} is no target; give kind: Service")
    yield from said((*path, "name"), names.dns_label(target.name))
    if target.section_name:
        yield from said((*path, "sectionName"), names.dns_label(target.section_name))


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
