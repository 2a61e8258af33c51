"""What is wrong with annotations about balancing: a misspelt one would balance in silence as if
nothing had been asked.

On a Service, or an external one with addresses, they choose the algorithm; on a Service also what
happens between places; on a pod (or a pod
template) its weight; on an EndpointSlice that of each of its endpoints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from sixfold.manifest.names import label_value, quoted
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
from sixfold.model.locality import (
    BY_LOCALITY,
    FAILBACK,
    FAILBACK_S_MAX,
    FAILOVER,
    OVERPROVISIONING,
    OVERPROVISIONING_MAX,
    PLACES_MAX,
)
from sixfold.model.meta import ObjectMeta

PREFIX = "sixfold.dev/lb-"
PLACES = {
    ALGORITHM: "Service or ServiceEntry",
    CILIUM_ALGORITHM: "Service or ServiceEntry",
    TABLE_SIZE: "Service or ServiceEntry",
    WEIGHT: "Pod or EndpointSlice",
    DRAIN: "Pod",
    HEALTH_CHECK: "Service",
    SLOW_START: "Service",
    PANIC: "Service",
    FAILOVER: "Service",
    OVERPROVISIONING: "Service",
    FAILBACK: "Service",
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
        case "sixfold.dev/lb-failover":
            return _failover(value)
        case "sixfold.dev/lb-overprovisioning":
            if not value.isdecimal() or not 100 <= int(value[:6]) <= OVERPROVISIONING_MAX:
                return f"{quoted(value)} is no percentage; give 100 to {OVERPROVISIONING_MAX}"
        case "sixfold.dev/lb-failback-seconds":
            if not value.isdecimal() or int(value[:6]) > FAILBACK_S_MAX:
                return f"{quoted(value)} is no number of seconds; give 0 to {FAILBACK_S_MAX}"
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


def _failover(value: str) -> str | None:
    """Places are written as labels have them, in order."""
    if value == BY_LOCALITY:
        return None
    places = [place.strip() for place in value.split(",")]
    if len(places) > PLACES_MAX:
        return f"{len(places)} places; give at most {PLACES_MAX}"
    for place in places:
        parts = place.split("/")
        if not all(parts) or len(parts) > 2 or any(map(label_value, parts)):
            wanted = f'give "{BY_LOCALITY}", or regions, zones and region/zone in order'
            return f"{quoted(place)} is no place; {wanted}"
    if twice := next((one for one in places if places.count(one) > 1), None):
        return f"{quoted(twice)} is there twice; keep one"
    return None
