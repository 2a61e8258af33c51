"""The catalogue's door: Consul's HTTP API below ``/v1``, and targets for Prometheus.

    GET /prometheus/targets?role=pod|service|endpoints|endpointslice[&namespace=NAME]…

It is a unix socket of root's; over TCP it stands open only where ``up --catalog-listen`` says.
Who may read and register what: ``callers``, and ``agent/catalogue.py``.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sixfold.discovery.prometheus import Scene, groups
from sixfold.errors import UnavailableError
from sixfold.serve import consul
from sixfold.serve.callers import Caller, DeniedError, Door


class Handlers(consul.Handlers, Protocol):
    """What the door needs to be told."""

    def scene(self, caller: Caller) -> Scene: ...


def application(told: Handlers, door: Door) -> Starlette:
    """One door and all that is behind it."""

    async def targets(request: Request) -> Response:
        asked = request.query_params
        namespaces = frozenset(asked.getlist("namespace"))
        try:
            scene = told.scene(told.caller(request, door))
            found = groups(scene, asked.get("role", "endpoints"), namespaces)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        except DeniedError as error:
            return PlainTextResponse(f"{error}\n", 403)
        except UnavailableError as error:  # Prometheus keeps what it knew
            return PlainTextResponse(f"{error}\n", 503)
        return Response(msgspec.json.encode(found), media_type="application/json")

    routes = consul.ConsulApi(told, door).routes()
    return Starlette(routes=[Route("/prometheus/targets", targets), *routes])
