"""The mesh's side of a round: plan what proxies should hold, offer it, see that they have it.

Imported only when mTLS is on. Proxies outlive the agent, as the resolver does; a new agent finds
them by their files, and they find the new agent by its socket. What they hold is in force while
there is no agent; what was asked for the first time is not answered: no connection, no plaintext.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sixfold.agent.agent import Agent
from sixfold.agent.authority import Authorities
from sixfold.agent.doors import unix_listener
from sixfold.agent.events import FlowReader
from sixfold.agent.federation import Federation
from sixfold.agent.foreign import ForeignTunnels
from sixfold.agent.keysets import KeySets
from sixfold.agent.open_requests import OpenRequests
from sixfold.agent.planning import Plans
from sixfold.agent.proxies import Proxies, Proxy
from sixfold.agent.proxyless import Proxyless
from sixfold.agent.succession import Succession
from sixfold.agent.tunnels import cut, no_longer_passed
from sixfold.errors import NotFoundError, UnavailableError
from sixfold.host import cgroup
from sixfold.host.envoy import connections_max, group_of
from sixfold.host.listening import listening_ports
from sixfold.host.paths import Paths
from sixfold.host.routed import RoutedTable
from sixfold.host.sockets import close_sockets
from sixfold.mesh import logs, resources
from sixfold.mesh.authorized import foreign_caller, not_let_in
from sixfold.mesh.http_plan import HttpPlan
from sixfold.mesh.member import Member
from sixfold.mesh.messages import LISTENER, Resource
from sixfold.mesh.needed import Reach, listeners, needed_by_node, needed_by_one
from sixfold.mesh.plan import MeshPlan, MeshPlanner, judged_anew
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.stream_resources import listener_name
from sixfold.model.config import Config
from sixfold.model.datapath import INGRESS, PROTOCOL_NUMBERS, IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.flow import Verdict
from sixfold.model.mesh import HTTP_PORT, NAMED_PORT, OUTBOUND_PORT, OUTWARD_PORT, TUNNEL_PORT
from sixfold.model.rule import Rule
from sixfold.model.spiffe import parse
from sixfold.observe.access import Asked, access, bytes_of, is_end, tunnel_client
from sixfold.observe.joined import counted
from sixfold.policy.authorizations import Authorizations
from sixfold.policy.conditions import no_token, not_allowed
from sixfold.policy.decide import lookup, party_of
from sixfold.serve.grpc_xds import GrpcXds
from sixfold.serve.workload_api import Attest
from sixfold.trust.authority import X509Svid, issue
from sixfold.trust.bundle import Bundle, roots_of, roots_pem
from sixfold.trust.keyring import Keyring

log = logging.getLogger(__name__)

TAKEN_S = 2.0  # so long a round waits for the proxy
ADMIT_S = 10.0  # so long a pod waits for its listeners; then it is tried again
START_S = 60.0  # so long it waits for its own proxy: others may be starting, too
LOOK_S = 0.005
PODS_SHARE = 4  # a pod may have one of so many parts of what the node's proxy carries, by listener
CLIENTS_MODE = 0o666  # who asks is known by his process
RELIEVE_S = 0.25  # between looks at a proxy that drains
RETRY_S = 2.0  # between offers of what was refused
PASSED = (Verdict.FORWARDED, Verdict.AUDIT)


class Svids:
    """Of the identities in the mesh: issued when needed, renewed at half of their life, or when
    who signed them is to be trusted no more."""

    def __init__(
        self,
        keyring: Callable[[], Keyring],
        lifetime: timedelta,
        bundles: Callable[[], Mapping[str, Bundle]],
    ) -> None:
        self._keyring = keyring
        self._bundles = bundles
        self._lifetime = lifetime
        self._issued: dict[str, X509Svid] = {}
        self._resources: dict[str, tuple[Resource, Resource]] = {}

    def follow(self, identities: Iterable[str], now: datetime) -> list[Resource]:
        """Secrets of these identities, and what verifies them."""
        wanted, keyring = set(identities), self._keyring()
        trusted = keyring.trusted
        for one in self._issued.keys() - wanted:
            del self._issued[one], self._resources[one]
        for one in wanted:
            svid = self._issued.get(one)
            if svid is None or svid.renew_at <= now or svid.authority not in trusted:
                self._issued[one] = svid = issue(keyring.authority, parse(one), now, self._lifetime)
                chain, key = svid.chain_pem, svid.key_pem
                names = (one, resources.client_secret(one))
                server, client = (resources.certificate(name, chain, key) for name in names)
                self._resources[one] = server, client
        others = {name: roots_of(one) for name, one in self._bundles().items() if one.roots}
        bundle = resources.bundle({**others, keyring.trust_domain: roots_pem(keyring)})
        return [bundle, *(it for pair in self._resources.values() for it in pair)]

    @property
    def authorities(self) -> set[str]:
        """Who signed what is in use."""
        return {svid.authority for svid in self._issued.values()}

    def next_deadline(self) -> datetime | None:
        return min((svid.renew_at for svid in self._issued.values()), default=None)


class Mesh:
    """One per agent; ``follow`` is called after every round."""

    def __init__(
        self,
        config: Config,
        paths: Paths,
        agent: Agent,
        authorities: Authorities,
        flows: FlowReader,
        attest: Attest,
        federation: Federation,
    ) -> None:
        self._agent = agent
        self._flows = flows
        flows.expect_pairs()
        self._names = paths.run / "netns"
        self._group = group_of(paths)
        self.proxies = Proxies(config, paths, self._names, self._take_log, self._ended)
        self._reach = Reach()
        self._reached: Mapping[str, frozenset[str]] = {}  # by pods that have a proxy of their own
        carried_max = connections_max()
        share = carried_max // PODS_SHARE
        self._planner = MeshPlanner(lambda it: str(self._name(it)), share, carried_max)
        self._plan: MeshPlan | None = None
        self._named: Mapping[str, Endpoint] | None = None  # whose namespaces have a name
        self.key_sets = KeySets(self.follow)
        self._passed: Plans | None = None  # by what connections to the world were last looked at
        self._judged: tuple[object, object] = ({}, {})  # by what tunnels were last judged anew
        self._open = OpenRequests(agent, self._offer)
        self._moved: set[str] = set()  # pods whose rules the proxy is being told
        lifetime = timedelta(seconds=config.svid_ttl_s)
        self._svids = Svids(lambda: authorities.keyring, lifetime, lambda: federation.bundles)
        self.foreign = ForeignTunnels(agent, flows, federation, self._open.ask)
        federation.followers.append(self._federated)
        self._succession = Succession(agent, authorities, flows, self._taken, self._offer)
        authorities.followers += (self._offer, self._succession.follow)
        self._judging: asyncio.Task[None] | None = None  # held, so that it is not collected
        self._renew = asyncio.Event()
        self._routed = RoutedTable(agent.datapath.maps)
        self._clients = paths.workload_socket.with_name("xds.sock")
        self._grpc = GrpcXds(attest, Proxyless(self._now).tell)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; proxies go on."""
        self.keep_known()
        with unix_listener(self._clients, mode=CLIENTS_MODE) as clients:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self.proxies.run(stop))
                others = [
                    group.create_task(work)
                    for work in (
                        self._rotate(),
                        self._retry(),
                        self._succession.expire(),
                        self._relieve(),
                        self.key_sets.run(),
                        self._open.expire(),
                        self._grpc.serve(clients, stop),
                    )
                ]
                await serving
                for task in others:
                    task.cancel()

    def keep_known(self) -> list[str]:
        """Have the kernel know proxies; returns what was missing."""
        cgroup.create(self._group)
        return self._agent.datapath.keep_proxy(self._group)

    def follow(self) -> None:
        """Offer what the last plans say."""
        plans = self._agent.plans
        assert plans is not None, "followers are called after a round"
        self.key_sets.follow(plans.world.policies.values())
        plan = self._planner.plan(
            *(plans.world, plans.policy, plans.balancing.frontends, self.key_sets.keys),
            plans.leavings,
        )
        before, self._plan = self._plan, plan
        self._grpc.changed()
        endpoints, reached = plans.world.endpoints, self._reached
        self.proxies.seat({pod: endpoints[pod] for pod in plan.members})
        self._reached = self._reach.of(self.proxies.alone(), plan.members, endpoints, plans.policy)
        same = before is not None and plan.resources is before.resources
        if same and self._reached == reached:
            return
        if endpoints is not self._named:
            self._name_namespaces(endpoints)
            self._named = endpoints
        self._succession.part(before.members if before is not None else {}, plan.members)
        self._moved |= judged_anew(before, plan)
        self._offer()

    async def in_force(self) -> None:
        """Return when proxies have all that was offered, or after a while: one may be away."""
        await self._succession.settled()
        if not any(proxy.xds.connected for proxy in self.proxies):
            return
        await self.key_sets.settled()
        await self._taken(TAKEN_S)
        await self._hold_to_it()

    async def _taken(self, timeout_s: float) -> bool:
        """Whether all that are there take all that was offered, within a while."""
        return not any(await asyncio.gather(*(one.taken(timeout_s) for one in self.proxies)))

    async def _hold_to_it(self) -> None:
        """What may be done when proxies have what was offered; of a pod's own nobody waits for
        one that is late."""
        connected = any(one.xds.connected for one in self.proxies)
        if self._plan is None or not connected or any(one.blocks() for one in self.proxies):
            return
        self._routed.write(self._plan.http.routed)
        self._ask()
        await self._cut_tunnels(self._plan.http)
        late = any(one.late for one in self.proxies)
        await self.foreign.judge(self._plan.http, self._id_of, again=late)
        await self._cut_leavings()

    def _federated(self) -> None:
        """The bundles of other trust domains have changed."""
        if self._plan is not None:
            self._offer()
            self._judging = asyncio.ensure_future(self._judge_foreign())

    async def _judge_foreign(self) -> None:
        await self._taken(TAKEN_S)
        if self._plan is not None:
            await self.foreign.judge(self._plan.http, self._id_of)

    def _ask(self) -> None:
        """The proxy has the rules: what is open under earlier ones?"""
        moved, self._moved = self._moved, set()
        self._open.ask(moved)

    async def _cut_tunnels(self, http: HttpPlan) -> None:
        """What was made before proxies' rules became these, and is not as they say."""
        judged, plans = (http.ports, http.tunnels), self._agent.plans
        if judged == self._judged or plans is None:
            return
        if not any(one.late for one in self.proxies):
            self._judged = judged
        found = list(cut(self._agent.datapath.conntrack(), plans, http))
        if found:
            connections = [one.connection for one in found]
            await asyncio.to_thread(close_sockets, connections, plans.netns_of)

    async def _cut_leavings(self) -> None:
        """What was passed to the world before the proxy passed less."""
        before, plans = self._passed, self._agent.plans
        self._passed = plans
        if plans is None or before is None or before.leavings is plans.leavings:
            return
        found = list(no_longer_passed(self._agent.datapath.conntrack(), before, plans))
        if found:
            await asyncio.to_thread(close_sockets, found, plans.netns_of)

    async def admit(self, pod: str) -> None:
        """Return when a pod's connections, in and out, would meet the proxy."""
        assert self._plan is not None, "a pod is admitted after a round with it"
        member, proxy = self._plan.members[pod], self._proxy(pod)
        names, wanted = listeners(self._plan, pod), {OUTBOUND_PORT, HTTP_PORT, TUNNEL_PORT}
        if pod in self._plan.outward.needed:
            wanted.add(OUTWARD_PORT)
        if (LISTENER, listener_name(pod)) in names:
            wanted.add(NAMED_PORT)
        await proxy.started(START_S)
        left = await proxy.xds.taken(ADMIT_S, names)
        if not left:
            for _ in range(int(ADMIT_S / LOOK_S)):
                if wanted <= listening_ports(Path(member.netns)):
                    return
                await asyncio.sleep(LOOK_S)
        refused = [proxy.xds.refused[name] for name in names if name in proxy.xds.refused]
        reason = "; ".join(refused) or proxy.problem() or "envoy is slow"
        raise UnavailableError(f"mesh: no listeners after {ADMIT_S:g} s: {reason}")

    def unserved(self, pod: str) -> str:
        """Why the listeners of a Gateway's pod are not in force; "" when they are."""
        if self._plan is None or pod not in self._plan.http.gateways:
            return "its pod is not there yet"
        proxy = self._proxy(pod)
        left = proxy.xds.lacking(listeners(self._plan, pod))
        refused = [proxy.xds.refused[one] for one in left if one in proxy.xds.refused]
        return "; ".join(refused) or proxy.problem() or ("the proxy is told" if left else "")

    async def restart(self, pod: str) -> dict[str, Any]:
        """Return when another process takes all new connections; of that pod's proxy, or of the
        node's."""
        proxy = self.proxies.of(pod) if pod else self.proxies.node
        if proxy is None:
            raise NotFoundError(f"proxy: {pod or 'the node'} has none; see sixfold proxy list")
        return await proxy.restart()

    def status(self) -> dict[str, Any]:
        proxies = list(self.proxies)
        refused = (item for one in proxies for item in one.xds.refused.items())
        return {
            "mtls": self._agent.effective.mtls_mode,
            "pid": self.proxies.node.envoy.pid if self.proxies.node else 0,
            "own": len(self.proxies.alone()),
            "draining": [pid for one in proxies for pid in one.envoy.predecessors()],
            "pending": sum(len(one.xds.pending()) for one in proxies),
            "refused": {name[1]: said for name, said in sorted(refused)},
            "keys": dict(sorted(self.key_sets.problems.items())),
            "problems": {one.pod: said for one in proxies if (said := one.problem())},
        }

    # --- work -----------------------------------------------------------------------------------

    def _offer(self) -> None:
        plan = self._plan
        if plan is None:
            return
        secrets = self._svids.follow(plan.identities, datetime.now(UTC))
        self._renew.set()
        self._succession.renewed(self._svids.authorities)
        clusters = self._succession.clusters(list(plan.resources.values()))
        offered = [*clusters, *secrets, self._open.asking]
        if not self._reached:
            if self.proxies.node is not None:
                self.proxies.node.offer(offered)
            return
        named = {(one.type_url, one.name): one for one in offered}
        for proxy in self.proxies:
            names = (
                needed_by_one(plan, proxy.pod, self._reached[proxy.pod])
                if proxy.pod
                else needed_by_node(plan, named, self._reached.keys())
            )
            proxy.offer([named[one] for one in dict.fromkeys(names) if one in named])

    async def _rotate(self) -> None:
        """Renew SVIDs at half of their life: new handshakes show the new ones."""
        while True:
            deadline = self._svids.next_deadline()
            left_s = None
            if deadline is not None:
                left_s = max(0.0, (deadline - datetime.now(UTC)).total_seconds())
            try:
                self._renew.clear()
                await asyncio.wait_for(self._renew.wait(), left_s)
            except TimeoutError:
                self._offer()

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            for proxy in self.proxies:
                proxy.xds.retry()
            await self._hold_to_it()

    async def _relieve(self) -> None:
        """Have earlier processes drain, and end, when those after them serve."""
        while True:
            await asyncio.sleep(RELIEVE_S)
            await asyncio.gather(*(one.relieve() for one in self.proxies))

    def _proxy(self, pod: str) -> Proxy:
        proxy = self.proxies.of(pod)
        assert proxy is not None, "every member has a seat"
        return proxy

    def _now(self) -> tuple[Plans, Mapping[str, Member]]:
        plans = self._agent.plans
        assert plans is not None, "the mesh begins after a round"
        return plans, self._plan.members if self._plan is not None else {}

    def _ended(self, pod: str) -> None:
        if not pod and self._flows.pairs is not None:
            self._flows.pairs.abandon()
        whose = f" of {pod}" if pod else ""
        self._agent.repairs.append(f"envoy{whose}: ended; started anew")

    # --- flows ----------------------------------------------------------------------------------

    def _take_log(self, name: str, entry: Any) -> None:
        agent = self._agent
        asked = Asked(
            self._denied_by,
            self._not_allowed_by,
            self._address_in,
            self._no_token_by,
            self._told_by,
            partial(self._not_allowed_by, audit=True),
            self._not_named_by,
            self._foreign_ids,
            self._foreign_at,
            self._id_of,
            self._kept_in_by,
        )
        if name in (logs.OPEN, logs.INBOUND, logs.REQUESTS):
            self.foreign.note(entry)
        if name in (logs.OPEN, logs.OPEN_AT_GATEWAY):
            self._open.take(entry, at_gateway=name != logs.OPEN)
            return
        if name == logs.INBOUND and is_end(entry):
            self._flows.ended(tunnel_client(entry), *bytes_of(entry))
            return
        flow = access(name, entry, agent.names, asked)
        if flow is None:
            return
        if name in (logs.REQUESTS, logs.GATEWAY):
            flow = self._open.told(entry, counted(flow, *bytes_of(entry)))
        client = flow.source.address, flow.source.port
        lasts = name == logs.INBOUND and flow.verdict in PASSED
        self._flows.join(client, flow, lasts=lasts)

    def _denied_by(self, source: IPAddress, destination: IPAddress, port: int) -> Rule | None:
        """By the plan that the proxy's rules were made of."""
        plans, owners = self._agent.plans, self._agent.names.owners
        client, server = owners.get(source), owners.get(destination)
        if plans is None or client is None or server is None:
            return None
        endpoint = plans.world.endpoints.get(f"{client.namespace}/{client.pod}")
        table = plans.policy.tables.get(f"{server.namespace}/{server.pod}")
        if endpoint is None or table is None:
            return None
        party = party_of(plans.policy, endpoint, source.version)
        decision = lookup(table, INGRESS, party, PROTOCOL_NUMBERS["TCP"], port)
        return None if decision.allow else self._agent.names.rules.get(decision.rule)

    def _not_allowed_by(self, destination: IPAddress, *, audit: bool = False) -> Rule | None:
        plans, endpoint = self._agent.plans, self._endpoint_at(destination)
        if plans is None or endpoint is None:
            return None
        written = Authorizations(plans.world)
        return not_allowed((*written.of(endpoint), *written.at_gateway(endpoint)), audit=audit)

    def _not_named_by(self, destination: IPAddress, id_: str) -> Rule | None:
        plans, endpoint = self._agent.plans, self._endpoint_at(destination)
        if plans is None or endpoint is None:
            return None
        policies = Authorizations(plans.world).of(endpoint)
        own = plans.world.config.trust_domain
        return not_let_in(policies, own, foreign_caller(id_, None, 0))

    def _foreign_ids(self, service: str, port: int) -> tuple[str, ...]:
        foreign = self._plan.http.foreign if self._plan is not None else {}
        found = foreign.get(ServicePort(service, port))
        return found.ids if found is not None else ()

    def _foreign_at(self, address: IPAddress, port: int) -> tuple[str, tuple[str, ...], str] | None:
        for one in self._plan.http.foreign.values() if self._plan is not None else ():
            if address in one.addresses and port == one.port.port:
                return one.port.service, one.ids, one.closed
        return None

    def _id_of(self, address: IPAddress) -> str:
        found = self._plan.members.values() if self._plan is not None else ()
        return next((one.id for one in found if address in one.addresses), "")

    def _no_token_by(self, destination: IPAddress) -> Rule | None:
        plans, endpoint = self._agent.plans, self._endpoint_at(destination)
        if plans is None or endpoint is None:
            return None
        return no_token(Authorizations(plans.world).tokens(endpoint))

    def _kept_in_by(self, source: IPAddress) -> Rule | None:
        plans, endpoint = self._agent.plans, self._endpoint_at(source)
        leaving = plans.leavings.get(endpoint.key) if plans and endpoint else None
        return leaving.denied if leaving is not None else None

    def _told_by(self, destination: IPAddress) -> Rule | None:
        plans, endpoint = self._agent.plans, self._endpoint_at(destination)
        table = plans.policy.tables.get(endpoint.key) if plans and endpoint else None
        if table is None or table.audit is None:
            return None
        return self._agent.names.rules.get(table.audit.ingress_default)

    def _endpoint_at(self, address: IPAddress) -> Endpoint | None:
        plans, owner = self._agent.plans, self._agent.names.owners.get(address)
        if plans is None or owner is None:
            return None
        return plans.world.endpoints.get(f"{owner.namespace}/{owner.pod}")

    def _address_in(self, path: str, version: int) -> IPAddress | None:
        for member in self._plan.members.values() if self._plan is not None else ():
            if member.netns == path:
                return next((one for one in member.addresses if one.version == version), None)
        return None

    # --- names of namespaces --------------------------------------------------------------------

    def _name(self, endpoint: Endpoint) -> Path:
        return self._names / str(endpoint.netns_cookie)

    def _name_namespaces(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Links to pods' namespaces under names that are never used again, unlike pods' names."""
        self._names.mkdir(mode=0o700, exist_ok=True)
        wanted = {self._name(one): one.netns for one in endpoints.values() if one.netns}
        for path in set(self._names.iterdir()) - wanted.keys():
            path.unlink()
        for path, target in wanted.items():
            if not path.is_symlink():
                path.symlink_to(target)
