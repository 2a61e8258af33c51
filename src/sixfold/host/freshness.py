"""Addresses that names lead to, and how pods dial them: the kernel's record of cached discovery.

An address that is taken out of the names stays here for ``KEPT_S``, with the time at which that
was, so that who still dials it is noticed; unless another pod has it now. The kernel holds all of
it: the next agent reads it there.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Set
from itertools import islice
from typing import NamedTuple

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.model.datapath import IPAddress
from sixfold.model.layers import differing, kept

KEPT_S = 3600
OWNERS = 4  # NAMED_OWNERS
Named = Mapping[IPAddress, tuple[int, ...]]


class Dials(NamedTuple):
    """How a pod has dialled addresses of one service itself; times in seconds.

    watched_s  since the first of them
    longest_s  since the answer before, at most
    retired    to an address that no answer had for longer than its TTL
    expired    later than the TTL of the last answer; ``late``: three times as late
    unasked    without any answer that is remembered
    redirected  to who serves now, instead of a retired address
    """

    endpoint: int
    owner: int
    watched_s: float
    longest_s: float
    connections: int
    retired: int
    expired: int
    late: int
    unasked: int
    redirected: int
    address: IPAddress | None


class FreshnessTable:
    """The only writer of ``named_addresses`` and ``redirected_pods``."""

    def __init__(self, maps: Mapping[str, Map], ttl_s: int) -> None:
        self._map = maps["named_addresses"]
        self._ttl_ns = ttl_s * 10**9
        self._named: Named | None = None  # None: to be read
        self._retired: dict[IPAddress, int] = {}  # monotonic, in ns
        self._free: set[IPAddress] = set()  # retired ones that were nobody's since
        self._pods = maps["redirected_pods"]
        self._redirected: set[int] | None = None  # None: to be read

    def apply(self, named: Named, taken: Collection[IPAddress], now_ns: int) -> None:
        """Bring the map to what names lead to now; ``taken``: addresses that pods have now."""
        if self._named is None:
            self._read()
            self._free = set(self._retired)
        assert self._named is not None
        before, capacity = self._named, self._map.definition.max_entries
        if len(named) > capacity:  # what is left out is not watched
            named = dict(islice(named.items(), capacity))
        changed = differing(before, named)
        gone = [address for address in changed if address in before and address not in named]
        puts = {a: pack(named[a], self._ttl_ns, 0) for a in changed if a in named}
        room = capacity - len(named)
        for address in gone:
            if room > len(self._retired):
                self._retired[address] = now_ns
                puts[address] = pack(before[address], self._ttl_ns, now_ns)
        over = [
            address
            for address, since_ns in self._retired.items()
            if address in named or now_ns - since_ns > KEPT_S * 10**9
        ]
        over += self._free & set(taken)  # another pod has it now
        for address in over:
            self._retired.pop(address, None)
        self._free = self._retired.keys() - set(taken)
        self._named = None  # an error leaves it to be read anew
        self._map.update((layout.pack_address(a), value) for a, value in puts.items())
        self._map.delete(
            layout.pack_address(a)
            for a in {*over, *gone}
            if a not in self._retired and a not in named
        )
        self._named = kept(named)

    def redirect(self, pods: Set[int]) -> None:
        """Have dials of these pods, by endpoint number, led away from retired addresses."""
        if self._redirected is None:
            self._redirected = {layout.U32.unpack(key)[0] for key, _ in self._pods.items()}
        before, self._redirected = self._redirected, None
        self._pods.update((layout.U32.pack(one), layout.U32.pack(1)) for one in pods - before)
        self._pods.delete(layout.U32.pack(one) for one in before - pods)
        self._redirected = set(pods)

    def _read(self) -> None:
        named: dict[IPAddress, tuple[int, ...]] = {}
        self._retired = {}
        for key, value in self._map.items():
            *owners, _, retired = layout.NAMED_ADDRESS.unpack(value)
            address = layout.unpack_address(key)
            if retired:
                self._retired[address] = retired
            else:
                named[address] = tuple(filter(None, owners))
        self._named = named


def pack(owners: tuple[int, ...], ttl_ns: int, retired_ns: int) -> bytes:
    padded = (*owners, *(0,) * (OWNERS - len(owners)))
    return layout.NAMED_ADDRESS.pack(*padded, ttl_ns, retired_ns)


def read_dials(maps: Mapping[str, Map]) -> list[Dials]:
    """Everything that was counted, in no order."""
    now_ns = time.monotonic_ns()
    found = []
    for key, value in maps["dials"].items():
        endpoint, owner = layout.POD_OWNER.unpack(key)
        since, longest, *counts, raw = layout.DIALS.unpack(value)
        found.append(
            Dials._make(
                (
                    *(endpoint, owner, (now_ns - since) / 1e9, longest / 1e9),
                    *counts,
                    layout.unpack_address(raw) if any(raw) else None,
                )
            )
        )
    return found
