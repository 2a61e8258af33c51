"""Targets for Prometheus: what ``kubernetes_sd`` would find, in the form that ``http_sd`` reads.

Pure. One group per target, with the ``__meta_kubernetes_*`` labels of Prometheus' roles ``pod``,
``service``, ``endpoints`` and ``endpointslice``, so that relabelling rules written for a cluster
fit as they are. Source: Prometheus' pages on ``kubernetes_sd_config`` and ``http_sd_config``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sixfold.balancing.members import cluster_addresses
from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import (
    EndpointSlice,
    ObjectReference,
    Service,
    SliceEndpoint,
    SlicePort,
)
from sixfold.model.workload import Container, Pod
from sixfold.model.world import World

ROLES = ("pod", "service", "endpoints", "endpointslice")
META = "__meta_kubernetes"
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")

Labels = dict[str, str]


class Target(NamedTuple):
    """One target, and what relabelling may look at."""

    address: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class Scene:
    """What targets are found in; ``pods`` and ``phases`` by ``namespace/name``."""

    world: World
    slices: Mapping[str, tuple[EndpointSlice, ...]] = field(default_factory=dict)
    pods: Mapping[str, Pod] = field(default_factory=dict)
    phases: Mapping[str, str] = field(default_factory=dict)

    def seen(self, sees: Callable[[str], bool]) -> Scene:
        """Only the services that are seen, and the pods behind them."""
        slices = {key: group for key, group in self.slices.items() if sees(key)}
        behind = {
            f"{key.partition('/')[0]}/{endpoint.target_ref.name}"
            for key, group in slices.items()
            for slice_ in group
            for endpoint in slice_.endpoints
            if endpoint.target_ref is not None
        }
        world = replace(
            self.world,
            services={key: one for key, one in self.world.services.items() if sees(key)},
            endpoints={key: one for key, one in self.world.endpoints.items() if key in behind},
        )
        return replace(self, world=world, slices=slices)


def groups(scene: Scene, role: str, namespaces: frozenset[str]) -> list[dict[str, object]]:
    """What ``http_sd`` reads; no namespaces: all of them. ValueError: there is no such role."""
    find = {
        "pod": _pods,
        "service": _services,
        "endpoints": _endpoints,
        "endpointslice": _endpoint_slices,
    }.get(role)
    if find is None:
        raise ValueError(f"role {role!r}: not here; give one of {', '.join(ROLES)}")
    return [
        {"targets": [target.address], "labels": target.labels}
        for target in find(scene)
        if not namespaces or target.labels[f"{META}_namespace"] in namespaces
    ]


def _pods(scene: Scene) -> Iterator[Target]:
    """One target per container port; a container without ports is the bare address."""
    for key, endpoint in sorted(scene.world.endpoints.items()):
        pod = scene.pods.get(key)
        if pod is None or not (address := _address(endpoint)):
            continue
        labels = _namespace(endpoint.namespace) | _pod_labels(scene, endpoint, pod)
        for container, is_init in _containers(pod):
            for port in _container_ports(container, is_init=is_init):
                number = port.get(f"{META}_pod_container_port_number", "")
                yield Target(_host_port(address, number), labels | port)


def _services(scene: Scene) -> Iterator[Target]:
    """One target per port, at the service's name."""
    for _, service in sorted(scene.world.services.items()):
        meta = service.metadata
        labels = _namespace(meta.namespace) | _service_labels(service)
        addresses = cluster_addresses(service)
        labels[f"{META}_service_cluster_ip"] = str(addresses[0]) if addresses else "None"
        labels[f"{META}_service_type"] = service.spec.type
        for port in service.spec.ports:
            mine = {
                f"{META}_service_port_name": port.name,
                f"{META}_service_port_number": str(port.port),
                f"{META}_service_port_protocol": port.protocol,
            }
            yield Target(f"{meta.name}.{meta.namespace}.svc:{port.port}", labels | mine)


def _endpoints(scene: Scene) -> Iterator[Target]:
    for service, slice_, endpoint, port in _sliced(scene):
        prefix = f"{META}_endpoint"
        meta = service.metadata
        labels = {
            f"{META}_endpoints_name": meta.name,
            **_metadata(f"{META}_endpoints", meta, annotations=False),
            f"{prefix}_ready": _bool(endpoint.conditions.ready),
            **_endpoint_labels(prefix, endpoint),
        }
        if port is not None:
            labels[f"{prefix}_port_name"] = port.name or ""
            labels[f"{prefix}_port_protocol"] = port.protocol
        yield from _of_endpoint(scene, service, slice_, endpoint, port, labels)


def _endpoint_slices(scene: Scene) -> Iterator[Target]:
    for service, slice_, endpoint, port in _sliced(scene):
        prefix = f"{META}_endpointslice"
        labels = {
            f"{prefix}_name": slice_.metadata.name,
            **_metadata(prefix, slice_.metadata, annotations=False),
            f"{prefix}_address_type": slice_.address_type,
            f"{prefix}_endpoint_conditions_ready": _bool(endpoint.conditions.ready),
            f"{prefix}_endpoint_conditions_serving": _bool(endpoint.conditions.serves),
            f"{prefix}_endpoint_conditions_terminating": _bool(endpoint.conditions.terminating),
            **_endpoint_labels(f"{prefix}_endpoint", endpoint),
        }
        for kind in ("kind", "name"):  # here Prometheus leaves "endpoint" out
            value = labels.pop(f"{prefix}_endpoint_address_target_{kind}", "")
            if value:
                labels[f"{prefix}_address_target_{kind}"] = value
        if port is not None:
            labels[f"{prefix}_port"] = str(port.port)
            labels[f"{prefix}_port_name"] = port.name or ""
            labels[f"{prefix}_port_protocol"] = port.protocol
            if port.app_protocol:
                labels[f"{prefix}_port_app_protocol"] = port.app_protocol
        yield from _of_endpoint(scene, service, slice_, endpoint, port, labels)


Sliced = tuple[Service, EndpointSlice, SliceEndpoint, SlicePort | None]


def _sliced(scene: Scene) -> Iterator[Sliced]:
    """Each endpoint with each port; None after the last, for what else its pod may have."""
    for key, slices in sorted(scene.slices.items()):
        service = scene.world.services.get(key)
        if service is None:
            continue
        for slice_ in slices:
            for endpoint in slice_.endpoints:
                for port in (*slice_.ports, None):
                    yield service, slice_, endpoint, port


def _of_endpoint(
    scene: Scene,
    service: Service,
    slice_: EndpointSlice,
    endpoint: SliceEndpoint,
    port: SlicePort | None,
    labels: Labels,
) -> Iterator[Target]:
    """The target of one port; of no port, those of further ports of the pod."""
    address = endpoint.addresses[0]
    labels = _namespace(service.metadata.namespace) | _service_labels(service) | labels
    reference = endpoint.target_ref or ObjectReference()
    pod_key = f"{service.metadata.namespace}/{reference.name}"
    pod, attached = scene.pods.get(pod_key), scene.world.endpoints.get(pod_key)
    is_pod = reference.kind == "Pod" and slice_.derived  # else it may be a mere name
    if is_pod and pod is not None and attached is not None:
        labels |= _pod_labels(scene, attached, pod)
        taken = {(str(each.port), each.protocol) for each in slice_.ports}
        for container, is_init in _containers(pod) if not endpoint.conditions.terminating else ():
            for found in _container_ports(container, is_init=is_init):
                number = found.get(f"{META}_pod_container_port_number")
                protocol = found.get(f"{META}_pod_container_port_protocol", "")
                if number is None or is_init:
                    continue
                if port is None and (number, protocol) not in taken:
                    yield Target(_host_port(address, number), labels | found)
                elif port is not None and (number, protocol) == (str(port.port), port.protocol):
                    labels |= found
    if port is not None:
        yield Target(_host_port(address, str(port.port or "")), labels)


def _namespace(name: str) -> Labels:
    return {f"{META}_namespace": name}


def _service_labels(service: Service) -> Labels:
    prefix = f"{META}_service"
    return {f"{prefix}_name": service.metadata.name, **_metadata(prefix, service.metadata)}


def _pod_labels(scene: Scene, endpoint: Endpoint, pod: Pod) -> Labels:
    prefix = f"{META}_pod"
    labels = {
        f"{prefix}_name": endpoint.pod,
        f"{prefix}_ip": _address(endpoint),
        f"{prefix}_ready": _bool(endpoint.ready),
        f"{prefix}_phase": scene.phases.get(endpoint.key, "Unknown"),
        f"{prefix}_node_name": endpoint.node,
        f"{prefix}_host_ip": _host_address(scene.world.config),
        f"{prefix}_uid": pod.metadata.uid,
        **_metadata(prefix, pod.metadata),
    }
    kind, _, name = endpoint.workload.partition("/")
    if kind != "Pod":
        labels |= {f"{prefix}_controller_kind": kind, f"{prefix}_controller_name": name}
    return labels


def _containers(pod: Pod) -> Iterable[tuple[Container, bool]]:
    yield from ((container, False) for container in pod.spec.containers)
    yield from ((container, True) for container in pod.spec.init_containers)


def _container_ports(container: Container, *, is_init: bool) -> Iterator[Labels]:
    prefix = f"{META}_pod_container"
    labels = {
        f"{prefix}_name": container.name,
        f"{prefix}_image": container.image,
        f"{prefix}_init": _bool(is_init),
    }
    for port in container.ports:
        yield labels | {
            f"{prefix}_port_name": port.name,
            f"{prefix}_port_number": str(port.container_port),
            f"{prefix}_port_protocol": port.protocol,
        }
    if not container.ports:
        yield labels


def _endpoint_labels(prefix: str, endpoint: SliceEndpoint) -> Labels:
    reference = endpoint.target_ref or ObjectReference()
    found = {
        "hostname": endpoint.hostname,
        "node_name": endpoint.node_name,
        "zone": endpoint.zone,
        "address_target_kind": reference.kind,
        "address_target_name": reference.name,
    }
    return {f"{prefix}_{name}": value for name, value in found.items() if value}


def _metadata(prefix: str, meta: ObjectMeta, *, annotations: bool = True) -> Labels:
    kinds = {"label": meta.labels, "annotation": meta.annotations if annotations else {}}
    return {
        f"{prefix}_{kind}{suffix}_{_NOT_IN_LABELS.sub('_', key)}": value if not suffix else "true"
        for kind, values in kinds.items()
        for key, value in values.items()
        for suffix in ("", "present")
    }


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _address(endpoint: Endpoint) -> str:
    return str(endpoint.ipv4 or endpoint.ipv6 or "")


def _host_address(config: Config) -> str:
    return str(config.host_ipv4)


def _host_port(address: str, port: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" if port else host
