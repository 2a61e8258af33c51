"""What is wrong with annotations about balancing: a misspelt one would balance in silence as if
nothing had been asked.

On a Service they choose the algorithm, on a pod (or a pod template) its weight; on an
EndpointSlice that of each of its endpoints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from sixfold.manifest.names import quoted
from sixfold.manifest.path import Finding, Path
from sixfold.model.algorithm import (
    ALGORITHM,
    CILIUM_ALGORITHM,
    DRAIN,
    NAMED,
    TABLE_SIZE,
    TABLE_SIZES,
    WEIGHT,
    WEIGHT_MAX,
)
from sixfold.model.health import HEALTH_CHECK, PANIC, SLOW_START
from sixfold.model.meta import ObjectMeta

PREFIX = "sixfold.dev/lb-"
PLACES = {
    ALGORITHM: "Service",
    CILIUM_ALGORITHM: "Service",
    TABLE_SIZE: "Service",
    WEIGHT: "Pod or EndpointSlice",
    DRAIN: "Pod",
    HEALTH_CHECK: "Service",
    SLOW_START: "Service",
    PANIC: "Service",
}


def balancing(kind: str, path: Path, meta: ObjectMeta) -> Iterator[Finding]:
    """Findings about the annotations of an object; of a template, ``kind`` is Pod."""
    for key, value in meta.annotations.items():
        here = (*path, "annotations", key)
        if key not in PLACES:
            if key.startswith(PREFIX):
                close = difflib.get_close_matches(key, PLACES, 1)
                hint = f"did you mean {close[0]}?" if close else "see docs/support.md"
                yield Finding(here, f"unknown annotation; {hint}")
        elif kind not in PLACES[key].split(" or "):
            yield Finding(here, f"means nothing on a {kind}; give it to a {PLACES[key]}")
        elif wrong := _wrong(key, value):
            yield Finding(here, wrong)


def _wrong(key: str, value: str) -> str | None:
    match key:
        case "sixfold.dev/lb-weight":
            if not value.isdecimal() or len(value) > 3 or int(value) > WEIGHT_MAX:
                return f"{quoted(value)} is no weight; give 0 (maintenance) to {WEIGHT_MAX}"
        case "sixfold.dev/lb-drain":
            if value not in ("true", "false"):
                return f'{quoted(value)} is unknown; give "true", or "false" to end it'
        case "sixfold.dev/lb-health-check" | "sixfold.dev/lb-slow-start":
            return None  # ``health`` says what is wrong with it
        case "sixfold.dev/lb-panic-threshold":
            return None
        case "sixfold.dev/lb-maglev-table-size":
            if value not in map(str, TABLE_SIZES):
                return f"{quoted(value)} is no table size; give {', '.join(map(str, TABLE_SIZES))}"
        case _:
            if value not in NAMED:
                close = difflib.get_close_matches(value, NAMED, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                return f"{quoted(value)} is not one of {', '.join(NAMED)}{hint}"
    return None
