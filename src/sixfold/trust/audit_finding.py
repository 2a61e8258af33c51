"""One thing that an audit found; what an audit may look at; what a rule is.

A rule is a question with a number (facts of zero trust, Z01 to Z25), asked of the evidence: the
plans that are in force, and, live, what was seen of the running system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sixfold.policy.reach_parties import View

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
Path = tuple[str | int, ...]


class Object(NamedTuple):
    """Whom a finding is about; a policy's ``kind`` may be any of the policy kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.namespace, self.kind, self.name) if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, how one can tell, and what to do about it: a command, or YAML."""

    rule: str
    severity: Severity
    about: Object
    message: str
    evidence: str
    fix: str
    path: Path = ()  # within the object


@dataclass(frozen=True, slots=True)
class PortSeen:
    """One service port as it is balanced now.

    connections  live ones of each active backend over its weight
    lifetime_s   how long they last on average, as far as known; 0 = not
    """

    service: str
    port: int
    protocol: str
    algorithm: str
    why: str
    lifetime_s: float
    connections: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DialsSeen:
    """How a pod has dialled addresses of a service itself; see ``host/freshness.py``."""

    pod: str
    service: str
    watched_s: float
    longest_s: float
    connections: int
    retired: int
    expired: int
    late: int
    unasked: int
    address: str = ""
    ttl_s: int = 5


@dataclass(frozen=True, slots=True)
class Live:
    """What only a running agent knows."""

    ports: tuple[PortSeen, ...] = ()
    dials: tuple[DialsSeen, ...] = ()
    flows_lost: int = 0
    hits_lost: int = 0
    generation: int = 0
    applied: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``live`` is None offline."""

    view: View
    live: Live | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """``offline``: whether manifests alone can answer it."""

    number: str
    severity: Severity
    title: str
    check: Callable[[Evidence], Iterator[Finding]]
    offline: bool = True
