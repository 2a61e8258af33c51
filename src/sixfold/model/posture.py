"""sixfold.dev/v1 Posture: what every layer denies by default, and what is relaxed, until when.

Ours: Kubernetes has no such object. There is one, called ``default``; without it the posture is
the one of ``sixfold up``, and nothing is relaxed. A relaxation says of a scope what other
mechanisms say without an end: ``enforcement: audit`` as the annotation of a namespace, ``mtls`` as
``up --mtls``, ``discovery: open`` as the annotation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from sixfold.model.config import Base
from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written
from sixfold.model.workload import Protocol

POSTURE = "Posture"
NAME = "default"  # of the one that there is


class RelaxedPort(Object):
    """A port of the workloads themselves."""

    port: int
    protocol: Protocol = "TCP"


class Relaxation(Object):
    """What does not hold for some workloads, until then.

    pod_selector  absent: all of the namespace
    ports         absent: all, in both directions; else connections to these
    """

    name: str
    namespace: str
    until: str
    reason: str
    pod_selector: LabelSelector | None = None
    ports: list[RelaxedPort] = []
    enforcement: Literal["audit"] | None = None
    mtls: Literal["permissive", "disabled"] | None = None
    discovery: Literal["open"] | None = None

    @property
    def until_s(self) -> float:
        """UTC since the epoch."""
        return datetime.fromisoformat(self.until).timestamp()

    @property
    def said(self) -> dict[str, str]:
        """What it relaxes, in the words of the object."""
        given = {
            "enforcement": self.enforcement,
            "mtls": self.mtls,
            "discovery": self.discovery,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def scope(self) -> str:
        """``namespace shop, app=web, port 8080/TCP``."""
        parts = [f"namespace {self.namespace}"]
        if self.pod_selector is not None:
            labels = self.pod_selector.match_labels.items()
            lines = self.pod_selector.match_expressions
            parts += [f"{key}={value}" for key, value in labels]
            parts += [f"{one.key} {one.operator} {','.join(one.values)}".strip() for one in lines]
        parts += [f"port {one.port}/{one.protocol}" for one in self.ports]
        return ", ".join(parts)

    def selects(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a workload is in its scope."""
        return namespace == self.namespace and (
            self.pod_selector is None or self.pod_selector.matches(labels)
        )

    def __str__(self) -> str:
        return f"relaxation {self.name}, until {self.until}"


class PostureSpec(Object):
    """``base`` absent: what ``sixfold up --posture`` says."""

    base: Base | None = None
    relaxations: list[Relaxation] = []


class Posture(Object):
    metadata: ObjectMeta
    spec: PostureSpec = msgspec.field(default_factory=PostureSpec)
    api_version: str = written("sixfold.dev/v1")
    kind: str = written(POSTURE)
    status: dict[str, Any] = {}


def in_force(posture: Posture | None, now_s: float) -> tuple[Relaxation, ...]:
    """Those whose time is not over."""
    given = posture.spec.relaxations if posture is not None else ()
    return tuple(one for one in given if now_s < one.until_s)


def over(posture: Posture, now_s: float) -> list[Relaxation]:
    """Those that relax nothing any more."""
    return [one for one in posture.spec.relaxations if one.until_s <= now_s]


def in_audit(
    relaxations: Iterable[Relaxation], namespace: str, labels: Mapping[str, str]
) -> tuple[Relaxation, ...]:
    """Those that have a workload, or ports of it, told and not enforced."""
    return tuple(one for one in relaxations if one.enforcement and one.selects(namespace, labels))
