"""Metrics as Prometheus reads them: families of samples, and the two text formats.

Pure. Sources: Prometheus' exposition format 0.0.4, OpenMetrics 1.0. A family keeps its samples as
tuples, because thousands of them are written at each scrape.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Value = int | float
Sample = tuple[tuple[str, ...], Value]
NEEDS_ESCAPE = re.compile(r'[\\\n"]').search
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Family(NamedTuple):
    """One metric: its name (of a counter without ``_total``), and a value for each set of labels.

    Of a histogram the samples are its buckets, which add up, and ``sum`` what was observed.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    samples: Sequence[Sample] = ()
    sum: float = 0.0


def single(name: str, kind: Literal["counter", "gauge"], help_: str, value: Value) -> Family:
    """A metric without labels."""
    return Family(name, kind, help_, samples=[((), value)])


class Durations:
    """A histogram of seconds."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self._sum_s += duration_s

    def family(self, name: str, help_: str) -> Family:
        samples: list[Sample] = []
        total = 0
        bounds = (*map(repr, map(float, self._bounds_s)), "+Inf")
        for bound, count in zip(bounds, self._counts, strict=True):
            total += count
            samples.append(((bound,), total))
        return Family(name, "histogram", help_, ("le",), samples, self._sum_s)


def render(families: Iterable[Family], *, openmetrics: bool = False) -> str:
    """The text; a family without samples is left out."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            _render(family, lines, openmetrics=openmetrics)
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _render(family: Family, lines: list[str], *, openmetrics: bool) -> None:
    name, kind = family.name, family.kind
    suffix = {"counter": "_total", "histogram": "_bucket", "gauge": ""}[kind]
    said = name if openmetrics or kind != "counter" else f"{name}{suffix}"
    lines.append(f"# HELP {said} {family.help.translate(ESCAPES) if openmetrics else family.help}")
    lines.append(f"# TYPE {said} {kind}")
    head = f"{name}{suffix}"
    if family.labels:
        labels = ",".join(f'{label}="%s"' for label in family.labels)
        shape = f"{head}{{{labels}}} %s"
        for values, value in family.samples:
            if NEEDS_ESCAPE("".join(values)):
                values = tuple(text.translate(ESCAPES) for text in values)
            lines.append(shape % (*values, value))
    else:
        lines += (f"{head} {value}" for _, value in family.samples)
    if kind == "histogram":
        lines.append(f"{name}_count {family.samples[-1][1]}")
        lines.append(f"{name}_sum {family.sum}")
