"""Health checks of backends that are not ours: a core/v1 Probe in an annotation of a Service.

A port that is left out is the backend's own. YAML or JSON, as it fits into an annotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from sixfold.manifest import probes
from sixfold.manifest.path import Finding, Path, show
from sixfold.manifest.shape import shaped
from sixfold.model.health import (
    HEALTH_CHECK,
    PANIC,
    PANIC_NEVER,
    PERCENT_MAX,
    SLOW_START,
    WINDOW_MAX_S,
    duration_s,
)
from sixfold.model.service import Service
from sixfold.model.workload import Container, Probe

OWN_PORT = 0  # stands for a port that was left out
_ASKED = ("httpGet", "tcpSocket", "grpc")
_CONTAINERS = ("initialDelaySeconds", "terminationGracePeriodSeconds")


def parse_check(text: str) -> Probe:
    """The check that an annotation asks for; it has been looked at by ``wrong_check``."""
    return msgspec.convert(_with_port(yaml.safe_load(text)), Probe)


def wrong_check(text: str) -> str | None:
    """What is wrong with it, in one line."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return f"is no YAML: {str(error).splitlines()[0]}"
    if not isinstance(raw, dict):
        return "is no Probe; give {httpGet: {path: /healthz}, periodSeconds: 5}, for example"
    for name in _CONTAINERS:
        if name in raw:
            return f"{name}: is for containers; remove it"
    probe, findings = shaped(_with_port(raw), Probe, offline=False)
    if not findings and isinstance(_port(probe), str):
        return "a backend has no named ports; give the number"
    if not findings:
        container = Container(name="backend")
        # A success threshold is a readiness probe's.
        readiness = msgspec.structs.replace(container, readiness_probe=_somewhere(probe))
        findings = [*probes.probes((), readiness)]
    for finding in findings:
        path = show(tuple(step for step in finding.path if step != "readinessProbe"))
        return f"{path}: {finding.message}" if path else finding.message
    return None


def wrong_slow_start(text: str) -> str | None:
    seconds = duration_s(text)
    if seconds is None or not 0 < seconds <= WINDOW_MAX_S:
        return f'"{text}" is no duration; give 500ms, 30s, 2m, up to 24h'
    return None


def wrong_panic(text: str) -> str | None:
    if text != PANIC_NEVER and not (text.isdecimal() and int(text) <= PERCENT_MAX):
        return f'"{text}" is no threshold; give 0 to 100 (percent of healthy ones), or fail'
    return None


WRONG = {HEALTH_CHECK: wrong_check, SLOW_START: wrong_slow_start, PANIC: wrong_panic}


def health(obj: Service) -> Iterator[Finding]:
    """Findings about these annotations, and about those that this Service has no use for."""
    annotations, spec = obj.metadata.annotations, obj.spec
    here: Path = ("metadata", "annotations")
    for name, wrong in WRONG.items():
        if name in annotations and (message := wrong(annotations[name])):
            yield Finding((*here, name), message)
    if HEALTH_CHECK in annotations and spec.selector:
        message = "pods are asked by their readinessProbe; remove it, or the selector"
        yield Finding((*here, HEALTH_CHECK), message)
    for name in WRONG:
        if name in annotations and (spec.headless or spec.type == "ExternalName"):
            who = (
                "it is headless, clients pick" if spec.headless else "it is only a name, DNS picks"
            )
            yield Finding((*here, name), f"means nothing here: {who} the backend; remove it")


def _with_port(raw: Any) -> Any:
    """The mapping with a stand-in for a port that is left out."""
    if not isinstance(raw, dict):
        return raw
    filled = dict(raw)
    for name in _ASKED:
        action = {} if name in raw and raw[name] is None else raw.get(name)
        if isinstance(action, dict):
            filled[name] = {"port": OWN_PORT, **action}
    return filled


def _port(probe: Probe) -> int | str:
    action = probe.http_get or probe.tcp_socket or probe.grpc
    return action.port if action is not None else OWN_PORT


def _somewhere(probe: Probe) -> Probe:
    """With a real port in place of the stand-in: that one is fine."""
    return at_port(probe, 1) if _port(probe) == OWN_PORT else probe


def at_port(probe: Probe, port: int) -> Probe:
    """The check, asked at this port; of exec there is none."""
    replace = msgspec.structs.replace
    if probe.http_get is not None:
        return replace(probe, http_get=replace(probe.http_get, port=port))
    if probe.tcp_socket is not None:
        return replace(probe, tcp_socket=replace(probe.tcp_socket, port=port))
    if probe.grpc is not None:
        return replace(probe, grpc=replace(probe.grpc, port=port))
    return probe


def port_of(probe: Probe, own: int) -> int:
    """Where a backend is asked, whose own port is this."""
    port = _port(probe)
    return own if port == OWN_PORT or not isinstance(port, int) else port
