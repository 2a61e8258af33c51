"""The door for metrics: ``GET /metrics``, as Prometheus asks.

A unix socket of root's; over TCP it stands open only where ``up --metrics-address`` says. Who reads
changes nothing: it has a door of its own, so that a scraper needs no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sixfold.observe.metrics import OPENMETRICS, TEXT, Family, render


class Handlers(Protocol):
    """What the door needs to be told."""

    async def measure(self) -> Iterable[Family]: ...


def application(told: Handlers) -> Starlette:
    """One route; the format is what the caller asks for, the older one by default."""

    async def metrics(request: Request) -> Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        text = render(await told.measure(), openmetrics=openmetrics)
        return Response(text, headers={"Content-Type": OPENMETRICS if openmetrics else TEXT})

    return Starlette(routes=[Route("/metrics", metrics)])
