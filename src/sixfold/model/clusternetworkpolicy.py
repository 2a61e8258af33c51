"""policy.networking.k8s.io: ClusterNetworkPolicy v1alpha2, and the v1alpha1 kinds it replaced.

As written. Rules are ordered: the first that matches decides; policies by priority, lower first.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written
from sixfold.model.workload import Protocol

Tier = Literal["Admin", "Baseline"]
PRIORITY_MAX = 1000


class NamespacedPod(Object):
    """Pods by both selectors; empty ones select all."""

    namespace_selector: LabelSelector
    pod_selector: LabelSelector


class ClusterSubject(Object):
    """Exactly one field."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None


class ClusterIngressPeer(Object):
    """Exactly one field."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None


class ClusterEgressPeer(Object):
    """Exactly one field. ``networks`` match pod addresses too."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None
    nodes: LabelSelector | None = None
    networks: list[str] | None = None
    domain_names: list[str] | None = None


class PortSpan(Object):
    start: int
    end: int


class DestinationPort(Object):
    """Exactly one field."""

    number: int | None = None
    range: PortSpan | None = None


class ProtocolPorts(Object):
    """No port: every port of the protocol."""

    destination_port: DestinationPort | None = None


class ClusterProtocol(Object):
    """Exactly one field; a named port may be of any protocol."""

    tcp: ProtocolPorts | None = None
    udp: ProtocolPorts | None = None
    sctp: ProtocolPorts | None = None
    destination_named_port: str = ""


class ClusterIngressRule(Object):
    action: Literal["Accept", "Deny", "Pass"]
    from_: list[ClusterIngressPeer] = msgspec.field(name="from")
    name: str = ""
    protocols: list[ClusterProtocol] | None = None


class ClusterEgressRule(Object):
    action: Literal["Accept", "Deny", "Pass"]
    to: list[ClusterEgressPeer]
    name: str = ""
    protocols: list[ClusterProtocol] | None = None


class ClusterNetworkPolicySpec(Object):
    tier: Tier
    priority: int
    subject: ClusterSubject
    ingress: list[ClusterIngressRule] | None = None
    egress: list[ClusterEgressRule] | None = None


class ClusterNetworkPolicy(Object):
    metadata: ObjectMeta
    spec: ClusterNetworkPolicySpec
    api_version: str = written("policy.networking.k8s.io/v1alpha2")
    kind: str = written("ClusterNetworkPolicy")
    status: dict[str, Any] = {}


class AdminPortNumber(Object):
    port: int
    protocol: Protocol = "TCP"


class AdminPortRange(Object):
    start: int
    end: int
    protocol: Protocol = "TCP"


class AdminPort(Object):
    """v1alpha1 AdminNetworkPolicyPort: exactly one field."""

    port_number: AdminPortNumber | None = None
    port_range: AdminPortRange | None = None
    named_port: str | None = None


class AdminIngressRule(Object):
    action: Literal["Allow", "Deny", "Pass"]
    from_: list[ClusterIngressPeer] = msgspec.field(name="from")
    name: str = ""
    ports: list[AdminPort] | None = None


class AdminEgressRule(Object):
    action: Literal["Allow", "Deny", "Pass"]
    to: list[ClusterEgressPeer]
    name: str = ""
    ports: list[AdminPort] | None = None


class AdminNetworkPolicySpec(Object):
    priority: int
    subject: ClusterSubject
    ingress: list[AdminIngressRule] | None = None
    egress: list[AdminEgressRule] | None = None


class AdminNetworkPolicy(Object):
    metadata: ObjectMeta
    spec: AdminNetworkPolicySpec
    api_version: str = written("policy.networking.k8s.io/v1alpha1")
    kind: str = written("AdminNetworkPolicy")
    status: dict[str, Any] = {}


class BaselineAdminNetworkPolicySpec(Object):
    subject: ClusterSubject
    ingress: list[AdminIngressRule] | None = None
    egress: list[AdminEgressRule] | None = None


class BaselineAdminNetworkPolicy(Object):
    """The one object of its kind is named ``default``."""

    metadata: ObjectMeta
    spec: BaselineAdminNetworkPolicySpec
    api_version: str = written("policy.networking.k8s.io/v1alpha1")
    kind: str = written("BaselineAdminNetworkPolicy")
    status: dict[str, Any] = {}
