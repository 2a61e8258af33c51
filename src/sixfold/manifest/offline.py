"""The world that manifests describe, without any agent: for explain, reach and verify offline.

Every controller becomes one endpoint that stands for all its pods, since policy cannot tell
them apart; bare pods stand for themselves. Workloads with ``hostNetwork`` are the node: they
have no endpoint, and no policy of their own. Identities and service addresses are made up, in
order; pods have addresses only where ``status`` says so. Every endpoint counts as ready.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from typing import TypeVar, assert_never

import msgspec

from sixfold.errors import ManifestError, Problem
from sixfold.manifest import names
from sixfold.manifest.load import Loaded, Manifests
from sixfold.model.acceleration import asks_for_acceleration
from sixfold.model.algorithm import is_drained, weight_of
from sixfold.model.backendtls import BackendTLSPolicy
from sixfold.model.ciliumpolicy import CiliumCIDRGroup, is_about_requests
from sixfold.model.clusterspiffeid import ClusterSPIFFEID
from sixfold.model.config import Config
from sixfold.model.discovery import is_open
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.enforcement import in_audit
from sixfold.model.entries import entry_domains, entry_services, entry_slices
from sixfold.model.federation import ClusterFederatedTrustDomain
from sixfold.model.gateway import Gateway, GatewayClass
from sixfold.model.httproute import Route
from sixfold.model.identity import FIRST_ALLOCATED, Identity, Subject
from sixfold.model.listenerset import ListenerSet
from sixfold.model.locality import locality_of
from sixfold.model.meta import Namespace, ObjectMeta, namespace_labels
from sixfold.model.peerauthentication import PeerAuthentication
from sixfold.model.policies import Policy, policy_key
from sixfold.model.posture import Posture, in_force
from sixfold.model.referencegrant import ReferenceGrant
from sixfold.model.secret import ConfigMap, Secret
from sixfold.model.service import EndpointSlice, Service
from sixfold.model.serviceentry import DestinationRule, ServiceEntry
from sixfold.model.streamroute import StreamRoute
from sixfold.model.subject import container_ports, probe_ports, subject_of
from sixfold.model.trafficpolicy import TrafficPolicy
from sixfold.model.workload import (
    Controller,
    OfflineController,
    Pod,
    PodSpec,
    PodTemplateSpec,
    StatefulSet,
    template_of,
)
from sixfold.model.world import World

T = TypeVar("T")

_TERMINAL_PHASES = ("Succeeded", "Failed")


def offline(
    manifests: Manifests, config: Config | None = None, now_s: float | None = None
) -> World:
    """Build the world; raises ManifestError for a pod address that is none.

    ``now_s``: the time at which relaxations are in force, or over; None: now.
    """
    posture = next((it.object for it in manifests.objects if isinstance(it.object, Posture)), None)
    config = config or Config()
    if posture is not None and posture.spec.base is not None:
        config = replace(config, posture=posture.spec.base)
    config = _with_mesh(manifests, config)
    services = _by_name(manifests.objects, Service)
    entries = _by_name(manifests.objects, ServiceEntry)
    workloads = _workloads(manifests.objects)
    on_host = [loaded for loaded in workloads if _spec(loaded).host_network]
    attached = [loaded for loaded in workloads if not _spec(loaded).host_network]
    return World(
        config=config,
        namespaces=_namespaces(manifests.objects),
        audited=_namespaces_where(manifests.objects, in_audit),
        told=_namespaces_where(manifests.objects, is_open),
        relaxations=in_force(posture, time.time() if now_s is None else now_s),
        endpoints={
            endpoint.key: endpoint
            for endpoint in _endpoints(attached, config, _accelerated(manifests.objects))
        },
        on_host=frozenset(text for loaded in on_host for text in _names(loaded)),
        services={
            **dict(zip(services, _addressed(services.values(), config), strict=True)),
            **entry_services(entries),
        },
        slices={
            **{
                _name(loaded): loaded.object
                for loaded in manifests.objects
                if isinstance(loaded.object, EndpointSlice) and not loaded.object.derived
            },
            **entry_slices(entries),
        },
        domains=entry_domains(entries),
        policies={
            policy_key(loaded.object): loaded.object
            for loaded in manifests.objects
            if isinstance(loaded.object, Policy)
        },
        peer_authentications=_by_name(manifests.objects, PeerAuthentication),
        routes={
            f"{loaded.key.kind} {_name(loaded)}": loaded.object
            for loaded in manifests.objects
            if isinstance(loaded.object, Route)
        },
        grants=_by_name(manifests.objects, ReferenceGrant),
        traffic=_by_name(manifests.objects, TrafficPolicy),
        gateways=_by_name(manifests.objects, Gateway),
        listener_sets=_by_name(manifests.objects, ListenerSet),
        streams={
            f"{loaded.key.kind} {_name(loaded)}": loaded.object
            for loaded in manifests.objects
            if isinstance(loaded.object, StreamRoute)
        },
        backend_tls=_by_name(manifests.objects, BackendTLSPolicy),
        config_maps=_by_name(manifests.objects, ConfigMap),
        federated=frozenset(
            loaded.object.spec.trust_domain
            for loaded in manifests.objects
            if isinstance(loaded.object, ClusterFederatedTrustDomain)
        ),
        spiffe_ids={
            loaded.key.name: loaded.object
            for loaded in manifests.objects
            if isinstance(loaded.object, ClusterSPIFFEID)
        },
        service_entries=entries,
        destination_rules=_by_name(manifests.objects, DestinationRule),
        secrets=_by_name(manifests.objects, Secret),
        gateway_classes={
            loaded.key.name: loaded.object
            for loaded in manifests.objects
            if isinstance(loaded.object, GatewayClass)
        },
        cidr_groups={
            loaded.key.name: loaded.object
            for loaded in manifests.objects
            if isinstance(loaded.object, CiliumCIDRGroup)
        },
    )


def _with_mesh(manifests: Manifests, config: Config) -> Config:
    """Manifests that speak of requests are for ``up --mtls strict``, where nobody chose."""
    if config.mtls_mode != "disabled" or config.mtls is not None:
        return config
    speaking = any(
        isinstance(loaded.object, Route | TrafficPolicy) or is_about_requests(loaded.object)
        for loaded in manifests.objects
    )
    return replace(config, mtls="strict") if speaking else config


def _name(loaded: Loaded) -> str:
    return f"{loaded.key.namespace}/{loaded.key.name}"


def _by_name(objects: Iterable[Loaded], kind: type[T]) -> dict[str, T]:
    return {_name(loaded): loaded.object for loaded in objects if isinstance(loaded.object, kind)}


def _names(loaded: Loaded) -> Iterator[str]:
    """What one may call a workload: by its own name and its controller's, with and without kind."""
    for whole in (f"{loaded.key.kind}/{loaded.key.name}", _workload(loaded)):
        yield f"{loaded.key.namespace}/{whole}"
        yield f"{loaded.key.namespace}/{whole.partition('/')[2]}"


def _namespaces(objects: Iterable[Loaded]) -> dict[str, dict[str, str]]:
    """Those written and those only mentioned; all have the name label."""
    labels: dict[str, dict[str, str]] = {}
    for loaded in objects:
        if isinstance(loaded.object, Namespace):
            name = loaded.key.name
            labels[name] = namespace_labels(name, loaded.object.metadata.labels)
        elif loaded.key.namespace:
            labels.setdefault(loaded.key.namespace, namespace_labels(loaded.key.namespace, {}))
    return labels


def _namespaces_where(
    objects: Iterable[Loaded], holds: Callable[[ObjectMeta], bool]
) -> frozenset[str]:
    return frozenset(
        loaded.key.name
        for loaded in objects
        if isinstance(loaded.object, Namespace) and holds(loaded.object.metadata)
    )


def _workloads(objects: Iterable[Loaded]) -> list[Loaded]:
    """Pods and controllers; a controller that another one here owns is not one more."""
    workloads = [loaded for loaded in objects if _would_run(loaded)]
    present: set[tuple[str, str, str]] = {loaded.key for loaded in workloads}
    return [loaded for loaded in workloads if not _owned(loaded, present)]


def _template(loaded: Loaded) -> Pod | PodTemplateSpec:
    obj = loaded.object
    if isinstance(obj, Pod):
        return obj
    assert isinstance(obj, Controller | OfflineController)
    return template_of(obj)


def _spec(loaded: Loaded) -> PodSpec:
    return _template(loaded).spec


def _accelerated(objects: Iterable[Loaded]) -> frozenset[str]:
    """Namespaces that ask for acceleration."""
    return frozenset(
        loaded.key.name
        for loaded in objects
        if isinstance(loaded.object, Namespace) and asks_for_acceleration(loaded.object.metadata)
    )


def _endpoints(
    workloads: Sequence[Loaded], config: Config, accelerated: Set[str]
) -> Iterator[Endpoint]:
    same_name = Counter(_name(loaded) for loaded in workloads)
    identities: dict[Subject, Identity] = {}
    for number, loaded in enumerate(workloads, 1):
        endpoint = _endpoint(loaded, same_name[_name(loaded)] > 1)
        identity = identities.setdefault(
            endpoint.subject, Identity(FIRST_ALLOCATED + len(identities))
        )
        asks = asks_for_acceleration(
            _template(loaded).metadata, default=endpoint.namespace in accelerated
        )
        yield replace(
            endpoint,
            id=EndpointId(number),
            identity=identity,
            node=config.node,
            accelerated=asks,
        )


def _would_run(loaded: Loaded) -> bool:
    obj = loaded.object
    if isinstance(obj, Pod):
        return obj.status.get("phase") not in _TERMINAL_PHASES
    return isinstance(obj, Controller | OfflineController)


def _owned(loaded: Loaded, present: Set[tuple[str, str, str]]) -> bool:
    """A controller whose owner is here too, as in a dump of a cluster; its pods are kept."""
    if isinstance(loaded.object, Pod):
        return False
    owners = loaded.object.metadata.owner_references
    return any(
        (owner.get("kind"), loaded.key.namespace, owner.get("name")) in present for owner in owners
    )


def _workload(loaded: Loaded) -> str:
    """``Kind/name`` of what made a pod, as its ownerReferences say; else of the object itself."""
    kind, name = loaded.key.kind, loaded.key.name
    if kind == "Pod":
        owners = loaded.object.metadata.owner_references
        chosen = [one for one in owners if one.get("controller") is True] or owners[:1]
        for owner in chosen:
            whose, called = owner.get("kind"), owner.get("name")
            if isinstance(whose, str) and isinstance(called, str) and called not in ("", name):
                return f"{kind}/{name}" if whose == "Node" else f"{whose}/{called}"
    return f"{kind}/{name}"


def _endpoint(loaded: Loaded, ambiguous: bool) -> Endpoint:
    """One endpoint for one workload; its name carries the kind when others share it."""
    obj, template = loaded.object, _template(loaded)
    namespace, name = loaded.key.namespace, loaded.key.name
    spec: PodSpec = template.spec
    governing = obj.spec.service_name if isinstance(obj, StatefulSet) else ""
    ipv4, ipv6 = _addresses(loaded, obj) if isinstance(obj, Pod) else (None, None)
    return Endpoint(
        namespace=namespace,
        pod=f"{loaded.key.kind}/{name}" if ambiguous else name,
        workload=_workload(loaded),
        subject=subject_of(namespace, template.metadata, spec),
        ipv4=ipv4,
        ipv6=ipv6,
        ready=True,
        hostname=spec.hostname,
        subdomain=spec.subdomain or governing,
        weight=weight_of(template.metadata.annotations),
        locality=locality_of(template.metadata.labels),
        drained=is_drained(template.metadata.annotations),
        probe_ports=probe_ports(spec),
        publish_ports=container_ports(spec),
    )


def _addresses(loaded: Loaded, pod: Pod) -> tuple[IPv4Address | None, IPv6Address | None]:
    """What ``status.podIPs`` says, or ``status.podIP``; the first of each family."""
    given = [("status.podIP", pod.status.get("podIP"))]
    entries = pod.status.get("podIPs")
    if isinstance(entries, list) and entries:
        given = [
            (f"status.podIPs[{index}].ip", entry.get("ip") if isinstance(entry, dict) else entry)
            for index, entry in enumerate(entries)
        ]
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    for path, text in given:
        if not text:
            continue
        parsed = names.address(str(text))
        match parsed:
            case str():
                message = f"{parsed}; correct it, or remove status"
                raise ManifestError([Problem(loaded.source, loaded.line, path, message)])
            case IPv4Address():
                ipv4 = ipv4 or parsed
            case IPv6Address():
                ipv6 = ipv6 or parsed
            case _:
                assert_never(parsed)
    return ipv4, ipv6


def _addressed(services: Iterable[Service], config: Config) -> Iterator[Service]:
    """Copies with cluster addresses: those written, else the next free ones of the ranges."""
    services = list(services)
    taken = {text for svc in services for text in (svc.spec.cluster_ip, *svc.spec.cluster_ips)}
    pools = {
        "IPv4": (str(config.service_ipv4[n]) for n in count(1)),
        "IPv6": (str(config.service_ipv6[n]) for n in count(1)),
    }
    for svc in services:
        spec = svc.spec
        if spec.type == "ExternalName":
            yield svc
            continue
        written = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
        if not written:
            dual = spec.ip_family_policy in ("PreferDualStack", "RequireDualStack")
            families = [*(spec.ip_families or ["IPv4"])]
            if dual and len(families) == 1:
                families.append("IPv6" if families == ["IPv4"] else "IPv4")
            written = [next(ip for ip in pools[f] if ip not in taken) for f in families]
        filled = msgspec.structs.replace(spec, cluster_ip=written[0], cluster_ips=written)
        yield msgspec.structs.replace(svc, spec=filled)
