"""Sets of ports, all protocols at once: what a flow may use, exactly and for all ports.

Pure. Protocols lie one behind the other on one line of numbers, 65,536 places each, so that a set
is a sorted row of spans and the algebra of intervals is all there is. For ICMP a place is a type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import msgspec

PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP", "ICMPv6")
PORTS = 1 << 16
Span = tuple[int, int]  # first, last; both included


class PortSet(msgspec.Struct, frozen=True, cache_hash=True):
    """A set of (protocol, port); spans are sorted, and neither touch nor overlap."""

    spans: tuple[Span, ...] = ()

    @staticmethod
    def of(protocol: str, first: int = 0, last: int = PORTS - 1) -> PortSet:
        base = PROTOCOLS.index(protocol) * PORTS
        return PortSet(((base + first, base + last),))

    @staticmethod
    def join(spans: Iterable[Span]) -> PortSet:
        """The set of all places in any of these spans."""
        found: list[Span] = []
        for first, last in sorted(spans):
            if found and first <= found[-1][1] + 1:
                found[-1] = (found[-1][0], max(found[-1][1], last))
            else:
                found.append((first, last))
        return PortSet(tuple(found))

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __or__(self, other: PortSet) -> PortSet:
        return PortSet.join((*self.spans, *other.spans))

    def __and__(self, other: PortSet) -> PortSet:
        if self == other or other == EVERY_PORT:
            return self
        if self == EVERY_PORT:
            return other
        return PortSet(
            tuple(
                (max(a, c), min(b, d))
                for a, b in self.spans
                for c, d in other.spans
                if max(a, c) <= min(b, d)
            )
        )

    def __sub__(self, other: PortSet) -> PortSet:
        left = list(self.spans)
        for first, last in other.spans:
            left = [
                piece
                for a, b in left
                for piece in ((a, min(b, first - 1)), (max(a, last + 1), b))
                if piece[0] <= piece[1]
            ]
        return PortSet(tuple(left))

    def ranges(self) -> Iterator[tuple[str, int, int]]:
        """(protocol, first, last) in order; a span over several protocols comes in pieces."""
        for first, last in self.spans:
            for number in range(first // PORTS, last // PORTS + 1):
                base = number * PORTS
                yield PROTOCOLS[number], max(first - base, 0), min(last - base, PORTS - 1)

    def least(self) -> tuple[str, int]:
        """One (protocol, port) of a set that is not empty; port 0 only if there is no other."""
        protocol, first, last = next(self.ranges())
        return protocol, first or min(1, last)

    def texts(self) -> list[str]:
        """``["all"]``, or ``["TCP/80", "TCP/8000-8010", "UDP"]``."""
        if self == EVERY_PORT:
            return ["all"]
        return [
            protocol + ("" if (first, last) == (0, PORTS - 1) else f"/{_numbers(first, last)}")
            for protocol, first, last in self.ranges()
        ]

    def __str__(self) -> str:
        return _text(self)


EVERY_PORT = PortSet(((0, len(PROTOCOLS) * PORTS - 1),))
NO_PORT = PortSet()


@cache
def _text(ports: PortSet) -> str:
    """``all``; ``TCP/80,8000-8010 UDP``; ``none``."""
    if ports == EVERY_PORT:
        return "all"
    by_protocol: dict[str, list[str]] = {}
    for protocol, first, last in ports.ranges():
        numbers = by_protocol.setdefault(protocol, [])
        if (first, last) != (0, PORTS - 1):
            numbers.append(_numbers(first, last))
    texts = [
        f"{protocol}/{','.join(numbers)}" if numbers else protocol
        for protocol, numbers in by_protocol.items()
    ]
    return " ".join(texts) or "none"


def _numbers(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
