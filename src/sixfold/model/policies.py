"""Every kind of policy that is compiled."""

from __future__ import annotations

from sixfold.model.ciliumpolicy import CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy
from sixfold.model.clusternetworkpolicy import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from sixfold.model.policy import NetworkPolicy

Policy = (
    NetworkPolicy
    | ClusterNetworkPolicy
    | AdminNetworkPolicy
    | BaselineAdminNetworkPolicy
    | CiliumNetworkPolicy
    | CiliumClusterwideNetworkPolicy
)
POLICY_KINDS = (
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
)


def policy_key(policy: Policy) -> str:
    """Key in ``World.policies``: ``namespace/name``, with the kind before it if it is not v1."""
    meta = policy.metadata
    name = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
    return name if isinstance(policy, NetworkPolicy) else f"{policy.kind} {name}"
