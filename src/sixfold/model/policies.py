"""Every kind of policy that is compiled."""

from __future__ import annotations

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.ciliumpolicy import CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy
from sixfold.model.clusternetworkpolicy import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from sixfold.model.policy import NetworkPolicy
from sixfold.model.requestauthentication import RequestAuthentication

Policy = (
    NetworkPolicy
    | ClusterNetworkPolicy
    | AdminNetworkPolicy
    | BaselineAdminNetworkPolicy
    | CiliumNetworkPolicy
    | CiliumClusterwideNetworkPolicy
    | AuthorizationPolicy
    | RequestAuthentication
)
POLICY_KINDS = (
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "AuthorizationPolicy",
    "RequestAuthentication",
)


def policy_key(policy: Policy) -> str:
    """Key in ``World.policies``: ``namespace/name``, with the kind before it if it is not v1."""
    return key_of(policy.kind, policy.metadata.namespace, policy.metadata.name)


def key_of(kind: str, namespace: str, name: str) -> str:
    """The same, of a policy known by name only."""
    named = f"{namespace}/{name}" if namespace else name
    return named if kind == "NetworkPolicy" else f"{kind} {named}"
