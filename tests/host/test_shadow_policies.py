from collections.abc import Iterator, Mapping
from functools import cache

from hypothesis import example, given
from hypothesis import strategies as st

from sixfold.host import layout
from sixfold.host.changes import Changes
from sixfold.host.shadow_policies import PolicyShadow
from sixfold.host.tables import read_sections, unpack_table
from sixfold.model.datapath import INGRESS, PolicyEntry, PolicyTable
from sixfold.model.endpoint import EndpointId
from sixfold.model.groups import Grouped
from sixfold.model.identity import Identity
from sixfold.model.layers import Layers

GROUPS = 5
State = tuple[list[int | None], list[int]]  # group of each endpoint; table of each group


@cache
def table(number: int) -> PolicyTable:
    """Equal for equal numbers; those above 5 have that of 6 less in audit."""
    entries = (PolicyEntry(INGRESS, Identity(256 + number % 6), 6, 80, 16, True, 1),)
    return PolicyTable.of(entries, 1, 2, table(number - 6) if number > 5 else None)


class Kernel:
    """The three maps, and who is judged by what at any moment."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[bytes, bytes]] = {
            name: {} for name in ("policy", "policy_tables", "policy_of")
        }

    def read(self) -> dict[EndpointId, PolicyTable]:
        sections = read_sections(self.maps["policy"])
        written = {
            layout.U32.unpack(k)[0]: unpack_table(v) for k, v in self._entries("policy_tables")
        }
        plain = {n: one.resolved(sections, {}) for n, one in written.items() if not one.audit}
        held = {
            layout.U32.unpack(k)[0]: layout.U32.unpack(v)[0] for k, v in self._entries("policy_of")
        }
        found = {one: written[number].resolved(sections, plain) for one, number in held.items()}
        return {EndpointId(one): table.table for one, table in found.items()}

    def _entries(self, name: str) -> list[tuple[bytes, bytes]]:
        return [(key, value) for key, value in self.maps[name].items() if any(value)]

    def write(self, changes: Changes) -> Iterator[None]:
        """As ``KernelDatapath`` does, entry by entry."""
        puts = [
            *((name, changes.puts[name]) for name in ("policy", "policy_tables", "policy_of")),
            ("policy_tables", changes.switches),
            ("policy_of", changes.joins),
        ]
        for name, entries in puts:
            for key, value in entries.items():
                self.maps[name][key] = value
                yield
        for name, keys in changes.deletes.items():
            for key in keys:
                del self.maps[name][key]
            yield


def desired(state: State) -> tuple[dict[EndpointId, int], dict[int, PolicyTable]]:
    groups = {EndpointId(at): group for at, group in enumerate(state[0]) if group is not None}
    return groups, {group: table(state[1][group]) for group in {*groups.values()}}


def next_of(before: Grouped, state: State) -> Grouped:
    """The next mapping, as planners make it: a change of the one before."""
    groups, tables = desired(state)
    return Grouped(
        before.group_of.changed(groups, before.group_of.keys() - groups.keys()),
        before.value_of.changed(tables, before.value_of.keys() - tables.keys()),
    )


def states() -> st.SearchStrategy[list[State]]:
    group = st.none() | st.integers(0, GROUPS - 1)
    tables = st.lists(st.integers(0, 11), min_size=GROUPS, max_size=GROUPS)
    return st.lists(st.tuples(st.lists(group, min_size=6, max_size=6), tables), max_size=4)


# Somebody leaves a table whose number goes over, for one that was switched as well.
@example([([0, 0, 1, 1, 1, None], [1, 2, 0, 0, 0]), ([0, 1, 1, 1, 1, None], [3, 4, 0, 0, 0])])
# What a table that is switched has in audit is itself a table that was switched.
@example([([0, 1, None, None, None, None], [0, 1, 0, 0, 0]),
          ([0, 1, None, None, None, None], [8, 2, 0, 0, 0])])  # fmt: skip
@given(states())
def test_nobody_is_judged_by_a_table_that_is_neither_the_old_nor_the_new(
    steps: list[State],
) -> None:
    kernel, held = Kernel(), Grouped()
    shadow = PolicyShadow(1000, kernel.maps["policy"])
    for step in steps:
        before, held = dict(held), next_of(held, step)
        changes = Changes()
        shadow.advance(held, changes)
        for _ in kernel.write(changes):
            for endpoint, found in kernel.read().items():
                assert found in (before.get(endpoint), held.get(endpoint))
        assert kernel.read() == held
        unchanged = Changes()
        shadow.advance(Grouped(Layers(held.group_of), held.value_of), unchanged)
        assert not len(unchanged)


@given(states())
def test_plain_mappings_and_grouped_ones_may_take_turns(steps: list[State]) -> None:
    kernel, held = Kernel(), Grouped()
    shadow = PolicyShadow(1000, kernel.maps["policy"])
    for turn, step in enumerate(steps):
        held = next_of(held, step)
        wanted: Mapping[EndpointId, PolicyTable] = dict(held) if turn % 2 else held
        changes = Changes()
        shadow.advance(wanted, changes)
        for _ in kernel.write(changes):
            pass
        assert kernel.read() == held


def test_a_change_of_many_that_are_alike_is_one_write() -> None:
    kernel = Kernel()
    shadow = PolicyShadow(1000, kernel.maps["policy"])
    everyone = Layers({EndpointId(n): "kind" for n in range(1000)})
    first = Grouped(everyone, Layers({"kind": table(1)}))
    shadow.advance(first, Changes())
    changes = Changes()
    shadow.advance(Grouped(everyone, first.value_of.changed({"kind": table(2)})), changes)
    assert len(changes.switches) == 1
    assert not changes.puts["policy_of"]
    assert not changes.joins
