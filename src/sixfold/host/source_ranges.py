"""Source ranges as keys of the kernel's trie: a service number, then a prefix."""

from __future__ import annotations

from sixfold.host.layout import (
    IPCACHE_KEY,
    IPV4_BITS,
    SOURCE_RANGE,
    pack_address,
    unpack_network,
)
from sixfold.model.datapath import SourceRange


def pack_source_range(one: SourceRange) -> bytes:
    """Key of the trie: the bits of the service number come first."""
    bits = 32 + one.network.prefixlen + (IPV4_BITS if one.network.version == 4 else 0)
    return SOURCE_RANGE.pack(bits, one.service, pack_address(one.network.network_address))


def unpack_source_range(packed: bytes) -> SourceRange:
    bits, service, address = SOURCE_RANGE.unpack(packed)
    network = unpack_network(IPCACHE_KEY.pack(max(0, bits - 32), address))
    return SourceRange(service, network)
