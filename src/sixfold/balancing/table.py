"""The slots of a frontend: which backend each of them names.

Pure. One slot per backend is enough where all weigh the same; weights repeat backends, spread
evenly, so that a rotation never sends a run of connections to one of them. Maglev's table
(Eisenbud and others, NSDI 2016, section 3.4) is filled by the backends in turn, each after
permutations of its own: when one goes, hardly any slot of the others moves.

A table is packed as 16-bit indices into the backends: it is compared and kept whole.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from math import gcd

from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend

BACKENDS_MAX = 1 << 16


@lru_cache(maxsize=512)  # Maglev's takes milliseconds, and frontends ask again for the same
def table_of(algorithm: Algorithm, backends: tuple[Backend, ...], size: int) -> bytes:
    """``size`` is Maglev's; empty where the backends themselves, in order, are the slots."""
    if algorithm is Algorithm.MAGLEV and backends:
        return _packed(maglev(backends, size))
    if len({backend.weight for backend in backends}) < 2:
        return b""
    return _packed(interleaved([backend.weight for backend in backends]))


def unpack_table(table: bytes) -> Sequence[int]:
    """Indices of backends, slot by slot."""
    return memoryview(table).cast("H")


def interleaved(weights: Sequence[int]) -> list[int]:
    """Each index as often as its weight says, in the lowest terms, as evenly as possible."""
    common = gcd(*weights)
    places = sorted(
        ((2 * turn + 1) / (2 * (weight // common)), index)
        for index, weight in enumerate(weights)
        for turn in range(weight // common)
    )
    return [index for _, index in places]


def maglev(backends: Sequence[Backend], size: int) -> list[int]:
    """Maglev's table of a prime size; the order of the backends does not matter."""
    table = [-1] * size
    order = sorted(range(len(backends)), key=lambda index: _key(backends[index]))
    heaviest = max(backend.weight for backend in backends)
    walks = []
    for index in order:
        offset, skip = _permutation(backends[index], size)
        walks.append([index, backends[index].weight, offset, skip, 0])
    left = size
    while True:
        for walk in walks:
            # Lighter ones sit out turns: their credit grows to a whole turn.
            walk[4] += walk[1]
            if walk[4] < heaviest:
                continue
            walk[4] -= heaviest
            at, skip = walk[2], walk[3]
            while table[at] >= 0:
                at += skip
                if at >= size:
                    at -= size
            table[at] = walk[0]
            walk[2] = at
            left -= 1
            if not left:
                return table


def _key(backend: Backend) -> bytes:
    return f"{backend.address}|{backend.port}".encode()


def _permutation(backend: Backend, size: int) -> tuple[int, int]:
    """Where a backend begins, and how far it steps: its own order of all slots."""
    digest = blake2b(_key(backend), digest_size=16).digest()
    offset, skip = (int.from_bytes(half, "big") for half in (digest[:8], digest[8:]))
    return offset % size, skip % (size - 1) + 1


def _packed(indices: Sequence[int]) -> bytes:
    return array("H", indices).tobytes()
