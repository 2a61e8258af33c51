"""What happens to a pod (events, into the life cycle) and what to do about it (actions, out).

Seconds are UTC since the epoch. A container's attempts count from 0; an event that names an
attempt which is not the present one is late and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from sixfold.model.workload import Probe

ProbeKind = Literal["startup", "readiness", "liveness"]


@dataclass(frozen=True, slots=True)
class Network:
    """A pod's attachment and its addresses."""

    ipv4: IPv4Address | None
    ipv6: IPv6Address | None
    ifindex: int
    device: str
    netns: str
    cookie: int

    @property
    def ips(self) -> tuple[str, ...]:
        """As in status.podIPs."""
        return tuple(str(ip) for ip in (self.ipv4, self.ipv6) if ip is not None)


@dataclass(frozen=True, slots=True)
class Termination:
    """How one run of a container ended."""

    exit_code: int  # 128 + signal when a signal ended it
    started_s: float
    finished_s: float
    signal: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """The pod has its interface; nothing may run yet."""

    network: Network


@dataclass(frozen=True, slots=True)
class Activated:
    """Policy for the pod is in force: containers may run."""


@dataclass(frozen=True, slots=True)
class AttachFailed:
    """Nothing of the attachment is left; try again after ``retry_s`` or the usual back-off."""

    reason: str
    message: str
    retry_s: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    container: str
    attempt: int
    started_s: float


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The container could not be made; no process of it is left."""

    container: str
    attempt: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Exited:
    container: str
    attempt: int
    end: Termination


@dataclass(frozen=True, slots=True)
class Probed:
    container: str
    attempt: int
    kind: ProbeKind
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The pod is being deleted; asked again with less grace, the sooner end holds."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Detached:
    """The network of a finished pod is gone."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Nothing of a stopped pod is left on the host."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Attached
    | Activated
    | AttachFailed
    | Started
    | StartFailed
    | Exited
    | Probed
    | StopRequested
    | Detached
    | Removed
    | Tick
)


@dataclass(frozen=True, slots=True)
class Attach:
    """Give the pod its network, in force; answer Attached and Activated, or AttachFailed."""


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Answer Started and, some day, Exited; or StartFailed."""

    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopContainer:
    """SIGTERM, and after ``grace_s`` SIGKILL for its whole tree; the answer is Exited."""

    container: str
    attempt: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class RunProbe:
    """Answer Probed, always."""

    container: str
    attempt: int
    kind: ProbeKind
    probe: Probe


@dataclass(frozen=True, slots=True)
class Detach:
    """The pod is over, all its containers have ended: give its network back."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Leave nothing of the pod on this host."""


Action = Attach | StartContainer | StopContainer | RunProbe | Detach | Remove
