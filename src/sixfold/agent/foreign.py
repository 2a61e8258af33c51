"""Connections with other trust domains that are open, and those that must end.

Envoy judges a tunnel when something is put into it, and a bundle verifies a handshake; what was
let in then stays. So after each change the agent judges anew. In: the proxy told who is in each
tunnel that came by a Gateway; one of which it told nothing (it is new, or the agent is) ends, too.
Out: the kernel knows which connections left by a Gateway, and to which service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from cryptography.x509 import Certificate

from sixfold.agent.agent import Agent
from sixfold.agent.events import FlowReader
from sixfold.agent.federation import Federation
from sixfold.agent.planning import Plans
from sixfold.host.layout import MTLS, Connection
from sixfold.host.sockets import close_sockets
from sixfold.host.tunnels import Tunnel, close_tunnels, tunnels
from sixfold.mesh.authorized import authorized_abroad, foreign_caller, names
from sixfold.mesh.foreign import Export, Foreign
from sixfold.mesh.foreign_requests import ROUTE as REQUESTS
from sixfold.mesh.foreign_resources import ROUTE
from sixfold.mesh.http_plan import HttpPlan
from sixfold.mesh.logs import FLUSH, LOOK
from sixfold.mesh.member import authority
from sixfold.model.datapath import INGRESS, PROTOCOL_NUMBERS, IPAddress
from sixfold.model.endpoint import Endpoint, by_address
from sixfold.model.layers import same_objects
from sixfold.model.mesh import TUNNEL_PORT
from sixfold.model.spiffe import parse
from sixfold.observe.access import DENIED, IdOf, from_abroad, naming, tunnel_cut
from sixfold.policy.authorizations import Authorizations
from sixfold.policy.decide import lookup, party_of
from sixfold.policy.foreign import for_foreign, not_named
from sixfold.trust.audit_finding import PairSeen

Place = tuple[IPAddress, int, IPAddress]  # client's address and port, server's address
TOLD_S = (2 * FLUSH + LOOK).total_seconds()  # so late the proxy's log may be
CAME_MAX = 16_384
UNKNOWN = "cut: who is in it is not known to this agent"


@dataclass(slots=True)
class _Inside:
    """What is in a tunnel: who, and what it was made for (``ROUTE`` of each)."""

    id: str
    own: str
    routes: set[str] = field(default_factory=set)  # of requests, too


class ForeignTunnels:
    """One per mesh."""

    def __init__(
        self,
        agent: Agent,
        flows: FlowReader,
        federation: Federation,
        ask: Callable[[Iterable[str]], None],
    ) -> None:
        """``ask``: have the proxy tell of requests that are open at these pods."""
        self._agent = agent
        self._ask = ask
        self._flows = flows
        self._federation = federation
        self._inside: dict[Place, _Inside] = {}
        self._came: dict[PairSeen, int] = {}  # connections: tunnels, and of requests all together
        self._roots: Mapping[str, frozenset[Certificate]] = {}
        self._judged: tuple[object, ...] = ()

    def note(self, entry: Any) -> None:
        """The proxy's log of a tunnel that was made, or refused; of a request, open or over."""
        common = entry.common_properties
        tls, client = common.tls_properties, common.downstream_direct_remote_address.socket_address
        peer, own = (
            next((one.uri for one in side.subject_alt_name if one.uri), "")
            for side in (tls.peer_certificate_properties, tls.local_certificate_properties)
        )
        if not common.route_name.startswith(ROUTE) or not client.address or not (peer and own):
            return
        server = common.downstream_local_address.socket_address.address
        place = ip_address(client.address), client.port_value, ip_address(server)
        known = self._inside.setdefault(place, _Inside(peer, own))
        if entry.response.response_code.value != DENIED and (
            not common.route_name.startswith(REQUESTS) or common.route_name not in known.routes
        ):
            self._count(peer, common)
        known.routes.add(common.route_name)

    def _count(self, peer: str, common: Any) -> None:
        owners = self._agent.names.owners
        at = from_abroad(common).rpartition(":")
        server = owners.get(ip_address(at[0].strip("[]")))
        if server is None:
            return
        rule, pod = str(naming(common) or ""), f"{server.namespace}/{server.pod}"
        seen = PairSeen(peer, pod, int(at[2]), "TCP", 0, mtls=True, rules=("", rule))
        self._came[seen] = self._came.pop(seen, 0) + 1
        if len(self._came) > CAME_MAX:
            del self._came[next(iter(self._came))]

    @property
    def pairs(self) -> tuple[PairSeen, ...]:
        """Who came since the agent started, and was let in; the last that many."""
        return tuple(replace(seen, connections=count) for seen, count in self._came.items())

    async def judge(self, http: HttpPlan, id_of: IdOf, *, again: bool = False) -> None:
        """Cut what would not be let in, or out, now; ``again``: some proxy has yet to be told."""
        plans, gone = self._agent.plans, self._roots_gone()
        if plans is None:
            return
        tables = plans.policy.tables
        parts = http.exports, http.foreign, tables.group_of, tables.value_of
        if same_objects(parts, self._judged) and not gone:
            return
        self._judged = () if again else parts
        pods = {
            key: plans.world.endpoints[key]
            for key in plans.world.gateways_abroad
            if key in plans.world.endpoints
        }
        if not pods and not self._inside:
            return
        await self._judge_in(plans, http, pods, gone)
        await self._judge_out(plans, http, gone, id_of)

    def _roots_gone(self) -> frozenset[str]:
        """Trust domains of which a root is no longer believed that was when this was last asked."""
        before, self._roots = (
            self._roots,
            {name: frozenset(one.roots) for name, one in self._federation.bundles.items()},
        )
        nothing: frozenset[Certificate] = frozenset()
        return frozenset(
            name for name, those in before.items() if those - self._roots.get(name, nothing)
        )

    # --- in ---------------------------------------------------------------------------------------

    async def _judge_in(
        self,
        plans: Plans,
        http: HttpPlan,
        pods: Mapping[str, Endpoint],
        gone: Set[str],
    ) -> None:
        by = by_address(pods.values())
        here = self._open()
        if unknown := [at for at in here if at[0] in by and at not in self._inside]:
            servers = by_address(plans.world.endpoints.values())
            self._ask(servers[server].key for *_, server in unknown if server in servers)
            await asyncio.sleep(TOLD_S)
            here = self._open()
        self._inside = {place: it for place, it in self._inside.items() if place in here}
        judge = _Judge(plans, http, by, gone)
        ended = {
            place: (one, why)
            for place, one in here.items()
            if one.client in by or place in self._inside
            if (why := judge.why(place, self._inside.get(place)))
        }
        if not ended:
            return
        those, places = [one for one, _ in ended.values()], plans.netns_at
        await asyncio.to_thread(close_tunnels, those, places)
        for place, (one, why) in ended.items():
            inside = self._inside.pop(place, _Inside("", ""))
            self._tell(one, why, (inside.id, inside.own))

    def _open(self) -> dict[Place, Tunnel]:
        opened = tunnels(self._agent.datapath.maps["tunnels"])
        return {(one.client, one.client_port, one.server): one for one in opened}

    def _tell(self, one: Tunnel, why: str, ids: tuple[str, str]) -> None:
        ends = (one.client, one.client_port), (one.server, TUNNEL_PORT)
        flow = tunnel_cut(self._agent.names, *ends, why, ids, time.time_ns())
        self._flows.log.extend([flow])

    # --- out --------------------------------------------------------------------------------------

    async def _judge_out(
        self,
        plans: Plans,
        http: HttpPlan,
        gone: Set[str],
        id_of: IdOf,
    ) -> None:
        at = plans.world.addresses_abroad
        ended = [
            (one, foreign, why)
            for one in self._agent.datapath.conntrack()
            if one.transport == MTLS and one.is_open and one.destination in at
            for foreign in [self._foreign(one, http)]
            if (why := _why_out(foreign, gone))
        ]
        if not ended:
            return
        connections = [one for one, _, _ in ended]
        await asyncio.to_thread(close_sockets, connections, plans.netns_of, at)
        for one, foreign, why in ended:
            ids = id_of(one.source), foreign.ids[0] if foreign is not None else ""
            ends = (one.source, one.source_port), (one.destination, one.destination_port)
            flow = tunnel_cut(self._agent.names, *ends, why, ids, time.time_ns(), "egress")
            self._flows.log.extend([flow])

    def _foreign(self, one: Connection, http: HttpPlan) -> Foreign | None:
        named = self._agent.names.services.get(one.service)
        service = f"{named.namespace}/{named.name}" if named is not None else ""
        return next(
            (
                it
                for port, it in http.foreign.items()
                if port.service == service and port.port == one.service_port
            ),
            None,
        )


def _why_out(foreign: Foreign | None, gone: Set[str]) -> str:
    if foreign is None:
        return "cut: what it was dialled as is no service of another trust domain any more"
    if foreign.closed:
        return f"cut: {foreign.closed}"
    if foreign.domain in gone:
        return f"cut: a root of {foreign.domain} is trusted no more"
    return ""


class _Judge:
    """Says of each tunnel why it must end, by today's plans."""

    def __init__(
        self,
        plans: Plans,
        http: HttpPlan,
        gateways: Mapping[IPAddress, Endpoint],
        gone: Set[str],
    ) -> None:
        self._plans = plans
        self._exports: dict[str, Export] = {
            f"{kind}{authority(one.address, one.port)}": one
            for those in http.exports.values()
            for one, _ in those
            for kind in (REQUESTS, ROUTE)
        }
        self._gateways = gateways
        self._gone = gone
        self._authorizations = Authorizations(plans.world)
        self._servers = by_address(plans.world.endpoints.values())

    def why(self, place: Place, inside: _Inside | None) -> str:
        """ "" when it may stay."""
        if inside is None:
            return UNKNOWN
        domain = parse(inside.id).trust_domain
        if domain not in self._plans.world.federated:
            return f"cut: {domain} is federated no more"
        if domain in self._gone:
            return f"cut: a root of {domain} is trusted no more"
        whys = (self._why(place, inside.id, route) for route in sorted(inside.routes))
        return next(filter(None, whys), "")

    def _why(self, place: Place, id_: str, route: str) -> str:
        gateway, server = self._gateways.get(place[0]), self._servers.get(place[2])
        export = self._exports.get(route)
        if gateway is None or server is None or export is None:
            return "cut: no name of ours leads there for other trust domains any more"
        asked = route.startswith(REQUESTS)
        if export.looked_into and not asked:
            return f"cut: requests to port {export.port} are looked into: it takes no tunnel now"
        policy = self._plans.policy
        table = policy.tables.get(server.key)
        party = party_of(policy, gateway, export.address.version)
        found = table and lookup(table, INGRESS, party, PROTOCOL_NUMBERS["TCP"], export.port)
        if not found or not found.allow:
            by = policy.rules.get(found.rule) if found else None
            return f"cut: denied by {by or 'its policy'}, which is asked about {gateway.key}"
        policies = self._authorizations.of(server)
        own = self._plans.world.config.trust_domain
        caller = foreign_caller(id_, gateway, export.port)
        if asked:  # of which each is judged: ``OpenRequests``
            named = names(for_foreign(policies, own), caller)
            return "" if named else f"cut: denied by {not_named(policies)}"
        answer = authorized_abroad(policies, own, caller)
        return "" if answer.allow else f"cut: denied by {answer.rule}"
