"""Annotations of a Service about the health of its backends; ``manifest`` has checked the text.

Envoy's terms: healthy panic threshold, slow start window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HEALTH_CHECK = "sixfold.dev/lb-health-check"  # a core/v1 Probe, as YAML or JSON
SLOW_START = "sixfold.dev/lb-slow-start"  # a duration: how long until the whole weight
PANIC = "sixfold.dev/lb-panic-threshold"  # percent of healthy ones, or "fail"

PANIC_NEVER = "fail"
PERCENT_MAX = 100
WINDOW_MAX_S = 86400
_DURATION = re.compile(r"(\d{1,6})(ms|s|m|h)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float | None:
    """``30s``, ``500ms``, ``2m``; None for what is none."""
    found = _DURATION.fullmatch(text)
    return int(found[1]) * _UNITS_S[found[2]] if found else None


def slow_start_s(annotations: Mapping[str, str]) -> float:
    """How long a backend that (re)appears takes to its whole weight; 0 = it has it at once."""
    return duration_s(annotations.get(SLOW_START, "")) or 0.0


def panic_percent(annotations: Mapping[str, str]) -> int | None:
    """With fewer healthy ones than that, all are used; 0: only when none is. None: never.

    Nothing written: 0 for backends that are checked from here, never for pods, whose readiness
    Kubernetes takes at its word.
    """
    written = annotations.get(PANIC)
    if written is None:
        return 0 if HEALTH_CHECK in annotations else None
    return None if written == PANIC_NEVER else int(written)
