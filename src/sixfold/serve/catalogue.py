"""The catalogue's door: targets for Prometheus, as ``http_sd`` reads them.

    GET /prometheus/targets?role=pod|service|endpoints|endpointslice[&namespace=NAME]…

Everybody who reaches the door may read. It is a unix socket of root's; over TCP it stands open
only where ``up --catalog-listen`` says.
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


class Handlers(Protocol):
    """What the door needs to be told."""

    def scene(self) -> Scene: ...


def application(told: Handlers, *, operator: bool) -> Starlette:
    """The door; ``operator``: whoever connects may do all that root may."""

    async def targets(request: Request) -> Response:
        asked = request.query_params
        namespaces = frozenset(asked.getlist("namespace"))
        try:
            found = groups(told.scene(), asked.get("role", "endpoints"), namespaces)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        except UnavailableError as error:  # Prometheus keeps what it knew
            return PlainTextResponse(f"{error}\n", 503)
        return Response(msgspec.json.encode(found), media_type="application/json")

    return Starlette(routes=[Route("/prometheus/targets", targets)])
