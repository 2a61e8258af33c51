"""The pod runner: carries out what each pod's life cycle asks for, and tells it what happened.

Theory of operation. ``workloads.lifecycle`` decides, this module acts: every event goes through
``_dispatch``, which performs the actions it gets back as tasks, writes the pod's record, and
calls ``on_change`` when planners have something new to see. So all state of a pod changes in one
place, in the event loop, and no two steps of one pod contradict each other.

The network of a pod comes in this order: veth with the host side down, ``admit`` (the agent
puts its programs on it and waits until the kernel holds endpoint and policy), host side up, files,
processes. A step that does not work undoes those before it; the life cycle tries again later.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, assert_never

from sixfold.agent.pod_files import container_spec, write_files, written
from sixfold.agent.pod_host import Admit, ContainerHost, PodNetwork, Prober
from sixfold.agent.pod_records import PodRecords
from sixfold.errors import SixfoldError, UnavailableError
from sixfold.host import enter, logs
from sixfold.host.containers import Container, ExitStatus
from sixfold.host.network import Attachment
from sixfold.host.paths import Paths
from sixfold.host.probes import Probed, ProbeResult
from sixfold.model.config import Config
from sixfold.model.workload import Pod
from sixfold.workloads import events
from sixfold.workloads.environment import ContainerConfigError, Placement
from sixfold.workloads.events import Action, Event, Network, Termination
from sixfold.workloads.lifecycle import PodLifecycle
from sixfold.workloads.pod_state import PodState
from sixfold.workloads.pod_status import pod_state, pod_status
from sixfold.workloads.restore import FoundContainer, record, restore

log = logging.getLogger(__name__)

Addresses = tuple[IPv4Address | None, IPv6Address | None]

STARTS_AT_ONCE = 16  # processes being made at the same time; more only wait for each other
RETRY_S, RETRY_MAX_S = 1.0, 30.0
TIMER_SLACK_S = 0.001  # never wake before the time that was asked for


class _Pod:
    """One pod that runs here: its life cycle, and what is under way for it."""

    def __init__(self, life: PodLifecycle, addresses: Addresses, admit: Admit | None) -> None:
        self.life = life
        self.addresses = addresses
        self.admit = admit
        self.state = pod_state(life)
        self.containers: dict[str, Container] = {}
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


class PodRunner:
    """All pods of one instance. Methods are for the event loop's thread only."""

    def __init__(
        self,
        network: PodNetwork,
        containers: ContainerHost,
        prober: Prober,
        config: Config,
        paths: Paths,
        on_change: Callable[[str], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._network = network
        self._containers = containers
        self._prober = prober
        self._config = config
        self._paths = paths
        self._on_change = on_change
        self._chance = chance
        self._records = PodRecords(paths.state / "pods")
        self._pods: dict[str, _Pod] = {}
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)
        # wall-clock time that never jumps: deadlines must hold when the clock is set
        self._epoch_s = time.time() - time.monotonic()

    # --- what the agent asks for ------------------------------------------------------------

    async def start(self, pod: Pod, addresses: Addresses, admit: Admit) -> None:
        """Take a pod in and return; it is in ``states`` from now on, and starts by itself.

        ``admit(key, attachment)`` is awaited after the veth is there and before a packet can
        pass; what it raises is shown in the pod's status, and the whole step tried again.
        A pod that was over before a reboot stays over.
        """
        key = f"{pod.metadata.namespace}/{pod.metadata.name}"
        assert key not in self._pods, f"{key} runs already"
        last = self._records.read(pod.metadata.uid)
        if last is None:
            life = PodLifecycle(pod, self._now(), self._chance)
        else:
            life = restore(pod, self._now(), None, (), last, self._chance)
        self._dispatch(self._take_in(life, addresses, admit), events.Tick())

    async def stop(self, key: str, grace_s: float) -> None:
        """Stop a pod and return when nothing of it is left; fine when there is none.

        Asked again with less grace while it stops, the sooner end holds.
        """
        entry = self._pods.get(key)
        if entry is None:
            return
        if entry.attaching is not None:
            entry.attaching.cancel()
        self._dispatch(entry, events.StopRequested(grace_s))
        await entry.gone.wait()

    async def adopt(self, wanted: Mapping[str, Pod]) -> None:
        """Take over what an earlier agent left: call once, before ``start``.

        Wanted pods whose network is whole go on untouched. What nobody wants is removed. Wanted
        pods that are not there are left to ``start``.
        """
        attachments = self._network.observe()
        found = _by_uid(self._containers.observe())
        uids = {pod.metadata.uid for pod in wanted.values()}
        for uid in found.keys() - uids:
            await self._containers.remove(uid)
        for key, attachment in attachments.items():
            pod = wanted.get(key)
            if pod is not None and (pod.metadata.uid in found or self._known(pod)):
                await self._adopt_one(pod, attachment, found.get(pod.metadata.uid, []))
            else:
                self._network.detach(key)
        for pod in wanted.values():
            if self._key(pod) in self._pods:
                continue
            if pod.metadata.uid in found:  # without its network nothing can go on
                await self._containers.remove(pod.metadata.uid)
            last = self._records.read(pod.metadata.uid)
            if last is not None and last.final is not None:
                self._take_in(restore(pod, self._now(), None, (), last, self._chance))
        self._records.keep_only(uids)

    def states(self) -> list[PodState]:
        """Every pod that was started or adopted and is not gone."""
        return [entry.state for entry in self._pods.values()]

    def status(self, key: str) -> dict[str, Any] | None:
        """core/v1 PodStatus; None when the pod is not here."""
        entry = self._pods.get(key)
        return None if entry is None else pod_status(entry.life, self._node_ips)

    def log(
        self,
        key: str,
        *,
        container: str = "",
        tail: int | None = None,
        since_s: float | None = None,
        timestamps: bool = False,
        previous: bool = False,
        follow: bool = False,
    ) -> AsyncIterator[str]:
        """Log lines of one container, newline included; the first container by default."""
        entry = self._require(key)
        name = self._container_name(entry, container)
        directory = self._containers.log_directory(key, entry.uid) / name
        options = logs.LogOptions(tail, since_s, timestamps, previous, follow)

        def ended() -> bool:
            return entry.gone.is_set() or entry.life.final is not None

        return logs.stream(directory, options, ended=ended)

    def exec_target(self, key: str, container: str = "") -> dict[str, Any]:
        """What ``host.enter`` needs to run a command in a container that runs."""
        entry = self._require(key)
        name = self._container_name(entry, container)
        running = entry.containers.get(name)
        if running is None:
            raise UnavailableError(
                f"pod {key}: container {name} does not run; see sixfold describe pod"
            )
        return asdict(enter.Target.of(running))

    async def close(self) -> None:
        """Let go of everything; pods run on, for the next agent to adopt."""
        tasks = [task for entry in self._pods.values() for task in entry.tasks]
        for entry in self._pods.values():
            if entry.timer is not None:
                entry.timer.cancel()
        self._pods.clear()  # so that no late event is taken
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_in(
        self, life: PodLifecycle, addresses: Addresses = (None, None), admit: Admit | None = None
    ) -> _Pod:
        entry = self._pods[life.key] = _Pod(life, addresses, admit)
        return entry

    # --- events and actions -----------------------------------------------------------------

    def _dispatch(self, entry: _Pod, event: Event) -> None:
        """The one way in: event, record, actions, change, next deadline."""
        if self._pods.get(entry.key) is not entry:
            return  # let go of, or gone
        actions = entry.life.handle(event, self._now())
        if entry.life.gone:
            self._records.remove(entry.uid)
            del self._pods[entry.key]
            entry.gone.set()
        else:
            self._records.write(record(entry.life))
        for action in actions:
            self._perform(entry, action)
        state = pod_state(entry.life)
        if state != entry.state or entry.life.gone:
            entry.state = state
            self._on_change(entry.key)
        self._arm(entry)

    def _arm(self, entry: _Pod) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        deadline_s = entry.life.next_deadline()
        if deadline_s is None:
            return
        delay = max(deadline_s - self._now(), 0.0) + TIMER_SLACK_S
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_later(delay, self._dispatch, entry, events.Tick())

    def _perform(self, entry: _Pod, action: Action) -> None:
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

    def _spawn(self, entry: _Pod, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        entry.tasks.add(task)
        task.add_done_callback(entry.tasks.discard)
        return task

    async def _attach(self, entry: _Pod) -> None:
        assert entry.admit is not None
        try:
            attachment = self._network.attach(entry.key, *entry.addresses)
            self._dispatch(entry, events.Attached(_network(attachment)))
            await entry.admit(entry.key, attachment)
            self._network.activate(attachment.ifindex)
            write_files(self._pod_directory(entry.uid), entry.life.pod, self._config, attachment)
        except (SixfoldError, OSError) as error:
            log.warning("pod %s: %s", entry.key, error)
            retry_s = error.retry_s if isinstance(error, UnavailableError) else None
            self._abort_attach(entry, "NetworkError", str(error), retry_s)
        else:
            entry.attaching = None
            self._dispatch(entry, events.Activated())

    def _attach_done(self, entry: _Pod, task: asyncio.Task[None]) -> None:
        """A cancelled task may never have begun, so only here can it be undone."""
        if task.cancelled():
            self._abort_attach(entry, "Stopped", "the pod was stopped before it had started")

    def _abort_attach(
        self, entry: _Pod, reason: str, message: str, retry_s: float | None = None
    ) -> None:
        """Never half-open: what was attached so far goes; the next agent sweeps what stays."""
        entry.attaching = None
        with suppress(SixfoldError, OSError):
            self._network.detach(entry.key)
        self._dispatch(entry, events.AttachFailed(reason, message, retry_s))

    async def _start_container(self, entry: _Pod, action: events.StartContainer) -> None:
        name, attempt = action.container, action.attempt
        try:
            spec = container_spec(
                entry.life, name, attempt, self._placement(entry), self._pod_directory(entry.uid)
            )
            async with self._starts:
                container = await self._containers.start(spec)
        except ContainerConfigError as error:
            reason, message = "CreateContainerConfigError", str(error)
        except (SixfoldError, OSError) as error:
            reason, message = "RunContainerError", str(error)
        else:
            entry.containers[name] = container
            started_s = container.started_at or self._now()
            self._dispatch(entry, events.Started(name, attempt, started_s))
            await self._watch(entry, container)
            return
        log.warning("pod %s: container %s: %s", entry.key, name, message)
        self._dispatch(entry, events.StartFailed(name, attempt, reason, message))

    async def _watch(self, entry: _Pod, container: Container) -> None:
        """Wait for the end of one run, and report it when its whole tree is gone."""
        status = await self._containers.wait(container)
        await self._until_done(entry, lambda: self._containers.kill(container))
        if entry.containers.get(container.spec.name) is container:
            del entry.containers[container.spec.name]
        end = _termination(status)
        self._dispatch(entry, events.Exited(container.spec.name, container.spec.attempt, end))

    async def _stop_container(self, entry: _Pod, action: events.StopContainer) -> None:
        container = entry.containers.get(action.container)
        if container is not None and container.spec.attempt == action.attempt:
            with suppress(UnavailableError):  # _watch goes on killing
                await self._containers.stop(container, action.grace_s)

    async def _run_probe(self, entry: _Pod, action: events.RunProbe) -> None:
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

    async def _detach(self, entry: _Pod) -> None:
        async def detach() -> None:
            self._network.detach(entry.key)

        await self._until_done(entry, detach)
        self._dispatch(entry, events.Detached())

    async def _remove(self, entry: _Pod) -> None:
        async def remove() -> None:
            await self._containers.remove(entry.uid)
            self._network.detach(entry.key)

        await self._until_done(entry, remove)
        self._dispatch(entry, events.Removed())

    async def _until_done(
        self, entry: _Pod, work: Callable[[], Coroutine[Any, Any, object]]
    ) -> None:
        """Clean-up may not be given up: try until it is done, ever more slowly."""
        delay = RETRY_S
        while True:
            try:
                await work()
                return
            except (SixfoldError, OSError) as error:
                log.warning("pod %s: %s; trying again in %g s", entry.key, error, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MAX_S)

    # --- adoption ---------------------------------------------------------------------------

    def _known(self, pod: Pod) -> bool:
        return self._records.read(pod.metadata.uid) is not None

    async def _adopt_one(
        self, pod: Pod, attachment: Attachment, containers: list[Container]
    ) -> None:
        found = []
        for container in containers:
            end = None
            if not container.running:
                end = _termination(await self._containers.wait(container))
            spec, started_s = container.spec, container.started_at or self._now()
            found.append(FoundContainer(spec.name, spec.attempt, started_s, end))
        last = self._records.read(pod.metadata.uid)
        network = _network(attachment)
        life = restore(pod, self._now(), network, found, last, self._chance)
        entry = self._take_in(life)
        for container in containers:
            if container.running:
                entry.containers[container.spec.name] = container
                self._spawn(entry, self._watch(entry, container))
        write_files(self._pod_directory(entry.uid), pod, self._config, attachment)
        self._dispatch(entry, events.Tick())

    # --- small things -----------------------------------------------------------------------

    @staticmethod
    def _key(pod: Pod) -> str:
        return f"{pod.metadata.namespace}/{pod.metadata.name}"

    def _now(self) -> float:
        return self._epoch_s + time.monotonic()

    @property
    def _node_ips(self) -> tuple[str, str]:
        return str(self._config.host_ipv4), str(self._config.host_ipv6)

    def _placement(self, entry: _Pod) -> Placement:
        return Placement(self._config.node, self._node_ips, entry.life.ips)

    def _pod_directory(self, uid: str) -> Path:
        return self._paths.run / "pods" / uid

    def _require(self, key: str) -> _Pod:
        entry = self._pods.get(key)
        if entry is None:
            raise UnavailableError(f"pod {key}: it does not run here yet; try again in a moment")
        return entry

    def _container_name(self, entry: _Pod, name: str) -> str:
        names = [run.name for run in entry.life.runs]
        if name and name not in names:
            raise SixfoldError(f"pod {entry.key}: no container {name!r}; one of {', '.join(names)}")
        return name or entry.life.pod.spec.containers[0].name


def _network(attachment: Attachment) -> Network:
    return Network(
        attachment.ipv4,
        attachment.ipv6,
        attachment.ifindex,
        attachment.device,
        str(attachment.netns),
        attachment.cookie,
    )


def _termination(status: ExitStatus) -> Termination:
    return Termination(
        exit_code=status.code,
        started_s=status.started_at or status.finished_at,
        finished_s=status.finished_at,
        signal=status.signal,
        reason=status.reason,
        message=status.message,
    )


def _by_uid(containers: Iterable[Container]) -> dict[str, list[Container]]:
    found: dict[str, list[Container]] = {}
    for container in containers:
        found.setdefault(container.spec.pod_uid, []).append(container)
    return found
