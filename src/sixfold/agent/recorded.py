"""What the agent remembers of the connections to a service: ``sixfold lb compare --recorded``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sixfold.agent.events import FlowReader
from sixfold.host.datapath import KernelDatapath
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.observe import FlowFilter
from sixfold.observe.recorded import recorded


async def connections_of(
    datapath: KernelDatapath, flows: FlowReader, service: str, port: int, protocol: str
) -> list[dict[str, Any]]:
    """Those through one port of ``namespace/name``, as far as flow log and kernel reach back."""
    flows.drain()
    params = {"verdict": "FORWARDED", "port": str(port), "protocol": protocol}
    search = flows.log.search(FlowFilter.parse(params, time.time_ns()))
    for _ in search.steps():
        await asyncio.sleep(0)
    through = (f for f in search.found if f.service == service and f.service_port == port)
    number = PROTOCOL_NUMBERS[protocol]
    known = {
        (one.source, one.source_port, one.destination, one.destination_port, one.protocol): (
            one.idle_s,
            one.is_open,
        )
        for one in await asyncio.to_thread(lambda: [*datapath.conntrack()])
        if one.protocol == number
    }
    return [
        {"at_s": one.at_s, "lasts_s": one.lasts_s, "client": one.client, "open": one.open}
        for one in recorded(through, known, time.time())
    ]
