"""How even the algorithms keep what is open: real connections, made and ended as a workload says.

Workloads are schedules: arrivals by chance, lifetimes as stated. What a moment of the schedule
takes on the clock makes no difference to who is chosen, so nobody waits. Live connections are
the kernel's own counters, after each connection that begins or ends.
"""

from __future__ import annotations

import heapq
import random
import resource
import socket
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from pathlib import Path

from bench.lab import Lab, ip
from sixfold.balancing.table import table_of
from sixfold.host import layout, netns
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import Place
from sixfold.host.shadow import Shadow
from sixfold.model.algorithm import TABLE_SIZE_DEFAULT, Algorithm
from sixfold.model.datapath import Backend, Datapath, EndpointEntry, Frontend, FrontendEntry
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import FIRST_ALLOCATED, Identity

CLIENTS, CONNECTIONS, WARM_UP = 64, 1000, 200
PORT, TCP, BACKLOG = 8080, 6, 4096
SERVERS = tuple(IPv4Address("192.0.2.1") + n for n in range(4))
FIRST_SERVICE = IPv4Address("198.51.100.1")
FILES = 8192

# Connections a second, and how long one lives; as in docs/patterns/load-balancing.md.
WORKLOADS: Mapping[str, tuple[float, Callable[[random.Random], float]]] = {
    "short": (200.0, lambda chance: 0.05 * chance.lognormvariate(0, 1)),
    "long": (0.2, lambda chance: chance.expovariate(1 / 300)),
    "mixed": (
        5.0,
        lambda chance: (
            chance.expovariate(1 / 60)
            if chance.random() < 0.1
            else 0.05 * chance.lognormvariate(0, 1)
        ),
    ),
}
Spread = dict[str, dict[str, float]]  # by algorithm, then workload


def spread(lab: Lab, chance: random.Random) -> Spread:
    """Live connections of the busiest backend over their mean, averaged over the schedule."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    clients = [_client(lab, number) for number in range(CLIENTS)]
    datapath, frontends = _datapath(lab, clients)
    schedules = {name: _schedule(name, chance) for name in WORKLOADS}
    return {
        algorithm.title: {
            workload: round(_run(datapath, clients, frontend, schedule), 3)
            for workload, schedule in schedules.items()
        }
        for algorithm, frontend in frontends.items()
    }


def _client(lab: Lab, number: int) -> Path:
    """A namespace with all backends on its loopback: who is chosen is what is asked here."""
    path = lab.namespace(f"client-{number}")
    ip(path, *(f"addr add {server}/32 dev lo" for server in SERVERS), "route add default dev lo")

    def listen() -> socket.socket:
        listener = socket.create_server(("", PORT), backlog=BACKLOG)
        Path("/proc/sys/net/core/somaxconn").write_text(str(BACKLOG))
        listener.listen(BACKLOG)
        return listener

    lab.stack.callback(netns.run_inside(path, listen).close)
    return path


def _datapath(lab: Lab, clients: list[Path]) -> tuple[KernelDatapath, dict[Algorithm, Frontend]]:
    instance = f"{lab.prefix}spread"
    lab.stack.callback(KernelDatapath.remove, instance)
    datapath = netns.run_inside(clients[0], lambda: KernelDatapath.open(instance))
    lab.stack.callback(datapath.close)
    backends = tuple(Backend.at(server, PORT) for server in SERVERS)
    frontends = {
        algorithm: Frontend.at(FIRST_SERVICE + number, 80, TCP)
        for number, algorithm in enumerate(Algorithm)
    }
    endpoints = {
        number: EndpointEntry(
            number,
            EndpointId(number),
            Identity(FIRST_ALLOCATED + number),
            IPv4Address("10.0.0.0") + number,
            None,
            netns_cookie=netns.run_inside(path, netns.cookie),
        )
        for number, path in enumerate(clients, 1)
    }
    datapath.apply(
        Datapath(
            endpoints=endpoints,
            frontends={
                frontend: FrontendEntry(
                    number, backends, algorithm, table_of(algorithm, backends, TABLE_SIZE_DEFAULT)
                )
                for number, (algorithm, frontend) in enumerate(frontends.items(), 1)
            },
        )
    )
    return datapath, frontends


def _schedule(workload: str, chance: random.Random) -> list[tuple[float, float, int]]:
    """Of each connection when it begins, when it ends, and whose it is."""
    rate, lifetime = WORKLOADS[workload]
    now, found = 0.0, []
    for _ in range(CONNECTIONS):
        now += chance.expovariate(rate)
        found.append((now, now + lifetime(chance), chance.randrange(CLIENTS)))
    return found


def _run(
    datapath: KernelDatapath,
    clients: list[Path],
    frontend: Frontend,
    schedule: list[tuple[float, float, int]],
) -> float:
    numbers = Shadow.read(datapath.maps).numbers
    keys = [layout.U32.pack(numbers[Place(server, PORT, TCP)]) for server in SERVERS]
    sockets = _sockets(clients, [client for _, _, client in schedule])
    ends: list[tuple[float, int]] = []
    busiest = mean = last = 0.0
    live = [0] * len(keys)
    for number, (begin, end, _) in enumerate(schedule):
        events = []
        while ends and ends[0][0] <= begin:
            events.append(heapq.heappop(ends))
        for moment, which in [*events, (begin, number)]:
            if number >= WARM_UP:
                busiest += max(live) * (moment - last)
                mean += sum(live) / len(live) * (moment - last)
            if which == number:
                sockets[which].connect((str(frontend.address), frontend.port))
                heapq.heappush(ends, (end, number))
            else:
                sockets[which].close()
            live = [_live(datapath, key) for key in keys]
            last = moment
    for one in sockets:
        one.close()
    return busiest / mean


def _live(datapath: KernelDatapath, key: bytes) -> int:
    found = datapath.maps["loads"].lookup(key)
    assert found is not None
    return layout.unpack_load(found).active


def _sockets(clients: list[Path], whose: list[int]) -> list[socket.socket]:
    """A socket of a client each, in the order in which they will dial."""
    made: list[socket.socket | None] = [None] * len(whose)
    for client, path in enumerate(clients):
        wanted = [number for number, one in enumerate(whose) if one == client]

        def make(wanted: list[int] = wanted) -> None:
            for number in wanted:
                made[number] = socket.socket(socket.AF_INET, socket.SOCK_STREAM)

        netns.run_inside(path, make)
    return [one for one in made if one is not None]
