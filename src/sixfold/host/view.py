"""What the kernel holds of one instance, to be looked at: nothing here writes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Set
from itertools import islice
from pathlib import Path

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.layout import Load, Place, Plaintext
from sixfold.host.shadow import Shadow
from sixfold.model.datapath import Datapath, IPAddress
from sixfold.model.reason import DropReason

STATISTICS = {
    0: "events_lost",
    1: "connections_forwarded",
    2: "noise_ignored",
    3: "neighbours_answered",
    4: "translated",
    5: "refused",
    6: "connections_cut",
    7: "rule_hits_lost",
    8: "connections_audited",
    9: "clients_reset",
    10: "arrivals_uncounted",
    11: "connections_through_mtls",
    12: "tunnels",
    13: "connections_plaintext",
    14: "dials_passed_over",
    15: "refusals_untold",
    20: "names_found",
    21: "names_nodata",
    22: "names_nxdomain",
    23: "names_passed",
    24: "names_untold",
}
REVISION, LAST_NUMBER = layout.U32.pack(0), layout.U32.pack(1)


class DatapathView:
    """What is loaded, read-only: works beside a running agent, and without one."""

    def __init__(self, root: Path, maps: Mapping[str, Map]) -> None:
        self.root = root
        self.maps = maps

    def read(self) -> Datapath:
        """Endpoints, ipcache, policies and frontends, as planners write them."""
        return Shadow.read(self.maps).datapath

    def conntrack(self) -> Iterator[layout.Connection]:
        """Connections that the kernel remembers, the expired included, in no order."""
        now_ns = time.monotonic_ns()
        arrivals = dict(self.maps["arrivals"].items())
        lines = dict(self.maps["arrival_lines"].items()) if arrivals else {}
        for key, value in self._entries():
            found = layout.unpack_connection(key, value, now_ns)
            yield layout.with_arrival(found, arrivals, lines)

    def _entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Of what goes by packets, and of what is in tunnels."""
        yield from self.maps["conntrack"].items()
        size = layout.CONNTRACK_KEY.size
        for _, value in self.maps["captured"].items():  # noqa: PERF102 a map of the kernel
            yield value[:size], value[size : size + layout.CONNTRACK.size]

    def connections_to(self, addresses: Set[IPAddress]) -> list[layout.Connection]:
        """Open connections to some addresses."""
        wanted = {layout.pack_address(address) for address in addresses}
        now_ns = time.monotonic_ns()
        found = (
            layout.unpack_connection(key, value, now_ns)
            for key, value in self._entries()
            if key[:16] in wanted or key[16:32] in wanted
        )
        return [one for one in found if one.destination in addresses and one.is_open]

    def plaintexts(self) -> Iterator[tuple[Plaintext, int, float]]:
        """Who came in plaintext to which permissive port, in how many connections, and how many
        seconds ago the last."""
        now_ns = time.monotonic_ns()
        for key, value in self.maps["plaintexts"].items():
            count, last_ns = layout.PLAINTEXT.unpack(value)
            yield layout.unpack_plaintext(key), count, (now_ns - last_ns) / 1e9

    def statistics(self) -> dict[str, int]:
        """Counts since the datapath was loaded; drop reasons by name, zeros left out."""
        counts = {}
        for key, value in self.maps["statistics"].items():
            (index,) = layout.U32.unpack(key)
            total = summed(value)
            if total:
                counts[_statistic(index)] = total
        return counts

    def rule_hits(self) -> dict[int, int]:
        """How often each rule number decided: connections let in, and packets denied."""
        return {
            int(layout.U32.unpack(key)[0]): summed(value)
            for key, value in self.maps["rule_hits"].items()
        }

    def loads(self, counted: Mapping[int, Load] | None = None) -> dict[Place, Load]:
        """Connections from this host by the place they go to, as far as it has a number: of all
        places, or of those that were ``counted``."""
        return self._loads(Shadow.read(self.maps), counted)

    def counted(self) -> dict[int, Load]:
        """Connections by number of a place, of those that ever had one; for any thread."""
        (last,) = layout.U32.unpack(self.maps["runtime"].lookup(LAST_NUMBER) or bytes(4))
        values = islice(self.maps["loads"].items(), last + 1)
        return {
            layout.U32.unpack(key)[0]: layout.unpack_load(value)
            for key, value in values
            if any(value)
        }

    def _loads(self, shadow: Shadow, counted: Mapping[int, Load] | None) -> dict[Place, Load]:
        if counted is None:
            known = self.counted()
            return {place: known.get(number, Load()) for place, number in shadow.numbers.items()}
        numbers = shadow.numbers.items()
        return {place: counted[number] for place, number in numbers if number in counted}

    def revision(self) -> int:
        """Goes up with every change of policy or place."""
        return int(layout.U32.unpack(self.maps["runtime"].lookup(REVISION) or bytes(4))[0])

    def usage(self) -> dict[str, int]:
        """Capacity of each map."""
        return {name: each.definition.max_entries for name, each in self.maps.items()}

    def close(self) -> None:
        for each in self.maps.values():
            each.close()


def summed(per_cpu: bytes) -> int:
    return sum(value for (value,) in layout.U64.iter_unpack(per_cpu))


def _statistic(index: int) -> str:
    if index in STATISTICS:
        return STATISTICS[index]
    try:
        return f"drop_{DropReason(index).name.lower()}"
    except ValueError:
        return f"drop_{index}"
