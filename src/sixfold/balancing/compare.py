"""What each algorithm would make of the same connections: ``sixfold lb compare``.

Pure: connections and chance are arguments, and every choice is ``pick``'s, the kernel's twin.

Model. A connection is live from its arrival to its end. A backend works on so many at once as it
has workers (times its weight); others wait there in their order, and are live meanwhile, as the
kernel counts them. Connections are sampled as they arrive: what Poisson arrivals see is what
there is on average. The first tenth is warm-up.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

import msgspec

from sixfold.balancing.durations import Duration, draws
from sixfold.balancing.pick import pick
from sixfold.balancing.table import table_of
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend, FrontendEntry

BUSY = 0.8  # of all workers on average, where nobody said how many there are
CLIENTS_ASKED, CHANGES_TRIED = 1000, 4  # of the question who moves when one goes
POINTS = 60  # of a course over time
WARM_UP = 0.1
SERVICE = 1  # a number of a service; a client's place depends on it, shares do not


@dataclass(frozen=True, slots=True)
class Arrival:
    """One connection; ``client`` is an endpoint number."""

    at_s: float
    lasts_s: float
    client: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one algorithm made of it.

    imbalance  of live connections by weight: the most over the mean, averaged over time
    moved      share of clients whose next connection goes elsewhere when one backend goes,
               and when it returns; at best that backend's share
    course     imbalance over time
    """

    algorithm: Algorithm
    imbalance: float
    wait_p99_s: float
    moved_gone: float
    moved_back: float
    course: tuple[float, ...]


def stated(
    mixture: Sequence[Duration], rate: float, count: int, clients: int, chance: Random
) -> list[Arrival]:
    """Poisson arrivals of so many a second, by clients drawn alike."""
    at_s, found = 0.0, []
    for lasts_s in draws(mixture, count, chance):
        at_s += chance.expovariate(rate)
        found.append(Arrival(at_s, lasts_s, chance.randrange(1, clients + 1)))
    return found


def enough_workers(arrivals: Sequence[Arrival], backends: Sequence[Backend]) -> int:
    """For each unit of weight, so that together they are busy for ``BUSY`` of the time."""
    span_s = arrivals[-1].at_s - arrivals[0].at_s
    work_s = math.fsum(one.lasts_s for one in arrivals)
    weights = sum(backend.weight for backend in backends)
    return max(1, math.ceil(work_s / max(span_s, 1e-9) / BUSY / weights))


def compare(
    backends: Sequence[Backend],
    arrivals: Sequence[Arrival],
    *,
    workers: int,
    table_size: int,
    seed: int,
    algorithms: Iterable[Algorithm] = Algorithm,
) -> list[Outcome]:
    """Every algorithm on the same connections, in the order of the algorithms.

    There is at least one backend, and two arrivals; weights are more than 0.
    """
    return [
        _outcome(
            entry_of(algorithm, tuple(backends), table_size), arrivals, workers, table_size, seed
        )
        for algorithm in algorithms
    ]


def entry_of(algorithm: Algorithm, backends: tuple[Backend, ...], size: int) -> FrontendEntry:
    return FrontendEntry(SERVICE, backends, algorithm, table_of(algorithm, backends, size))


def _outcome(
    entry: FrontendEntry, arrivals: Sequence[Arrival], workers: int, size: int, seed: int
) -> Outcome:
    ratios, waits = _simulate(entry, arrivals, workers, Random(seed))
    gone, back = _moved(entry, size, Random(seed))
    return Outcome(
        entry.algorithm,
        _ratio(ratios),
        sorted(waits)[math.ceil(len(waits) * 0.99) - 1],
        gone,
        back,
        tuple(map(_ratio, _pieces(ratios, POINTS))),
    )


@dataclass(slots=True)
class _Queue:
    """One backend at work."""

    workers: int
    live: int = 0
    busy: int = 0
    waiting: deque[Arrival] = field(default_factory=deque)


def _simulate(
    entry: FrontendEntry, arrivals: Sequence[Arrival], workers: int, chance: Random
) -> tuple[list[tuple[float, float]], list[float]]:
    """The most and the mean of live connections at each arrival; how long each waited."""
    queues = {backend: _Queue(workers * backend.weight) for backend in entry.backends}
    weights = sum(backend.weight for backend in entry.backends)
    ends: list[tuple[float, int, Backend]] = []
    samples: list[tuple[float, float]] = []
    waits: list[float] = []
    warm_s = arrivals[0].at_s + (arrivals[-1].at_s - arrivals[0].at_s) * WARM_UP

    def begin(queue: _Queue, backend: Backend, arrival: Arrival, now_s: float) -> None:
        queue.busy += 1
        if arrival.at_s >= warm_s:
            waits.append(now_s - arrival.at_s)
        heappush(ends, (now_s + arrival.lasts_s, len(waits), backend))

    def end_until(now_s: float) -> None:
        while ends and ends[0][0] <= now_s:
            ended_s, _, backend = heappop(ends)
            queue = queues[backend]
            queue.live -= 1
            queue.busy -= 1
            if queue.waiting:
                begin(queue, backend, queue.waiting.popleft(), ended_s)

    for turn, arrival in enumerate(arrivals):
        end_until(arrival.at_s)
        if arrival.at_s >= warm_s:
            live = sum(queue.live for queue in queues.values())
            most = max(queue.live / backend.weight for backend, queue in queues.items())
            samples.append((most, live / weights))
        backend = pick(
            entry,
            client=arrival.client,
            turn=turn,
            chance=(chance.getrandbits(32), chance.getrandbits(32)),
            active=lambda one: queues[one].live,
        )
        assert backend is not None, "there is a backend"
        queue = queues[backend]
        queue.live += 1
        if queue.busy < queue.workers:
            begin(queue, backend, arrival, arrival.at_s)
        else:
            queue.waiting.append(arrival)
    end_until(math.inf)
    return samples, waits


def _moved(entry: FrontendEntry, size: int, chance: Random) -> tuple[float, float]:
    """Shares of clients that find another backend: when one goes, when it returns."""
    backends = entry.backends
    if len(backends) < 2:
        return 1.0, 1.0
    step = max(1, len(backends) // CHANGES_TRIED)
    gone, back = [], []
    for lost in backends[::step][:CHANGES_TRIED]:
        left = tuple(one for one in backends if one != lost)
        less = msgspec.structs.replace(
            entry, backends=left, table=table_of(entry.algorithm, left, size)
        )
        places = [_places(each, chance) for each in (entry, less, entry)]
        gone.append(_differing(places[0], places[1]))
        back.append(_differing(places[1], places[2]))
    return math.fsum(gone) / len(gone), math.fsum(back) / len(back)


def _places(entry: FrontendEntry, chance: Random) -> list[Backend | None]:
    """Where each client's next connection goes, with nobody busy."""
    turn = chance.getrandbits(16)
    return [
        pick(
            entry,
            client=client,
            turn=turn + client,
            chance=(chance.getrandbits(32), chance.getrandbits(32)),
        )
        for client in range(1, CLIENTS_ASKED + 1)
    ]


def _differing(before: Sequence[Backend | None], after: Sequence[Backend | None]) -> float:
    return sum(a != b for a, b in zip(before, after, strict=True)) / len(before)


def _ratio(samples: Sequence[tuple[float, float]]) -> float:
    """Of averages, for an average of ratios is all noise where few are live; 1 if nobody is."""
    mean = math.fsum(mean for _, mean in samples)
    return math.fsum(most for most, _ in samples) / mean if mean else 1.0


def _pieces(
    samples: Sequence[tuple[float, float]], count: int
) -> list[Sequence[tuple[float, float]]]:
    size = max(1, math.ceil(len(samples) / count))
    return [samples[start : start + size] for start in range(0, len(samples), size)]
