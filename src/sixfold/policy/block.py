"""IP blocks: which of the CIDRs that policies name covers an address, and which lie inside which?

The kernel gives an address one CIDR identity: that of the longest policy CIDR around it. A rule
about a block therefore lists the block and every policy CIDR inside it; excepted CIDRs are
policy CIDRs too, so that what they cover is told apart from the rest.

Pure; ``Blocks`` is a value, made anew when a CIDR comes or goes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple

from sixfold.model.datapath import IPAddress, IPNetwork
from sixfold.model.policy import IPBlock

BITS = {4: 32, 6: 128}


class Span(NamedTuple):
    """A network as numbers; sorts outer before inner, and inner ones right after."""

    version: int
    first: int
    length: int  # prefix length

    @property
    def last(self) -> int:
        return self.first | ((1 << (BITS[self.version] - self.length)) - 1)

    def holds(self, other: Span) -> bool:
        """Whether another network lies inside this one, or is it."""
        return (
            self.version == other.version
            and self.length <= other.length
            and self.first <= other.first <= self.last
        )

    def covers(self, address: IPAddress) -> bool:
        return self.version == address.version and self.first <= int(address) <= self.last


@lru_cache(maxsize=16384)
def parse_cidr(text: str) -> IPNetwork:
    """A CIDR as written; host bits are dropped."""
    return ip_network(text, strict=False)


@lru_cache(maxsize=16384)
def span(network: IPNetwork) -> Span:
    return Span(network.version, int(network.network_address), network.prefixlen)


@lru_cache(maxsize=65_536)
def single(address: IPAddress) -> IPNetwork:
    """The network of one address."""
    return ip_network(address)


class Blocks:
    """All CIDRs that policies name, sorted for the two questions above."""

    __slots__ = ("_by_span", "_lengths", "_sorted")

    def __init__(self, networks: Iterable[IPNetwork] = ()) -> None:
        self._by_span = {span(network): network for network in networks}
        self._sorted = sorted(self._by_span)
        lengths = {(one.version, one.length) for one in self._by_span}
        self._lengths = {
            version: sorted((length for v, length in lengths if v == version), reverse=True)
            for version in BITS
        }

    def covering(self, address: IPAddress) -> IPNetwork | None:
        """The longest policy CIDR that holds the address."""
        version, value = address.version, int(address)
        for length in self._lengths[version]:
            host_bits = BITS[version] - length
            found = self._by_span.get(Span(version, value >> host_bits << host_bits, length))
            if found is not None:
                return found
        return None

    def inside(self, block: IPBlock) -> list[IPNetwork]:
        """The policy CIDRs inside a block (itself among them) and outside its exceptions."""
        outer = span(parse_cidr(block.cidr))
        excepted = {span(parse_cidr(text)) for text in block.except_}
        at = bisect_left(self._sorted, outer)
        end = self._after(outer)
        found: list[IPNetwork] = []
        while at < end:
            one = self._sorted[at]
            if one in excepted:
                at = self._after(one)
                continue
            found.append(self._by_span[one])
            at += 1
        return found

    def _after(self, outer: Span) -> int:
        """Index of the first CIDR that does not lie inside."""
        return bisect_right(self._sorted, Span(outer.version, outer.last, BITS[outer.version]))


def holds(block: IPBlock, address: IPAddress) -> bool:
    """Whether an address is in the block and in none of its exceptions."""
    return address in parse_cidr(block.cidr) and not any(
        address in parse_cidr(text) for text in block.except_
    )


def includes(block: IPBlock, inner: Span) -> bool:
    """Whether a network is part of the block: inside it, and inside none of its exceptions."""
    return span(parse_cidr(block.cidr)).holds(inner) and not any(
        span(parse_cidr(text)).holds(inner) for text in block.except_
    )
