"""Consul's HTTP API: catalogue, health and the agent's own services and checks.

Source: Consul's API reference; what clients really send was seen with py-consul, npm's consul and
fabio. Lists can be asked for with ``index`` and ``wait``: the answer comes when the index of that
very service exceeds it. Errors are text, as Consul's are. What is not here says so: 404 for a
path, 501 for keys and values.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sixfold import __version__
from sixfold.discovery import consul
from sixfold.discovery.catalog import Catalogue, Registered
from sixfold.discovery.consul import Sight
from sixfold.discovery.filters import FilterError, compile_filter
from sixfold.discovery.registration import STATUSES, RegistrationError, Status, duration_s
from sixfold.errors import NotFoundError, SixfoldError, UnavailableError
from sixfold.serve.callers import Caller, DeniedError, Door

BODY_MAX = 64 << 10
WAIT_S, WAIT_MAX_S = 300.0, 600.0
JITTER = 1 / 16
WAITING_MAX, WAITING_EACH_MAX = 2048, 512
VERBS: dict[str, Status] = {"pass": "passing", "warn": "warning", "fail": "critical"}
NO_KEYS = "key/value store: not supported by sixfold; this is its catalogue only\n"


class Handlers(Protocol):
    """What the door needs of the agent."""

    catalogue: Catalogue

    def caller(self, request: Request, door: Door) -> Caller: ...
    def sight(self, caller: Caller, namespace: str) -> Sight: ...
    def index(self, caller: Caller, service: str | None) -> int: ...
    def changed(self, service: str) -> asyncio.Future[None]: ...
    async def register(self, caller: Caller, body: dict[str, Any], namespace: str) -> None: ...
    async def deregister(self, caller: Caller, id_: str) -> None: ...
    async def register_check(self, caller: Caller, body: dict[str, Any]) -> None: ...
    async def deregister_check(self, caller: Caller, id_: str) -> None: ...
    async def say(self, caller: Caller, check_id: str, status: Status, output: str) -> None: ...
    async def maintain(self, caller: Caller, id_: str, reason: str | None) -> None: ...
    def registered(self, caller: Caller) -> Iterable[Registered]: ...


Answer = Callable[["_Question"], Awaitable[Any] | Any]


class _Question:
    """One request: who asks, what for."""

    def __init__(self, request: Request, told: Handlers, door: Door) -> None:
        self.request = request
        self.asked = request.query_params
        self.path: dict[str, str] = request.path_params
        self.caller = told.caller(request, door)
        self.namespace = self.asked.get("ns", "") or self.caller.namespace
        if (dc := self.asked.get("dc", "")) not in ("", consul.DATACENTER):
            raise _Refused(500, f'No path to datacenter "{dc}"')
        self.sight = told.sight(self.caller, self.namespace)

    def flag(self, name: str) -> bool:
        return name in self.asked and self.asked[name].lower() not in ("false", "0")

    async def body(self) -> dict[str, Any]:
        chunks, size = [], 0
        async for chunk in self.request.stream():
            size += len(chunk)
            if size > BODY_MAX:
                raise _Refused(413, f"Request body too large: give at most {BODY_MAX} bytes")
            chunks.append(chunk)
        body = msgspec.json.decode(b"".join(chunks) or b"{}")
        if not isinstance(body, dict):
            raise _Refused(400, "Request decode failed: give a JSON object")
        return body

    def filtered(self, values: Sequence[Any], of: type[msgspec.Struct]) -> list[Any]:
        wanted = compile_filter(self.asked.get("filter", ""), of)
        return [value for value in values if wanted(value)]


class _Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ConsulApi:
    """The routes below ``/v1``."""

    def __init__(self, told: Handlers, door: Door) -> None:
        self._told = told
        self._door = door
        self._waiting: Counter[str] = Counter()

    def routes(self) -> list[Route]:
        get, put = ["GET"], ["PUT", "POST"]
        listed: list[tuple[str, Answer, list[str]]] = [
            ("catalog/datacenters", lambda _: [consul.DATACENTER], get),
            ("catalog/nodes", self._nodes, get),
            ("catalog/services", self._services, get),
            ("catalog/service/{name}", self._catalog_service, get),
            ("catalog/node/{node}", self._catalog_node, get),
            ("health/service/{name}", self._health_service, get),
            ("health/checks/{name}", self._health_checks, get),
            ("health/node/{node}", self._health_node, get),
            ("health/state/{state}", self._health_state, get),
            ("status/leader", lambda q: f"{q.sight.node().Address}:8300", get),
            ("status/peers", lambda q: [f"{q.sight.node().Address}:8300"], get),
            ("agent/self", lambda q: consul.agent_self(q.sight.config, __version__), get),
            ("agent/members", lambda q: [consul.member(q.sight.config)], get),
            ("agent/services", self._agent_services, get),
            ("agent/service/{id}", self._agent_service, get),
            ("agent/checks", self._agent_checks, get),
            ("agent/service/register", self._register, put),
            ("agent/service/deregister/{id}", self._deregister, put),
            ("agent/service/maintenance/{id}", self._maintenance, put),
            ("agent/maintenance", self._node_maintenance, put),
            ("agent/check/register", self._register_check, put),
            ("agent/check/deregister/{id}", self._deregister_check, put),
            ("agent/check/update/{id}", self._update_check, put),
            ("agent/check/{verb}/{id}", self._tell_check, put),
        ]
        routes = [
            Route(f"/v1/{path}", self._guarded(answer), methods=methods)
            for path, answer, methods in listed
        ]
        kv = Route("/v1/kv/{key:path}", self._guarded(self._kv), methods=["GET"])
        no_kv = Route("/v1/kv/{key:path}", _no_keys, methods=["PUT", "POST", "DELETE"])
        rest = Route("/v1/{path:path}", _not_here, methods=["GET", "PUT", "POST", "DELETE"])
        return [*routes, kv, no_kv, rest]

    def _guarded(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                found = answer(_Question(request, self._told, self._door))
                return await self._reply(found)
            except DeniedError as error:
                return PlainTextResponse(f"{error}", 403)
            except _Refused as error:
                return PlainTextResponse(f"{error}", error.status)
            except NotFoundError as error:
                return PlainTextResponse(f"{error}", 404)
            except UnavailableError as error:
                return PlainTextResponse(f"{error}", 503)
            except (RegistrationError, FilterError, ValueError, msgspec.MsgspecError) as error:
                return PlainTextResponse(f"{error}", 400)
            except SixfoldError as error:
                return PlainTextResponse(f"{error}", 500)

        return guarded

    async def _reply(self, found: Any) -> Response:
        value = await found if asyncio.iscoroutine(found) else found
        index = self._told.catalogue.index
        if isinstance(value, _Listed):
            value, index = value.value, value.index
        headers = {
            "X-Consul-Index": str(max(1, index)),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
            "X-Consul-Default-Acl-Policy": "deny",
        }
        if value is None:
            return Response(b"", headers=headers)
        body = msgspec.json.encode(value)
        return Response(body, headers=headers, media_type="application/json")

    # --- blocking -------------------------------------------------------------------------

    async def _blocked(
        self, question: _Question, answer: Callable[[], Any], service: str | None = None
    ) -> _Listed:
        """The answer, once the index exceeds what the client knows; or what it knows, again.

        What policy lets the client know is part of the answer, and so of the index.

        An index beyond ours is of another agent's time: answered at once.
        """
        catalogue = self._told.catalogue

        def index() -> int:
            return self._told.index(question.caller, service)

        known = int(question.asked.get("index", "0") or 0)
        answer()  # what cannot be answered is refused before anybody waits
        if index() <= known <= catalogue.index:
            wait_s = min(duration_s(question.asked.get("wait") or WAIT_S) or WAIT_S, WAIT_MAX_S)
            wait_s += random.random() * wait_s * JITTER
            with self._seat(question.caller.who), contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._until(question.request, service or "", lambda: index() > known)
        return _Listed(answer(), max(1, index()))

    async def _until(self, request: Request, service: str, over: Callable[[], bool]) -> None:
        """Until it is over, or the client has left."""
        leaving = asyncio.ensure_future(_left(request))
        try:
            while not over() and not leaving.done():
                change = self._told.changed(service)
                await asyncio.wait((change, leaving), return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            leaving.cancel()

    @contextlib.contextmanager
    def _seat(self, who: str) -> Any:
        """Nobody takes all the room there is for waiting."""
        full = self._waiting[who] >= WAITING_EACH_MAX or self._waiting.total() >= WAITING_MAX
        if full:
            raise _Refused(429, f"Too many blocking queries: {WAITING_EACH_MAX} for each client")
        self._waiting[who] += 1
        try:
            yield
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._waiting[who]

    # --- catalogue and health -------------------------------------------------------------

    async def _nodes(self, q: _Question) -> Any:
        return await self._blocked(q, lambda: q.filtered([q.sight.node()], consul.Node))

    async def _services(self, q: _Question) -> Any:
        if "filter" in q.asked:
            raise _Refused(400, "filter: not supported of a list of names")
        return await self._blocked(q, q.sight.services)

    async def _catalog_service(self, q: _Question) -> Any:
        key = q.sight.key(self.name_of(q))

        def answer() -> Any:
            found = consul.tagged(self._near(q, key), q.asked.getlist("tag"))
            return q.filtered(list(map(q.sight.catalog_service, found)), consul.CatalogService)

        return await self._blocked(q, answer, key)

    async def _catalog_node(self, q: _Question) -> Any:
        def answer() -> Any:
            if q.path["node"] != q.sight.config.node:
                return None
            services = q.filtered(list(map(q.sight.service, q.sight.instances())), consul.Service)
            return {"Node": q.sight.node(), "Services": {one.ID: one for one in services}}

        return await self._blocked(q, answer)

    async def _health_service(self, q: _Question) -> Any:
        key = q.sight.key(self.name_of(q))

        def answer() -> Any:
            found = consul.tagged(self._near(q, key), q.asked.getlist("tag"))
            found = consul.passing(found) if q.flag("passing") else found
            return q.filtered(list(map(q.sight.entry, found)), consul.ServiceEntry)

        return await self._blocked(q, answer, key)

    async def _health_checks(self, q: _Question) -> Any:
        key = q.sight.key(self.name_of(q))

        def answer() -> Any:
            checks = [check for one in self._near(q, key) for check in q.sight.checks(one)]
            return q.filtered(checks, consul.HealthCheck)

        return await self._blocked(q, answer, key)

    async def _health_node(self, q: _Question) -> Any:
        def answer() -> Any:
            if q.path["node"] != q.sight.config.node:
                return []
            return q.filtered(self._all_checks(q), consul.HealthCheck)

        return await self._blocked(q, answer)

    async def _health_state(self, q: _Question) -> Any:
        state = q.path["state"]
        if state not in ("any", *STATUSES):
            raise _Refused(400, f'Invalid state "{state}": give any, {", ".join(STATUSES)}')

        def answer() -> Any:
            checks = [one for one in self._all_checks(q) if state in ("any", one.Status)]
            return q.filtered(checks, consul.HealthCheck)

        return await self._blocked(q, answer)

    def name_of(self, q: _Question) -> str:
        return q.path["name"]

    def _near(self, q: _Question, key: str) -> list[Any]:
        """There is one node: everybody is as near as everybody else."""
        if q.asked.get("near", "_agent") not in ("_agent", "_ip", q.sight.config.node):
            raise _Refused(400, f'near: there is no node "{q.asked["near"]}"')
        return q.sight.instances(key) if key else []

    def _all_checks(self, q: _Question) -> list[consul.HealthCheck]:
        instances = q.sight.instances()
        return [q.sight.node_check(), *(c for one in instances for c in q.sight.checks(one))]

    async def _kv(self, q: _Question) -> Any:
        """No key is there: clients that watch one wait, as fabio does."""
        if "index" in q.asked:
            await self._blocked(q, lambda: None)
        raise _Refused(404, "")

    # --- the agent's own ------------------------------------------------------------------

    def _own(self, q: _Question) -> list[Any]:
        ids = {one.registration.id for one in self._told.registered(q.caller)}
        found = self._told.catalogue.instances.values()
        return [one for each in found for one in each if one.id in ids]

    def _agent_services(self, q: _Question) -> Any:
        services = q.filtered(list(map(q.sight.service, self._own(q))), consul.Service)
        return {one.ID: one for one in services}

    def _agent_service(self, q: _Question) -> Any:
        for one in self._own(q):
            if one.id == q.path["id"]:
                return q.sight.service(one)
        raise NotFoundError(f"unknown service ID: {q.path['id']}")

    def _agent_checks(self, q: _Question) -> Any:
        checks = [check for one in self._own(q) for check in q.sight.checks(one)]
        return {one.CheckID: one for one in q.filtered(checks, consul.HealthCheck)}

    async def _register(self, q: _Question) -> None:
        await self._told.register(q.caller, await q.body(), q.namespace)

    async def _deregister(self, q: _Question) -> None:
        await self._told.deregister(q.caller, q.path["id"])

    async def _maintenance(self, q: _Question) -> None:
        if q.asked.get("enable") not in ("true", "false"):
            raise _Refused(400, "Missing value for enable: give true or false")
        reason = q.asked.get("reason", "") or "Maintenance mode is enabled for this service"
        on = q.asked["enable"] == "true"
        await self._told.maintain(q.caller, q.path["id"], reason if on else None)

    async def _node_maintenance(self, q: _Question) -> None:
        raise _Refused(
            501, "maintenance of the node: not supported; give a service's, or drain pods"
        )

    async def _register_check(self, q: _Question) -> None:
        await self._told.register_check(q.caller, await q.body())

    async def _deregister_check(self, q: _Question) -> None:
        await self._told.deregister_check(q.caller, q.path["id"])

    async def _tell_check(self, q: _Question) -> None:
        status = VERBS.get(q.path["verb"])
        if status is None:
            raise _Refused(404, f"check/{q.path['verb']}: give pass, warn, fail or update")
        await self._told.say(q.caller, q.path["id"], status, q.asked.get("note", ""))

    async def _update_check(self, q: _Question) -> None:
        body = {str(name).lower(): value for name, value in (await q.body()).items()}
        status = body.get("status")
        if status not in STATUSES:
            raise _Refused(400, f'Invalid check status: "{status}"')
        await self._told.say(q.caller, q.path["id"], status, str(body.get("output") or ""))


class _Listed:
    """An answer with the index that it has."""

    def __init__(self, value: Any, index: int) -> None:
        self.value = value
        self.index = index


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _no_keys(request: Request) -> Response:
    return PlainTextResponse(NO_KEYS, 501)


async def _not_here(request: Request) -> Response:
    what = f"{request.method} {request.url.path}"
    return PlainTextResponse(f"{what}: not supported by sixfold; see docs/patterns\n", 404)
