"""networking.k8s.io/v1 NetworkPolicy, as written.

Absent and empty lists differ in places: ``None`` is absent, ``[]`` is written and empty.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written
from sixfold.model.workload import Protocol

PolicyType = Literal["Ingress", "Egress"]


class IPBlock(Object):
    cidr: str
    except_: list[str] = msgspec.field(default_factory=list, name="except")


class NetworkPolicyPeer(Object):
    """Selectors, or a block: a peer with no field, or with both, is invalid."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Object):
    """Protocol absent is TCP; port absent is every port of it; a name is the destination's."""

    protocol: Protocol = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class IngressRule(Object):
    """``from`` and ``ports`` absent, null or empty mean any."""

    from_: list[NetworkPolicyPeer] | None = msgspec.field(default=None, name="from")
    ports: list[NetworkPolicyPort] | None = None


class EgressRule(Object):
    to: list[NetworkPolicyPeer] | None = None
    ports: list[NetworkPolicyPort] | None = None


class NetworkPolicySpec(Object):
    pod_selector: LabelSelector = msgspec.field(default_factory=LabelSelector)
    policy_types: list[PolicyType] | None = None
    ingress: list[IngressRule] | None = None
    egress: list[EgressRule] | None = None

    @property
    def isolates(self) -> frozenset[str]:
        """Directions in which selected pods are isolated; NetworkPolicy v1 defaulting."""
        if self.policy_types:
            return frozenset(self.policy_types)
        return frozenset({"Ingress", "Egress"} if self.egress else {"Ingress"})


class NetworkPolicy(Object):
    metadata: ObjectMeta
    spec: NetworkPolicySpec = msgspec.field(default_factory=NetworkPolicySpec)
    api_version: str = written("networking.k8s.io/v1")
    kind: str = written("NetworkPolicy")
    status: dict[str, Any] = {}
