"""Services whose clients' requests are routed: told to the kernel once the proxy has the routes.

Before, a connection is balanced as ever; so nobody meets a proxy that does not know what to do.
"""

from __future__ import annotations

from collections.abc import Mapping

from sixfold.host.bpf import Map
from sixfold.model.datapath import PROTOCOL_NUMBERS, Frontend, IPAddress

PRESENT = b"\1"


class RoutedTable:
    """The map ``routed``; an agent goes on with what the last one left."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._map = maps["routed"]
        self._there = {key for key, _ in self._map.items()}
        self._written: frozenset[tuple[IPAddress, int]] | None = None

    def write(self, places: frozenset[tuple[IPAddress, int]]) -> None:
        """Addresses and TCP ports of services; those, and no others."""
        if places is self._written:
            return
        wanted = {
            Frontend.at(address, port, PROTOCOL_NUMBERS["TCP"]).packed for address, port in places
        }
        self._map.update([(key, PRESENT) for key in sorted(wanted - self._there)])
        self._map.delete(sorted(self._there - wanted))
        self._there, self._written = wanted, places
