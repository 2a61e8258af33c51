"""What controllers and planners may know of one pod: a value, no behaviour beyond its own.

The pod runner makes it from the life cycle of a pod; ``pending`` makes it for a pod that no
runner has seen yet, so that a controller never creates the same replica twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

from sixfold.model.meta import Key, ObjectMeta
from sixfold.model.workload import Pod

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

TEMPLATE_HASH_LABEL = "pod-template-hash"  # Deployment, ReplicaSet
REVISION_LABEL = "controller-revision-hash"  # StatefulSet, DaemonSet


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod, now. Seconds are UTC since the epoch."""

    key: str  # namespace/name
    uid: str
    owner: Key | None = None  # its controller
    labels: Mapping[str, str] = field(default_factory=dict)
    template_hash: str = ""
    phase: Phase = "Pending"
    ready: bool = False
    ready_since_s: float | None = None
    terminating: bool = False
    serving: bool = False  # its containers are ready, even on its way out
    created_s: float = 0.0
    finished_s: float | None = None  # when the last container ended, in a terminal phase
    restarts: int = 0
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    ifindex: int = 0
    device: str = ""
    netns: str = ""
    cookie: int = 0
    reason: str = ""  # why it is not ready, when there is a word for it
    message: str = ""  # and more words

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]

    @property
    def finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def active(self) -> bool:
        """Counts as a replica: neither on its way out nor over."""
        return not self.terminating and not self.finished

    def available(self, now_s: float, min_ready_s: float = 0) -> bool:
        """Ready, and for long enough."""
        if not self.ready or self.terminating or self.ready_since_s is None:
            return False
        return now_s - self.ready_since_s >= min_ready_s


def pending(pod: Pod) -> PodState:
    """The state of a pod that exists in the store only."""
    meta = pod.metadata
    return PodState(
        key=f"{meta.namespace}/{meta.name}",
        uid=meta.uid,
        owner=controller_of(meta),
        labels=meta.labels,
        template_hash=template_hash_of(meta.labels),
        terminating=meta.deletion_timestamp is not None,
        created_s=parse_time(meta.creation_timestamp) or 0.0,
    )


def controller_of(meta: ObjectMeta) -> Key | None:
    """The controller that owns an object, from its ownerReferences."""
    for reference in meta.owner_references:
        if reference.get("controller"):
            return Key(str(reference["kind"]), meta.namespace, str(reference["name"]))
    return None


def template_hash_of(labels: Mapping[str, str]) -> str:
    return labels.get(TEMPLATE_HASH_LABEL) or labels.get(REVISION_LABEL, "")


def by_owner(pods: Iterable[PodState]) -> dict[Key, list[PodState]]:
    """The pods of each controller."""
    owned: dict[Key, list[PodState]] = defaultdict(list)
    for pod in pods:
        if pod.owner is not None:
            owned[pod.owner].append(pod)
    return owned


def format_time(seconds: float) -> str:
    """meta/v1 Time: RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: Any) -> float | None:
    """Seconds of a meta/v1 Time; None when absent or not a time."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
