"""One thing that lint found, and the checks that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "info"]
Path = tuple[str | int, ...]

CHECKS = {
    "allow-without-deny-base": "rules allow, but what no policy selects stays open",
    "cidr-instead-of-identity": "a block names pods, whose addresses change",
    "empty-selector": "a rule lets everybody pass",
    "host-lockout": "policies for the host close what its operator needs",
    "no-effect": "a rule or policy that can never decide anything",
    "not-http": "a rule about requests to workloads of which no port is known to be HTTP",
    "redundant": "without it nothing would change",
    "selects-nothing": "no workload is meant",
    "shadowed": "another rule of the policy says it already",
    "unknown-port-name": "no workload that is meant has a port of this name",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing to look at. ``policy`` is the key of ``World.policies``."""

    policy: str
    path: Path
    check: str
    severity: Severity
    message: str
