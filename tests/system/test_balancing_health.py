"""Health, lifetimes and endings of backends: real sockets through one stack."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from .conftest import System
from .places import OPEN, Place, manifest, places_of, pod, policy, service

pytestmark = pytest.mark.root

PODS = ("web-0", "web-1")
PORTS = [{"name": "tcp", "port": 80, "targetPort": 8080}]


@dataclass
class Town:
    system: System
    client: Place
    places: dict[str, Place]
    vips: dict[str, str]

    @contextmanager
    def serving(self, *names: str) -> Iterator[list[socket.socket]]:
        with ExitStack() as stack:
            yield [stack.enter_context(self.places[name].listen()) for name in names or PODS]


def annotated(made: dict, **annotations: str) -> dict:
    """With annotations of ours: ``lb_algorithm`` is ``sixfold.dev/lb-algorithm``."""
    written = {f"sixfold.dev/{key.replace('_', '-')}": one for key, one in annotations.items()}
    made["metadata"]["annotations"] = written
    return made


@pytest.fixture(scope="module")
def town(module_system: System) -> Town:
    module_system.up(
        manifest=manifest(
            pod("client"),
            *(pod(name, labels={"app": "web"}) for name in PODS),
            service("web", ports=PORTS),
            policy("open", None, **OPEN),
        )
    )
    names = ("client", *PODS)
    places = dict(zip(names, places_of(module_system, *names), strict=True))
    items = module_system.json("get", "svc")["items"]
    vips = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in items}
    return Town(module_system, places.pop("client"), places, vips)


def test_what_was_recorded_is_compared(town: Town):
    """Arrivals from the flow log, ends from conntrack; some are open still."""
    with town.serving(), ExitStack() as stack:
        for _ in range(25):
            town.client.dial(town.vips["web"], 80).close()
        for _ in range(5):
            stack.enter_context(town.client.dial(town.vips["web"], 80))
        said = town.system.sixfold("lb", "compare", "web").stdout
        assert "30 recorded" in said
        assert "5 of them still open" in said
        answer = town.system.json("lb", "compare", "web")
    assert len(answer["backends"]) == 2
    assert all(one["imbalance"] >= 1 for one in answer["algorithms"])
