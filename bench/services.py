"""Ten thousand services from nothing into the kernel, and one endpoint that changes among thirty.

Each is a process of its own, as an agent that has just started: what it costs does not depend on
what was measured before it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench.balancers import BACKENDS, FIRST_BACKEND, FIRST_SERVICE
from bench.child import in_child
from bench.lab import Lab
from bench.schedule import urgent
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

LOADED, CHANGED = 10_000, 30_000
LOADS, CHANGES, CHILD_S = 5, 15, 60.0
PORT = 8080


def measure(lab: Lab) -> dict[str, float]:
    """Medians, in milliseconds: planning services, loading what was planned into a kernel that
    has nothing, and one endpoint's way there."""
    where = lab.namespace("services")
    loads = [_in_child(lab, "load", where, number) for number in range(LOADS)]
    change = _in_child(lab, "change", where)
    return {
        f"plan {LOADED:,} services, ms": round(statistics.median(it["plan"] for it in loads)),
        f"load {LOADED:,} services, ms": round(statistics.median(it["load"] for it in loads), 1),
        f"one endpoint at {CHANGED:,} services, ms": round(change["change"], 2),
    }


def _in_child(lab: Lab, what: str, where: Path, number: int = 0) -> dict[str, float]:
    instance = f"{lab.prefix}{what}-{number}"
    lab.stack.callback(KernelDatapath.remove, instance)
    arguments = what, str(where), instance
    found = in_child(f"{what} services", "bench.services", *arguments, within_s=CHILD_S)
    KernelDatapath.remove(instance)
    return found


def load(datapath: KernelDatapath) -> dict[str, float]:
    """Milliseconds of planning, and of loading, once."""
    world, _ = _world(LOADED)
    planner, networks = BalancingPlanner(_number), world.config.service_networks
    with urgent(), uncollected():  # as the agent plans
        started = time.perf_counter()
        frontends = planner.plan(world).frontends
        planned = time.perf_counter()
    datapath.apply(Datapath())
    with urgent():
        loading = time.perf_counter()
        datapath.apply(Datapath(frontends=frontends, service_networks=networks))
        loaded = time.perf_counter()
    return {"plan": (planned - started) * 1e3, "load": (loaded - loading) * 1e3}


def change(datapath: KernelDatapath) -> dict[str, float]:
    """Milliseconds from a pod that is not ready any more to the kernel."""
    world, endpoints = _world(CHANGED)
    planner = BalancingPlanner(_number)
    datapath.apply(Datapath(frontends=planner.plan(world).frontends))
    took = []
    for number in range(CHANGES):
        key = f"shop/p{number}"
        endpoints = endpoints.changed({key: replace(endpoints[key], ready=False)})
        world = replace(world, endpoints=endpoints)
        with urgent():
            started = time.perf_counter()
            datapath.apply(Datapath(frontends=planner.plan(world).frontends))
            took.append(time.perf_counter() - started)
    return {"change": statistics.median(took) * 1e3}


def _number(service: str) -> int:
    return int(service.partition("/s")[2]) + 1


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


def main() -> None:
    what, where, instance = sys.argv[1:]
    datapath = netns.run_inside(Path(where), lambda: KernelDatapath.open(instance))
    print(json.dumps({"load": load, "change": change}[what](datapath)))
    datapath.close()


if __name__ == "__main__":
    main()
