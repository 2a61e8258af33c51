"""What is wrong with a controller and its pod template. Source: apps/v1, batch/v1 validation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.balancing import balancing
from sixfold.manifest.metadata import (
    INT32_MAX,
    asked_for,
    between,
    labelled,
    refused_values,
    selector,
)
from sixfold.manifest.path import Finding, Path
from sixfold.manifest.pods import pod_spec
from sixfold.model.meta import LabelSelector
from sixfold.model.workload import (
    Controller,
    CronJob,
    DaemonSet,
    DaemonSetSpec,
    Deployment,
    Job,
    JobSpec,
    OfflineController,
    PodTemplateSpec,
    StatefulSet,
    Strategy,
    template_of,
)

_SPEC: Path = ("spec",)
_TEMPLATE: Path = ("spec", "template")
_PERCENT = re.compile(r"(100|[1-9]?[0-9])%\Z")


def controller(obj: Controller, *, offline: bool) -> Iterator[Finding]:
    """Findings about the spec, the pod template included."""
    yield from template(obj, offline=offline)
    if isinstance(obj, Job):
        yield from () if offline else _job(obj.spec)
        return
    pods = obj.spec.template
    if pods.spec.restart_policy != "Always" and not offline:
        message = f"{pods.spec.restart_policy}: a {obj.kind} restarts its pods; give Always"
        yield Finding((*_TEMPLATE, "spec", "restartPolicy"), message)
    if not offline:  # whose pods they are is the controller's matter
        yield from _selector(obj.spec.selector, pods)
    yield from refused_values(_SPEC, obj.spec, offline=offline)
    yield from between((*_SPEC, "minReadySeconds"), obj.spec.min_ready_seconds, 0)
    if not isinstance(obj.spec, DaemonSetSpec):
        yield from between((*_SPEC, "replicas"), obj.spec.replicas, 0)
    yield from _strategies(obj)


def template(obj: Controller | OfflineController, *, offline: bool) -> Iterator[Finding]:
    """Findings about the pod template of any controller."""
    path: Path = (*_SPEC, "jobTemplate", *_TEMPLATE) if isinstance(obj, CronJob) else _TEMPLATE
    pods = template_of(obj)
    yield from labelled((*path, "metadata"), pods.metadata)
    yield from balancing("Pod", (*path, "metadata"), pods.metadata)
    yield from asked_for("Pod", (*path, "metadata"), pods.metadata)
    if pods.metadata.namespace not in ("", obj.metadata.namespace):
        message = f"pods are made in the namespace of their {obj.kind}; remove it"
        yield Finding((*path, "metadata", "namespace"), message)
    yield from pod_spec((*path, "spec"), pods.spec, offline=offline)


def _selector(wanted: LabelSelector, template: PodTemplateSpec) -> Iterator[Finding]:
    path = (*_SPEC, "selector")
    yield from selector(path, wanted)
    labels: Path = (*_TEMPLATE, "metadata")
    if not wanted.match_labels and not wanted.match_expressions:
        yield Finding(path, "selects every pod; give matchLabels of the template")
    elif not wanted.matches(template.metadata.labels):
        message = "does not match the labels of spec.template.metadata; make them agree"
        yield Finding(path, message, also=(labels,))


def _strategies(obj: Controller) -> Iterator[Finding]:
    if isinstance(obj, Deployment):
        deadline, ready = obj.spec.progress_deadline_seconds, obj.spec.min_ready_seconds
        if deadline is not None and not ready < deadline <= INT32_MAX:
            message = f"{names.quoted(deadline)} is not above minReadySeconds, {ready}; raise it"
            yield Finding((*_SPEC, "progressDeadlineSeconds"), message)
        yield from _strategy((*_SPEC, "strategy"), obj.spec.strategy, "Recreate")
    elif isinstance(obj, StatefulSet | DaemonSet):
        yield from _strategy((*_SPEC, "updateStrategy"), obj.spec.update_strategy, "OnDelete")


def _strategy(path: Path, strategy: Strategy | None, other: str) -> Iterator[Finding]:
    if strategy is None:
        return
    if strategy.type not in ("RollingUpdate", other):
        shown = names.quoted(strategy.type)
        yield Finding((*path, "type"), f"{shown} is not one of RollingUpdate, {other}")
    rolling = strategy.rolling_update
    if rolling is None:
        return
    here = (*path, "rollingUpdate")
    if strategy.type != "RollingUpdate":
        yield Finding(here, f"has no meaning with {strategy.type}; remove it", ((*path, "type"),))
    for field, value in (
        ("maxSurge", rolling.max_surge),
        ("maxUnavailable", rolling.max_unavailable),
    ):
        if isinstance(value, int):
            yield from between((*here, field), value, 0)
        elif value is not None and not _PERCENT.match(value):
            message = f'{names.quoted(value)} is no share; give a number, or "0%" to "100%"'
            yield Finding((*here, field), message)
    yield from between((*here, "partition"), rolling.partition, 0)
    none = (0, "0%")
    if rolling.max_surge in none and rolling.max_unavailable in none:
        message = "maxSurge and maxUnavailable are both 0, nothing could roll; raise one"
        yield Finding(here, message)


def _job(spec: JobSpec) -> Iterator[Finding]:
    path = (*_TEMPLATE, "spec", "restartPolicy")
    if spec.template.spec.restart_policy == "Always":
        yield Finding(path, "Always: a Job ends; give OnFailure or Never")
    for field, value in (
        ("completions", spec.completions),
        ("parallelism", spec.parallelism),
        ("backoffLimit", spec.backoff_limit),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ):
        least = 1 if field == "activeDeadlineSeconds" else 0
        yield from between((*_SPEC, field), value, least)
