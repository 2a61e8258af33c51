"""What Envoy is asked by the agent, at its admin socket: whether it serves, and to serve no more.

Source: Envoy, "Administration interface".
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from pathlib import Path
from urllib.parse import urlencode

from sixfold.errors import UnavailableError

TIMEOUT_S = 2.0
LISTENERS = "listener_manager.total_listeners_"
WORKERS_STARTED = "listener_manager.workers_started"
_OPEN = re.compile(r"listener\.(?!admin\.).*\.downstream_cx_active")


async def listening(admin: Path) -> int:
    """How many listeners serve; 0 while any is still warming.

    What is there when Envoy begins is active at once, and listens only when its threads start:
    after the first answers to all that it asked for.
    """
    names = r"^listener_manager\.(total_listeners_(active|warming)|workers_started)$"
    found = await _stats(admin, names)
    waits = found[f"{LISTENERS}warming"] or not found[WORKERS_STARTED]
    return 0 if waits else found[f"{LISTENERS}active"]


async def drain(admin: Path) -> None:
    """Listen no more; ask those who have a connection to take another one (HTTP)."""
    await _ask(admin, "POST", "/healthcheck/fail")
    await _ask(admin, "POST", "/drain_listeners")


async def connections(admin: Path) -> int:
    """Those that are open at any listener."""
    found = await _stats(admin, r"^listener\..*\.downstream_cx_active$")
    return sum(count for name, count in found.items() if _OPEN.fullmatch(name))


async def _stats(admin: Path, names: str) -> dict[str, int]:
    query = urlencode({"format": "json", "filter": names})
    answer = json.loads(await _ask(admin, "GET", f"/stats?{query}"))
    return {one["name"]: one["value"] for one in answer["stats"] if "value" in one}


async def _ask(admin: Path, method: str, target: str) -> bytes:
    try:
        return await asyncio.to_thread(_asked, admin, method, target)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"{admin}: {error}") from None


def _asked(admin: Path, method: str, target: str) -> bytes:
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(str(admin))
        connection.request(method, target)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise UnavailableError(f"{admin}: {method} {target}: {answer.status}")
        return body
    finally:
        connection.close()
