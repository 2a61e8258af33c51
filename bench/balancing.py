"""Balancing at scale: connect rate by number of services, loading, one endpoint's change.

Every number of services is a datapath of its own in a namespace of its own, with one real
server behind the service that is dialled; all take short turns, in random order. Four backends
stand behind each of the other services, which nobody dials.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from bench.lab import Lab, inside, ip, run
from bench.schedule import alone, urgent
from sixfold.balancing.plan import BalancingPlanner
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend, Datapath, Frontend, FrontendEntry
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import Subject
from sixfold.model.layers import Layers
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World

SERVICES = (1, 100, 10_000, 30_000)
BACKENDS, LOADED, CHANGED, CHANGES, LOADS = 4, 10_000, 30_000, 15, 3
TURN_S, ROUNDS, TIMEOUT_S, STARTED_S = "0.02", "60", 60.0, 5.0
PORT, TCP = 8080, 6
SERVER = IPv4Address("192.0.2.1")
FIRST_SERVICE, FIRST_BACKEND = IPv4Address("10.64.0.0"), IPv4Address("10.128.0.0")
Figures = dict[str, float]


def measure(lab: Lab, chance: random.Random) -> Figures:
    return {**_connects(lab, chance), **_changes(lab)}


def _connects(lab: Lab, chance: random.Random) -> Figures:
    """Connections a second through one service among so many, as part of that among one."""
    places = []
    for services in SERVICES:
        host = lab.namespace(f"services-{services}")
        ip(host, f"addr add {SERVER}/32 dev lo", "route add default dev lo")
        datapath = _open(lab, host, f"s{services}")
        frontends = crowd(services - 1)
        tested = Frontend(FIRST_SERVICE - 1, 80, TCP)
        frontends[tested] = FrontendEntry(1, (Backend(SERVER, PORT),), Algorithm.LEAST_CONNECTIONS)
        cookie = netns.run_inside(host, netns.cookie)
        datapath.apply(Datapath(frontends=frontends, host_netns_cookie=cookie))
        lab.spawn(host, *alone(str(lab.load), "server", str(PORT)))
        places += [str(host), str(tested.address), "80"]
        _await(lab, host, str(tested.address))
    settings = ("crr", TURN_S, ROUNDS, str(chance.getrandbits(16)))
    lines = run(alone(str(lab.load), "rotate", *settings, *places), timeout_s=TIMEOUT_S)
    rounds = [[float(figure) for figure in line.split()] for line in lines.splitlines()]
    figures: Figures = {}
    for number, services in enumerate(SERVICES):
        rate = statistics.median(each[number] for each in rounds)
        ratio = statistics.median(each[number] / each[0] for each in rounds)
        figures[f"connects a second at {services:,}"] = round(rate)
        figures[f"of one service, at {services:,}"] = round(ratio, 3)
    return figures


def _await(lab: Lab, host: Path, address: str) -> None:
    """Until the server listens."""
    deadline = time.monotonic() + STARTED_S
    while True:
        try:
            run(inside(host, str(lab.load), "crr", address, "80", "0"))
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _changes(lab: Lab) -> Figures:
    """Milliseconds: loading services into the kernel, and one endpoint's way there."""
    host = lab.namespace("changes")
    datapath = _open(lab, host, "changes")
    loading = []
    frontends = crowd(LOADED)
    for _ in range(LOADS):
        datapath.apply(Datapath())
        datapath.apply(Datapath())  # what was released settles
        with urgent():
            started = time.perf_counter()
            datapath.apply(Datapath(frontends=frontends))
            loading.append(time.perf_counter() - started)
    world, endpoints = _world()
    planner = BalancingPlanner(lambda key: int(key.partition("/s")[2]) + 1)
    datapath.apply(Datapath(frontends=planner.plan(world).frontends))
    took = []
    for number in range(CHANGES):
        key = f"shop/p{number}"
        changed = {key: replace(endpoints[key], ready=False)}
        endpoints = endpoints.changed(changed)
        world = replace(world, endpoints=endpoints)
        with urgent():
            started = time.perf_counter()
            datapath.apply(Datapath(frontends=planner.plan(world).frontends))
            took.append(time.perf_counter() - started)
    return {
        f"load {LOADED:,} services, ms": round(statistics.median(loading) * 1e3, 1),
        f"one endpoint at {CHANGED:,} services, ms": round(statistics.median(took) * 1e3, 2),
    }


def _open(lab: Lab, host: Path, name: str) -> KernelDatapath:
    instance = f"{lab.prefix}{name}"
    lab.stack.callback(KernelDatapath.remove, instance)
    datapath = netns.run_inside(host, lambda: KernelDatapath.open(instance))
    lab.stack.callback(datapath.close)
    return datapath


def crowd(services: int) -> dict[Frontend, FrontendEntry]:
    """Services with four backends each, all different."""
    return {
        Frontend(FIRST_SERVICE + n, 80, TCP): FrontendEntry(
            n + 1, tuple(Backend(FIRST_BACKEND + BACKENDS * n + b, PORT) for b in range(BACKENDS))
        )
        for n in range(services)
    }


def _world() -> tuple[World, Layers[str, Endpoint]]:
    """Services of four pods each; the first few thousand pods are in one of them only."""
    pods = {
        f"shop/p{n}": Endpoint(
            "shop",
            f"p{n}",
            f"Pod/p{n}",
            Subject("shop", "default", (("app", f"a{n // BACKENDS}"),), ()),
            ipv4=FIRST_BACKEND + n,
            ready=True,
        )
        for n in range(CHANGED * BACKENDS)
    }
    ports = [ServicePort(80, target_port=PORT)]
    services = {
        f"shop/s{n}": Service(
            ObjectMeta(name=f"s{n}", namespace="shop"),
            ServiceSpec(
                selector={"app": f"a{n}"}, ports=ports, cluster_ips=[str(FIRST_SERVICE + n)]
            ),
        )
        for n in range(CHANGED)
    }
    endpoints = Layers(pods)
    return World(endpoints=endpoints, services=services), endpoints
