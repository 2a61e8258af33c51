"""Services whose clients are routed, and by what: told to the kernel once the proxy has the routes.

Before, a connection is balanced as ever; so nobody meets a proxy that does not know what to do.
"""

from __future__ import annotations

from collections.abc import Mapping

from sixfold.host.bpf import Map
from sixfold.model.datapath import PROTOCOL_NUMBERS, Frontend, RoutedPorts


class RoutedTable:
    """The map ``routed``; an agent goes on with what the last one left."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._map = maps["routed"]
        self._there = dict(self._map.items())
        self._written: RoutedPorts | None = None

    def write(self, places: RoutedPorts) -> None:
        """Addresses and TCP ports of services; those, and no others."""
        if places is self._written:
            return
        wanted = {
            Frontend.at(address, port, PROTOCOL_NUMBERS["TCP"]).packed: bytes([by])
            for (address, port), by in places.items()
        }
        self._map.update(sorted(wanted.items() - self._there.items()))
        self._map.delete(sorted(self._there.keys() - wanted.keys()))
        self._there, self._written = wanted, places
