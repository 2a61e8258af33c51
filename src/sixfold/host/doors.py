"""What listens: sockets of our own processes, and whose a socket of the host is.

From /proc, as ``ss -lnp`` has it: a process's descriptors name inodes, the tables of its network
namespace name addresses. Processes come and go meanwhile; what is gone is left out.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Collection, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from sixfold.model.datapath import IPAddress

LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # states; UDP: unconnected


class Listener(NamedTuple):
    """``address`` may be the unspecified one: all of its namespace."""

    pid: int
    address: IPAddress
    port: int
    protocol: str


class Ends(NamedTuple):
    """Of a connected TCP socket."""

    local: IPAddress
    local_port: int
    remote: IPAddress
    remote_port: int


def listeners(pids: Collection[int]) -> Iterator[Listener]:
    """Internet sockets that these processes listen on, each in its own network namespace."""
    for pid in sorted(pids):
        own = inodes(pid)
        for table, state in LISTENING.items():
            for inode, ends, found in _table(pid, table):
                if found == state and inode in own and (state == "0A" or not ends.remote_port):
                    yield Listener(pid, ends.local, ends.local_port, table[:3].upper())


def owners(wanted: Collection[Ends]) -> dict[Ends, int]:
    """Process ids of those TCP sockets of the host's namespace; the first that holds one."""
    by_inode = {
        inode: ends
        for table in ("tcp", "tcp6")
        for inode, ends, _ in _table(os.getpid(), table)
        if ends in wanted
    }
    found: dict[Ends, int] = {}
    for entry in Path("/proc").iterdir() if by_inode else ():
        if entry.name.isdecimal():
            for inode in inodes(int(entry.name)) & by_inode.keys():
                found.setdefault(by_inode[inode], int(entry.name))
    return found


def sockets_below(folder: Path) -> Iterator[tuple[Path, int]]:
    """Unix sockets and their modes; others get at one only where they may enter its folders."""
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if stat.S_ISSOCK(mode):
                yield path, stat.S_IMODE(mode)


def command(pid: int) -> str:
    """``name (pid)``; "" when it is gone."""
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} ({pid})"
    except OSError:
        return ""


def inodes(pid: int) -> set[int]:
    """Of the sockets that a process holds."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(descriptor.path)
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def _table(pid: int, table: str) -> Iterator[tuple[int, Ends, str]]:
    """Inode, ends and state of every socket in the namespace of a process."""
    try:
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        _, local, remote, state, *rest = line.split()
        yield int(rest[5]), Ends(*_end(local), *_end(remote)), state


def _end(text: str) -> tuple[IPAddress, int]:
    """Words of 32 bits in the order of this machine, and a port."""
    address, _, port = text.partition(":")
    words = struct.unpack(f">{len(address) // 8}I", bytes.fromhex(address))
    found = ip_address(struct.pack(f"={len(words)}I", *words))
    return getattr(found, "ipv4_mapped", None) or found, int(port, 16)


def namespace_at(path: Path) -> int:
    """Number of the network namespace that a name stands for; 0: of none."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def namespaces() -> Iterator[tuple[int, int]]:
    """Every process, and the number of its network namespace."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it is gone
                yield int(name), os.stat(f"/proc/{name}/ns/net").st_ino


def control_group(pid: int) -> str:
    """Of cgroup v2, from its root; "" when the process is gone."""
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            lines = b"\n" + file.read()
    except OSError:
        return ""
    return os.fsdecode(lines.partition(b"\n0::")[2].partition(b"\n")[0])
