from hypothesis import given
from hypothesis import strategies as st

from sixfold.host.slots import SlotPool, run_size

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
