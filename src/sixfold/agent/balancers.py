"""Addresses of services of type LoadBalancer: given by pools, on disk before they are in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from sixfold.balancing.pools import Assigned, assign, holds
from sixfold.model.datapath import IPAddress
from sixfold.model.pool import CiliumLoadBalancerIPPool, size
from sixfold.model.service import Service
from sixfold.store import Database

META = "load_balancers"
CONDITION = "cilium.io/IPAMRequestSatisfied"


class Balancers:
    """Who has which address, and the services with their status filled in."""

    def __init__(self, database: Database) -> None:
        self._database = database
        kept: dict[str, list[str]] = msgspec.json.decode(database.meta(META, "{}"))
        self._held = {key: tuple(map(ip_address, texts)) for key, texts in kept.items()}
        self._known: dict[str, tuple[Service, Assigned, Service]] = {}
        self.assigned: Mapping[str, Assigned] = {}

    def take(
        self, services: Mapping[str, Service], pools: Sequence[CiliumLoadBalancerIPPool]
    ) -> Mapping[str, Service]:
        """The services as planners are to see them; what did not change is the same object."""
        assigned = assign(services, pools, self._held)
        held = {key: one.addresses for key, one in assigned.items() if one.addresses}
        if held != self._held:
            texts = {key: [*map(str, addresses)] for key, addresses in held.items()}
            self._database.set_meta(META, msgspec.json.encode(texts).decode())
            self._held = held
        known, self._known, self.assigned = self._known, {}, assigned
        for key, one in assigned.items():
            found = known.get(key)
            if found is None or found[0] is not services[key] or found[1] != one:
                with_status = msgspec.structs.replace(services[key], status=status_of(one))
                found = services[key], one, with_status
            self._known[key] = found
        if not self._known:
            return services
        return {**services, **{key: found[2] for key, found in self._known.items()}}

    def status(self, key: str) -> dict[str, Any]:
        """Of any service, ``namespace/name``."""
        found = self.assigned.get(key)
        return status_of(found) if found is not None else {"loadBalancer": {}}

    @property
    def addresses(self) -> list[IPAddress]:
        """All that are given."""
        return [address for addresses in self._held.values() for address in addresses]

    def status_of_pool(self, pool: CiliumLoadBalancerIPPool) -> dict[str, int]:
        """How many of its addresses services have, and how many they could have yet."""
        used = sum(holds(pool, address) for address in self.addresses)
        return {"available": sum(size(*one) for one in pool.ranges()) - used, "used": used}


def status_of(one: Assigned) -> dict[str, Any]:
    status: dict[str, Any] = {"loadBalancer": {}}
    if one.addresses:
        status["loadBalancer"] = {"ingress": [_ingress(address) for address in one.addresses]}
    condition = {"type": CONDITION, "status": "False" if one.lacks else "True"}
    condition |= {"reason": "no_pool" if one.lacks else "satisfied", "message": one.lacks}
    return {**status, "conditions": [condition]}


def _ingress(address: IPAddress) -> dict[str, str]:
    return {"ip": str(address), "ipMode": "VIP"}
