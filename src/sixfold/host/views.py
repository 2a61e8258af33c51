"""The kernel's views: which owners of names each endpoint is told of, kept in step with the plan.

Nobody is shown more than the plan before and the plan after show. A view keeps its number only
while all who had it keep it, so its lines may change in place, one write each; whoever is to see
something else gets another number in one write. The order:

  1. lines of views that are new
  2. ``view_of``: who goes to a view that stands already
  3. lines of views that change
  4. ``view_of``: who joins one of these
  5. lines of views that nobody has any more

Beside its view an endpoint has a bit that leaves its questions to the resolver's process.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import islice

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.changes import map_full
from sixfold.model.endpoint import LAST_ENDPOINT, EndpointId
from sixfold.model.layers import Layers, differing, kept
from sixfold.model.names import EVERYTHING, LIMITED, NOTHING, Lines, ViewPlan


class ViewTable:
    """The only writer of ``view_of`` and ``views``."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._view_of, self._views = maps["view_of"], maps["views"]
        self._of: Mapping[EndpointId, int] | None = None  # None: to be read
        self._seen: Mapping[int, Lines] = {}
        self._limited: Set[EndpointId] = frozenset()

    def last(self) -> int:
        """The highest number that a view has now: the next agent's begin above it."""
        of, seen = self.read()
        return max((EVERYTHING, *of.values(), *seen))

    def apply(self, plan: ViewPlan, limited: Set[EndpointId] = frozenset()) -> int:
        """Bring the maps to ``plan``; returns the number of writes. HostError when it is full.

        limited  whose questions the kernel leaves to the process
        """
        if self._of is None:
            self._of, self._seen = self.read()
        before, seen = self._of, self._seen
        wanted = sum(map(len, {**seen, **plan.seen}.values()))
        if wanted > self._views.definition.max_entries:
            raise map_full("views", wanted, self._views.definition.max_entries)
        changed = {
            view
            for view in seen.keys() & plan.seen.keys()
            if seen[view] is not plan.seen[view] and seen[view] != plan.seen[view]
        }
        fresh = plan.seen.keys() - seen.keys()
        moved = {
            id_: plan.of.get(id_, NOTHING)
            for id_ in differing(before, plan.of)
            if before.get(id_, NOTHING) != plan.of.get(id_, NOTHING)
        }
        moved |= {id_: plan.of.get(id_, NOTHING) for id_ in limited ^ self._limited}
        self._limited = frozenset(limited)
        self._of = None  # an error leaves it to be read anew
        writes = self._write({view: plan.seen[view] for view in fresh}, {})
        writes += self._switch({id_: view for id_, view in moved.items() if view not in changed})
        writes += self._write({view: plan.seen[view] for view in changed}, seen)
        writes += self._switch({id_: view for id_, view in moved.items() if view in changed})
        writes += self._write({view: {} for view in seen.keys() - plan.seen.keys()}, seen)
        self._of, self._seen = kept(plan.of), plan.seen
        return writes

    def repair(self) -> list[str]:
        """Compare with what the kernel really holds, put it right, and say what was wrong."""
        if self._of is None:
            return []
        limited = self._limited
        of, seen = self.read(max((*self._of, *limited), default=0))
        wrong = [id_ for id_ in of.keys() | set(self._of) if of.get(id_, 0) != self._of.get(id_, 0)]
        wrong += (limited ^ self._limited) - set(wrong)
        lines = [f"view_of[{id_}]: changed; put back" for id_ in sorted(wrong)]
        lines += [
            f"views[{view}]: changed; put back"
            for view in sorted(seen.keys() | self._seen.keys())
            if seen.get(view) != self._seen.get(view)
        ]
        if lines:
            wanted = ViewPlan(self._of, seen=self._seen)
            self._of, self._seen = of, seen
            self.apply(wanted, limited)
        self._limited = limited
        return lines

    def read(
        self, last: int = LAST_ENDPOINT
    ) -> tuple[Mapping[EndpointId, int], Mapping[int, Lines]]:
        """Views of endpoints up to a number, and the lines of each view, as they are now."""
        of: dict[EndpointId, int] = {}
        limited = set()
        for key, value in islice(self._view_of.items(), last + 1):
            (entry,) = layout.U32.unpack(value)
            if entry:
                id_ = EndpointId(layout.U32.unpack(key)[0])
                if view := entry & ~LIMITED:
                    of[id_] = view
                if entry & LIMITED:
                    limited.add(id_)
        self._limited = frozenset(limited)
        seen: dict[int, dict[int, int]] = {}
        for key, value in self._views.items():
            view, line = layout.VIEW_KEY.unpack(key)
            seen.setdefault(view, {})[line] = unpack_line(value)
        return Layers(of), seen

    def _write(self, wanted: Mapping[int, Lines], held: Mapping[int, Lines]) -> int:
        puts, gone = [], []
        for view, lines in wanted.items():
            known = held.get(view, {})
            puts += [
                (layout.VIEW_KEY.pack(view, line), pack_line(bits))
                for line, bits in lines.items()
                if known.get(line) != bits
            ]
            gone += [layout.VIEW_KEY.pack(view, line) for line in known.keys() - lines.keys()]
        self._views.update(puts)
        self._views.delete(gone)
        return len(puts) + len(gone)

    def _switch(self, moved: Mapping[EndpointId, int]) -> int:
        self._view_of.update(
            (layout.U32.pack(id_), layout.U32.pack(view | (id_ in self._limited and LIMITED)))
            for id_, view in moved.items()
        )
        return len(moved)


def pack_line(bits: int) -> bytes:
    """As 64-bit words in the order of this machine, the lowest bits first."""
    return bits.to_bytes(layout.VIEW_LINE.size, "little")


def unpack_line(packed: bytes) -> int:
    return int.from_bytes(packed, "little")
