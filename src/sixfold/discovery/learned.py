"""What names of the world have resolved to, and until when.

Pure: time is an argument, in seconds since the epoch, because what was learned outlives the
agent. Policies open these addresses (``policy/domains.py``).

A pair of name and address is *alive* until its TTL is over, ``SLACK_S`` later to be exact, so that
nobody who counts seconds more slowly than we do is shut out. When its time is over it goes, unless
an open connection depends on it: then it is looked at again every ``RECHECK_S``. Pairs are
bounded, per name and altogether; what does not fit is not learned, so it stays closed, and the
caller is told. Nothing that is open is closed to make room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6, Config
from sixfold.model.datapath import IPAddress

SLACK_S = 2.0
RECHECK_S = 5.0
ADDRESSES_MAX = 1000  # of one name, as Cilium has it
PAIRS_MAX = 16_384


class Pair(NamedTuple):
    """A name has had this address."""

    name: str
    address: IPAddress


@dataclass(frozen=True, slots=True)
class Life:
    """How long a pair is alive; ``due_s`` is when it is to be looked at."""

    expires_s: float
    due_s: float

    @property
    def held(self) -> bool:
        """Its time is over, but connections depend on it."""
        return self.due_s > self.expires_s


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of an answer.

    fresh    pairs that were not known
    renewed  pairs that live longer now
    refused  addresses that were not taken, with the reason
    """

    fresh: tuple[Pair, ...] = ()
    renewed: tuple[Pair, ...] = ()
    refused: tuple[tuple[IPAddress, str], ...] = ()


class Learned:
    """All pairs. ``names`` is a value: a new one whenever a pair came or went."""

    def __init__(
        self,
        pairs: Mapping[Pair, float] | None = None,
        *,
        addresses_max: int = ADDRESSES_MAX,
        pairs_max: int = PAIRS_MAX,
    ) -> None:
        """``pairs``: when each expires, as ``expirations`` said it."""
        self._addresses_max, self._pairs_max = addresses_max, pairs_max
        self._lives: dict[str, dict[IPAddress, Life]] = {}
        self._count = 0
        self._next_s = inf  # no pair is due before this
        self.names: Mapping[str, frozenset[IPAddress]] = {}
        for pair, expires_s in (pairs or {}).items():
            self._set(pair, Life(expires_s, expires_s))
        self._publish(self._lives)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Pair, Life]]:
        for name, lives in self._lives.items():
            for address, life in lives.items():
                yield Pair(name, address), life

    def expires_s(self, pair: Pair) -> float:
        return self._lives[pair.name][pair.address].expires_s

    def next_deadline(self) -> float | None:
        """When to call ``expire``; None: nothing is known."""
        return self._next_s if self._count else None

    def learn(self, name: str, ttls: Mapping[IPAddress, float], now_s: float) -> Lesson:
        """Take an answer: seconds that each address is good for. It never shortens a life."""
        known = self._lives.get(name, {})
        fresh, renewed, refused = [], [], []
        for address, ttl_s in ttls.items():
            pair, expires_s = Pair(name, address), now_s + max(0.0, ttl_s) + SLACK_S
            before = known.get(address)
            if before is None:
                if reason := self._no_room(name):
                    refused.append((address, reason))
                    continue
                fresh.append(pair)
            elif expires_s > before.expires_s:
                renewed.append(pair)
            else:
                continue
            self._set(pair, Life(expires_s, expires_s))
        if fresh:
            self._publish([name])
        return Lesson(tuple(fresh), tuple(renewed), tuple(refused))

    def due(self, now_s: float) -> list[Pair]:
        """Pairs whose time is over: to be asked about before ``expire``."""
        if now_s < self._next_s:
            return []
        return [pair for pair, life in self if life.due_s <= now_s]

    def expire(self, now_s: float, in_use: Callable[[Pair], bool]) -> tuple[Pair, ...]:
        """Let go of what is due and not in use; returns it."""
        gone = []
        for pair in self.due(now_s):
            if in_use(pair):
                self._set(pair, Life(self.expires_s(pair), now_s + RECHECK_S))
            else:
                gone.append(pair)
        self._remove(gone)
        return tuple(gone)

    def retain(self, wanted: Callable[[str], bool]) -> tuple[Pair, ...]:
        """Let go of names that nobody asks about any more; returns it."""
        names = [name for name in self._lives if not wanted(name)]
        gone = tuple(Pair(name, address) for name in names for address in self._lives[name])
        self._remove(gone)
        return gone

    def _no_room(self, name: str) -> str:
        if len(self._lives.get(name, ())) >= self._addresses_max:
            return f"{name} has {self._addresses_max} addresses already"
        if self._count >= self._pairs_max:
            return f"{self._pairs_max} addresses of names are open already"
        return ""

    def _set(self, pair: Pair, life: Life) -> None:
        lives = self._lives.setdefault(pair.name, {})
        self._count += pair.address not in lives
        lives[pair.address] = life
        self._next_s = min(self._next_s, life.due_s)

    def _remove(self, gone: Iterable[Pair]) -> None:
        names = {pair.name for pair in gone}
        for pair in gone:
            del self._lives[pair.name][pair.address]
            self._count -= 1
        self._next_s = min((life.due_s for _, life in self), default=inf)
        if names:
            self._publish(names)

    def _publish(self, changed: Iterable[str]) -> None:
        names = dict(self.names)
        for name in list(changed):
            if lives := self._lives.get(name):
                names[name] = frozenset(lives)
            else:
                names.pop(name, None)
                self._lives.pop(name, None)
        self.names = names


def not_of_the_world(address: IPAddress, config: Config, host: Iterable[IPAddress]) -> str:
    """Why an answer with this address opens nothing; "" when it may.

    Whoever answers for a name must not say who a pod, a service or this host is (rebinding).
    """
    if address.version == 6 and address.ipv4_mapped is not None:
        return "an IPv4 address in disguise"
    pools = (config.pod_ipv4, config.pod_ipv6, config.service_ipv4, config.service_ipv6)
    if any(address in pool for pool in pools):
        return "an address of the cluster"
    if address in (RESOLVER_IPV4, RESOLVER_IPV6) or address in host:
        return "an address of this host"
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return "an address of this host"
    if address.is_multicast or str(address) == "255.255.255.255":
        return "not an address of one host"
    return ""
