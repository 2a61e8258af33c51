"""Connections from outside: what the agent does for the programs on the uplinks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.layout import Connection

NO_LINE = bytes(layout.ARRIVAL_LINE.size)


def know_uplinks(uplinks: Map, macs: Mapping[int, str]) -> None:
    """Bring the map to these Ethernet addresses, by device."""
    wanted = {
        layout.U32.pack(ifindex): layout.DEVICE.pack(bytes.fromhex(mac.replace(":", "")))
        for ifindex, mac in macs.items()
    }
    known = dict(uplinks.items())
    uplinks.update(wanted.items() - known.items())
    uplinks.delete(known.keys() - wanted.keys())


def forget(maps: Mapping[str, Map], connections: Iterable[Connection]) -> None:
    """Those that came from outside begin anew with their next packet, or are reset."""
    for one in connections:
        if (key := layout.pack_arrival(one)) is not None:
            client, backend = (
                (one.source, one.source_port),
                (one.destination, one.destination_port),
            )
            maps["arrivals"].delete([key])
            maps["conntrack"].delete([layout.pack_sides(client, backend, one.protocol)[0]])
            maps["arrival_lines"].update([(layout.line_of(key), NO_LINE)])  # whosever it is now


def over(maps: Mapping[str, Map]) -> list[bytes]:
    """Keys of those that are counted, and that conntrack has forgotten or seen end."""
    counted = [key for key, _ in maps["arrived"].items()]
    now_ns = time.monotonic_ns()
    return [
        key
        for key in counted
        if (entry := maps["conntrack"].lookup(key)) is None
        or not layout.unpack_connection(key, entry, now_ns).is_open
    ]
