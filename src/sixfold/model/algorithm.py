"""Which of N backends: the algorithms that the kernel knows, and the annotations that ask for them.

Source of Cilium's annotation: its documentation of kube-proxy replacement. Where both are
written, ours counts: it has words that Cilium's lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

ALGORITHM = "sixfold.dev/lb-algorithm"  # on a Service
CILIUM_ALGORITHM = "service.cilium.io/lb-algorithm"
TABLE_SIZE = "sixfold.dev/lb-maglev-table-size"  # on a Service
WEIGHT = "sixfold.dev/lb-weight"  # on a pod; on an EndpointSlice: of each endpoint
DRAIN = "sixfold.dev/lb-drain"  # on a pod: set and removed by ``sixfold lb drain``

WEIGHT_MAX = 100
# Primes, as Cilium offers them; at least a hundred slots for a backend keep the spread even.
TABLE_SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)
TABLE_SIZE_DEFAULT = 16381


class Algorithm(IntEnum):
    """Numbers as in ``bpf/sixfold.h``."""

    RANDOM = 0
    ROUND_ROBIN = 1
    LEAST_CONNECTIONS = 2
    MAGLEV = 3
    SOURCE_HASH = 4

    @property
    def title(self) -> str:
        """As users write it."""
        return self.name.lower().replace("_", "-")


NAMED: Mapping[str, Algorithm] = {
    **{algorithm.title: algorithm for algorithm in Algorithm},
    "weighted-round-robin": Algorithm.ROUND_ROBIN,  # every algorithm minds weights
}


def weight_of(annotations: Mapping[str, str]) -> int:
    """A pod's share; 1 when it says nothing, 0 is maintenance. ``manifest`` checked the text."""
    return int(annotations.get(WEIGHT, "1"))


def is_drained(annotations: Mapping[str, str]) -> bool:
    return annotations.get(DRAIN) == "true"
