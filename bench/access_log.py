"""``python -m bench.access_log SOCKET``: takes the log of an Envoy by hand, as agents do.

Until it is killed. What it costs is nobody's figure: it runs where the agents run.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from sixfold.serve.xds import XdsServer


async def take(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    await XdsServer(lambda *_: None).serve(listener, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(take(sys.argv[1]))
