"""Source ranges as keys of the kernel's trie: a service number, then a prefix."""

from __future__ import annotations

from collections.abc import Iterable

from sixfold.host.changes import Changes
from sixfold.host.layout import (
    IPCACHE_KEY,
    IPV4_BITS,
    SOURCE_RANGE,
    pack_address,
    unpack_network,
)
from sixfold.model.datapath import SourceRange

IN_RANGE = b"\1"


def advance(
    before: frozenset[SourceRange], after: frozenset[SourceRange], changes: Changes
) -> None:
    """The writes that lead from one state to another."""
    for one in after - before:
        changes.put("source_ranges", pack_source_range(one), IN_RANGE)
    for one in before - after:
        changes.delete("source_ranges", pack_source_range(one))


def read(keys: Iterable[bytes]) -> frozenset[SourceRange]:
    """What the kernel has."""
    return frozenset(map(unpack_source_range, keys))


def pack_source_range(one: SourceRange) -> bytes:
    """Key of the trie: the bits of the service number come first."""
    bits = 32 + one.network.prefixlen + (IPV4_BITS if one.network.version == 4 else 0)
    return SOURCE_RANGE.pack(bits, one.service, pack_address(one.network.network_address))


def unpack_source_range(packed: bytes) -> SourceRange:
    bits, service, address = SOURCE_RANGE.unpack(packed)
    network = unpack_network(IPCACHE_KEY.pack(max(0, bits - 32), address))
    return SourceRange(service, network)
