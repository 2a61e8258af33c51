"""Services and their endpoints: core/v1 Service, discovery.k8s.io/v1 EndpointSlice."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written
from sixfold.model.workload import Protocol

IPFamily = Literal["IPv4", "IPv6"]
NODE_PORTS = range(30000, 32768)


class ServicePort(Object):
    """One port of a service; ``target_port`` absent means the same as ``port``."""

    port: int
    name: str = ""
    protocol: Protocol = "TCP"
    target_port: int | str | None = None
    app_protocol: str | None = None
    node_port: int | None = None


class ClientIPConfig(Object):
    timeout_seconds: int = 10800  # three hours


class SessionAffinityConfig(Object):
    client_ip: ClientIPConfig = msgspec.field(default_factory=ClientIPConfig, name="clientIP")


class ServiceSpec(Object):
    """core/v1 ServiceSpec."""

    selector: dict[str, str] = {}
    ports: list[ServicePort] = []
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    # "" = allocate, "None" = headless; names given because camelCase would make it clusterIp
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] = msgspec.field(default_factory=list, name="clusterIPs")
    ip_families: list[IPFamily] = []
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    publish_not_ready_addresses: bool = False
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    external_name: str = ""
    external_ips: list[str] = msgspec.field(default_factory=list, name="externalIPs")
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    traffic_distribution: Literal["PreferClose", "PreferSameZone", "PreferSameNode"] | None = None
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_class: str | None = None
    load_balancer_source_ranges: list[str] = []
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: int | None = None

    @property
    def affinity_s(self) -> int:
        """How long a client that dials nothing keeps its backend; 0 = it keeps none."""
        if self.session_affinity == "None":
            return 0
        return (self.session_affinity_config or SessionAffinityConfig()).client_ip.timeout_seconds

    @property
    def headless(self) -> bool:
        return self.cluster_ip == "None" or "None" in self.cluster_ips


class Service(Object):
    metadata: ObjectMeta
    spec: ServiceSpec
    api_version: str = written("v1")
    kind: str = written("Service")
    status: dict[str, Any] = {}


class EndpointConditions(Object, omit_defaults=False):
    """``serving`` not said: as ready."""

    ready: bool = True
    serving: bool | None = None
    terminating: bool = False

    @property
    def serves(self) -> bool:
        return self.ready if self.serving is None else self.serving


class ObjectReference(Object):
    """core/v1 ObjectReference: who an endpoint is, for people."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class ForZone(Object):
    name: str


class ForNode(Object):
    name: str


class EndpointHints(Object):
    """Who an endpoint is meant for."""

    for_zones: list[ForZone] = []
    for_nodes: list[ForNode] = []


class SliceEndpoint(Object):
    """One endpoint of a slice: one address of the slice's family."""

    addresses: list[str]
    conditions: EndpointConditions = msgspec.field(default_factory=EndpointConditions)
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None
    zone: str | None = None
    hints: EndpointHints | None = None


class SlicePort(Object):
    name: str | None = None
    port: int | None = None
    protocol: Protocol = "TCP"
    app_protocol: str | None = None


SERVICE_LABEL = "kubernetes.io/service-name"
MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "sixfold"
REGISTRATIONS = "sixfold-registrations"  # the manager of slices of what registered itself
DERIVING = frozenset(
    {MANAGER, "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"}
)


class EndpointSlice(Object):
    """Derived from a Service and its pods; or written, for endpoints that are no pods."""

    metadata: ObjectMeta
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: list[SliceEndpoint] = []
    ports: list[SlicePort] = []
    api_version: str = written("discovery.k8s.io/v1")
    kind: str = written("EndpointSlice")

    @property
    def service(self) -> str:
        """``namespace/name`` of the service that it belongs to; "" = none."""
        name = self.metadata.labels.get(SERVICE_LABEL, "")
        return f"{self.metadata.namespace}/{name}" if name else ""

    @property
    def made(self) -> bool:
        """Whether nobody wrote it: it is of pods, or of registrations."""
        return self.derived or self.metadata.labels.get(MANAGER_LABEL) == REGISTRATIONS

    @property
    def derived(self) -> bool:
        """Whether a controller made it of Services and pods: here they are made anew."""
        return self.metadata.labels.get(MANAGER_LABEL) in DERIVING
