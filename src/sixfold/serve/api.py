"""The agent's API: HTTP on a unix socket, mode 0600, JSON in and out.

Thin on purpose: each handler decodes, asks the agent, encodes. Errors are
``{"error": {"message", "problems"}}`` with the status that fits: 422 a manifest, 404 nothing
there, 503 not now, 500 this host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sixfold.errors import (
    HostError,
    ManifestError,
    NotFoundError,
    Problem,
    SixfoldError,
    UnavailableError,
)
from sixfold.mesh.asked import Asked
from sixfold.model.meta import Key

BODY_MAX_BYTES = 64 << 20


class Source(msgspec.Struct):
    source: str = ""
    line: int = 0


class ApplyRequest(msgspec.Struct):
    objects: list[dict[str, Any]]
    sources: list[Source] = []
    wait: bool = False
    dry_run: bool = False
    timeout_s: float = 120.0


class WireKey(msgspec.Struct):
    kind: str
    name: str
    namespace: str = ""


class DeleteRequest(msgspec.Struct):
    keys: list[WireKey]
    wait: bool = False
    grace_s: int | None = None
    ignore_missing: bool = False
    timeout_s: float = 120.0


class ExplainRequest(msgspec.Struct, rename={"source": "from", "destination": "to"}):
    source: str
    destination: str
    port: int | None = None
    protocol: str = "TCP"
    namespace: str = "default"
    asked: Asked | None = None


class ProxyRequest(msgspec.Struct):
    pod: str = ""  # namespace/name: whose proxy; "": the node's


class CaRequest(msgspec.Struct):
    """``sixfold ca``; PEM where it is text."""

    verb: str
    kind: Literal["x509", "jwt"] = "x509"
    id: str = ""
    overlap_s: float = 30.0
    certificates: str = ""
    key: str = ""
    root: str = ""


class Handlers(Protocol):
    """What the API needs of the agent."""

    def status(self) -> dict[str, Any]: ...
    async def apply(self, request: ApplyRequest) -> dict[str, Any]: ...
    async def delete(self, request: DeleteRequest) -> dict[str, Any]: ...
    def objects(self, kind: str, namespace: str, name: str) -> list[Mapping[str, Any]]: ...
    def flows(self, parameters: Mapping[str, Sequence[str]]) -> AsyncIterator[bytes]: ...
    def flows_lost(self) -> int: ...
    def explain(self, request: ExplainRequest) -> Any: ...
    def balancing(self, namespace: str, name: str) -> list[Mapping[str, Any]]: ...
    async def connections(self, service: str, port: int, protocol: str) -> list[dict[str, Any]]: ...
    def resolve(self, name: str, type_: str, namespace: str, source: str) -> dict[str, Any]: ...
    def names(self) -> dict[str, Any]: ...
    def fqdn(self) -> list[Any]: ...
    def svids(self) -> dict[str, Any]: ...
    def authorities(self) -> dict[str, Any]: ...
    async def change_authorities(self, request: CaRequest) -> dict[str, Any]: ...
    async def evidence(self, *, probe: bool) -> Any: ...
    def routes(self) -> list[Any]: ...
    def log(self, key: Key, parameters: Mapping[str, str]) -> AsyncIterator[str]: ...
    def exec_target(self, key: Key, container: str) -> dict[str, Any]: ...
    async def restart_proxy(self, pod: str) -> dict[str, Any]: ...
    def shutdown(self) -> None: ...


def application(agent: Handlers) -> Starlette:
    """The routes under ``/v1``."""
    handlers = _Routes(agent)
    return Starlette(
        routes=[
            Route("/v1/status", _guard(handlers.status)),
            Route("/v1/apply", _guard(handlers.apply), methods=["POST"]),
            Route("/v1/delete", _guard(handlers.delete), methods=["POST"]),
            Route("/v1/objects/{kind}", _guard(handlers.objects)),
            Route("/v1/objects/{kind}/{namespace}", _guard(handlers.objects)),
            Route("/v1/objects/{kind}/{namespace}/{name}", _guard(handlers.objects)),
            Route("/v1/flows", _guard(handlers.flows)),
            Route("/v1/explain", _guard(handlers.explain), methods=["POST"]),
            Route("/v1/balancing", _guard(handlers.balancing)),
            Route("/v1/connections", _guard(handlers.connections)),
            Route("/v1/resolve", _guard(handlers.resolve)),
            Route("/v1/names", _guard(handlers.names)),
            Route("/v1/fqdn", _guard(handlers.fqdn)),
            Route("/v1/svids", _guard(handlers.svids)),
            Route("/v1/authorities", _guard(handlers.authorities)),
            Route("/v1/authorities", _guard(handlers.change_authorities), methods=["POST"]),
            Route("/v1/evidence", _guard(handlers.evidence)),
            Route("/v1/routes", _guard(handlers.routes)),
            Route("/v1/pods/{namespace}/{name}/log", _guard(handlers.log)),
            Route("/v1/pods/{namespace}/{name}/exec", _guard(handlers.exec_target)),
            Route("/v1/proxy/restart", _guard(handlers.restart_proxy), methods=["POST"]),
            Route("/v1/shutdown", _guard(handlers.shutdown), methods=["POST"]),
        ]
    )


Body = TypeVar("Body", bound=msgspec.Struct)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def _json(value: Any, status: int = 200) -> Response:
    body = msgspec.json.encode(value, enc_hook=str)
    return Response(body, status, media_type="application/json")


def _error(status: int, message: str, problems: tuple[Problem, ...] = ()) -> Response:
    return _json({"error": {"message": message, "problems": problems}}, status)


def _guard(handler: Handler) -> Handler:
    """Turn our errors into answers: bad input never takes the agent down."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except ManifestError as error:
            return _error(422, str(error), error.problems)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            return _error(400, f"{request.url.path}: {error}")
        except NotFoundError as error:
            return _error(404, str(error))
        except UnavailableError as error:
            return _error(503, str(error))
        except (HostError, SixfoldError) as error:
            return _error(500, str(error))

    return guarded


class _Routes:
    """One method per route."""

    def __init__(self, agent: Handlers) -> None:
        self._agent = agent

    async def status(self, request: Request) -> Response:
        return _json(self._agent.status())

    async def apply(self, request: Request) -> Response:
        return _json(await self._agent.apply(await _body(request, ApplyRequest)))

    async def delete(self, request: Request) -> Response:
        return _json(await self._agent.delete(await _body(request, DeleteRequest)))

    async def objects(self, request: Request) -> Response:
        path = request.path_params
        namespace = path.get("namespace", "")
        items = self._agent.objects(
            path["kind"], "" if namespace == "-" else namespace, path.get("name", "")
        )
        return _json({"items": items})

    async def flows(self, request: Request) -> Response:
        return StreamingResponse(
            self._agent.flows(_lists(request)),
            media_type="application/x-ndjson",
            headers={"X-Flows-Lost": str(self._agent.flows_lost())},
        )

    async def explain(self, request: Request) -> Response:
        return _json(self._agent.explain(await _body(request, ExplainRequest)))

    async def balancing(self, request: Request) -> Response:
        asked = request.query_params
        found = self._agent.balancing(asked.get("namespace", ""), asked.get("service", ""))
        return _json({"frontends": found})

    async def connections(self, request: Request) -> Response:
        asked = request.query_params
        found = await self._agent.connections(
            f"{asked.get('namespace', 'default')}/{asked['service']}",
            int(asked["port"]),
            asked.get("protocol", "TCP"),
        )
        return _json({"connections": found})

    async def resolve(self, request: Request) -> Response:
        asked = request.query_params
        found = self._agent.resolve(
            asked["name"],
            asked.get("type", "A"),
            asked.get("namespace", "default"),
            asked.get("as", ""),
        )
        return _json(found)

    async def names(self, request: Request) -> Response:
        return _json(self._agent.names())

    async def evidence(self, request: Request) -> Response:
        probe = request.query_params.get("probe") == "true"
        return _json(await self._agent.evidence(probe=probe))

    async def fqdn(self, request: Request) -> Response:
        return _json({"entries": self._agent.fqdn()})

    async def svids(self, request: Request) -> Response:
        return _json(self._agent.svids())

    async def authorities(self, request: Request) -> Response:
        return _json(self._agent.authorities())

    async def change_authorities(self, request: Request) -> Response:
        return _json(await self._agent.change_authorities(await _body(request, CaRequest)))

    async def routes(self, request: Request) -> Response:
        return _json({"routes": self._agent.routes()})

    async def log(self, request: Request) -> Response:
        return StreamingResponse(
            self._agent.log(_pod(request), dict(request.query_params)), media_type="text/plain"
        )

    async def exec_target(self, request: Request) -> Response:
        container = request.query_params.get("container", "")
        return _json(self._agent.exec_target(_pod(request), container))

    async def restart_proxy(self, request: Request) -> Response:
        return _json(await self._agent.restart_proxy((await _body(request, ProxyRequest)).pod))

    async def shutdown(self, request: Request) -> Response:
        self._agent.shutdown()
        return _json({}, 202)


def _lists(request: Request) -> dict[str, list[str]]:
    """Query parameters; each may be given several times."""
    parameters: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        parameters.setdefault(name, []).append(value)
    return parameters


def _pod(request: Request) -> Key:
    return Key("Pod", request.path_params["namespace"], request.path_params["name"])


async def _body(request: Request, kind: type[Body]) -> Body:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_MAX_BYTES:
            raise ValueError(f"body is larger than {BODY_MAX_BYTES >> 20} MiB; apply in parts")
        chunks.append(chunk)
    return msgspec.json.decode(b"".join(chunks), type=kind)
