"""Which addresses of pods do names lead to? Those that clients must not keep for longer than a TTL.

Pure. Addresses of headless services, with the services that give them; a service's own address
is stable, and nobody minds how long that is kept. What is done with an address that is in no
answer any more is ``host/freshness.py``'s: it is told there how long ago that was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from ipaddress import ip_address

from sixfold.model.datapath import IPAddress
from sixfold.model.layers import Layers
from sixfold.model.service import EndpointSlice, Service

OWNERS_MAX = 4  # of one address; of more the kernel does not judge it
Slices = Mapping[str, tuple[EndpointSlice, ...]]


class DirectPlanner:
    """Follows the slices of headless services; ``number`` is that of a service by name."""

    def __init__(self, number: Callable[[str], int]) -> None:
        self._number = number
        self._of: dict[str, frozenset[str]] = {}  # addresses by service
        self._owners: dict[str, set[str]] = {}  # services by address
        self._planned: Layers[IPAddress, tuple[int, ...]] = Layers()

    def plan(
        self, services: Mapping[str, Service], slices: Slices, changed: Set[str]
    ) -> Layers[IPAddress, tuple[int, ...]]:
        """Addresses with the numbers of their services; ``changed``: services to look at again."""
        touched: set[str] = set()
        for key in changed:
            now = _named(services.get(key), slices.get(key, ()))
            before = self._of.pop(key, frozenset())
            if now:
                self._of[key] = now
            for address in before - now:
                self._owners[address].discard(key)
            for address in now - before:
                self._owners.setdefault(address, set()).add(key)
            touched |= before ^ now
        puts: dict[IPAddress, tuple[int, ...]] = {}
        gone: list[IPAddress] = []
        for address in touched:
            owners = self._owners.get(address, set())
            there = ip_address(address)
            if 0 < len(owners) <= OWNERS_MAX:
                puts[there] = tuple(self._number(key) for key in sorted(owners))
            elif there in self._planned:
                gone.append(there)
            if not owners:
                self._owners.pop(address, None)
        self._planned = self._planned.changed(puts, gone)
        return self._planned


def _named(service: Service | None, slices: tuple[EndpointSlice, ...]) -> frozenset[str]:
    if service is None or not service.spec.headless:
        return frozenset()
    unready = service.spec.publish_not_ready_addresses
    return frozenset(
        str(ip_address(address))
        for one in slices
        if one.address_type != "FQDN"
        for endpoint in one.endpoints
        if endpoint.conditions.ready or unready
        for address in endpoint.addresses
    )
