"""Any policy object to ``ir``."""

from __future__ import annotations

from sixfold.model.ciliumpolicy import CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy
from sixfold.model.policies import Policy
from sixfold.model.policy import NetworkPolicy
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.languages.cilium import lower_cilium
from sixfold.policy.languages.clusternetworkpolicy import lower_ordered
from sixfold.policy.languages.networkpolicy import lower_networkpolicy


def lower(key: str, policy: Policy, world: World) -> tuple[ir.Policy, ...]:
    """What an object says; ``world`` answers for services, CIDR groups and domain names."""
    match policy:
        case NetworkPolicy():
            return (lower_networkpolicy(key, policy),)
        case CiliumNetworkPolicy() | CiliumClusterwideNetworkPolicy():
            return tuple(lower_cilium(key, policy, world))
        case _:
            return (lower_ordered(key, policy, world.domains),)
