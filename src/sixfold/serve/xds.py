"""xDS: Envoy asks for its configuration and is told every change; and it tells of connections.

gRPC over a unix socket that only root may use: one aggregated stream, incremental (delta). Clusters
are told before listeners, and routes when the clusters are warm, those at the ends of tunnels
before those that lead there; what is gone goes after what is new has been taken, clusters last:
make before break. What Envoy refuses (NACK) is kept with its reason; it goes on with what it had of
that name, and takes the rest. It is offered again by ``retry``, and when it changes. A cluster that
changed waits for who is in it, told again.

An Envoy that has just begun is to serve soon, however much there is. So it is told first what lets
it listen, and of clusters those that it cannot ask for; then, in parts, of all others. Meanwhile
what leads to one of those waits in Envoy, which asks for it; so asked, it goes before the parts.

Versions are hashes of content. So a new agent knows from what Envoy says it has what is different.
Source: xDS protocol, "Incremental xDS"; envoy/service/accesslog/v3/als.proto.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from envoy.service.accesslog.v3 import als_pb2
from envoy.service.discovery.v3 import discovery_pb2
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Server, Stream

from sixfold.mesh.messages import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTE,
    RUNTIME,
    SCOPE,
    SECRET,
    Name,
    Resource,
)
from sixfold.mesh.resources import END
from sixfold.serve.grpc_server import serve_until
from sixfold.serve.xds_peer import Peer, Wanted

log = logging.getLogger(__name__)

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
ALS = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
ORDER = (CLUSTER, ENDPOINTS, LISTENER, EXTENSION, SCOPE, ROUTE, SECRET, RUNTIME)
WILDCARD = (CLUSTER, LISTENER, SCOPE)  # types of which it wants all there is
PART = 32  # so many clusters are told at once: what is asked for waits no longer than for these
AnyStream = Stream[Any, Any]
OnLog = Callable[[str, Any], None]


class XdsServer:
    """Serves Envoy, and the one before it while that drains; ``offer`` is what both should hold.

    Of thousands of resources one changes: only what may be different is looked at again.
    """

    def __init__(self, on_log: OnLog) -> None:
        self._on_log = on_log
        self._offered: dict[str, dict[str, Resource]] = {one: {} for one in ORDER}
        self._ready = asyncio.Event()  # something was offered
        self._peers: list[Peer] = []  # the last to come is the last
        self._unsure: set[Name] = set()  # whether all have it; of all others that is so
        self._moved = asyncio.Condition()
        self._nonces = 0
        self.refused: dict[Name, str] = {}  # and what Envoy said
        self._server = Server([self])

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        await serve_until(stop, self._server, listener)

    def offer(self, resources: Iterable[Resource]) -> None:
        """All that there is, from now on."""
        offered: dict[str, dict[str, Resource]] = {one: {} for one in ORDER}
        for one in resources:
            offered[one.type_url][one.name] = one
        for kind, now in offered.items():
            before = self._offered[kind]
            changed = {name for name, one in now.items() if before.get(name) is not one}
            changed |= before.keys() - now.keys()
            self._unsure.update((kind, name) for name in changed)
            for peer in self._peers:
                if kind in peer.types:
                    peer.types[kind].due |= changed
                if kind == ENDPOINTS:
                    peer.cold |= changed
        self._offered = offered
        self.refused = {
            name: it for name, it in self.refused.items() if name[1] in offered[name[0]]
        }
        self._ready.set()
        for peer in self._peers:
            peer.wake.set()

    def retry(self) -> None:
        """Offer again what was refused: its reason may be gone."""
        for peer in self._peers if self.refused else ():
            peer.again = True
            peer.wake.set()

    @property
    def connected(self) -> bool:
        return bool(self._peers)

    def lacking(self, names: Iterable[Name]) -> list[Name]:
        """Those of these that are offered, and that Envoy has not taken as they are now."""
        return [
            (kind, name)
            for kind, name in names
            if (one := self._offered[kind].get(name)) is not None
            and self._lacks(kind, name, one.version)
        ]

    def _lacks(self, kind: str, name: str, version: str) -> bool:
        """Whether anybody has another version, or the last to come none, or nobody is there."""
        last = self._peers[-1:] or [Peer()]
        return any(
            peer.held.get((kind, name)) != version
            for peer in self._peers or last
            if peer in last or (kind, name) in peer.held
        )

    def pending(self) -> list[Name]:
        """All that Envoy would have to take; of secrets and routes those that it asked for."""
        self._unsure = set(self.lacking(self._unsure))
        return [one for one in self._unsure if one not in self.refused and self._is_wanted(*one)]

    def _is_wanted(self, kind: str, name: str) -> bool:
        return kind in WILDCARD or any(
            kind in peer.types and name in peer.types[kind].wanted for peer in self._peers
        )

    def _forget_who_has_what(self) -> None:
        self._unsure = {(kind, name) for kind in ORDER for name in self._offered[kind]}

    async def taken(self, timeout_s: float, names: Iterable[Name] | None = None) -> list[Name]:
        """Return when nothing is pending (of these names), or after a while; what still is."""
        wanted = None if names is None else list(names)

        def left() -> list[Name]:
            return self.pending() if wanted is None else self.lacking(wanted)

        async def wait() -> None:
            async with self._moved:
                await self._moved.wait_for(lambda: not left())

        if left():
            try:
                await asyncio.wait_for(wait(), timeout_s)
            except TimeoutError:
                return left()
        return []

    def __mapping__(self) -> Mapping[str, Handler]:
        """Of grpclib: what is served under which path."""
        discovery, logs = discovery_pb2, als_pb2
        return {
            ADS: Handler(
                self._discover,
                Cardinality.STREAM_STREAM,
                discovery.DeltaDiscoveryRequest,
                discovery.DeltaDiscoveryResponse,
            ),
            ALS: Handler(
                self._take_logs,
                Cardinality.STREAM_UNARY,
                logs.StreamAccessLogsMessage,
                logs.StreamAccessLogsResponse,
            ),
        }

    # --- discovery ------------------------------------------------------------------------------

    async def _discover(self, stream: AnyStream) -> None:
        await self._ready.wait()  # an agent that knows nothing yet would seem to remove everything
        peer = Peer(self._offered[ENDPOINTS])
        self._peers.append(peer)
        self._forget_who_has_what()
        telling = asyncio.ensure_future(self._answer(stream, peer))
        try:
            while (request := await stream.recv_message()) is not None:
                await self._take(peer, request)
                peer.wake.set()
        except (StreamTerminatedError, ConnectionError):
            pass
        finally:
            self._peers.remove(peer)
            self._forget_who_has_what()
            telling.cancel()

    async def _take(self, peer: Peer, request: Any) -> None:
        """What Envoy says: what it wants, what it has, what it makes of what it was sent."""
        kind = request.type_url
        one = peer.types.setdefault(kind, Wanted())
        first = not one.all and not one.wanted and not one.sent and not request.response_nonce
        if first:
            one.all = kind in WILDCARD and not request.resource_names_subscribe
            one.sent = dict(request.initial_resource_versions)
            peer.held.update(((kind, name), version) for name, version in one.sent.items())
            one.due |= one.sent.keys()
            if one.all:
                one.due |= self._offered[kind].keys()
        for name in request.resource_names_subscribe:
            if name == "*":
                one.all = True
                one.due |= self._offered[kind].keys()
            else:
                one.wanted.add(name)
                one.asked.add(name)
                one.due.add(name)
        for name in request.resource_names_unsubscribe:
            if name == "*":
                one.all = False
            one.wanted.discard(name)
            one.sent.pop(name, None)
            peer.held.pop((kind, name), None)
            self._unsure.add((kind, name))
            if kind == ENDPOINTS:
                peer.cold.add(name)
        answered = one.awaiting.pop(request.response_nonce, None)
        if answered is not None:
            self._judge(peer, kind, answered, request.error_detail.message)
        async with self._moved:
            self._moved.notify_all()

    def _judge(self, peer: Peer, kind: str, answered: dict[str, str], error: str) -> None:
        """Of several resources Envoy names those that it refuses; if none, it took none."""
        bad = {name for name in answered if name in error} or set(answered) if error else set()
        for name, version in answered.items():
            if name in bad:
                self.refused[kind, name] = error
                log.error("envoy: refused %s: %s", name, error)
            else:
                self.refused.pop((kind, name), None)
                if version:
                    peer.held[kind, name] = version
                else:
                    peer.held.pop((kind, name), None)
        self._unsure.update((kind, name) for name in answered)

    async def _answer(self, stream: AnyStream, peer: Peer) -> None:
        while True:
            await peer.wake.wait()
            peer.wake.clear()
            if peer.again:
                peer.again = False
                for kind, name in self.refused:
                    if kind in peer.types:
                        peer.types[kind].sent.pop(name, None)
                        peer.types[kind].due.add(name)
            for kind in ORDER:
                if kind == ROUTE and kind in peer.types and self._warm(peer):
                    await self._send_routes(stream, peer)
                elif kind == CLUSTER and kind in peer.types:
                    await self._send_clusters(stream, peer, removals=False)
                elif kind != ROUTE and kind in peer.types:
                    await self._send(stream, kind, peer, removals=True)
            if CLUSTER in peer.types and not self._behind(peer):
                await self._send_clusters(stream, peer, removals=True)
            if not peer.begun and LISTENER in peer.types and not peer.awaits:
                peer.turn |= set(sorted(peer.later(self._offered[CLUSTER]))[:PART])
                await self._send_clusters(stream, peer, removals=False)
                peer.begun = not peer.later(self._offered[CLUSTER])

    async def _send_clusters(self, stream: AnyStream, peer: Peer, *, removals: bool) -> None:
        due = peer.types[CLUSTER].due
        now = None if peer.begun else due - peer.later(self._offered[CLUSTER])
        await self._send(stream, CLUSTER, peer, removals=removals, only=now)

    def _warm(self, peer: Peer) -> bool:
        """Whether all clusters may be used: Envoy has them, and knows who is in them; or asks."""
        if not peer.begun:
            return True
        clusters, there = peer.types.get(CLUSTER), self._offered[ENDPOINTS]
        peer.cold = {
            name for name in peer.cold if name in there and (ENDPOINTS, name) not in peer.held
        }
        return clusters is None or not (
            clusters.awaiting or any((CLUSTER, name) not in self.refused for name in peer.cold)
        )

    def _behind(self, peer: Peer) -> bool:
        """Whether Envoy has routes yet that may lead to clusters that are no more."""
        routes, scopes = peer.types.get(ROUTE), peer.types.get(SCOPE)
        if scopes is not None and scopes.awaiting:
            return True
        return routes is not None and (
            bool(routes.awaiting)
            or any(
                routes.sent.get(name) != self._offered[ROUTE][name].version
                for name in routes.due & routes.wanted & self._offered[ROUTE].keys()
                if (ROUTE, name) not in self.refused
            )
        )

    async def _send_routes(self, stream: AnyStream, peer: Peer) -> None:
        """Where requests arrive before where they are sent: nobody is led to who does not know."""
        one = peer.types[ROUTE]
        ends = {name for name in one.due if name.startswith(END)}
        await self._send(stream, ROUTE, peer, removals=True, only=ends)
        if not any(name.startswith(END) for told in one.awaiting.values() for name in told):
            await self._send(stream, ROUTE, peer, removals=True)

    async def _send(
        self,
        stream: AnyStream,
        kind: str,
        peer: Peer,
        *,
        removals: bool,
        only: Set[str] | None = None,
    ) -> None:
        """What of a type is not as Envoy has it, in one message; ``only``: of these names."""
        offered, one = self._offered[kind], peer.types[kind]
        due = one.due if only is None else one.due & only
        there = due & offered.keys()
        names = there if one.all else there & one.wanted
        puts = [offered[name] for name in names if one.sent.get(name) != offered[name].version]
        gone: list[str] = []
        one.due -= there
        if removals:
            gone = [name for name in due - there if one.sent.get(name)]
            one.due -= due
        asked, one.asked = one.asked, set()
        removed = dict.fromkeys([*gone, *(name for name in asked if name not in offered)], "")
        if not (puts or removed) and (one.told or kind not in WILDCARD):
            return
        one.told = True
        self._nonces += 1
        message = discovery_pb2.DeltaDiscoveryResponse(
            type_url=kind, nonce=str(self._nonces), removed_resources=[*removed]
        )
        for put in puts:
            message.resources.add(name=put.name, version=put.version, resource=put.body)
            one.sent[put.name] = put.version
            if kind == CLUSTER and ENDPOINTS in peer.types:
                peer.types[ENDPOINTS].sent.pop(put.name, None)
                peer.types[ENDPOINTS].due.add(put.name)
        for name in gone:
            del one.sent[name]
        versions = {put.name: put.version for put in puts}
        one.awaiting[message.nonce] = {**versions, **removed}
        await stream.send_message(message)

    # --- logs -----------------------------------------------------------------------------------

    async def _take_logs(self, stream: AnyStream) -> None:
        name = ""
        try:
            while (message := await stream.recv_message()) is not None:
                name = message.identifier.log_name or name
                entries = message.http_logs.log_entry or message.tcp_logs.log_entry
                for entry in entries:
                    self._on_log(name, entry)
        except (StreamTerminatedError, ConnectionError):
            return
        await stream.send_message(als_pb2.StreamAccessLogsResponse())
