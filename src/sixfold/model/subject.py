"""What a pod template means to the network: its subject, its ports, what the node dials.

Pure: Kubernetes structs in, values out. Both the agent (running pods) and the offline tools
(pods that would run) ask here, so that they cannot disagree. A sidecar, an init container
with ``restartPolicy: Always``, lives as long as its pod, so its ports count; the ports of
plain init containers do not.
"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.model.identity import NamedPort, Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.workload import Container, PodSpec, Probe


def subject_of(namespace: str, metadata: ObjectMeta, spec: PodSpec) -> Subject:
    """Everything of a pod that policy can see; ``metadata`` is the pod's or the template's."""
    return Subject(
        namespace=namespace,
        service_account=service_account_of(spec),
        labels=tuple(sorted(metadata.labels.items())),
        named_ports=tuple(sorted({port for port in container_ports(spec) if port.name})),
    )


def service_account_of(spec: PodSpec) -> str:
    """``serviceAccountName``, or its deprecated alias; ``manifest`` refuses two that differ."""
    if spec.service_account_name not in ("", "default"):
        return spec.service_account_name
    return spec.service_account or "default"


def container_ports(spec: PodSpec) -> tuple[NamedPort, ...]:
    """Every containerPort of containers and sidecars, sorted; name "" when it has none."""
    return tuple(
        sorted(
            {
                NamedPort(port.name, port.protocol, port.container_port)
                for container in serving_containers(spec)
                for port in container.ports
            }
        )
    )


def probe_ports(spec: PodSpec) -> frozenset[int]:
    """TCP ports that the node dials for probes; names are those of the probed container."""
    return frozenset(
        port
        for container in serving_containers(spec)
        for probe in probes(container)
        if (port := probe_port(container, probe)) is not None
    )


def probe_port(container: Container, probe: Probe) -> int | None:
    """The TCP port that one probe dials in the pod, or None (exec, or aimed at another host)."""
    if probe.grpc is not None:
        return probe.grpc.port
    action = probe.http_get or probe.tcp_socket
    if action is None or action.host:
        return None
    if isinstance(action.port, int):
        return action.port
    named = (p.container_port for p in container.ports if p.name == action.port)
    return next(named, None)


def probes(container: Container) -> Iterator[Probe]:
    """The probes that a container has: startup, readiness, liveness."""
    for probe in (container.startup_probe, container.readiness_probe, container.liveness_probe):
        if probe is not None:
            yield probe


def serving_containers(spec: PodSpec) -> Iterator[Container]:
    """Containers that live as long as the pod: sidecars, in start order, then the main ones."""
    yield from (c for c in spec.init_containers if c.restart_policy == "Always")
    yield from spec.containers
