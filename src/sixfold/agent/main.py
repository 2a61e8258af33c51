"""Start and end of the agent: wiring, signals, the API's socket.

A stop (SIGTERM, Ctrl-C, ``POST /v1/shutdown``) ends this process and nothing else: workloads,
datapath and names go on, and the next start adopts them. ``teardown`` ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from sixfold.agent.agent import Agent
from sixfold.agent.attestation import Attestation, identities_seen, list_svids, told_by
from sixfold.agent.authority import Authorities, authorities
from sixfold.agent.ca import Ca, passphrase
from sixfold.agent.catalogue import Told
from sixfold.agent.doors import open_doors, workload_door
from sixfold.agent.endpoint import Endpoint
from sixfold.agent.events import FlowReader
from sixfold.agent.federation import Federation
from sixfold.agent.globalnames import GlobalNameHealth
from sixfold.agent.handlers import AgentHandlers
from sixfold.agent.lock import held
from sixfold.agent.metrics import Metrics
from sixfold.agent.pods import PodRunner
from sixfold.agent.refusals import Refusals
from sixfold.agent.registrations import Registrations
from sixfold.agent.relaxations import Relaxations
from sixfold.agent.settings import remember, remembered
from sixfold.agent.teardown import remove_all
from sixfold.agent.upstream import Upstream, begin
from sixfold.errors import HostError, ManifestError, SixfoldError, UnavailableError
from sixfold.host import capabilities, cgroup, probes
from sixfold.host.arrivals import know_uplinks
from sixfold.host.containers import Containers
from sixfold.host.datapath import KernelDatapath
from sixfold.host.envoy import stop as stop_proxy
from sixfold.host.network import HostNetwork
from sixfold.host.paths import Paths
from sixfold.manifest import Loaded, restore
from sixfold.model.config import Config
from sixfold.serve import trust_bundle
from sixfold.serve.dns_client import ResolverClient
from sixfold.serve.workload_api import WorkloadApi
from sixfold.store import Database, Objects

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 120.0

OnReady = Callable[[str], None]


def run(
    config: Config,
    paths: Paths,
    objects: Sequence[Loaded],
    on_ready: OnReady,
    *,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> int:
    """Run until told to stop; returns the exit code.

    ``on_ready("")`` when everything is in force; with what is missing when that takes too long.
    """
    capabilities.require()
    cgroup.require()  # refused before anything is made
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(paths):
        try:
            return asyncio.run(_run(config, paths, objects, on_ready, ready_timeout_s))
        except BaseExceptionGroup as group:
            raise _cause(group) from group


def _cause(error: BaseException) -> BaseException:
    """What ended a task group, out of its wrapping."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(
    config: Config,
    paths: Paths,
    loaded: Sequence[Loaded],
    on_ready: OnReady,
    ready_timeout_s: float,
) -> int:
    database = Database(paths.state / "state.db")
    _check_pools(config, database)
    lifetime = timedelta(seconds=config.svid_ttl_s)
    outlived = lifetime + timedelta(seconds=config.connection_grace_s)
    founder = partial(begin, config) if config.ca_vault_address else None
    signers = authorities(paths.state, config.trust_domain, passphrase(config), founder)
    network = HostNetwork(config, paths)
    resolver = ResolverClient(paths, config)
    datapath = await _set_up(config, paths, network, resolver)
    runner = PodRunner(network, Containers(paths), probes, config, paths, lambda _: agent.changed())
    objects = Objects(database, restore)
    registrations = Registrations(database, probes.run, lambda: agent.changed())
    agent = Agent(config, database, objects, network, datapath, resolver, runner, registrations)
    federation = Federation(objects, paths.state, config.trust_domain)
    told = Told(agent, registrations)
    health, relaxations = GlobalNameHealth(agent), Relaxations(agent)
    agent.followers += (told.follow, health.follow, federation.follow, relaxations.follow)
    flows = FlowReader(datapath, agent.names, Refusals(agent, paths))
    agent.tell = lambda flow: flows.log.extend([flow])
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    attestation = Attestation(paths, objects, config.trust_domain, told_by(agent))
    workload_api = WorkloadApi(
        lambda: signers.keyring,
        lifetime,
        attestation.attest,
        config.jwt_issuer,
        lambda: federation.bundles,
    )
    federation.followers.append(workload_api.changed)
    agent.followers.append(lambda: workload_api.changed() if attestation.follow() else None)
    signers.followers.append(workload_api.changed)
    endpoint = Endpoint(config, signers) if config.bundle_endpoint else None
    told_trust = None
    if endpoint is not None:
        application = trust_bundle.application(lambda: signers.keyring, config.jwt_issuer)
        told_trust = application, endpoint.tls
    above = Upstream(config, signers, agent.in_force) if config.ca_vault_address else None
    handlers = AgentHandlers(
        agent,
        flows,
        stop,
        lambda: list_svids(workload_api, attestation, signers.keyring),
        partial(identities_seen, workload_api, attestation),
        Ca(signers, federation.show, agent.in_force, above),
        relaxations,
        paths,
    )
    with (
        open_doors(paths, config, handlers, told, Metrics(agent, flows), told_trust) as doors,
        workload_door(paths.workload_socket) as workloads,
    ):
        remember(config, database)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(agent.run(stop))
            draining = group.create_task(flows.run())
            checking = [group.create_task(one.run()) for one in (registrations, health.watch)]
            checking += [
                group.create_task(work) for work in (signers.run(outlived), federation.run())
            ]
            if endpoint is not None:
                checking.append(group.create_task(endpoint.keep()))
            if above is not None:
                checking.append(group.create_task(above.run()))
            serving = group.create_task(doors.serve())
            agent.followers.append(
                partial(
                    _mesh_on_demand,
                    *(agent, paths, signers, flows, attestation, federation, group, stop),
                )
            )
            identifying = group.create_task(workload_api.serve(workloads, stop))
            starting = group.create_task(_start(agent, loaded, on_ready, ready_timeout_s, stop))
            await stop.wait()
            accepted = not starting.done() or starting.result()
            starting.cancel()
            doors.close()
            await serving
            await identifying
            await running
            draining.cancel()
            for task in checking:
                task.cancel()
    await runner.close()
    datapath.close()
    await resolver.close()
    database.close()
    return 0 if accepted else 1


def _mesh_on_demand(
    agent: Agent,
    paths: Paths,
    signers: Authorities,
    flows: FlowReader,
    attestation: Attestation,
    federation: Federation,
    group: asyncio.TaskGroup,
    stop: asyncio.Event,
) -> None:
    """Called after a round: the mesh begins when something asks for mTLS, and stays.

    A proxy that an earlier agent has left, when nothing asks any more, ends.
    """
    if agent.mesh is not None or agent.plans is None:
        return
    if not agent.plans.world.has_proxy:
        if cgroup.processes(paths.cgroup / "proxy"):
            group.create_task(stop_proxy(paths))
        return
    from sixfold.agent.mesh import Mesh

    agent.mesh = Mesh(agent.config, paths, agent, signers, flows, attestation.attest, federation)
    agent.followers.append(agent.mesh.follow)  # in this round already
    group.create_task(agent.mesh.run(stop))


async def _set_up(
    config: Config, paths: Paths, network: HostNetwork, resolver: ResolverClient
) -> KernelDatapath:
    """The host's side of everything; a first start that cannot have it leaves nothing behind."""
    first = not paths.bpffs.exists()
    try:
        network.setup()
        datapath = KernelDatapath.open(paths.instance)
        datapath.keep_uplinks({it.index: it.ethernet for it in network.uplinks.values()})
        know_uplinks(datapath.maps["uplinks"], network.uplink_macs())
        try:
            await resolver.start_or_adopt()
        except UnavailableError as error:
            if first:
                raise
            log.error("%s; tried again", error)  # what runs needs its policy more than names
    except BaseException:
        if first:
            with contextlib.suppress(SixfoldError, OSError):
                await remove_all(paths, config, grace_s=0)
        raise
    return datapath


async def _start(
    agent: Agent,
    loaded: Sequence[Loaded],
    on_ready: OnReady,
    timeout_s: float,
    stop: asyncio.Event,
) -> bool:
    """Apply what came with ``up`` and say when all is in force.

    False, and the agent stops, when the manifests are refused: nothing of them was taken, and
    what ran before runs on. What does not get ready in time is said; the agent goes on.
    """
    try:
        if loaded:
            await agent.apply(loaded)
        await agent.settled(timeout_s)
    except ManifestError as error:
        log.error("not applied: %s", error)
        stop.set()
        return False
    except SixfoldError as error:
        log.error("%s", error)
        on_ready(str(error))
    else:
        on_ready("")
    return True


def _check_pools(config: Config, database: Database) -> None:
    """Refuse pools that addresses in use are not of."""
    used = database.connection.execute(
        "SELECT count(*) FROM addresses WHERE freed_at IS NULL"
    ).fetchone()[0]
    before = remembered(database)
    if not used or before is None:
        return
    for name in ("pod_ipv4", "pod_ipv6", "service_ipv4", "service_ipv6"):
        old, new = getattr(before, name), getattr(config, name)
        if old != new:
            raise HostError(
                f"{name}: is {old}, {used} addresses are in use; "
                f"sixfold down first, then start with {new}"
            )
