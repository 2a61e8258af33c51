"""A host in memory: containers and networks as dictionaries, for tests of what runs on a host.

Not a simulation: nothing executes and no packet flows. It keeps the promises that the pod
runner relies on, among them that everything survives the runner, and it refuses what the real
host refuses. ``calls`` tells what was asked, in order.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host.containers import Container, ContainerSpec, ExitStatus
from sixfold.host.network import Attachment
from sixfold.host.probes import Probed, ProbeResult
from sixfold.host.process import Process
from sixfold.model.workload import Probe


class FakeNetwork:
    """``HostNetwork`` for pods. ``refusals`` are raised by the next attaches, one each."""

    def __init__(self) -> None:
        self.attached: dict[str, Attachment] = {}
        self.active: set[int] = set()
        self.refusals: deque[Exception] = deque()
        self.calls: list[tuple[str, str]] = []
        self._ifindex = 10

    def attach(self, name: str, ipv4: IPv4Address | None, ipv6: IPv6Address | None) -> Attachment:
        self.calls.append(("attach", name))
        if self.refusals:
            raise self.refusals.popleft()
        self._ifindex += 1
        netns = Path("/run/netns") / name.replace("/", ".", 1)
        attachment = Attachment(
            name, self._ifindex, f"sf{self._ifindex}", netns, self._ifindex + 1000, ipv4, ipv6
        )
        self.attached[name] = attachment
        return attachment

    def activate(self, ifindex: int) -> None:
        name = next(each.name for each in self.attached.values() if each.ifindex == ifindex)
        self.calls.append(("activate", name))
        self.active.add(ifindex)

    def detach(self, name: str) -> None:
        self.calls.append(("detach", name))
        attachment = self.attached.pop(name, None)
        if attachment is not None:
            self.active.discard(attachment.ifindex)

    def observe(self) -> Mapping[str, Attachment]:
        return {name: each for name, each in self.attached.items() if each.ifindex in self.active}


@dataclass
class _Process:
    """One run of a container: it ends when the test says so, or at SIGTERM."""

    container: Container
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: ExitStatus | None = None


class FakeContainers:
    """``Containers``; ``exit`` ends a run. Names in ``deaf`` take no notice of SIGTERM."""

    def __init__(self, root: Path) -> None:
        self.deaf: set[str] = set()
        self.refusals: deque[Exception] = deque()
        self.calls: list[tuple[str, str]] = []
        self._root = root
        self._runs: dict[tuple[str, str], _Process] = {}  # latest attempt, by uid and name

    def running(self, name: str) -> bool:
        """Whether any container of this name runs."""
        return any(key[1] == name and each.status is None for key, each in self._runs.items())

    def exit(self, name: str, code: int = 0, *, signal: int = 0) -> None:
        """Let the running container of this name end by itself."""
        for (_, each), process in self._runs.items():
            if each == name and process.status is None:
                self._end(process, code, signal)
                return
        raise AssertionError(f"no container {name} runs")

    async def start(self, spec: ContainerSpec) -> Container:
        self.calls.append(("start", spec.name))
        await asyncio.sleep(0)
        if self.refusals:
            raise self.refusals.popleft()
        if not spec.resolv_conf.exists() or not spec.hosts.exists():
            raise HostError(f"container {spec.name}: its files are not there: nothing to mount")
        before = self._runs.get((spec.pod_uid, spec.name))
        assert before is None or before.status is not None, f"{spec.name} runs twice"
        process = _this_process()  # alive as long as the test
        container = Container(
            spec=spec,
            state=self._root / "run" / spec.pod_uid / spec.name / str(spec.attempt),
            log=self.log_directory(spec.pod_key, spec.pod_uid) / spec.name / f"{spec.attempt}.log",
            cgroup=self._root / "cgroup" / spec.pod_uid / spec.name,
            shim=process,
            process=process,
            started_at=time.time(),
        )
        container.state.mkdir(parents=True)
        self._runs[spec.pod_uid, spec.name] = _Process(container)
        return container

    def observe(self) -> list[Container]:
        return [process.container for process in self._runs.values()]

    async def wait(self, container: Container) -> ExitStatus:
        process = self._runs[container.spec.pod_uid, container.spec.name]
        await process.ended.wait()
        assert process.status is not None
        return process.status

    async def kill(self, container: Container) -> ExitStatus:
        self._end(self._runs[container.spec.pod_uid, container.spec.name], 137, 9)
        return await self.wait(container)

    async def stop(self, container: Container, grace_s: float) -> ExitStatus:
        self.calls.append(("stop", container.spec.name))
        process = self._runs[container.spec.pod_uid, container.spec.name]
        if grace_s > 0 and container.spec.name not in self.deaf:
            self._end(process, 143, 15)
        try:
            async with asyncio.timeout(grace_s):
                return await self.wait(container)
        except TimeoutError:
            return await self.kill(container)

    async def remove(self, pod_uid: str) -> None:
        self.calls.append(("remove", pod_uid))
        for key in [key for key in self._runs if key[0] == pod_uid]:
            self._end(self._runs.pop(key), 137, 9)

    def log_directory(self, pod_key: str, pod_uid: str) -> Path:
        return self._root / "logs" / f"{pod_key.replace('/', '_')}_{pod_uid}"

    def _end(self, process: _Process, code: int, signal: int) -> None:
        if process.status is not None:
            return
        reason = "Error" if code else "Completed"
        started_at = process.container.started_at
        process.status = ExitStatus(code, signal, started_at, time.time(), reason)
        (process.container.state / "status").touch()
        process.ended.set()


class FakeProber:
    """``host.probes``: every container is as ``well`` as the test says."""

    def __init__(self) -> None:
        self.well = True
        self.asked = 0

    async def run(self, probe: Probe, probed: Probed) -> ProbeResult:
        self.asked += 1
        await asyncio.sleep(0)
        return ProbeResult(self.well, "" if self.well else "unwell")


def _this_process() -> Process:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return Process(os.getpid(), int(fields[19]))
