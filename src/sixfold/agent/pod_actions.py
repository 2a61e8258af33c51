"""Carries out the actions of a pod's life cycle on the host, and answers with events.

Each action is a task; its answer goes through ``dispatch`` of the runner. The network of a pod
comes in this order: veth with the host side down, ``admit`` (the agent puts its programs on it and
waits until the kernel holds endpoint and policy), host side up, files. A step that does not work
undoes those before it; the life cycle tries again later. Clean-up is never given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, assert_never

from sixfold.agent.pod_files import container_spec, write_files, written
from sixfold.agent.pod_host import Admit, ContainerHost, PodNetwork, Prober
from sixfold.errors import SixfoldError, UnavailableError
from sixfold.host import enter
from sixfold.host.containers import Container, ExitStatus
from sixfold.host.network import Attachment
from sixfold.host.paths import Paths
from sixfold.host.probes import Probed, ProbeResult
from sixfold.model.config import Config
from sixfold.workloads import events
from sixfold.workloads.environment import ContainerConfigError, Placement
from sixfold.workloads.events import Action, Event, Network, Termination
from sixfold.workloads.lifecycle import PodLifecycle
from sixfold.workloads.pod_status import pod_state

log = logging.getLogger(__name__)

Addresses = tuple[IPv4Address | None, IPv6Address | None]
Allocate = Callable[[], Addresses]  # asked at each try; the same pod gets the same answer

STARTS_AT_ONCE = 16  # processes being made at the same time; more only wait for each other
RETRY_S, RETRY_MAX_S = 1.0, 30.0


class RunningPod:
    """One pod that runs here: its life cycle, and what is under way for it."""

    def __init__(
        self,
        life: PodLifecycle,
        addresses: Addresses | Allocate = (None, None),
        admit: Admit | None = None,
    ) -> None:
        self.life = life
        self.addresses = addresses
        self.admit = admit  # None for an adopted pod: it was admitted before
        self.state = pod_state(life)
        self.containers: dict[str, Container] = {}  # those that run
        self.tasks: set[asyncio.Task[None]] = set()
        self.attaching: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()

    @property
    def key(self) -> str:
        return self.life.key

    @property
    def uid(self) -> str:
        return self.life.pod.metadata.uid


class PodActions:
    """What a pod's life cycle may ask for, on this host."""

    def __init__(
        self,
        network: PodNetwork,
        containers: ContainerHost,
        prober: Prober,
        config: Config,
        paths: Paths,
        dispatch: Callable[[RunningPod, Event], None],
    ) -> None:
        self._network = network
        self._containers = containers
        self._prober = prober
        self._config = config
        self._paths = paths
        self._dispatch = dispatch
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self.node_ips = (str(config.host_ipv4), str(config.host_ipv6))

    def perform(self, entry: RunningPod, action: Action) -> None:
        """Begin an action; the answer comes later, never from within this call."""
        match action:
            case events.Attach():
                entry.attaching = self._spawn(entry, self._attach(entry))
                entry.attaching.add_done_callback(lambda task: self._attach_done(entry, task))
            case events.StartContainer():
                self._spawn(entry, self._start_container(entry, action))
            case events.StopContainer():
                self._spawn(entry, self._stop_container(entry, action))
            case events.RunProbe():
                self._spawn(entry, self._run_probe(entry, action))
            case events.Detach():
                self._spawn(entry, self._detach(entry))
            case events.Remove():
                self._spawn(entry, self._remove(entry))
            case _:
                assert_never(action)

    def watch(self, entry: RunningPod, container: Container) -> None:
        """Report the end of a container that runs already."""
        entry.containers[container.spec.name] = container
        self._spawn(entry, self._watch(entry, container))

    def write_files(self, entry: RunningPod, attachment: Attachment) -> None:
        write_files(self._directory(entry), entry.life.pod, self._config, attachment)

    def _spawn(self, entry: RunningPod, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        entry.tasks.add(task)
        task.add_done_callback(entry.tasks.discard)
        return task

    def _directory(self, entry: RunningPod) -> Path:
        return self._paths.run / "pods" / entry.uid

    # --- network ------------------------------------------------------------------------------

    async def _attach(self, entry: RunningPod) -> None:
        assert entry.admit is not None, f"{entry.key}: adopted, and attached again"
        try:
            addresses = entry.addresses() if callable(entry.addresses) else entry.addresses
            attachment = self._network.attach(entry.key, *addresses)
            self._dispatch(entry, events.Attached(network_of(attachment)))
            await entry.admit(entry.key, attachment)
            self._network.activate(attachment.ifindex)
            self.write_files(entry, attachment)
        except (SixfoldError, OSError) as error:
            log.warning("pod %s: %s", entry.key, error)
            retry_s = error.retry_s if isinstance(error, UnavailableError) else None
            self._abort_attach(entry, "NetworkError", str(error), retry_s)
        else:
            entry.attaching = None
            self._dispatch(entry, events.Activated())

    def _attach_done(self, entry: RunningPod, task: asyncio.Task[None]) -> None:
        """A cancelled task may never have begun, so only here can it be undone."""
        if task.cancelled():
            self._abort_attach(entry, "Stopped", "the pod was stopped before it had started")

    def _abort_attach(
        self, entry: RunningPod, reason: str, message: str, retry_s: float | None = None
    ) -> None:
        """Never half-open: what was attached so far goes; the next agent sweeps what stays."""
        entry.attaching = None
        with suppress(SixfoldError, OSError):
            self._network.detach(entry.key)
        self._dispatch(entry, events.AttachFailed(reason, message, retry_s))

    async def _detach(self, entry: RunningPod) -> None:
        async def detach() -> None:
            self._network.detach(entry.key)

        await self._until_done(entry, detach)
        self._dispatch(entry, events.Detached())

    # --- containers -----------------------------------------------------------------------------

    async def _start_container(self, entry: RunningPod, action: events.StartContainer) -> None:
        name, attempt = action.container, action.attempt
        endpoint = f"unix://{self._paths.workload_socket}"
        placement = Placement(self._config.node, self.node_ips, entry.life.ips, endpoint)
        try:
            spec = container_spec(entry.life, name, attempt, placement, self._directory(entry))
            async with self._starts:
                container = await self._containers.start(spec)
        except ContainerConfigError as error:
            reason, message = "CreateContainerConfigError", str(error)
        except (SixfoldError, OSError, ValueError) as error:  # a NUL in argv is a ValueError
            reason, message = "RunContainerError", str(error)
        else:
            entry.containers[name] = container
            started_s = container.started_at or time.time()
            self._dispatch(entry, events.Started(name, attempt, started_s))
            await self._watch(entry, container)
            return
        log.warning("pod %s: container %s: %s", entry.key, name, message)
        self._dispatch(entry, events.StartFailed(name, attempt, reason, message))

    async def _watch(self, entry: RunningPod, container: Container) -> None:
        """Wait for the end of one run, and report it when its whole tree is gone."""
        status = await self._containers.wait(container)
        await self._until_done(entry, lambda: self._containers.kill(container))
        if entry.containers.get(container.spec.name) is container:
            del entry.containers[container.spec.name]
        end = termination_of(status)
        self._dispatch(entry, events.Exited(container.spec.name, container.spec.attempt, end))

    async def _stop_container(self, entry: RunningPod, action: events.StopContainer) -> None:
        async def stop() -> None:
            container = entry.containers.get(action.container)
            if container is not None and container.spec.attempt == action.attempt:
                await self._containers.stop(container, max(until - loop.time(), 0.0))

        loop = asyncio.get_running_loop()
        until = loop.time() + action.grace_s
        await self._until_done(entry, stop)

    async def _run_probe(self, entry: RunningPod, action: events.RunProbe) -> None:
        container, network = entry.containers.get(action.container), entry.life.network
        answer = ProbeResult(False, "the container does not run")
        if container is not None and network is not None:
            address = network.ipv4 or network.ipv6
            assert address is not None, f"{entry.key}: attached without an address"
            ports = {
                port.name: port.container_port
                for port in written(entry.life.pod, action.container).ports
            }
            probed = Probed(address, ports, enter.Target.of(container))
            answer = await self._prober.run(action.probe, probed)
        self._dispatch(
            entry,
            events.Probed(action.container, action.attempt, action.kind, answer.ok, answer.message),
        )

    async def _remove(self, entry: RunningPod) -> None:
        async def remove() -> None:
            await self._containers.remove(entry.uid)
            self._network.detach(entry.key)

        await self._until_done(entry, remove)
        self._dispatch(entry, events.Removed())

    async def _until_done(
        self, entry: RunningPod, work: Callable[[], Coroutine[Any, Any, object]]
    ) -> None:
        """Try until it is done, ever more slowly."""
        delay = RETRY_S
        while True:
            try:
                await work()
                return
            except (SixfoldError, OSError) as error:
                log.warning("pod %s: %s; trying again in %g s", entry.key, error, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MAX_S)


def network_of(attachment: Attachment) -> Network:
    return Network(
        attachment.ipv4,
        attachment.ipv6,
        attachment.ifindex,
        attachment.device,
        str(attachment.netns),
        attachment.cookie,
    )


def termination_of(status: ExitStatus) -> Termination:
    return Termination(
        exit_code=status.code,
        started_s=status.started_at or status.finished_at,
        finished_s=status.finished_at,
        signal=status.signal,
        reason=status.reason,
        message=status.message,
    )
