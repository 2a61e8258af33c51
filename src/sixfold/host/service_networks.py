"""Where cluster addresses are from, as an address and a mask for each family.

``bpf/lib/shared.h`` asks after it has found no frontend: what is of these networks is refused then,
whether a service has the address or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from sixfold.host.changes import Changes
from sixfold.host.layout import (
    IPCACHE_KEY,
    SERVICE_NETWORK,
    U32,
    pack_address,
    unpack_network,
)
from sixfold.model.datapath import IPNetwork

NAME = "service_networks"
NONE = bytes(SERVICE_NETWORK.size)


def pack_service_network(network: IPNetwork) -> tuple[bytes, bytes]:
    """Its family's place in the array, and what stands there."""
    host_bits = network.max_prefixlen - network.prefixlen
    mask = ((1 << 128) - (1 << host_bits)).to_bytes(16, "big")
    value = SERVICE_NETWORK.pack(pack_address(network.network_address), mask)
    return U32.pack(network.version == 6), value


def unpack_service_network(packed: bytes) -> IPNetwork:
    address, mask = SERVICE_NETWORK.unpack(packed)
    return unpack_network(IPCACHE_KEY.pack(int.from_bytes(mask, "big").bit_count(), address))


def advance(before: Set[IPNetwork], after: Set[IPNetwork], changes: Changes) -> None:
    """The writes that lead from one state to another."""
    if before != after:
        gone = dict.fromkeys((pack_service_network(one)[0] for one in before), NONE)
        changes.puts[NAME].update({**gone, **dict(map(pack_service_network, after))})


def read(entries: Mapping[bytes, bytes]) -> frozenset[IPNetwork]:
    """What the kernel has."""
    return frozenset(unpack_service_network(it) for it in entries.values() if it != NONE)
