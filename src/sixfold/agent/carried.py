"""How much have connections in tunnels carried that are still open?

Asked of their clients' sockets, when somebody looks at flows: nobody counts for those who do not.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from sixfold.agent.agent import Agent
from sixfold.host.sockets import End, captured_at, carried
from sixfold.model.flow import Flow
from sixfold.observe.joined import OPEN, counted

SYN = 1  # counts as a byte that was sent


async def so_far(agent: Agent, flows: Iterable[Flow]) -> list[Flow]:
    """The same flows; those of connections that are open with what they have carried."""
    found = list(flows)
    places: dict[Path, dict[End, int]] = defaultdict(dict)
    endpoints = agent.plans.world.endpoints if agent.plans is not None else {}
    for at, flow in enumerate(found):
        endpoint = endpoints.get(flow.source.name) if flow.extra.get("state") == OPEN else None
        if endpoint is not None and endpoint.netns:
            ends = captured_at(flow.source.address, flow.source.port)
            places[Path(endpoint.netns)] |= dict.fromkeys(ends, at)
    for namespace, wanted in places.items():
        bytes_of = await asyncio.to_thread(carried, wanted, namespace)
        for end, (sent, received) in bytes_of.items():
            at = wanted[end]
            found[at] = counted(found[at], max(0, sent - SYN), received)
    return found
