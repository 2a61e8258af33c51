"""What is wrong with the probes of a container. Source: core/v1 validation of Probe."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import between, said
from sixfold.manifest.path import Finding, Path
from sixfold.model.workload import Container, Probe

_ACTIONS = ("exec", "httpGet", "tcpSocket", "grpc")


def probes(path: Path, container: Container, *, sidecar: bool = True) -> Iterator[Finding]:
    """Findings about all probes; ``sidecar`` False means an init container, which has none."""
    given = (
        ("readinessProbe", container.readiness_probe),
        ("livenessProbe", container.liveness_probe),
        ("startupProbe", container.startup_probe),
    )
    for field, probe in given:
        if probe is None:
            continue
        here = (*path, field)
        if not sidecar:
            message = "an init container has no probes; remove it, or give restartPolicy: Always"
            yield Finding(here, message, also=((*path, "restartPolicy"),))
        yield from _timing(here, field, probe)
        yield from _action(here, container, probe)


def _timing(path: Path, field: str, probe: Probe) -> Iterator[Finding]:
    yield from between((*path, "initialDelaySeconds"), probe.initial_delay_seconds, 0)
    yield from between((*path, "timeoutSeconds"), probe.timeout_seconds, 1)
    yield from between((*path, "periodSeconds"), probe.period_seconds, 1)
    yield from between((*path, "failureThreshold"), probe.failure_threshold, 1)
    yield from between((*path, "successThreshold"), probe.success_threshold, 1)
    grace = (*path, "terminationGracePeriodSeconds")
    yield from between(grace, probe.termination_grace_period_seconds, 1)
    if field == "readinessProbe" and probe.termination_grace_period_seconds is not None:
        yield Finding(grace, "a readiness probe kills nothing; remove it")
    if field != "readinessProbe" and probe.success_threshold > 1:
        yield Finding(
            (*path, "successThreshold"), "only a readiness probe counts successes; give 1"
        )


def _action(path: Path, container: Container, probe: Probe) -> Iterator[Finding]:
    actions = (probe.exec, probe.http_get, probe.tcp_socket, probe.grpc)
    given = [name for name, action in zip(_ACTIONS, actions, strict=True) if action is not None]
    if len(given) != 1:
        what = "no action" if not given else f"{len(given)} actions ({', '.join(given)})"
        also = tuple((*path, name) for name in _ACTIONS)
        yield Finding(path, f"{what}; give one of {', '.join(_ACTIONS)}", also)
    if probe.exec is not None and not probe.exec.command:
        yield Finding((*path, "exec", "command"), "is empty; give a command")
    if probe.http_get is not None:
        yield from _port((*path, "httpGet", "port"), container, probe.http_get.port)
        if not probe.http_get.path.startswith("/"):
            message = f"{names.quoted(probe.http_get.path)} does not start with '/'; add it"
            yield Finding((*path, "httpGet", "path"), message)
    if probe.tcp_socket is not None:
        yield from _port((*path, "tcpSocket", "port"), container, probe.tcp_socket.port)
    if probe.grpc is not None:
        yield from said((*path, "grpc", "port"), names.port_number(probe.grpc.port))


def _port(path: Path, container: Container, port: int | str) -> Iterator[Finding]:
    wrong = names.port(port)
    known = {p.name for p in container.ports if p.name}
    if wrong is None and isinstance(port, str) and port not in known:
        options = f"give {', '.join(sorted(known))}" if known else "name one under ports"
        wrong = f"{names.quoted(port)} is no port of this container; {options}, or a number"
    yield from said(path, wrong)
