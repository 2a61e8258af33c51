"""What was seen of a service's backends, beyond what objects say of them: an input of planners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sixfold.model.datapath import IPAddress
from sixfold.model.workload import Protocol

PortKey = tuple[str, int, Protocol]  # "namespace/service", port, protocol
LevelKey = tuple[int, Protocol, str, str]  # port, protocol, family, level of priority


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one service.

    long_lived  ports whose connections live long: how many seconds they last on average, as it was
                when that was decided
    unhealthy   backends that did not pass their check, and why
    ramps       backends that have not their whole weight yet: percent of it
    trusted     what levels of priority are trusted with, percent; below their health while they
                have yet to prove themselves
    """

    long_lived: Mapping[tuple[int, Protocol], float] = field(default_factory=dict)
    unhealthy: Mapping[IPAddress, str] = field(default_factory=dict)
    ramps: Mapping[IPAddress, int] = field(default_factory=dict)
    trusted: Mapping[LevelKey, int] = field(default_factory=dict)


NOTHING_SEEN = Seen()
