"""Ranges of ports as regular expressions: RBAC compares the port of ``:authority`` as text.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Span = tuple[int, int]  # first, last; both included


def less(spans: Iterable[Span], holes: Iterable[int]) -> tuple[Span, ...]:
    """The spans without some ports."""
    found = list(spans)
    for hole in holes:
        found = [part for span in found for part in _around(span, hole)]
    return tuple(found)


def _around(span: Span, hole: int) -> Iterator[Span]:
    first, last = span
    if not first <= hole <= last:
        yield span
        return
    if first < hole:
        yield first, hole - 1
    if hole < last:
        yield hole + 1, last


def pattern(spans: Iterable[Span]) -> str:
    """A regular expression of exactly the numbers in these spans, without leading zeros."""
    return "|".join(one for first, last in spans for one in _alternatives(first, last))


def _alternatives(first: int, last: int) -> Iterator[str]:
    """The span in pieces that differ only in their last digits: [1-9]00-like blocks."""
    while first <= last:
        size = 1
        while first % (size * 10) == 0 and first and first + size * 10 - 1 <= last:
            size *= 10
        block, digits = first // size, len(str(size)) - 1
        # As many blocks of this size as share all digits but the last.
        final = min(block // 10 * 10 + 9, (last + 1) // size - 1)
        head, low, high = str(block)[:-1], block % 10, final % 10
        one = str(low) if low == high else f"[{low}-{high}]"
        yield f"{head}{one}" + (f"[0-9]{{{digits}}}" if digits else "")
        first = (final + 1) * size
