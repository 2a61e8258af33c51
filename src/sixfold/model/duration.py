"""Durations of the Gateway API (GEP-2257): "1h2m3s4ms", each unit at most once, in this order."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,5})s)?(?:(\d{1,5})ms)?")


def seconds(text: str) -> float:
    """ValueError when it is none."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"{text!r} is no duration; write it as 1h30m, 10s or 250ms")
    hours, minutes, whole, thousandths = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000
