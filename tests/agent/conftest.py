"""A pod runner on a host in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from sixfold.agent.pods import PodRunner
from sixfold.host.fake import FakeContainers, FakeNetwork, FakeProber
from sixfold.host.paths import Paths
from sixfold.model.config import Config
from sixfold.model.workload import Pod
from sixfold.workloads.pod_state import PodState

ADDRESSES = (IPv4Address("10.244.0.2"), IPv6Address("fd00:5f:244::2"))


def make_pod(
    name: str = "web", *, containers: list[dict[str, Any]] | None = None, **spec: Any
) -> Pod:
    """A pod as the store has it; spec fields as in YAML."""
    main = {"name": "main", "command": ["/bin/server"]}
    raw = {
        "metadata": {"name": name, "namespace": "shop", "uid": str(uuid4())},
        "spec": {"containers": containers or [main], **spec},
    }
    return msgspec.convert(raw, Pod)


@dataclass
class Host:
    """What outlives a runner, and the runner of the moment."""

    root: Path
    network: FakeNetwork = field(default_factory=FakeNetwork)
    prober: FakeProber = field(default_factory=FakeProber)
    changes: list[str] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    refuse_admission: Exception | None = None
    gate: asyncio.Event | None = None  # admission waits for it
    runner: PodRunner | None = None

    def __post_init__(self) -> None:
        self.containers = FakeContainers(self.root)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[PodRunner]:
        """A runner's life; what it started goes on when the block ends, as after kill -9."""
        self.runner = PodRunner(
            self.network,
            self.containers,
            self.prober,
            Config(),
            Paths(),
            self.changes.append,
            chance=lambda: 0.5,
        )
        try:
            yield self.runner
        finally:
            await self.runner.close()

    async def admit(self, key: str, attachment: object) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse_admission is not None:
            raise self.refuse_admission
        self.admitted.append(key)

    async def start(self, pod: Pod) -> None:
        assert self.runner is not None
        await self.runner.start(pod, ADDRESSES, self.admit)

    def state(self, key: str = "shop/web") -> PodState:
        assert self.runner is not None
        return next(state for state in self.runner.states() if state.key == key)

    async def until(self, holds: Callable[[], bool], timeout_s: float = 2.0) -> None:
        """Wait for something; fails with the pods' states when it does not come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not holds():
            assert loop.time() < deadline, self.runner and self.runner.states()
            await asyncio.sleep(0.002)


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SIXFOLD_STATE_DIR", str(tmp_path / "state"))
    return Host(tmp_path)


@pytest.fixture
def pod():
    return make_pod
