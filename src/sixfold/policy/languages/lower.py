"""Any policy object to ``ir``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.ciliumpolicy import CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy
from sixfold.model.enforcement import in_audit
from sixfold.model.layers import Layers
from sixfold.model.policies import Policy
from sixfold.model.policy import NetworkPolicy
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.languages.cilium import lower_cilium
from sixfold.policy.languages.clusternetworkpolicy import lower_ordered
from sixfold.policy.languages.istio import lower_authentication, lower_authorization
from sixfold.policy.languages.networkpolicy import lower_networkpolicy

NOTHING_ELSE = World()


def lower(key: str, policy: Policy, world: World) -> tuple[ir.Policy, ...]:
    """What an object says; ``world`` answers for services and CIDR groups."""
    said = _lower(key, policy, world)
    if in_audit(policy.metadata):
        return tuple(msgspec.structs.replace(one, audit=True) for one in said)
    return said


class Lowered(Mapping[str, ir.Policy]):
    """Policies by key. Such as come to one part, and look at nothing else, may be kept as they
    were written; they are lowered when asked for."""

    __slots__ = ("_kept",)

    def __init__(self, kept: Layers[str, ir.Policy | Policy] | None = None) -> None:
        self._kept: Layers[str, ir.Policy | Policy] = Layers() if kept is None else kept

    def changed(self, puts: Mapping[str, ir.Policy], gone: Iterable[str]) -> Lowered:
        return Lowered(self._kept.changed(puts, gone))

    def __getitem__(self, key: str) -> ir.Policy:
        one = self._kept[key]
        return one if isinstance(one, ir.Policy) else lower(key, one, NOTHING_ELSE)[0]

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def _lower(key: str, policy: Policy, world: World) -> tuple[ir.Policy, ...]:
    match policy:
        case NetworkPolicy():
            return (lower_networkpolicy(key, policy),)
        case AuthorizationPolicy():
            return (lower_authorization(key, policy),)
        case RequestAuthentication():
            return (lower_authentication(key, policy),)
        case CiliumNetworkPolicy() | CiliumClusterwideNetworkPolicy():
            return tuple(lower_cilium(key, policy, world))
        case _:
            return (lower_ordered(key, policy),)
