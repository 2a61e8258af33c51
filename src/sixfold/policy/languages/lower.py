"""Any policy object to ``ir``."""

from __future__ import annotations

import msgspec

from sixfold.model.ciliumpolicy import CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy
from sixfold.model.enforcement import in_audit
from sixfold.model.policies import Policy
from sixfold.model.policy import NetworkPolicy
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.languages.cilium import lower_cilium
from sixfold.policy.languages.clusternetworkpolicy import lower_ordered
from sixfold.policy.languages.networkpolicy import lower_networkpolicy


def lower(key: str, policy: Policy, world: World) -> tuple[ir.Policy, ...]:
    """What an object says; ``world`` answers for services and CIDR groups."""
    said = _lower(key, policy, world)
    if in_audit(policy.metadata):
        return tuple(msgspec.structs.replace(one, audit=True) for one in said)
    return said


def _lower(key: str, policy: Policy, world: World) -> tuple[ir.Policy, ...]:
    match policy:
        case NetworkPolicy():
            return (lower_networkpolicy(key, policy),)
        case CiliumNetworkPolicy() | CiliumClusterwideNetworkPolicy():
            return tuple(lower_cilium(key, policy, world))
        case _:
            return (lower_ordered(key, policy),)
