"""The agent's loop: the store and the pods on one side, the kernel and the resolver on the other.

Two loops, each woken by an event and never by a timer alone:

- ``_converge_pods``: controllers make pods, new pods get an address and are started, pods on
  their way out are stopped and forgotten.
- ``_converge_network``: snapshot → plan → kernel and resolver. One pass is one *round*;
  ``in_force`` waits for a round that began after the call.

Nothing is kept in memory that the next agent could not find again: objects, numbers and
addresses are in the store, pods are on the host, tables are in the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from sixfold.agent.addresses import Addresses
from sixfold.agent.admission import admit
from sixfold.agent.backends import BackendWatch
from sixfold.agent.balancers import Balancers
from sixfold.agent.gateways import follow_gateways
from sixfold.agent.learning import Learning, rules_of_names
from sixfold.agent.ledger import Ledger
from sixfold.agent.planning import Planning, Plans
from sixfold.agent.pods import PodRunner
from sixfold.agent.questions import Questions
from sixfold.agent.registrations import Registrations
from sixfold.agent.resolving import asker_of, explain_global, explain_stub, resolve
from sixfold.agent.snapshot import Snapshots
from sixfold.discovery.learned import Pair
from sixfold.discovery.stubs import stubs_of
from sixfold.errors import HostError, SixfoldError, UnavailableError
from sixfold.host import netns
from sixfold.host.arrivals import know_uplinks
from sixfold.host.datapath import KernelDatapath
from sixfold.host.freshness import FreshnessTable
from sixfold.host.layout import Connection
from sixfold.host.names import NameTable
from sixfold.host.network import Attachment, HostNetwork
from sixfold.host.nudge import nudge
from sixfold.host.sockets import close_sockets
from sixfold.host.views import ViewTable
from sixfold.manifest import Loaded
from sixfold.model.config import Config
from sixfold.model.datapath import EGRESS, Datapath, IPAddress
from sixfold.model.flow import Flow
from sixfold.model.meta import Key
from sixfold.model.posture import POSTURE, over
from sixfold.model.workload import Pod
from sixfold.model.world import World
from sixfold.observe.metrics import Durations
from sixfold.policy.host import warnings
from sixfold.policy.requests import unseen
from sixfold.serve.dns_client import ResolverClient
from sixfold.serve.dns_control import HealthPorts, Refused, Resolved
from sixfold.serve.dns_watch import NameWatch
from sixfold.store import Database, Objects, Stored
from sixfold.store.objects import Put
from sixfold.workloads.controllers import reconcile, unfinished
from sixfold.workloads.pod_state import PodState, by_owner, format_time, pending

if TYPE_CHECKING:  # it costs memory, which nobody pays who has no mesh
    from sixfold.agent.mesh import Mesh

log = logging.getLogger(__name__)

CONTROLLERS = ("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", "Job")
REPAIR_PERIOD_S = 5.0
RETRY_S = 1.0
REPAIRS_SHOWN, REPAIRS_KEPT = 40, 100
ROUND_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
EXPIRY_MIN_S, EXPIRY_S = 0.2, 5.0  # pauses between looks at names whose time is over


class Agent:
    """State and loops of one running instance; ``handlers`` answers the API from it."""

    def __init__(
        self,
        config: Config,
        database: Database,
        objects: Objects,
        network: HostNetwork,
        datapath: KernelDatapath,
        resolver: ResolverClient,
        runner: PodRunner,
        registrations: Registrations,
    ) -> None:
        self.config = config
        self.database = database
        self.objects = objects
        self.ledger = Ledger(database, config.node)
        self.addresses = Addresses(database, config)
        self.balancers = Balancers(database)
        self.network = network
        self.datapath = datapath
        self.resolver = resolver
        self.runner = runner
        self.names = self.ledger.names
        self.statuses: dict[Key, dict[str, Any]] = {}
        self.plans: Plans | None = None
        self.generation = int(database.meta("generation", "0"))
        self.applied = 0
        self.problem = ""  # why the last round failed; "" when it did not
        self.failed = 0  # rounds
        self.rounds = Durations(ROUND_BOUNDS_S)
        self.repairs: list[str] = []
        self.repaired = 0
        self.followers: list[Callable[[], None]] = []  # called when a round is in force
        self.mesh: Mesh | None = None
        self.name_table = NameTable(datapath.maps)
        self.global_problem = ""  # of global names, and their edge
        self.view_table = ViewTable(datapath.maps)
        self.freshness = FreshnessTable(datapath.maps, config.dns_ttl_s)
        self.names_problem = ""  # why the kernel's names are not what they should be
        self._planning = Planning(self.ledger, int(time.time()), self.view_table.last())
        self.backends = BackendWatch(database, datapath, self.names.services, self.changed)
        self._snapshots = Snapshots(config, objects, self.ledger, registrations, self.balancers)
        self.learning = Learning(config, database, self.names)
        self._questions = Questions(self.names)
        self.tell: Callable[[Flow], object] = lambda _: None  # main has it lead to the flow log
        self._watch = NameWatch(resolver.socket, self._learn, self._hear)
        self._vanished: list[Connection] = []  # from outside, to pods that are going
        self._chance = Random()
        self._pods_changed = asyncio.Event()
        self._network_changed = asyncio.Event()
        self._addresses_changed = asyncio.Event()  # of the host: what its policy is about
        self._round = asyncio.Condition()
        self._rounds_begun = 0
        self._rounds_done = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}  # starts and stops under way, by pod
        self._wake_s: float | None = None
        self._last_trouble = ""

    # --- what may be asked of the agent -------------------------------------------------

    async def apply(self, loaded: Sequence[Loaded], *, dry_run: bool = False) -> list[Put]:
        """Take objects, whole or not at all, and return when the kernel has what they say."""
        now_s = time.time()
        if dry_run:
            with self.database.rehearsal():
                return self.objects.preview(admit(loaded, self.objects, self.addresses, now_s))
        with self.database.transaction():
            admitted = admit(loaded, self.objects, self.addresses, now_s)
            results = self.objects.put(admitted, lambda: str(uuid4()), format_time(now_s))
            self._next_generation()
        self.changed()
        await self.in_force()
        return results

    async def delete(self, keys: Iterable[Key], grace_s: int | None) -> None:
        """Delete objects and what they own; pods go when their processes have ended."""
        now = format_time(time.time())
        with self.database.transaction():
            for key in keys:
                self._delete(key, now, grace_s)
            self._next_generation()
        self.changed()
        await self.in_force()

    def warnings(self, kinds: Collection[str]) -> list[str]:
        """What is to be said of objects of these kinds, once they are in force."""
        if self.plans is None:
            return []
        about = {"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"}
        said = unseen(self.plans.world) if about & set(kinds) else []
        if POSTURE in kinds:
            postures = [stored.object for stored in self.objects.of(POSTURE).values()]
            ended = [one for posture in postures for one in over(posture, time.time())]
            said += [f"{one}: it is over, and relaxes nothing" for one in ended]
        return [*warnings(self.plans.policy, kinds), *said]

    @property
    def effective(self) -> Config:
        """The settings, with the base of the Posture if there is one."""
        return self.config if self.plans is None else self.plans.world.config

    def resolve(self, name: str, type_: str, namespace: str, source: str) -> list[dict[str, Any]]:
        """What a pod is answered, question by question; ``source`` "": one that sees all."""
        zone = self._planning.zone
        if self.plans is None or zone is None:
            raise UnavailableError("resolve: nothing is planned yet; try again in a moment")
        who = asker_of(self.plans, source, namespace) if source else None
        steps = resolve(self.plans.world, zone, self.name_table, name, type_, namespace, who)
        stubs, names = stubs_of(self.config.dns_stub_domains), self.resolver.globals.names
        return [explain_global(explain_stub(step, stubs), names) for step in steps]

    def changed(self) -> None:
        """Something in the store or on the host is new: look again."""
        self._network_changed.set()  # first: a policy need not wait for the controllers
        self._pods_changed.set()

    def pod_changed(self, key: str) -> None:
        """A pod's status changed (the runner calls this)."""
        self.changed()

    async def in_force(self) -> None:
        """Return once the kernel holds all that was true when this was called.

        Raises UnavailableError when the kernel would not take it: the message says why.
        """
        async with self._round:
            wanted = self._rounds_begun + 1
            self._network_changed.set()
            await self._round.wait_for(lambda: self._rounds_done >= wanted)
        if self.problem:
            raise UnavailableError(f"not in force: {self.problem}")

    async def settled(self, timeout_s: float, of: Collection[Key] | None = None) -> None:
        """Return once every pod that should run is ready and none is on its way in or out.

        ``of`` narrows it to these objects and their pods: what others broke is not waited for.
        """
        deadline = time.monotonic() + timeout_s
        while pending_pods := self.unsettled(of):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"not ready after {timeout_s:g} s: {'; '.join(pending_pods[:10])}"
                )
            await self._pause(0.5)
        await self.in_force()

    async def gone(self, keys: Iterable[Key], pods: Iterable[str], timeout_s: float) -> None:
        """Return once these objects, and those of these pods that are leaving, are gone."""
        deadline = time.monotonic() + timeout_s
        keys = [*keys, *map(key_of_pod, pods)]
        while left := [key for key in keys if (item := self.objects.get(key)) and item.deleting]:
            if time.monotonic() > deadline:
                names = ", ".join(map(str, left[:10]))
                raise UnavailableError(f"not gone after {timeout_s:g} s: {names}")
            await self._pause(0.5)

    async def _pause(self, timeout_s: float) -> None:
        """Until the next round, or a while."""
        async with self._round:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._round.wait(), timeout_s)

    def unsettled(self, of: Collection[Key] | None = None) -> list[str]:
        """What is not as wanted yet: a line per pod or controller; a pod that is over is settled.

        ``of`` narrows it to these objects and their pods.
        """
        lines = [
            f"pod {pod.key}: {_why_not_settled(pod)}"
            for pod in self.pods().values()
            if of is None or key_of_pod(pod.key) in of or pod.owner in of
            if pod.terminating or not (pod.ready or pod.finished)
        ]
        lines += [
            f"{key.kind.lower()} {key.namespace}/{key.name}: {missing}"
            for key, status in self.statuses.items()
            if (of is None or key in of) and (stored := self.objects.get(key))
            if (missing := unfinished(stored.object, status))
        ]
        if self._pods_changed.is_set():
            lines.append("controllers: not looked at yet")
        return lines

    def pods(self) -> dict[str, PodState]:
        """Every pod by key: as the runner sees it, or as the store has it."""
        running = {state.key: state for state in self.runner.states()}
        states = {}
        for stored in self.objects.of("Pod").values():
            key = pod_key(stored.key)
            state = running.get(key)
            states[key] = state if state and state.uid == stored.uid else pending(stored.object)
        return states

    # --- the loops ------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Adopt what is there, then converge until ``stop`` is set."""
        await self._adopt()
        self.network.on_address(self._addresses_changed.set)
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self._converge_network()),
                group.create_task(self._converge_pods()),
                group.create_task(self._repair()),
                group.create_task(self._watch.run()),
                group.create_task(self._expire_names()),
                group.create_task(self.backends.run(lambda: self.plans)),
            ]
            await stop.wait()
            for task in (*loops, *self._tasks.values()):
                task.cancel()
        await self._watch.close()

    async def _adopt(self) -> None:
        wanted = {pod_key(stored.key): stored.object for stored in self.objects.of("Pod").values()}
        await self.runner.adopt(wanted)
        uids = {stored.uid for stored in self.objects.of("Pod").values()}
        for uid in set(self.ledger.endpoint_owners()) - uids:
            self.ledger.release_endpoint(uid)
        services = {str(key) for key in self.objects.of("Service")}
        self.addresses.release_all_but(uids | services, time.time())
        self.changed()

    async def _converge_network(self) -> None:
        while True:
            await self._network_changed.wait()
            self._network_changed.clear()
            async with self._round:
                self._rounds_begun += 1
            generation, started_s = self.generation, time.monotonic()
            try:
                self._network_round()
                await self._cut_connections()
                self._tell_outside()
                for follow in self.followers:
                    follow()
                if self.mesh is not None:
                    await self.mesh.in_force()
                self.applied = generation
                self.problem = ""
            except Exception as error:  # what is in force stays so; a bug must not end the agent
                self.problem = self._trouble(f"round {self._rounds_begun}", error)
                self.failed += 1
                asyncio.get_running_loop().call_later(RETRY_S, self._network_changed.set)
            await self._push_names()
            self.rounds.add(time.monotonic() - started_s)
            async with self._round:
                self._rounds_done = self._rounds_begun
                self._round.notify_all()

    def _network_round(self) -> None:
        plans = self._plan(
            self.backends.look(self._snapshots.take(self.pods(), self.learning.names, time.time()))
        )
        world = plans.world
        self.names.update(world.endpoints.values())
        self.ledger.retire_identities({item.subject for item in world.endpoints.values()})
        self._apply(plans)
        self._apply_names()
        self.backends.follow(plans)
        self.learning.narrowed = False
        self.ledger.retire_domains(plans.policy.domain_sets)
        if self.learning.follow(plans.policy.patterns):
            self._network_changed.set()

    def _apply_names(self) -> None:
        """Names the kernel answers; without them the resolver does, so policy does not wait."""
        assert self.plans is not None
        try:
            endpoints = self.plans.world.endpoints
            limited = {endpoints[key].id for key in self.plans.limits}
            self.view_table.apply(self.plans.views, limited)
            self.name_table.apply(self.plans.names)
            self.freshness.apply(
                self.plans.named, _addresses(self.plans.world), time.monotonic_ns()
            )
            redirected = {int(one.id) for one in endpoints.values() if one.redirected}
            self.freshness.redirect(redirected)
            left_out, self.names_problem = self.name_table.left_out, ""
            if left_out:
                raise HostError(
                    f"names: the kernel has no room for {left_out} of "
                    f"{len(self.plans.names.answers)} entries: the resolver's process answers "
                    "those, and denies names; apply less"
                )
        except Exception as error:
            self.names_problem = self._trouble("names", error)
            if not self.name_table.left_out:
                asyncio.get_running_loop().call_later(RETRY_S, self._network_changed.set)

    def _plan(self, world: World) -> Plans:
        network = self.network
        return self._planning.plan(world, network.host_addresses(), network.host_netns_cookie())

    def _apply(self, plans: Plans, *, opens_only: bool = False) -> None:
        if plans.bridge is not None:
            self.datapath.apply(plans.bridge, opens_only=opens_only)
        self.datapath.apply(plans.datapath, opens_only=opens_only)
        self.plans = plans

    def _learn(self, batch: Sequence[Resolved]) -> list[bool]:
        """Open what names have resolved to; says of each answer whether all of it is open."""
        host = self.network.host_addresses()
        taken = [self.learning.take(message, host) for message in batch]
        fresh = [pair for _, pairs in taken for pair in pairs]
        if fresh:
            try:
                self._open(fresh)
            except Exception as error:  # what is in force stays so
                self._trouble("names", error)
                self._network_changed.set()
                return [False] * len(batch)
        return [complete for complete, _ in taken]

    def _hear(self, message: Refused) -> None:
        if (flow := self._questions.told(message, self.plans)) is not None:
            self.tell(flow)

    def _open(self, fresh: Sequence[Pair]) -> None:
        """Have the kernel let fresh addresses through; nothing else changes on the way."""
        assert self.plans is not None, "names are watched after the first round"
        names = self._snapshots.with_entries(self.learning.names)
        narrowed = self.learning.narrowed
        found = None if narrowed else self._planning.learn(self.plans, names, fresh)
        if found is None:
            plans = self._plan(replace(self.plans.world, domains=names))
            self._apply(plans, opens_only=not narrowed)
            return
        self.plans, entries = found
        self.datapath.place(entries)

    async def _expire_names(self) -> None:
        """Let go of addresses whose time is over and that no open connection depends on."""
        while True:
            deadline_s = self.learning.next_deadline()
            pause_s = EXPIRY_S if deadline_s is None else deadline_s - time.time()
            await asyncio.sleep(min(EXPIRY_S, max(EXPIRY_MIN_S, pause_s)))
            addresses, plans = self.learning.due(), self.plans
            if not addresses or plans is None:
                continue
            connections = await asyncio.to_thread(self.datapath.connections_to, addresses)
            rules = rules_of_names(plans.policy, self.ledger.rule_number)
            dependent: defaultdict[IPAddress, frozenset[str]] = defaultdict(frozenset)
            for one in connections:
                dependent[one.destination] |= rules.get(one.rule[EGRESS], frozenset())
            if self.learning.expire(dependent):
                self._network_changed.set()

    async def _cut_connections(self) -> None:
        """What policy no longer allows ends now, not on its next packet or a timeout."""
        if self.plans is not None and self.backends.lost:
            await self.backends.cut(self.plans.netns_of)
        severed = self.datapath.sweep()
        if severed and self.plans is not None:
            where = self.plans.netns_of, self.plans.world.addresses_abroad
            await asyncio.to_thread(close_sockets, severed.values(), *where)
            self.datapath.forget(severed)

    def _tell_outside(self) -> None:
        """Neighbours hear of addresses that are here now, clients of backends that are not."""
        self.network.announce(self.balancers.addresses)
        assert self.plans is not None
        if not self._vanished:
            return
        endpoints = self.plans.world.endpoints.values()
        there = {address for endpoint in endpoints for address in endpoint.addresses}
        gone = [one for one in self._vanished if one.destination not in there]
        self._vanished = [one for one in self._vanished if one.destination in there]
        nudge(gone)

    async def _push_names(self) -> None:
        """Tell the resolver; while it is away the kernel's state stands, and we try again."""
        if self.plans is None:
            return
        try:
            self.resolver.health_ports = HealthPorts(self.plans.balancing.health_ports)
            zone = self._planning.zone
            serial = zone.serial if zone is not None else 0
            self._questions.follow(self.plans.limits, self.plans.world.endpoints)
            self.resolver.limits = self._questions.limits
            await self.resolver.push(self.plans.zone, self.plans.views, serial)
            await self._watch.watch(
                self.plans.policy.patterns, refusals=bool(self._questions.limits.sets)
            )
        except Exception as error:
            self._trouble("resolver", error)
            asyncio.get_running_loop().call_later(RETRY_S, self._network_changed.set)

    def _trouble(self, what: str, error: Exception) -> str:
        """Log an error once, a bug with its traceback; returns the message."""
        message = str(error) or type(error).__name__
        if message != self._last_trouble:
            expected = isinstance(error, SixfoldError | OSError)
            log.error("%s: %s", what, message, exc_info=None if expected else error)
        self._last_trouble = message
        return message

    async def _converge_pods(self) -> None:
        while True:
            timeout = None if self._wake_s is None else max(0.0, self._wake_s - time.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pods_changed.wait(), timeout)
            self._pods_changed.clear()
            try:
                self._run_controllers()
                self._run_pods()
            except Exception as error:
                self._trouble("pods", error)
                self._wake_s = time.time() + RETRY_S

    async def _repair(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._addresses_changed.wait(), REPAIR_PERIOD_S)
            self._addresses_changed.clear()
            try:
                found = [*self.network.repair(), *self._reset_broken_pods()]
                uplinks = {it.index: it.ethernet for it in self.network.uplinks.values()}
                found += [
                    f"links[{name}]: attached" for name in self.datapath.keep_uplinks(uplinks)
                ]
                know_uplinks(self.datapath.maps["uplinks"], self.network.uplink_macs())
                self.datapath.reap()
                self.datapath.release()
                if self.plans is not None:
                    found += await self._mend_links(self.plans.datapath)
                    compared = await self._compare()
                    found += self.datapath.repair(self.plans.datapath, compared=compared)
                    found += self.view_table.repair()
                    found += self.name_table.repair()
                if self.mesh is not None:
                    missing = self.mesh.keep_known()
                    found += [f"links[{name}]: detached; attached again" for name in missing]
                await self.resolver.start_or_adopt()
            except Exception as error:
                found = [f"not repaired: {self._trouble('repair', error)}"]
            self.repaired += len(found)
            if len(found) > REPAIRS_SHOWN:
                found[REPAIRS_SHOWN:] = [f"and {len(found) - REPAIRS_SHOWN} more"]
            for line in found:
                log.warning("repair: %s", line)
            self.repairs = (self.repairs + found)[-REPAIRS_KEPT:]
            self._network_changed.set()

    async def _mend_links(self, desired: Datapath) -> list[str]:
        """Attach what somebody detached; nobody waits for a thousand links to be looked at."""
        found = []
        for done in self.datapath.mend_links(desired):
            found += done
            await asyncio.sleep(0)
        return found

    async def _compare(self) -> bool:
        """Whether the kernel's maps are as they were left; nobody waits for a million entries."""
        for true in self.datapath.compare():
            if not true:
                return False
            await asyncio.sleep(0)
        return True

    def _reset_broken_pods(self) -> list[str]:
        """Pods that lost their link or their namespace are made anew; returns which."""
        found = []
        for state in self.runner.states():
            stored = self.objects.get(key_of_pod(state.key))
            lost = state.netns and not netns.exists(Path(state.netns))
            if not (lost or state.key in self.network.broken) or state.key in self._tasks:
                continue
            if stored is None or stored.deleting or state.finished:
                continue
            found.append(f"pod {state.key}: its network is gone; started anew")
            self._spawn(state.key, self._reset(state))
        return found

    async def _reset(self, state: PodState) -> None:
        before = await self._connected_to(state)
        await self.runner.reset(state.key)
        self.datapath.detach(state.ifindex)
        with contextlib.suppress(UnavailableError):
            await self.in_force()  # who is cut asks again, and must not be sent there
        await self._cut_vanished(state, before)

    async def _connected_to(self, state: PodState) -> list[Connection]:
        addresses = {address for address in (state.ipv4, state.ipv6) if address is not None}
        return await asyncio.to_thread(self.datapath.connections_to, addresses)

    async def _cut_vanished(self, state: PodState, before: Sequence[Connection]) -> None:
        """Nobody answers at a pod's addresses any more: its clients are told, and dial again.

        before  to it before it ended: a round meanwhile may have swept them out of the table
        """
        if self.plans is None:
            return
        connections = [*before, *await self._connected_to(state)]
        self._vanished += [one for one in connections if one.client_ifindex]
        if connections:
            await asyncio.to_thread(close_sockets, connections, self.plans.netns_of)

    # --- pods -------------------------------------------------------------------------------

    def _run_controllers(self) -> None:
        """One pass over all controllers; what they create and delete goes to the store."""
        owned = by_owner(self.pods().values())
        now_s = time.time()
        wakes: list[float] = []
        for kind in CONTROLLERS:
            for stored in list(self.objects.of(kind).values()):
                pods = owned.get(stored.key, [])
                before = msgspec.structs.replace(
                    stored.object, status=self.statuses.get(stored.key, {})
                )
                changes = reconcile(before, pods, now_s, self._chance)
                self.statuses[stored.key] = changes.status
                self._create(stored, changes.create)
                for key in changes.delete:
                    self._delete(key_of_pod(key), format_time(now_s), None)
                if changes.expired:
                    self._delete(stored.key, format_time(now_s), None)
                if changes.wake_s is not None:
                    wakes.append(changes.wake_s)
        self._wake_s = min(wakes, default=None)
        follow_gateways(
            self.objects, self._put, lambda key: self._delete(key, format_time(now_s), None)
        )

    def _put(self, loaded: Sequence[Loaded]) -> None:
        """Objects that we write ourselves; as ``apply``, but nobody waits for them."""
        now_s = time.time()
        with self.database.transaction():
            admitted = admit(loaded, self.objects, self.addresses, now_s)
            self.objects.put(admitted, lambda: str(uuid4()), format_time(now_s))
        self.changed()

    def _create(self, owner: Stored, pods: Sequence[Pod]) -> None:
        if pods:
            raws = [
                (Key("Pod", owner.key.namespace, pod.metadata.name), raw_of(pod)) for pod in pods
            ]
            self.objects.put(raws, lambda: str(uuid4()), format_time(time.time()))
            self._pods_changed.set()

    def _run_pods(self) -> None:
        """Start what is not running, stop what is on its way out, forget what is gone."""
        known = {state.key: state for state in self.runner.states()}
        for stored in list(self.objects.of("Pod").values()):
            key = pod_key(stored.key)
            if key in self._tasks:
                continue
            state = known.get(key)
            if stored.deleting:
                self._spawn(key, self._stop(stored))
            elif state is None:
                self._spawn(key, self._start(stored))
        self._finish_namespaces()

    def _spawn(self, key: str, work: Any) -> None:
        async def tracked() -> None:
            try:
                await work
            except Exception as error:
                self._trouble(f"pod {key}", error)
                await asyncio.sleep(RETRY_S)
            finally:
                self._tasks.pop(key, None)
                self.changed()

        self._tasks[key] = asyncio.get_running_loop().create_task(tracked())

    async def _start(self, stored: Stored) -> None:
        def allocate() -> tuple[IPv4Address, IPv6Address]:
            return self.addresses.allocate_pod(stored.uid, time.time())

        await self.runner.start(stored.object, allocate, self._admit)

    async def _admit(self, key: str, attachment: Attachment) -> None:
        """Between the veth and its first packet: programs, endpoint, policy, listeners."""
        self.datapath.attach(attachment.ifindex)
        await self.in_force()
        if self.mesh is not None:
            await self.mesh.admit(key)

    async def _stop(self, stored: Stored) -> None:
        grace_s = stored.raw["metadata"].get("deletionGracePeriodSeconds", 30)
        state = self.pods().get(pod_key(stored.key))
        with contextlib.suppress(UnavailableError):  # it ends all the same
            await self.in_force()  # services send nobody to it any more
        before = await self._connected_to(state) if state is not None else []
        await self.runner.stop(pod_key(stored.key), grace_s)
        if state is not None and state.ifindex:
            self.datapath.detach(state.ifindex)
            await self._cut_vanished(state, before)
        self.objects.remove([stored.key])
        self.ledger.release_endpoint(stored.uid)
        self.addresses.release(stored.uid, time.time())

    def _delete(self, key: Key, now: str, grace_s: int | None) -> None:
        stored = self.objects.get(key)
        if stored is None:
            return
        match key.kind:
            case "Pod":
                wanted = stored.object.spec.termination_grace_period_seconds
                grace_s = wanted if grace_s is None else grace_s
                self.objects.mark_deleting(key, now, grace_s)
                if stored.deleting:  # it is ending already, perhaps not soon enough
                    self._spawn(f"{pod_key(key)} again", self.runner.stop(pod_key(key), grace_s))
                return
            case "Namespace":
                self.objects.mark_deleting(key, now, 0)
                for other in self._inside(key.name):
                    if not other.kind.endswith("Policy"):
                        self._delete(other, now, grace_s)
                self._finish_namespaces()
                return
            case "Service":
                self.addresses.release(str(key), time.time())
            case _:
                for pod in by_owner(self.pods().values()).get(key, []):
                    self._delete(key_of_pod(pod.key), now, grace_s)
        self.statuses.pop(key, None)
        self.objects.remove([key])

    def _inside(self, namespace: str) -> list[Key]:
        return [item.key for item in self.objects if item.key.namespace == namespace]

    def _finish_namespaces(self) -> None:
        """Drop what is left of namespaces on their way out, once their last pod has ended.

        Policies go last: a pod that is still ending must not be open meanwhile (CVE-2024-7598).
        """
        for key, stored in list(self.objects.of("Namespace").items()):
            left = self._inside(key.name) if stored.deleting else []
            if stored.deleting and not any(other.kind == "Pod" for other in left):
                self.objects.remove([*left, key])

    def _next_generation(self) -> None:
        self.database.on_rollback(partial(setattr, self, "generation", self.generation))
        self.generation += 1
        self.database.set_meta("generation", str(self.generation))


def _addresses(world: World) -> set[IPAddress]:
    return {address for one in world.endpoints.values() for address in one.addresses}


def _why_not_settled(pod: PodState) -> str:
    if pod.terminating:
        return "terminating"
    return ": ".join(filter(None, (pod.reason or pod.phase, pod.message)))


def pod_key(key: Key) -> str:
    """``namespace/name``, as the runner and the planners name a pod."""
    return f"{key.namespace}/{key.name}"


def key_of_pod(name: str) -> Key:
    namespace, _, pod = name.partition("/")
    return Key("Pod", namespace, pod)


def raw_of(pod: Pod) -> dict[str, Any]:
    """A pod that a controller made, as JSON."""
    return {"apiVersion": pod.api_version, "kind": pod.kind, **msgspec.to_builtins(pod)}
