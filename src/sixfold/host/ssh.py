"""Over which SSH session is this command typed, if over any?

From the environment; or, as sudo takes it away, from that of a process that this one descends from.
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from sixfold.model.datapath import IPAddress

VARIABLE = "SSH_CONNECTION"
ANCESTORS_MAX = 64


class Session(NamedTuple):
    """Who is at the other end, and on which port of ours."""

    client: IPAddress
    port: int


def session() -> Session | None:
    """None: not over SSH, or nobody lets us know."""
    text, pid = os.environ.get(VARIABLE, ""), os.getppid()
    for _ in range(ANCESTORS_MAX):
        if text or pid <= 1:
            break
        try:
            text = _variable_of(pid)
            pid = _parent_of(pid)
        except OSError:  # gone, or not ours to read
            break
    return parse(text)


def parse(text: str) -> Session | None:
    """``client client-port server server-port``, as sshd writes it."""
    with suppress(ValueError):
        client, _, _, port = text.split()
        return Session(ip_address(client.partition("%")[0]), int(port))
    return None


def _variable_of(pid: int) -> str:
    prefix = f"{VARIABLE}=".encode()
    lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(
        (line.removeprefix(prefix).decode() for line in lines if line.startswith(prefix)), ""
    )


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
