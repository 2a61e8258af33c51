"""One Envoy at the server of xDS: what it wants, what it was sent, what it has taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from sixfold.mesh.messages import CLUSTER, Name, Resource


class Wanted:
    """What one stream wants of one type, and what it has.

    sent      version of each; "": it was told that there is none
    due       what may be different from what was sent
    awaiting  by nonce: what an answer is due for
    """

    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self.all = False
        self.told = False  # something, or that there is nothing
        self.sent: dict[str, str] = {}
        self.due: set[str] = set()
        self.asked: set[str] = set()  # since the last answer
        self.awaiting: dict[str, dict[str, str]] = {}


class Peer:
    """One stream.

    held   versions it has taken
    cold   clusters of which it may not know yet who is in them
    again  what was refused is due once more
    begun  it was told of every cluster
    turn   clusters that it is told of unasked, until it has begun
    """

    def __init__(self, cold: Iterable[str] = ()) -> None:
        self.types: dict[str, Wanted] = {}
        self.held: dict[Name, str] = {}
        self.begun = False
        self.turn: set[str] = set()
        self.cold = set(cold)
        self.wake = asyncio.Event()
        self.again = False

    @property
    def awaits(self) -> bool:
        """Whether it has yet to answer something."""
        return any(one.awaiting for one in self.types.values())

    def later(self, clusters: Mapping[str, Resource]) -> set[str]:
        """Of these those that it need not be told of yet, as it begins: it asks, or their turn
        comes."""
        known = self.types[CLUSTER]
        return {
            name
            for name in known.due - known.wanted - known.sent.keys() - self.turn
            if name in clusters and clusters[name].on_demand
        }
