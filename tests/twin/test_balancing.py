"""Python and kernel pick the same backend, for every algorithm, from the same state.

The connect hook has no test run, so sockets of the namespace dial for it; whose load grew tells
whom they got.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from struct import Struct

import pytest

from sixfold.balancing.pick import pick, slots_of
from sixfold.balancing.table import table_of
from sixfold.host import layout, netns
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import Place
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend, Datapath, EndpointEntry, Frontend, FrontendEntry
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import Identity

pytestmark = pytest.mark.root

VIP, PORT, UDP = IPv4Address("198.51.100.10"), 80, 17
ROUNDS = 24
AFFINITY = Struct("<III")


@pytest.fixture(scope="module")
def kernel(datapath: KernelDatapath) -> KernelDatapath:
    """In a namespace where everything has a route, and nobody answers."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "default", "dev", "lo"], check=True)
    return datapath


def load(kernel: KernelDatapath, entry: FrontendEntry, client: int) -> None:
    """One frontend, seen by a client with this endpoint number; 0 is the host."""
    cookie = netns.cookie()
    endpoint = EndpointEntry(7, EndpointId(client), Identity(256), None, None, netns_cookie=cookie)
    kernel.apply(
        Datapath(
            endpoints={7: endpoint} if client else {},
            frontends={Frontend.at(VIP, PORT, UDP): entry},
            host_netns_cookie=0 if client else cookie,
        )
    )


def entry_of(
    random_: random.Random, algorithm: Algorithm, count: int, weights: Sequence[int] = ()
) -> FrontendEntry:
    weights = weights or random_.choice([[1], [1, 2, 5], [3, 7, 100]])
    backends = tuple(
        Backend.at(IPv4Address("192.0.2.1") + n, 1000 + n, random_.choice(weights))
        for n in random_.sample(range(200), count)
    )
    table = table_of(algorithm, backends, random_.choice((251, 1021)))
    return FrontendEntry(random_.randrange(1, 1000), backends, algorithm, table)


class Dialler:
    """Dials the service, keeps every connection open, and knows who got which."""

    def __init__(self, kernel: KernelDatapath, entry: FrontendEntry, stack: ExitStack) -> None:
        self._kernel, self._entry, self.stack = kernel, entry, stack

    def active(self, backend: Backend) -> int:
        return self._kernel.loads()[Place(backend.address, backend.port, UDP)].active

    def totals(self) -> dict[Backend, int]:
        loads = self._kernel.loads()
        return {b: loads[Place(b.address, b.port, UDP)].total for b in self._entry.backends}

    def dial(self) -> Backend:
        before = self.totals()
        sock = self.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.connect((str(VIP), PORT))
        (got,) = [b for b, total in self.totals().items() if total != before[b]]
        return got


@contextmanager
def dialling(kernel: KernelDatapath, entry: FrontendEntry, client: int = 0) -> Iterator[Dialler]:
    load(kernel, entry, client)
    with ExitStack() as stack:
        yield Dialler(kernel, entry, stack)
    assert all(load.active == 0 for load in kernel.loads().values())


@pytest.fixture
def random_() -> random.Random:
    seed = int(os.environ.get("SIXFOLD_FUZZ_SEED", random.randrange(2**32)))
    print(f"SIXFOLD_FUZZ_SEED={seed}")
    return random.Random(seed)


@pytest.mark.parametrize("algorithm", [Algorithm.MAGLEV, Algorithm.SOURCE_HASH])
def test_what_depends_on_the_client_is_the_same(
    kernel: KernelDatapath, random_: random.Random, algorithm: Algorithm
) -> None:
    for _ in range(ROUNDS):
        entry = entry_of(random_, algorithm, random_.randrange(1, 20))
        client = random_.choice([0, random_.randrange(1, 65536)])
        with dialling(kernel, entry, client) as dialler:
            assert dialler.dial() == dialler.dial() == pick(entry, client=client)


def test_a_rotation_goes_on_slot_by_slot(kernel: KernelDatapath, random_: random.Random) -> None:
    for count in (1, 2, 5, 17):
        entry = entry_of(random_, Algorithm.ROUND_ROBIN, count)
        with dialling(kernel, entry) as dialler:
            turn = turn_of(kernel)
            for step in range(2 * min(len(slots_of(entry)), 20)):
                assert dialler.dial() == pick(entry, turn=turn + step)


def turn_of(kernel: KernelDatapath) -> int:
    raw = kernel.maps["frontends"].lookup(Frontend.at(VIP, PORT, UDP).packed)
    assert raw is not None
    run = layout.unpack_frontend(raw).run
    line = layout.U32.pack(run.base // layout.SLOTS_PER_LINE)
    return int(layout.U32.unpack(kernel.maps["turns"].lookup(line) or bytes(4))[0])


def test_of_two_draws_the_less_loaded_for_its_weight(
    kernel: KernelDatapath, random_: random.Random
) -> None:
    """The draws are the kernel's; whatever they were, the answer is one that they can give."""
    for count in (1, 2, 3, 8):
        entry = entry_of(random_, Algorithm.LEAST_CONNECTIONS, count, weights=[1, 2, 5])
        slots = len(slots_of(entry))
        with dialling(kernel, entry) as dialler:
            for _ in range(ROUNDS):
                known = {b: dialler.active(b) for b in entry.backends}
                possible = {
                    pick(entry, chance=(a, b), active=known.__getitem__)
                    for a in range(slots)
                    for b in range(max(slots - 1, 1))
                }
                assert dialler.dial() in possible


def test_least_connections_never_adds_to_the_one_that_has_most(kernel: KernelDatapath) -> None:
    backends = tuple(Backend.at(IPv4Address("192.0.2.1") + n, 1000) for n in range(4))
    entry = FrontendEntry(1, backends, Algorithm.LEAST_CONNECTIONS)
    with dialling(kernel, entry) as dialler:
        for _ in range(40):
            known = sorted((dialler.active(b), b) for b in backends)
            got = dialler.dial()
            if known[-1][0] > known[-2][0]:
                assert got != known[-1][1]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 3, 4, 8)])
def test_random_draws_by_weight(kernel: KernelDatapath, weights: tuple[int, ...]) -> None:
    backends = tuple(
        Backend.at(IPv4Address("192.0.2.1") + n, 1000, weight) for n, weight in enumerate(weights)
    )
    table = table_of(Algorithm.RANDOM, backends, 0)
    entry = FrontendEntry(1, backends, Algorithm.RANDOM, table)
    with dialling(kernel, entry) as dialler:
        before = dialler.totals()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(4000):
                sock.connect((str(VIP), PORT))
        got = Counter({b: total - before[b] for b, total in dialler.totals().items()})
    for backend in backends:
        share = backend.weight / sum(weights)
        allowed = 6 * (4000 * share * (1 - share)) ** 0.5  # six standard deviations
        assert abs(got[backend] - 4000 * share) < allowed


def test_numbers_of_places_with_connections_are_not_given_to_others(
    kernel: KernelDatapath,
) -> None:
    """Nor by the next agent, which finds them by what the kernel counts."""
    one, two = (Backend.at(IPv4Address(text), 53) for text in ("192.0.2.77", "192.0.2.78"))
    with dialling(kernel, FrontendEntry(1, (one,))) as dialler:
        dialler.dial()
        for count in range(4):
            load(kernel, FrontendEntry(1, ()), 0)
            load(kernel, FrontendEntry(1, (two,)), 0)
            if count % 2:
                kernel._shadow = None  # as a new agent: adopt
        assert dialler.active(one) == 1
        assert dialler.active(two) == 0
        load(kernel, FrontendEntry(1, (one, two)), 0)
        assert dialler.active(one) == 1
    for _ in range(3):
        load(kernel, FrontendEntry(1, (two,)), 0)
    assert Place(one.address, one.port, UDP) not in kernel.loads()


def with_affinity(hosts: Iterable[int], *, weight: int = 1, affinity_s: int = 60) -> FrontendEntry:
    backends = tuple(Backend.at(IPv4Address("192.0.2.1") + n, 1000, weight) for n in hosts)
    return FrontendEntry(1, backends, Algorithm.ROUND_ROBIN, affinity_s=affinity_s)


def test_a_client_keeps_its_backend_through_changes_of_the_others(kernel: KernelDatapath) -> None:
    with dialling(kernel, with_affinity(range(20)), client=3) as dialler:
        mine = dialler.dial()
        assert all(dialler.dial() == mine for _ in range(5))
        others = [n for n in range(20) if IPv4Address("192.0.2.1") + n != mine.address]
        own = int(mine.address) - int(IPv4Address("192.0.2.1"))
        for hosts in ([*others[:3], own], [own, *others], [*others, own]):
            load(kernel, with_affinity(hosts), 3)
            assert dialler.dial() == mine
        load(kernel, with_affinity(others), 3)
        with pytest.raises(ValueError, match="unpack"):  # the load that grew is not its own
            Dialler(kernel, with_affinity([own]), dialler.stack).dial()


def test_clients_are_kept_apart(kernel: KernelDatapath) -> None:
    entry = with_affinity(range(4))
    with dialling(kernel, entry, client=4) as dialler:
        kept = [dialler.dial(), dialler.dial()]
        load(kernel, entry, 5)
        kept += [dialler.dial(), dialler.dial()]
    assert kept[0] == kept[1]
    assert kept[2] == kept[3] != kept[0]


def test_an_idle_client_is_forgotten(kernel: KernelDatapath) -> None:
    """The clock is the kernel's: the last time is set back instead of waited for."""
    with dialling(kernel, with_affinity(range(4)), client=6) as dialler:
        first = dialler.dial()
        affinities = kernel.maps["affinities"]
        for key, value in affinities.items():
            revision, slot, last_s = AFFINITY.unpack(value)
            affinities.update({key: AFFINITY.pack(revision, slot, last_s - 58)})
        assert dialler.dial() == first  # and counts from now on
        for key, value in affinities.items():
            revision, slot, last_s = AFFINITY.unpack(value)
            affinities.update({key: AFFINITY.pack(revision, slot, last_s - 60)})
        assert dialler.dial() != first
