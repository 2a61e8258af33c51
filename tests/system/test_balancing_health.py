"""Health, lifetimes and endings of backends: real sockets through one stack."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from sixfold.cli.client import Client

from .conftest import System
from .places import OPEN, Place, manifest, places_of, pod, policy, service

pytestmark = pytest.mark.root

PODS = ("web-0", "web-1")
PORTS = [{"name": "tcp", "port": 80, "targetPort": 8080}]
LASTING = [{**PORTS[0], "targetPort": 8081}]


@dataclass
class Town:
    system: System
    client: Place
    places: dict[str, Place]
    vips: dict[str, str]
    lasting: list[socket.socket]  # held open, through service ``lasting``

    @contextmanager
    def serving(self, *names: str) -> Iterator[list[socket.socket]]:
        with ExitStack() as stack:
            yield [stack.enter_context(self.places[name].listen()) for name in names or PODS]

    def frontend(self, name: str) -> dict:
        asked = {"namespace": "default", "service": name}
        return Client(self.system.paths.api_socket).get("/v1/balancing", asked)["frontends"][0]


def annotated(made: dict, **annotations: str) -> dict:
    """With annotations of ours: ``lb_algorithm`` is ``sixfold.dev/lb-algorithm``."""
    written = {f"sixfold.dev/{key.replace('_', '-')}": one for key, one in annotations.items()}
    made["metadata"]["annotations"] = written
    return made


@pytest.fixture(scope="module")
def town(module_system: System) -> Iterator[Town]:
    module_system.up(
        manifest=manifest(
            pod("client"),
            *(pod(name, labels={"app": "web"}) for name in PODS),
            service("web", ports=PORTS),
            annotated(
                service("rotating", selector={"app": "web"}, ports=LASTING), lb_algorithm="random"
            ),
            service("lasting", selector={"app": "web"}, ports=LASTING),
            policy("open", None, **OPEN),
        )
    )
    names = ("client", *PODS)
    places = dict(zip(names, places_of(module_system, *names), strict=True))
    items = module_system.json("get", "svc")["items"]
    vips = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in items}
    client = places.pop("client")
    with ExitStack() as stack:
        # What lives long is found out while the other tests run.
        for name in PODS:
            stack.enter_context(places[name].listen(8081))
        lasting = [stack.enter_context(client.dial(vips["lasting"], 80)) for _ in range(12)]
        yield Town(module_system, client, places, vips, lasting)


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


def test_connections_that_are_seen_to_live_long_get_least_connections(town: Town):
    """Last: it takes ten seconds of them. They go on, and the next agent knows it, too."""
    found = town.system.eventually(
        lambda: (one := town.frontend("lasting"))["algorithm"] != "random" and one,
        "least-connections, as they last",
    )
    assert found["algorithm"] == "least-connections"
    assert "seen: its connections live long" in found["why"]
    assert town.frontend("web")["algorithm"] == "random"
    for sock in town.lasting:
        sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    # Who rotates over the same backends all the same is told so, and that one alone.
    audit = json.loads(town.system.sixfold("audit", "--rule", "Z23", "-o", "json").stdout)
    assert [one["about"] for one in audit] == ["default/Service/rotating"]
    assert "on average" in audit[0]["evidence"]
    os.kill(town.system.agent_pid(), signal.SIGKILL)
    town.system.up()
    explained = town.system.sixfold("explain", "client", "lasting:80").stdout
    assert "seen: its connections live long" in explained
    described = town.system.sixfold("describe", "svc", "lasting").stdout
    assert "80/TCP least-connections (seen: its connections live long" in described
    assert "last" in town.system.agent_log()
