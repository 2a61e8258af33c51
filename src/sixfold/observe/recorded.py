"""How connections to a service came, and how long they lasted: flow records joined with conntrack.

Pure. A flow record says when a connection was opened, conntrack when its last packet passed and
whether it is over. Conntrack's clock has ticks of a second, and it looks at it once a second: a
duration is short by up to two seconds, and 0 for what was over within the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sixfold.model.flow import Flow, Verdict
from sixfold.observe.names import IPAddress

Ends = tuple[
    IPAddress, int, IPAddress, int, int
]  # source, its port, destination, its port, protocol


@dataclass(frozen=True, slots=True)
class Recorded:
    """One connection; one that is still open has lasted until now."""

    at_s: float
    lasts_s: float
    client: int  # endpoint number, 0 for the host
    open: bool


def recorded(
    flows: Iterable[Flow], known: Mapping[Ends, tuple[float, bool]], now_s: float
) -> list[Recorded]:
    """In the order in which they were opened.

    known  connections: how long nothing has passed, and whether they are open
    """
    last: dict[Ends, Flow] = {}  # of ports that were used again, conntrack has the last
    for flow in flows:
        if flow.verdict is Verdict.FORWARDED and not flow.is_reply:
            last[ends_of(flow)] = flow
    found = []
    for ends, flow in last.items():
        if ends not in known:
            continue
        idle_s, is_open = known[ends]
        at_s = flow.time_ns / 1e9
        until_s = now_s if is_open else now_s - idle_s
        found.append(Recorded(at_s, max(0.0, until_s - at_s), flow.source.endpoint_id, is_open))
    return sorted(found, key=lambda one: one.at_s)


def ends_of(flow: Flow) -> Ends:
    source, destination = flow.source, flow.destination
    return source.address, source.port, destination.address, destination.port, flow.protocol
