"""How long connections last, as people state it: ``exp:30s``, ``9*const:50ms``, ``pareto:10s``.

Pure: chance is an argument. Several stated together are a mixture, each with its weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
STATED = re.compile(r"(?:(\d+(?:\.\d+)?)\*)?([a-z]+):(\d+(?:\.\d+)?)(ms|s|m|h)")
PARETO_SHAPE = 1.5  # heavy, with a mean: most are short, some last very long
SIGMA = 1.0  # of the logarithm, for lognormal

# What a draw is multiplied with is the mean: each of these has the mean 1.
SHAPES: dict[str, Callable[[Random], float]] = {
    "const": lambda chance: 1.0,
    "exp": lambda chance: chance.expovariate(1.0),
    "uniform": lambda chance: chance.uniform(0.0, 2.0),
    "lognormal": lambda chance: chance.lognormvariate(-SIGMA * SIGMA / 2, SIGMA),
    "pareto": lambda chance: chance.paretovariate(PARETO_SHAPE) * (PARETO_SHAPE - 1) / PARETO_SHAPE,
}


@dataclass(frozen=True, slots=True)
class Duration:
    """One stated distribution; ``weight`` is its share of a mixture."""

    shape: str
    mean_s: float
    weight: float = 1.0

    def draw(self, chance: Random) -> float:
        return SHAPES[self.shape](chance) * self.mean_s


def parse_duration(text: str) -> Duration:
    """``[WEIGHT*]SHAPE:MEAN``; raises ValueError that says what is expected."""
    found = STATED.fullmatch(text)
    if found is None or found[2] not in SHAPES:
        shapes = ", ".join(SHAPES)
        raise ValueError(f"{text!r}: give SHAPE:MEAN, as in exp:30s; shapes are {shapes}")
    mean_s, weight = float(found[3]) * UNITS_S[found[4]], float(found[1] or 1)
    if not mean_s or not weight:
        raise ValueError(f"{text!r}: mean and weight must be more than 0")
    return Duration(found[2], mean_s, weight)


def mean_of(mixture: Sequence[Duration]) -> float:
    """Of all connections, in seconds."""
    total = math.fsum(one.weight for one in mixture)
    return math.fsum(one.mean_s * one.weight for one in mixture) / total


def draws(mixture: Sequence[Duration], count: int, chance: Random) -> list[float]:
    """So many durations, in seconds."""
    which = chance.choices(mixture, [one.weight for one in mixture], k=count)
    return [one.draw(chance) for one in which]
