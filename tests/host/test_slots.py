from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.errors import HostError
from sixfold.host.changes import Changes
from sixfold.host.layout import Place, Run
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


HOME = Frontend.at(IPv4Address("198.51.100.1"), 80, 6)


def entry_of(*hosts: int) -> FrontendEntry:
    return FrontendEntry(1, tuple(Backend.at(IPv4Address("192.0.2.0") + n, 80) for n in hosts))


@pytest.fixture
def active() -> Counter[int]:
    """Connections by number."""
    return Counter()


@pytest.fixture
def runs(active: Counter[int]) -> BackendRuns:
    return BackendRuns(16, 6, active.__getitem__)


class Given:
    """What one frontend has, change after change."""

    def __init__(self, runs: BackendRuns) -> None:
        self.runs = runs
        self.entries: dict[Frontend, FrontendEntry] = {}
        self.run = Run()

    def give(self, *hosts: int) -> Mapping[Place, int]:
        """Its next backends; numbers afterwards."""
        self.runs.settle()
        entries = {HOME: entry_of(*hosts)}
        run = Run(*self.runs.give(entries, Changes()))
        self.runs.release(self.entries, [self.run])
        self.entries, self.run = entries, run
        return dict(self.runs.numbers)


@pytest.fixture
def home(runs: BackendRuns) -> Given:
    return Given(runs)


def place(host: int) -> Place:
    return Place(IPv4Address("192.0.2.0") + host, 80, 6)


def test_a_place_that_comes_back_has_its_number_again(home: Given, active: Counter[int]) -> None:
    number = home.give(1)[place(1)]
    active[number] = 3
    for _ in range(4):
        home.give(2)
    assert home.give(1, 2)[place(1)] == number


def test_a_number_is_given_again_when_its_last_connection_has_ended(
    home: Given, active: Counter[int]
) -> None:
    number = home.give(1)[place(1)]
    active[number] = 1
    for host in (2, 3, 2, 3):
        assert number not in {n for p, n in home.give(host).items() if p != place(1)}
    active[number] = 0
    for host in (2, 3, 2, 3):
        home.give(host)
    assert place(1) not in home.runs.numbers


@pytest.mark.parametrize("hosts", [(1, 2), (1, 2, 3, 4, 5)], ids=["with room", "to the last"])
def test_each_place_has_one_number_however_often_it_is_listed(
    runs: BackendRuns, hosts: tuple[int, ...]
) -> None:
    away = Frontend.at(IPv4Address("198.51.100.2"), 80, 6)
    entries = {HOME: entry_of(*hosts), away: entry_of(2, 1)}
    words = runs.give(entries, Changes())
    assert sorted(runs.numbers.values()) == [*range(1, len(hosts) + 1)]
    runs.release({HOME: entries[HOME]}, [Run(*words[:4])])
    runs.settle()
    assert set(runs.numbers) == {place(1), place(2)}
    runs.release({away: entries[away]}, [Run(*words[4:])])
    runs.settle()
    assert not runs.numbers


def test_no_two_contents_of_a_run_have_the_same_revision(home: Given) -> None:
    revisions = []
    for hosts in ((1,), (1, 2), (1,)):
        home.give(*hosts)
        revisions.append(home.run.revision)
    assert len(set(revisions)) == 3


def test_a_place_of_two_frontends_keeps_its_number_until_both_are_gone(
    runs: BackendRuns, active: Counter[int]
) -> None:
    one, two = ({Frontend.at(IPv4Address("198.51.100.1"), at, 6): entry_of(1)} for at in (1, 2))
    given = [Run(*runs.give(entries, Changes())) for entries in (one, two, one)]
    for entries, run, held in zip((one, two, one), given, (True, True, False), strict=True):
        runs.release(entries, [run])
        runs.settle()
        assert (place(1) in runs.numbers) is held


def test_a_map_that_is_full_is_named(home: Given) -> None:
    with pytest.raises(HostError, match="put backends: map is full"):
        home.give(1, 2, 3, 4, 5, 6)
