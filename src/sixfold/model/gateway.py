"""gateway.networking.k8s.io/v1 GatewayClass and Gateway: where the world outside comes in.

Source: Gateway API 1.4. A Gateway becomes a pod without a program of its own, in whose network
namespace the node's proxy listens, and a Service of type LoadBalancer before it; both are called
``<gateway>-<class>`` and labelled with the Gateway's name (GEP-1762).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written

GROUP = "gateway.networking.k8s.io"
GATEWAY_CONTROLLER = "sixfold.dev/gateway"
GATEWAY_LABEL = f"{GROUP}/gateway-name"
CLASS_LABEL = f"{GROUP}/gateway-class-name"
# HBONE: tunnels of other trust domains' workloads, as Istio's east-west gateways have them.
ListenerProtocol = Literal["HTTP", "HTTPS", "TLS", "TCP", "HBONE"]


class GatewayClassSpec(Object):
    controller_name: str
    description: str = ""


class GatewayClass(Object):
    metadata: ObjectMeta
    spec: GatewayClassSpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("GatewayClass")
    status: dict[str, Any] = {}


class RouteNamespaces(Object):
    """Whose routes may be attached."""

    from_: Literal["All", "Selector", "Same", "None"] = msgspec.field(default="Same", name="from")
    selector: LabelSelector | None = None


class RouteGroupKind(Object):
    kind: str
    group: str = GROUP


class AllowedRoutes(Object):
    """``kinds`` empty: those that go with the protocol."""

    namespaces: RouteNamespaces = msgspec.field(default_factory=RouteNamespaces)
    kinds: list[RouteGroupKind] = []


class SecretReference(Object):
    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str = ""  # "": the Gateway's own


class ListenerTLS(Object):
    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: list[SecretReference] = []


class Listener(Object):
    """``hostname`` empty: every host."""

    name: str
    port: int
    protocol: ListenerProtocol
    hostname: str = ""
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = msgspec.field(default_factory=AllowedRoutes)


class ListenerNamespaces(Object):
    """Whose ListenerSets may be attached."""

    from_: Literal["All", "Selector", "Same", "None"] = msgspec.field(default="None", name="from")
    selector: LabelSelector | None = None


class AllowedListeners(Object):
    namespaces: ListenerNamespaces = msgspec.field(default_factory=ListenerNamespaces)


class GatewayAddress(Object):
    value: str
    type: str = "IPAddress"


class Infrastructure(Object):
    """Labels and annotations of what is made for a Gateway."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class GatewaySpec(Object):
    gateway_class_name: str
    listeners: list[Listener]
    addresses: list[GatewayAddress] = []
    infrastructure: Infrastructure = msgspec.field(default_factory=Infrastructure)
    allowed_listeners: AllowedListeners = msgspec.field(default_factory=AllowedListeners)


class Gateway(Object):
    metadata: ObjectMeta
    spec: GatewaySpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("Gateway")
    status: dict[str, Any] = {}

    @property
    def key(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def made(self) -> str:
        """``namespace/name`` of the pod and the service that are made for it."""
        return f"{self.key}-{self.spec.gateway_class_name}"

    @property
    def is_federated(self) -> bool:
        """Whether workloads of other trust domains come and go by it."""
        return any(one.protocol == "HBONE" for one in self.spec.listeners)
