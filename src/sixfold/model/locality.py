"""Where something is: region and zone, and what services may say about far and near.

Source of the labels: Kubernetes' well-known labels of nodes, which it copies to pods. Where it has
nothing (priorities, thresholds, the way back) the annotations are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ZONE = "topology.kubernetes.io/zone"  # labels of a pod, of an EndpointSlice
REGION = "topology.kubernetes.io/region"

FAILOVER = "sixfold.dev/lb-failover"  # on a Service: "locality", or places in order
OVERPROVISIONING = "sixfold.dev/lb-overprovisioning"  # percent, Envoy's factor
FAILBACK = "sixfold.dev/lb-failback-seconds"
BY_LOCALITY = "locality"
OVERPROVISIONING_DEFAULT, OVERPROVISIONING_MAX = 140, 1000
FAILBACK_S_DEFAULT, FAILBACK_S_MAX = 30, 3600
PLACES_MAX = 16


@dataclass(frozen=True, slots=True)
class Locality:
    """A zone of a region; "" where it is not said."""

    region: str = ""
    zone: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.region, self.zone) if part)

    def is_in(self, place: str) -> bool:
        """Whether a region, a zone or ``region/zone`` means this."""
        return bool(place) and place in (self.region, self.zone, f"{self.region}/{self.zone}")

    def same_zone(self, other: Locality) -> bool:
        regions = {self.region, other.region} - {""}
        return self.zone == other.zone and len(regions) < 2

    def same_region(self, other: Locality) -> bool:
        return bool(self.region) and self.region == other.region


NOWHERE = Locality()


@dataclass(frozen=True, slots=True)
class Here:
    """The node that dials."""

    node: str = ""
    locality: Locality = NOWHERE


NO_NODE = Here()


@dataclass(frozen=True, slots=True)
class Failover:
    """What a service says about places that stand in for each other.

    places            in order, what is nowhere named comes last; none: by locality
    overprovisioning  percent: a place below 100/this of healthy endpoints gives the rest away
    failback_s        for so long a place must have been better before it gets more again
    """

    places: tuple[str, ...] = ()
    overprovisioning: int = OVERPROVISIONING_DEFAULT
    failback_s: int = FAILBACK_S_DEFAULT


def locality_of(labels: Mapping[str, str], otherwise: Locality = NOWHERE) -> Locality:
    """What labels say; with neither of them, ``otherwise``."""
    if ZONE not in labels and REGION not in labels:
        return otherwise
    return Locality(labels.get(REGION, ""), labels.get(ZONE, ""))


def failover_of(annotations: Mapping[str, str]) -> Failover | None:
    """None: all places are alike. ``manifest`` checked the text."""
    written = annotations.get(FAILOVER)
    if written is None:
        return None
    places = [] if written == BY_LOCALITY else [one.strip() for one in written.split(",")]
    return Failover(
        tuple(places),
        int(annotations.get(OVERPROVISIONING, OVERPROVISIONING_DEFAULT)),
        int(annotations.get(FAILBACK, FAILBACK_S_DEFAULT)),
    )
