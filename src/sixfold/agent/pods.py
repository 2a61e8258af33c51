"""The pod runner: all pods of an instance, each through its life.

Theory of operation. ``workloads.lifecycle`` decides, ``pod_actions`` acts, and between the two is
``_dispatch``: every event goes through it. It asks the life cycle, writes the pod's record, begins
the actions, calls ``on_change`` when planners have something new to see, and sets the next timer.
So all state of a pod changes in one place, in the event loop, and no two steps of one pod
contradict each other. Nothing here is needed by a pod that runs: an agent may die at any moment,
and the next one adopts what it finds on the host and in the records.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sixfold.agent.pod_actions import (
    Addresses,
    Allocate,
    PodActions,
    RunningPod,
    network_of,
    termination_of,
)
from sixfold.agent.pod_host import Admit, ContainerHost, PodNetwork, Prober
from sixfold.agent.pod_records import PodRecords
from sixfold.errors import SixfoldError, UnavailableError
from sixfold.host import enter, logs
from sixfold.host.containers import Container
from sixfold.host.network import Attachment
from sixfold.host.paths import Paths
from sixfold.model.config import Config
from sixfold.model.workload import Pod
from sixfold.workloads import events
from sixfold.workloads.events import Event
from sixfold.workloads.lifecycle import PodLifecycle
from sixfold.workloads.pod_state import PodState
from sixfold.workloads.pod_status import pod_state, pod_status
from sixfold.workloads.restore import FoundContainer, record, restore

log = logging.getLogger(__name__)

TIMER_SLACK_S = 0.001  # never wake before the time that was asked for


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
        self._on_change = on_change
        self._chance = chance
        self._actions = PodActions(network, containers, prober, config, paths, self._dispatch)
        self._records = PodRecords(paths.state / "pods")
        self._pods: dict[str, RunningPod] = {}
        # wall-clock time that never jumps: deadlines must hold when the clock is set
        self._epoch_s = time.time() - time.monotonic()

    # --- what the agent asks for ------------------------------------------------------------

    async def start(self, pod: Pod, addresses: Addresses | Allocate, admit: Admit) -> None:
        """Take a pod in and return; it is in ``states`` from now on, and starts by itself.

        ``admit(key, attachment)`` is awaited after the veth is there and before a packet can
        pass. What it raises, or ``addresses`` when it is a function, is shown in the pod's
        status, and the whole step tried again. A pod that was over before a reboot stays over.
        """
        last = self._records.read(pod.metadata.uid)
        if last is None:
            life = PodLifecycle(pod, self._now(), self._chance)
        else:
            life = restore(pod, self._now(), None, (), last, self._chance)
        self._dispatch(self._take_in(RunningPod(life, addresses, admit)), events.Tick())

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

        Wanted pods whose network is whole go on untouched, and those that were over stay so.
        What nobody wants is removed. All other wanted pods are left to ``start``.
        """
        attachments = self._network.observe()
        found = _by_uid(self._containers.observe())
        uids = {pod.metadata.uid for pod in wanted.values()}
        for uid in found.keys() - uids:
            await self._remove_stray(uid)
        for key, attachment in attachments.items():
            pod = wanted.get(key)
            if pod is not None and (pod.metadata.uid in found or self._records.has(pod)):
                await self._adopt_one(pod, attachment, found.get(pod.metadata.uid, []))
            else:
                self._network.detach(key)
        for key, pod in wanted.items():
            if key not in self._pods:
                await self._adopt_remains(pod, found.get(pod.metadata.uid, []))
        self._records.keep_only(uids)

    def states(self) -> list[PodState]:
        """Every pod that was started or adopted and is not gone."""
        return [entry.state for entry in self._pods.values()]

    def status(self, key: str) -> dict[str, Any] | None:
        """core/v1 PodStatus; None when the pod is not here."""
        entry = self._pods.get(key)
        return None if entry is None else pod_status(entry.life, self._actions.node_ips)

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
        name = _container_name(entry, container)
        directory = self._containers.log_directory(key, entry.uid) / name
        options = logs.LogOptions(tail, since_s, timestamps, previous, follow)

        def ended() -> bool:
            return entry.gone.is_set() or entry.life.final is not None

        return logs.stream(directory, options, ended=ended)

    def exec_target(self, key: str, container: str = "") -> dict[str, Any]:
        """What ``host.enter`` needs to run a command in a container that runs."""
        entry = self._require(key)
        name = _container_name(entry, container)
        running = entry.containers.get(name)
        if running is None:
            raise UnavailableError(
                f"pod {key}: container {name} does not run; see sixfold describe pod"
            )
        return asdict(enter.Target.of(running))

    async def reset(self, key: str) -> None:
        """Take down a pod whose network is lost; ``start`` takes it up again by its record."""
        entry = self._pods.pop(key, None)
        if entry is not None:
            await _let_go([entry])
            await self._containers.remove(entry.uid)
        self._network.detach(key)

    async def close(self) -> None:
        """Let go of everything; pods run on, for the next agent to adopt."""
        entries = list(self._pods.values())
        self._pods.clear()  # so that no late event is taken
        await _let_go(entries)

    # --- events -------------------------------------------------------------------------------

    def _dispatch(self, entry: RunningPod, event: Event) -> None:
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
            self._actions.perform(entry, action)
        state = pod_state(entry.life)
        if state != entry.state or entry.life.gone:
            entry.state = state
            self._on_change(entry.key)
        self._arm(entry)

    def _arm(self, entry: RunningPod) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        deadline_s = entry.life.next_deadline()
        if deadline_s is not None:
            delay = max(deadline_s - self._now(), 0.0) + TIMER_SLACK_S
            loop = asyncio.get_running_loop()
            entry.timer = loop.call_later(delay, self._dispatch, entry, events.Tick())

    # --- adoption ---------------------------------------------------------------------------

    async def _adopt_one(
        self, pod: Pod, attachment: Attachment, containers: list[Container]
    ) -> None:
        """A pod whose network is whole: what runs, runs on."""
        found = []
        for container in containers:
            end = None
            if not container.running:
                end = termination_of(await self._containers.wait(container))
            spec, started_s = container.spec, container.started_at or self._now()
            found.append(FoundContainer(spec.name, spec.attempt, started_s, end))
        last, network = self._records.read(pod.metadata.uid), network_of(attachment)
        life = restore(pod, self._now(), network, found, last, self._chance)
        entry = self._take_in(RunningPod(life))
        self._actions.write_files(entry, attachment)
        for container, seen in zip(containers, found, strict=True):
            if seen.end is None:
                self._actions.watch(entry, container)
        self._dispatch(entry, events.Tick())

    async def _adopt_remains(self, pod: Pod, containers: list[Container]) -> None:
        """A pod without its network: nothing of it can go on, but it may have been over."""
        if containers:
            await self._remove_stray(pod.metadata.uid)
        last = self._records.read(pod.metadata.uid)
        if last is not None and last.final is not None:
            life = restore(pod, self._now(), None, (), last, self._chance)
            self._take_in(RunningPod(life))

    async def _remove_stray(self, uid: str) -> None:
        """A stray that does not die must not keep the others from being adopted."""
        try:
            await self._containers.remove(uid)
        except (SixfoldError, OSError) as error:
            log.warning("pod uid %s: nobody wants it: %s; removed at the next start", uid, error)

    # --- small things -----------------------------------------------------------------------

    def _take_in(self, entry: RunningPod) -> RunningPod:
        assert entry.key not in self._pods, f"{entry.key} runs already"
        self._pods[entry.key] = entry
        return entry

    def _now(self) -> float:
        return self._epoch_s + time.monotonic()

    def _require(self, key: str) -> RunningPod:
        entry = self._pods.get(key)
        if entry is None:
            raise UnavailableError(f"pod {key}: it does not run here yet; try again in a moment")
        return entry


def _container_name(entry: RunningPod, name: str) -> str:
    names = [run.name for run in entry.life.runs]
    if name and name not in names:
        raise SixfoldError(f"pod {entry.key}: no container {name!r}; one of {', '.join(names)}")
    return name or entry.life.pod.spec.containers[0].name


async def _let_go(entries: Iterable[RunningPod]) -> None:
    """End what is under way for pods that are no longer ours."""
    tasks = [task for entry in entries for task in entry.tasks]
    for entry in entries:
        if entry.timer is not None:
            entry.timer.cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _by_uid(containers: Iterable[Container]) -> dict[str, list[Container]]:
    found: dict[str, list[Container]] = {}
    for container in containers:
        found.setdefault(container.spec.pod_uid, []).append(container)
    return found
