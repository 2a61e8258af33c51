"""xDS for gRPC clients in pods: the state of the world, over a unix socket (``StreamAggregated…``).

Who asks is what the kernel says of the process at the other end, as for the Workload API; a process
of no pod is told nothing. An answer is all that there is of what was asked for by name; the next
one comes when that is something else. Source: xDS protocol, "State of the World"; gRFC A27.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Server, Stream

from sixfold.mesh.messages import CLUSTER, ENDPOINTS, LISTENER, Resource
from sixfold.serve.grpc_server import serve_until
from sixfold.serve.workload_api import Attest

log = logging.getLogger(__name__)

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
ORDER = (CLUSTER, ENDPOINTS, LISTENER)
AnyStream = Stream[Any, Any]
# What a pod is told of these names of a type.
Tell = Callable[[str, str, Iterable[str]], list[Resource]]


class GrpcXds:
    """Serves clients of all pods; ``changed`` when they may have to be told something else."""

    def __init__(self, attest: Attest, tell: Tell) -> None:
        self._attest = attest
        self._tell = tell
        self._changed = asyncio.Event()
        self._server = Server([self])

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        await serve_until(stop, self._server, listener)

    def changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def __mapping__(self) -> Mapping[str, Handler]:
        """Of grpclib: what is served under which path."""
        return {
            ADS: Handler(
                self._discover,
                Cardinality.STREAM_STREAM,
                discovery_pb2.DiscoveryRequest,
                discovery_pb2.DiscoveryResponse,
            )
        }

    async def _discover(self, stream: AnyStream) -> None:
        assert stream.peer is not None, "there is somebody at the other end"
        # grpclib keeps the socket to itself, and it is all that says who asks.
        workload = self._attest(stream.peer._transport.get_extra_info("socket"))
        if workload is None:
            raise GRPCError(Status.PERMISSION_DENIED, "no identity issued")
        one = _Client(stream, workload.pod, self._tell)
        following = asyncio.ensure_future(self._follow(one))
        try:
            while (request := await stream.recv_message()) is not None:
                await one.take(request)
        except (StreamTerminatedError, ConnectionError):
            pass
        finally:
            following.cancel()

    async def _follow(self, one: _Client) -> None:
        while True:
            await self._changed.wait()
            for kind in ORDER:
                await one.answer(kind)


class _Client:
    """One stream: the names of each type that it wants, and the version that it was sent."""

    def __init__(self, stream: AnyStream, pod: str, tell: Tell) -> None:
        self._stream = stream
        self._pod = pod
        self._tell = tell
        self._wanted: dict[str, frozenset[str]] = {}
        self._sent: dict[str, str] = {}
        self._nonces: dict[str, str] = {}
        self._number = 0

    async def take(self, request: Any) -> None:
        kind, wanted = request.type_url, frozenset(request.resource_names)
        if request.response_nonce != self._nonces.get(kind, ""):
            return  # of an answer that another one came after
        if request.error_detail.message:
            log.warning("gRPC client of %s refuses: %s", self._pod, request.error_detail.message)
        if self._wanted.get(kind) != wanted:
            self._wanted[kind] = wanted
            self._sent.pop(kind, None)
            await self.answer(kind)

    async def answer(self, kind: str) -> None:
        """What is not as the client has it."""
        if kind not in self._wanted:
            return
        found = self._tell(self._pod, kind, self._wanted[kind])
        names = " ".join(f"{one.name} {one.version}" for one in found)
        version = blake2b(names.encode(), digest_size=8).hexdigest()
        if self._sent.get(kind) == version:
            return
        self._sent[kind] = version
        self._number += 1
        self._nonces[kind] = str(self._number)
        await self._stream.send_message(
            discovery_pb2.DiscoveryResponse(
                type_url=kind,
                version_info=version,
                nonce=self._nonces[kind],
                resources=[one.body for one in found],
            )
        )
