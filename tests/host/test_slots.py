from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.errors import HostError
from sixfold.host.changes import Changes
from sixfold.host.layout import Place
from sixfold.host.slots import BackendRuns, SlotPool, run_size
from sixfold.model.datapath import Backend, Frontend, FrontendEntry

CAPACITY = 256


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_runs_never_overlap_and_never_leave_the_array(steps: list[tuple[bool, int]]) -> None:
    pool, runs = SlotPool(CAPACITY), {}
    for release, number in steps:
        if release and runs:
            base = sorted(runs)[number % len(runs)]
            pool.release(base, runs.pop(base))
            pool.settle()
            continue
        base = pool.take(number)
        if base is not None:
            runs[base] = number
    owned = [slot for base, length in runs.items() for slot in range(base, base + length)]
    assert len(owned) == len(set(owned))
    assert all(0 <= slot < CAPACITY for slot in owned)


def test_a_released_run_rests_until_settled() -> None:
    pool = SlotPool(4)
    assert pool.take(4) == 0
    pool.release(0, 4)
    assert pool.take(4) is None
    pool.settle()
    assert pool.take(3) == 0


@given(st.lists(st.integers(1, 20), max_size=10))
def test_a_pool_made_from_used_runs_gives_only_the_rest(lengths: list[int]) -> None:
    first = SlotPool(CAPACITY)
    used = [(base, n) for n in lengths if (base := first.take(n)) is not None]
    taken = {slot for base, n in used for slot in range(base, base + run_size(n))}
    again = SlotPool(CAPACITY, used)
    while (base := again.take(1)) is not None:
        assert base not in taken
        taken.add(base)
    assert taken == set(range(CAPACITY))


HOME = Frontend(IPv4Address("198.51.100.1"), 80, 6)


def entry_of(*hosts: int) -> FrontendEntry:
    return FrontendEntry(1, tuple(Backend(IPv4Address("192.0.2.0") + n, 80) for n in hosts))


@pytest.fixture
def active() -> Counter[int]:
    """Connections by number."""
    return Counter()


@pytest.fixture
def runs(active: Counter[int]) -> BackendRuns:
    return BackendRuns(16, 6, active.__getitem__)


def give(runs: BackendRuns, *hosts: int) -> Mapping[Place, int]:
    """The one frontend's next backends; numbers afterwards."""
    runs.settle()
    runs.replace({HOME: entry_of(*hosts)}, Changes())
    return dict(runs.numbers)


def place(host: int) -> Place:
    return Place(IPv4Address("192.0.2.0") + host, 80, 6)


def test_a_place_that_comes_back_has_its_number_again(
    runs: BackendRuns, active: Counter[int]
) -> None:
    number = give(runs, 1)[place(1)]
    active[number] = 3
    for _ in range(4):
        give(runs, 2)
    assert give(runs, 1, 2)[place(1)] == number


def test_a_number_is_given_again_when_its_last_connection_has_ended(
    runs: BackendRuns, active: Counter[int]
) -> None:
    number = give(runs, 1)[place(1)]
    active[number] = 1
    for host in (2, 3, 2, 3):
        assert number not in {n for p, n in give(runs, host).items() if p != place(1)}
    active[number] = 0
    for host in (2, 3, 2, 3):
        give(runs, host)
    assert place(1) not in runs.numbers


def test_no_two_contents_of_a_run_have_the_same_revision(runs: BackendRuns) -> None:
    revisions = []
    for hosts in ((1,), (1, 2), (1,)):
        give(runs, *hosts)
        revisions.append(runs[HOME].revision)
    assert len(set(revisions)) == 3


def test_a_map_that_is_full_is_named(runs: BackendRuns) -> None:
    with pytest.raises(HostError, match="put backends: map is full"):
        give(runs, 1, 2, 3, 4, 5, 6)
