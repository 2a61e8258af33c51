"""Who asks, and which names may he be told? The agent's views, as the process uses them.

Whoever is not known is told by where he asks from: a pod that the agent has not told us of is
told nothing, this host everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from sixfold.discovery.zone import Sees
from sixfold.model.names import EVERYTHING, NOTHING, sees
from sixfold.serve import dns_control as control

STRANGERS_MAX = 16_384


class Views:
    """``networks`` are those of pods."""

    def __init__(self, message: control.Views | None = None, networks: Sequence[str] = ()) -> None:
        self._message = message
        self._networks = [ip_network(text) for text in networks]
        self._strangers: dict[str, int] = {}
        self._seen: dict[int, dict[int, int]] = {}
        if message is not None:
            self._read(message.seen)

    def copy(self) -> control.Views | None:
        """All of it, as it would have been sent, and as it is now."""
        known = self._message
        if known is None:
            return None
        return control.Views(dict(known.clients), dict(known.seen), dict(known.owners))

    def change(self, message: control.Views) -> None:
        known = self._message
        assert known is not None, "only what was told before can change"
        for mine, theirs in ((known.clients, message.clients), (known.owners, message.owners)):
            mine.update(theirs)
            for key in [key for key, value in theirs.items() if value == control.GONE]:
                del mine[key]
        for view, lines in message.seen.items():
            if lines:
                known.seen[view] = lines
            else:
                known.seen.pop(view, None)
                self._seen.pop(view, None)
        self._read({view: lines for view, lines in message.seen.items() if lines})

    def of(self, address: str) -> int:
        """The view of who asks from there."""
        if self._message is None:
            return EVERYTHING
        if (known := self._message.clients.get(address)) is not None:
            return known
        if (view := self._strangers.get(address)) is None:
            if len(self._strangers) >= STRANGERS_MAX:
                self._strangers.clear()
            there = ip_address(address.partition("%")[0])
            view = NOTHING if any(there in one for one in self._networks) else EVERYTHING
            self._strangers[address] = view
        return view

    def sees(self, view: int) -> Sees | None:
        """Whether an owner is seen; None: all are."""
        if self._message is None or view == EVERYTHING:
            return None
        lines, owners = self._seen.get(view, {}), self._message.owners
        return lambda owner: sees(lines, owners.get(owner, 0))

    def _read(self, seen: Mapping[int, Mapping[int, bytes]]) -> None:
        for view, lines in seen.items():
            self._seen[view] = {
                line: int.from_bytes(bits, "little") for line, bits in lines.items()
            }
