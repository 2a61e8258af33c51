"""The SPIFFE Workload API: a workload asks who it is, and is given the proof.

gRPC over a unix socket, without TLS and without credentials: who asks is what the kernel says of
the process at the other end, asked at every call. A process of no pod is given nothing. Source:
SPIFFE Workload API and Endpoint 1.0. Every message of a stream is the whole state; the next comes
when half of an SVID's life is over, or at once when what is trusted changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from asyncio import trsock
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from sixfold.model.spiffe import SpiffeId
from sixfold.serve.grpc_server import serve_until
from sixfold.serve.workload_messages import CLASSES
from sixfold.trust.authority import X509Svid, issue
from sixfold.trust.bundle import Bundle, key_set, roots_der
from sixfold.trust.jwt_svid import issue_jwt, validate_jwt
from sixfold.trust.keyring import Keyring

log = logging.getLogger(__name__)

SERVICE = "/SpiffeWorkloadAPI"
JWT_LIFETIME = timedelta(minutes=5)  # as SPIRE has it
WATCH_S = 1.0  # a process that is not what it was is cut off after that
JITTER = 0.1  # of the time until a renewal: not all at once
Any_Stream = Stream[Any, Any]
Socket = socket.socket | trsock.TransportSocket


@dataclass(frozen=True, slots=True)
class Workload:
    """Who asks. ``watched``: it is one by its program, and may become another."""

    uid: str  # of its pod
    pod: str  # namespace/name
    id: SpiffeId
    watched: bool = False


Attest = Callable[[Socket], Workload | None]


class WorkloadApi:
    """Serves one trust domain.

    issued     the SVIDs that are in use, by pod
    followers  how many streams wait for a pod's next one
    """

    def __init__(
        self,
        keyring: Callable[[], Keyring],
        lifetime: timedelta,
        attest: Attest,
        issuer: str = "",
        foreign: Callable[[], Mapping[str, Bundle]] = dict,
    ) -> None:
        self._keyring = keyring
        self.issued: dict[str, tuple[Workload, X509Svid]] = {}
        self.followers: Counter[str] = Counter()
        self._lifetime = lifetime
        self._attest = attest
        self._issuer = issuer  # of tokens
        self._foreign = foreign
        self._changed = asyncio.Event()
        self._server = Server([self])

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Until told to stop; whoever has a stream open is cut off, and asks the next agent."""
        await serve_until(stop, self._server, listener)

    def changed(self) -> None:
        """What is trusted is not what it was: every stream is told."""
        self._changed.set()
        self._changed = asyncio.Event()

    def keep(self, uids: set[str]) -> None:
        """Forget the SVIDs of all other pods."""
        self.issued = {uid: one for uid, one in self.issued.items() if uid in uids}
        self.followers = Counter({uid: n for uid, n in self.followers.items() if n})

    def __mapping__(self) -> Mapping[str, Handler]:
        """Of grpclib: what is served under which path."""

        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        calls = {
            "FetchX509SVID": (self._fetch_x509_svid, "X509SVID", many),
            "FetchX509Bundles": (self._fetch_x509_bundles, "X509Bundles", many),
            "FetchJWTSVID": (self._fetch_jwt_svid, "JWTSVID", one),
            "FetchJWTBundles": (self._fetch_jwt_bundles, "JWTBundles", many),
            "ValidateJWTSVID": (self._validate_jwt_svid, "ValidateJWTSVID", one),
        }
        return {
            f"{SERVICE}/{name}": Handler(
                call, cardinality, CLASSES[f"{messages}Request"], CLASSES[f"{messages}Response"]
            )
            for name, (call, messages, cardinality) in calls.items()
        }

    # --- calls --------------------------------------------------------------------------------

    async def _fetch_x509_svid(self, stream: Any_Stream) -> None:
        before = b""
        while True:
            changed = self._changed
            workload = await self._caller(stream)
            svid = self._svid(workload)
            message = CLASSES["X509SVIDResponse"]()
            message.svids.add(
                spiffe_id=str(svid.id),
                x509_svid=svid.chain_der,
                x509_svid_key=svid.key_der,
                bundle=roots_der(self._keyring()),
            )
            for name, bundle in self._foreign().items():
                message.federated_bundles[f"spiffe://{name}"] = bundle.roots_der
            if (told := message.SerializeToString(deterministic=True)) != before:
                await stream.send_message(message)
            before = told
            left_s = max((svid.renew_at - datetime.now(UTC)).total_seconds(), 0)
            wait_s = left_s * random.uniform(1, 1 + JITTER) + 0.01
            self.followers[workload.uid] += 1
            try:
                async with asyncio.timeout(min(wait_s, WATCH_S) if workload.watched else wait_s):
                    await changed.wait()
            except TimeoutError:
                pass
            finally:
                self.followers[workload.uid] -= 1

    async def _fetch_x509_bundles(self, stream: Any_Stream) -> None:
        await self._tell(stream, "X509BundlesResponse", roots_der, lambda it: it.roots_der)

    async def _fetch_jwt_svid(self, stream: Any_Stream) -> None:
        request = await _request(stream)
        workload = await self._caller(stream)
        if not request.audience:
            raise GRPCError(Status.INVALID_ARGUMENT, "audience must be specified")
        if request.spiffe_id not in ("", str(workload.id)):
            raise GRPCError(
                Status.PERMISSION_DENIED, f"{request.spiffe_id}: not yours; you are {workload.id}"
            )
        token = issue_jwt(
            self._keyring().jwt_authority,
            workload.id,
            request.audience,
            datetime.now(UTC),
            JWT_LIFETIME,
            self._issuer,
        )
        message = CLASSES["JWTSVIDResponse"]()
        message.svids.add(spiffe_id=str(workload.id), svid=token)
        await stream.send_message(message)

    async def _fetch_jwt_bundles(self, stream: Any_Stream) -> None:
        await self._tell(stream, "JWTBundlesResponse", key_set, lambda it: it.key_set)

    async def _validate_jwt_svid(self, stream: Any_Stream) -> None:
        request = await _request(stream)
        await self._caller(stream)
        if not request.audience or not request.svid:
            raise GRPCError(Status.INVALID_ARGUMENT, "audience and svid must be specified")
        try:
            id_, claims = validate_jwt(
                self._keyring(),
                request.svid,
                request.audience,
                datetime.now(UTC),
                {name: it.jwt_keys for name, it in self._foreign().items()},
            )
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        message = CLASSES["ValidateJWTSVIDResponse"](spiffe_id=str(id_))
        message.claims.update(claims)
        await stream.send_message(message)

    async def _tell(
        self,
        stream: Any_Stream,
        message: str,
        told: Callable[[Keyring], bytes],
        of: Callable[[Bundle], bytes],
    ) -> None:
        """Bundles, whenever they are others."""
        before = None
        while True:
            changed = self._changed
            await self._caller(stream)
            bundles = {f"spiffe://{name}": of(it) for name, it in self._foreign().items()}
            bundles[f"spiffe://{self._keyring().trust_domain}"] = told(self._keyring())
            if bundles != before:
                await stream.send_message(CLASSES[message](bundles=bundles))
            before = bundles
            await changed.wait()

    async def _caller(self, stream: Any_Stream) -> Workload:
        """Who asks; GRPCError when the call lacks its header, or is nobody's."""
        if not stream.metadata or stream.metadata.get("workload.spiffe.io") != "true":
            raise GRPCError(
                Status.INVALID_ARGUMENT, "security header missing from request: workload.spiffe.io"
            )
        # grpclib keeps the socket to itself, and it is all that says who asks.
        workload = self._attest(stream.peer._transport.get_extra_info("socket"))
        if workload is None:
            raise GRPCError(
                Status.PERMISSION_DENIED,
                "no identity issued: not a process of a pod, or not one that may have its identity",
            )
        return workload

    def _svid(self, workload: Workload) -> X509Svid:
        """What this pod has, unless it is to be renewed."""
        now, keyring = datetime.now(UTC), self._keyring()
        _, svid = self.issued.get(workload.uid, (workload, None))
        if (
            svid is None
            or svid.id != workload.id
            or svid.authority not in keyring.trusted
            or now >= svid.renew_at
        ):
            svid = issue(keyring.authority, workload.id, now, self._lifetime)
            self.issued[workload.uid] = (workload, svid)
        return svid


async def _request(stream: Any_Stream) -> Any:
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "no request")
    return request
