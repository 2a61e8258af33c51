"""Which slot a connection gets: the twin of ``pick_slot`` in ``bpf/lib/balance.h``.

Pure: chance, turns and loads are arguments. ``tests/twin/test_balancing.py`` holds the two
equal, and ``explain`` asks here where the answer depends on the client alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sixfold.balancing.table import unpack_table
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend, FrontendEntry, IPAddress

GOLDEN = 0x9E3779B97F4A7C15


def spread(what: int, service: int) -> int:
    """32 bits that look random, and are the same for the same input."""
    return (((what ^ service << 32) * GOLDEN) & (1 << 64) - 1) >> 32


def client_number(address: IPAddress, port: int = 0) -> int:
    """Of a client outside, who has no endpoint number; with a port, that of one connection."""
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    first, second = (int.from_bytes(half, "little") for half in (packed[:8], packed[8:]))
    return spread((first * GOLDEN & (1 << 64) - 1) ^ second ^ port, 0)


def slots_of(entry: FrontendEntry) -> Sequence[int]:
    """The slots of a frontend, as indices of its backends."""
    return unpack_table(entry.table) if entry.table else range(len(entry.backends))


def pick(
    entry: FrontendEntry,
    *,
    client: int = 0,
    turn: int = 0,
    chance: tuple[int, int] = (0, 0),
    active: Callable[[Backend], int] = lambda _: 0,
) -> Backend | None:
    """The backend of one connection; None: refused.

    client  endpoint number of the pod that dials, 0 for the host
    turn    the rotation's counter before this connection
    chance  two 32-bit draws
    active  connections that a backend has
    """
    slots = slots_of(entry)
    if not slots:
        return None
    match entry.algorithm:
        case Algorithm.ROUND_ROBIN:
            first = turn
        case Algorithm.MAGLEV | Algorithm.SOURCE_HASH:
            first = spread(client, entry.service)
        case _:
            first = chance[0]
    at = first % len(slots)
    one = entry.backends[slots[at]]
    if entry.algorithm is not Algorithm.LEAST_CONNECTIONS or len(slots) < 2:
        return one
    other_at = chance[1] % (len(slots) - 1)
    other = entry.backends[slots[other_at + (other_at >= at)]]
    return other if (active(other) + 1) * one.weight < (active(one) + 1) * other.weight else one
