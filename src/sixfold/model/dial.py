"""Dials of addresses that names lead to: does the client still know them from an answer that holds?

``bpf/sixfold_names.h`` has the same numbers; ``bpf/lib/freshness.h`` decides.
"""

from __future__ import annotations

from enum import IntEnum

REDIRECTED = 0x80  # besides: it was led to who serves now


class Dial(IntEnum):
    """Of one connection."""

    FRESH = 0  # or no such address
    RETIRED = 1  # no answer had the address for longer than its TTL
    EXPIRED = 2  # it came later than the TTL of the client's last answer
    NO_LOOKUP = 3  # no answer to the client is remembered
