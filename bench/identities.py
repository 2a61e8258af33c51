"""Identities through the Workload API: certificates and tokens a second, and all renewed at once.

The agent's own server in a process of its own, on a real socket; who asks is asked of the kernel
each time (``peer_of``), and then taken for one pod after the other: a thousand real pods would
measure pods. The clients (grpclib) are in another process; CPU is the server's.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from bench.lab import Lab, LabError
from sixfold.agent.doors import unix_listener
from sixfold.host.peer import peer_of
from sixfold.model.spiffe import workload_id
from sixfold.serve.workload_api import SERVICE, Workload, WorkloadApi
from sixfold.serve.workload_messages import CLASSES
from sixfold.trust import keyring as rings

WORKLOADS = 1000
CLIENTS = 4  # that ask one question after the other
SECONDS = 2.0
FILES = 4096
HEADER = {"workload.spiffe.io": "true"}
NEW, ONE_EACH, SUCCEED = b"nos"  # who a caller is; and: authorities succeed one another


def measure(lab: Lab) -> dict[str, float]:
    path = lab.directory / "workload.sock"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    with _serving(path) as (pid, tell):
        return asyncio.run(_measure(path, pid, tell))


async def _measure(path: Path, pid: int, tell: Callable[[int], None]) -> dict[str, float]:
    tell(NEW)
    found = {}
    for name, ask in (("x509_svids", _certificate), ("jwt_svids", _token)):
        begun_s, cpu_s = time.perf_counter(), _cpu_s(pid)
        counts = await asyncio.gather(*(_repeat(path, ask) for _ in range(CLIENTS)))
        passed_s, used_s = time.perf_counter() - begun_s, _cpu_s(pid) - cpu_s
        found[f"{name}_per_s"] = round(sum(counts) / passed_s)
        found[f"{name}_cpu_us"] = round(used_s / sum(counts) * 1e6)
    tell(ONE_EACH)
    channels = [Channel(path=str(path)) for _ in range(WORKLOADS)]
    streams, before = [], []
    for channel in channels:  # one after the other: sockets have short queues
        streams.append(await _open(channel))
        before.append(await streams[-1].recv_message())
    begun_s, cpu_s = time.perf_counter(), _cpu_s(pid)
    tell(SUCCEED)
    after = await asyncio.gather(*(stream.recv_message() for stream in streams))
    found["rotated"] = WORKLOADS
    found["rotation_s"] = round(time.perf_counter() - begun_s, 2)
    found["rotation_cpu_s"] = round(_cpu_s(pid) - cpu_s, 2)
    same = sum(
        one.svids[0].x509_svid == two.svids[0].x509_svid
        for one, two in zip(before, after, strict=True)
    )
    if same or len({one.svids[0].spiffe_id for one in after}) != WORKLOADS:
        raise LabError(f"identities: {same} of {WORKLOADS} were told the same again")
    for channel in channels:
        channel.close()
    return found


async def _repeat(path: Path, ask: Callable[[Channel], Any]) -> int:
    channel, until_s, count = Channel(path=str(path)), time.perf_counter() + SECONDS, 0
    while time.perf_counter() < until_s:
        await ask(channel)
        count += 1
    channel.close()
    return count


async def _certificate(channel: Channel) -> None:
    stream = await _open(channel)
    await stream.recv_message()
    await stream.cancel()


async def _token(channel: Channel) -> None:
    asked, told = CLASSES["JWTSVIDRequest"], CLASSES["JWTSVIDResponse"]
    call = UnaryUnaryMethod(channel, f"{SERVICE}/FetchJWTSVID", asked, told)
    await call(asked(audience=["db"]), metadata=HEADER)


async def _open(channel: Channel) -> Any:
    asked, told = CLASSES["X509SVIDRequest"], CLASSES["X509SVIDResponse"]
    method = UnaryStreamMethod(channel, f"{SERVICE}/FetchX509SVID", asked, told)
    stream = method.open(metadata=HEADER)
    await stream.__aenter__()
    await stream.send_message(asked(), end=True)
    return stream


@contextmanager
def _serving(path: Path) -> Any:
    """The server's process, and how it is told what to do: it answers when it has."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            asyncio.run(_serve(path, theirs))
        finally:
            sys.stdout.flush()
            os._exit(0)
    theirs.close()

    def tell(what: int) -> None:
        ours.sendall(bytes((what,)))
        if ours.recv(1) != bytes((what,)):
            raise LabError("identities: the server ended")

    try:
        if ours.recv(1) != b"r":
            raise LabError("identities: the server did not start")
        yield pid, tell
    finally:
        ours.close()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


async def _serve(path: Path, told: socket.socket) -> None:
    ring = [rings.first("bench", datetime.now(UTC))]
    mode, callers = [NEW], [0]

    def attest(sock: Any) -> Workload:
        peer_of(sock)
        callers[0] += 1
        number = callers[0] if mode[0] == NEW else sock.fileno()
        return Workload(f"{mode[0]}-{number}", "", workload_id("bench", "ns", f"sa-{number}"))

    api = WorkloadApi(lambda: ring[0], timedelta(hours=1), attest)
    told.setblocking(False)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    with unix_listener(path) as listener:
        serving = asyncio.create_task(api.serve(listener, stop))
        await loop.sock_sendall(told, b"r")
        while what := await loop.sock_recv(told, 1):
            await loop.sock_sendall(told, what)
            if what[0] == SUCCEED:
                now = datetime.now(UTC)
                changed = rings.activate(rings.prepare(ring[0], "x509", now), "x509")
                ring[0] = replace(rings.taint(changed, "x509"))
                api.changed()
            else:
                mode[0] = what[0]
                api.keep(set())
        stop.set()
        await serving


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
