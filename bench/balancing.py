"""Balancing at scale: connects and round trips beside peers, loading, a change, spread."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import balancers, packages
from bench.balancers import BACKENDS, FIRST_BACKEND, FIRST_SERVICE, PORTS
from bench.lab import Lab
from bench.peers import SERVER, Peer
from bench.schedule import alone, urgent
from bench.spread import Spread, spread
from bench.traffic import Traffic, await_server, rotate
from sixfold.balancing.plan import BalancingPlanner
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.model.datapath import Datapath
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import Subject
from sixfold.model.layers import Layers
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World
from sixfold.policy.uncollected import uncollected

SERVICES = (1, 100, 10_000, 30_000)
LOADED, CHANGED, CHANGES, LOADS = 10_000, 30_000, 15, 3
ROUNDS = {"crr": 60, "rr": 40}
PORT = 8080
METRICS: Mapping[str, tuple[str, str, float]] = {
    "crr": ("connect, request, response", "1000/s", 1e-3),
    "rr": ("TCP_RR", "1000/s", 1e-3),
}


@dataclass
class Balancing:
    """Traffic by way and number of services, milliseconds of changes, spread by algorithm."""

    traffic: Traffic
    changes: dict[str, float]
    spread: Spread
    versions: dict[str, str]


def measure(lab: Lab, chance: random.Random) -> Balancing:
    missing = packages.missing(balancers.PACKAGES)
    installed = [package for binary, package in balancers.PACKAGES.items() if binary not in missing]
    return Balancing(
        _traffic(lab, missing, chance),
        _changes(lab),
        spread(lab, chance),
        packages.versions(" ".join(installed).split()),
    )


def _traffic(lab: Lab, missing: Mapping[str, str], chance: random.Random) -> Traffic:
    ways: list[tuple[str, Callable[[], Peer]]] = []
    for services in SERVICES:
        ways += [
            ("", partial(balancers.sixfold, lab, services)),
            ("nft", partial(balancers.nftables, lab, services)),
            ("iptables-legacy-restore", partial(balancers.iptables, lab, services)),
        ]
    ways += [("haproxy", partial(balancers.haproxy, lab)), ("nginx", partial(balancers.nginx, lab))]
    peers = [make() for binary, make in ways if binary not in missing]
    for peer in peers:
        for port in PORTS:
            lab.spawn(peer.server, *alone(str(lab.load), "server", str(port)))
            await_server(lab, replace(peer, address=SERVER, port=port))
        await_server(lab, peer)
    figures = {
        metric: rotate(lab, peers, metric, rounds, METRICS[metric][2], chance)
        for metric, rounds in ROUNDS.items()
    }
    return Traffic(figures, dict(missing))


def _changes(lab: Lab) -> dict[str, float]:
    """Milliseconds: planning services, loading what was planned into a kernel that has nothing,
    and one endpoint's way there."""
    host = lab.namespace("changes")
    planning, loading = [], []
    world, _ = _world(LOADED)
    for number in range(LOADS):
        planner = BalancingPlanner(_number)
        with urgent(), uncollected():  # as the agent plans
            started = time.perf_counter()
            frontends = planner.plan(world).frontends
            planning.append(time.perf_counter() - started)
        datapath = _open(lab, host, f"load-{number}")
        datapath.apply(Datapath())
        with urgent():
            started = time.perf_counter()
            datapath.apply(Datapath(frontends=frontends))
            loading.append(time.perf_counter() - started)
    world, endpoints = _world(CHANGED)
    planner = BalancingPlanner(_number)
    datapath = _open(lab, host, "changes")
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
        f"plan {LOADED:,} services, ms": round(statistics.median(planning) * 1e3),
        f"load {LOADED:,} services, ms": round(statistics.median(loading) * 1e3, 1),
        f"one endpoint at {CHANGED:,} services, ms": round(statistics.median(took) * 1e3, 2),
    }


def _number(service: str) -> int:
    return int(service.partition("/s")[2]) + 1


def _open(lab: Lab, host: Path, name: str) -> KernelDatapath:
    instance = f"{lab.prefix}{name}"
    lab.stack.callback(KernelDatapath.remove, instance)
    datapath = netns.run_inside(host, lambda: KernelDatapath.open(instance))
    lab.stack.callback(datapath.close)
    return datapath


def _world(count: int) -> tuple[World, Layers[str, Endpoint]]:
    """So many services of four pods each; the first few thousand pods are in one of them only."""
    pods = {
        f"shop/p{n}": Endpoint(
            "shop",
            f"p{n}",
            f"Pod/p{n}",
            Subject("shop", "default", (("app", f"a{n // BACKENDS}"),), ()),
            ipv4=FIRST_BACKEND + n,
            ready=True,
        )
        for n in range(count * BACKENDS)
    }
    ports = [ServicePort(80, target_port=PORT)]
    services = {
        f"shop/s{n}": Service(
            ObjectMeta(name=f"s{n}", namespace="shop"),
            ServiceSpec(
                selector={"app": f"a{n}"}, ports=ports, cluster_ips=[str(FIRST_SERVICE + n)]
            ),
        )
        for n in range(count)
    }
    endpoints = Layers(pods)
    return World(endpoints=endpoints, services=services), endpoints
