"""Which service of type LoadBalancer gets which address? As Cilium's LB IPAM does it.

Pure. An address that a service has stays its own as long as a pool that means the service still
has it; so a restart, another pool or another service change nothing. What a service asks for by
``loadBalancerIP`` or annotation it gets or nothing else. Who gets nothing is told why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from sixfold.balancing.members import IPAddress, families
from sixfold.model.pool import WANTED_IPS, CiliumLoadBalancerIPPool
from sixfold.model.service import Service


@dataclass(frozen=True, slots=True)
class Assigned:
    """Addresses of a service, and why it lacks some; "" when it does not."""

    addresses: tuple[IPAddress, ...]
    lacks: str = ""


def assign(
    services: Mapping[str, Service],
    pools: Sequence[CiliumLoadBalancerIPPool],
    held: Mapping[str, tuple[IPAddress, ...]],
) -> dict[str, Assigned]:
    """Addresses of every service of type LoadBalancer, by its key; ``held`` are those of before."""
    wanting = {
        key: service for key, service in services.items() if service.spec.type == "LoadBalancer"
    }
    kept = {key: _kept(service, pools, held.get(key, ())) for key, service in wanting.items()}
    taken = {address: key for key, addresses in kept.items() for address in addresses}
    found = {}
    for key, service in sorted(wanting.items()):
        found[key] = one = _assign(service, pools, kept[key], taken)
        taken.update(dict.fromkeys(one.addresses, key))
    return found


def wanted(service: Service) -> list[IPAddress]:
    """The very addresses that a service asks for; manifest has checked them."""
    texts = [service.spec.load_balancer_ip]
    texts += [
        text
        for annotation in WANTED_IPS
        for text in service.metadata.annotations.get(annotation, "").split(",")
    ]
    return [*dict.fromkeys(ip_address(text.strip()) for text in texts if text.strip())]


def holds(pool: CiliumLoadBalancerIPPool, address: IPAddress) -> bool:
    return any(
        first.version == address.version and int(first) <= int(address) <= int(last)
        for first, last in pool.ranges()
    )


def _kept(
    service: Service,
    pools: Sequence[CiliumLoadBalancerIPPool],
    held: Sequence[IPAddress],
) -> tuple[IPAddress, ...]:
    """Of what it has, that which it may keep."""
    asked, versions = wanted(service), _versions(service)
    return tuple(
        address
        for address in held
        if address.version in versions and (not asked or address in asked)
        if any(pool.takes(service) and holds(pool, address) for pool in pools)
    )


def _assign(
    service: Service,
    pools: Sequence[CiliumLoadBalancerIPPool],
    kept: tuple[IPAddress, ...],
    taken: Mapping[IPAddress, str],
) -> Assigned:
    mine = [pool for pool in pools if pool.takes(service) and not pool.spec.disabled]
    addresses, lacks = [*kept], []
    if asked := wanted(service):
        for address in asked:
            if address in addresses:
                continue
            if wrong := _cannot(service, mine, address, taken):
                lacks.append(wrong)
            else:
                addresses.append(address)
        return Assigned(tuple(addresses), "; ".join(lacks))
    for version in _versions(service) - {address.version for address in addresses}:
        free = next(_free(mine, version, taken), None)
        if free is not None:
            addresses.append(free)
        elif not mine:
            lacks = ["no CiliumLoadBalancerIPPool selects this service"]
        else:
            lacks.append(f"no IPv{version} address is left in {_names(mine)}")
    order = [4 if family == "IPv4" else 6 for family in families(service)]
    addresses.sort(key=lambda address: order.index(address.version))
    return Assigned(tuple(addresses), "; ".join(lacks))


def _cannot(
    service: Service,
    pools: Sequence[CiliumLoadBalancerIPPool],
    address: IPAddress,
    taken: Mapping[IPAddress, str],
) -> str:
    if address.version not in _versions(service):
        return f"{address} is of a family that the service does not have"
    if address in taken:
        return f"{address} is that of service {taken[address]}"
    if not any(holds(pool, address) for pool in pools):
        return f"no CiliumLoadBalancerIPPool that selects this service has {address}"
    return ""


def _versions(service: Service) -> set[int]:
    return {4 if family == "IPv4" else 6 for family in families(service)}


def _free(
    pools: Sequence[CiliumLoadBalancerIPPool], version: int, taken: Mapping[IPAddress, str]
) -> Iterator[IPAddress]:
    """The lowest first; at most as many steps as there are addresses taken, and one."""
    for pool in pools:
        for first, last in pool.ranges():
            if first.version == version:
                for offset in range(int(last) - int(first) + 1):
                    if (address := first + offset) not in taken:
                        yield address


def _names(pools: Sequence[CiliumLoadBalancerIPPool]) -> str:
    return ", ".join(pool.metadata.name for pool in pools)
