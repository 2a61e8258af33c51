"""Opaque TCP in mTLS from pod to pod, beside the same two hops through HAProxy and nginx.

Everybody's proxies have one thread each, and share one CPU with client and server, in one run. CPU
is what the proxies' threads took, by the kernel's count (schedstat). What the others verify, and
how they carry requests: ``mesh_peers``. Sixfold takes requests of HTTP as it takes everything that
no route or rule is about, as bytes; it verifies the chain and the peer's SPIFFE ID at both ends,
and asks policy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench import mesh_changes
from bench.instance import Instance, pod, policy
from bench.lab import Lab, inside, run, settle
from bench.mesh_peers import HAPROXY_HTTP, NGINX_HTTP, mesh_peers
from bench.peers import PORT, Peer
from bench.schedule import alone, measured_cpu
from bench.traffic import TURN_S, Traffic, await_server, rotate
from sixfold.host import cgroup
from sixfold.host.paths import Paths

METRICS = {
    "rr": ("request and answer", "1000/s", 1e-3),
    "http": ("32 connections, HTTP/1.1, requests", "1000/s", 1e-3),
    "p50": ("the same at 2,000/s, half of them within", "µs", 1),
    "p99": ("99 of 100 within", "µs", 1),
    "crr": ("connect, request, answer", "1000/s", 1e-3),
    "stream": ("one stream", "Gb/s", 1e-9),
}
ROUNDS = {"rr": 60, "http": 40, "p50": 20, "p99": 5, "crr": 40, "stream": 40}
TURNS_S = {"p50": 0.05, "p99": 0.25}
COSTS = {"rr": "a request alone", "http": "one among 32", "crr": "a connection"}  # of proxies' CPU
OF_REQUESTS = ("http", "p50", "p99")
PLAINTEXT, OURS = "plaintext", "Sixfold"
CPU_ROUNDS, CPU_S = 5, 0.4
CROWD = 50  # pods, to see what one costs
Processes = Callable[[], Iterable[int]]


@dataclass
class Mesh:
    """cpu_us: of the proxies, per request or connection, by round; memory: of Envoy, in MB."""

    traffic: Traffic
    cpu_us: dict[str, dict[str, list[float]]]
    memory_mb: dict[int, float] = field(default_factory=dict)
    change_ms: dict[int, list[float]] = field(default_factory=dict)  # by routed services


def measure(lab: Lab, chance: random.Random) -> Mesh:
    instance, ours = _pods(lab)
    peers = list(ours)
    pids: dict[str, Processes] = {OURS: lambda: cgroup.processes(_group(instance))}
    for peer, running in mesh_peers(lab):
        peers.append(peer)
        pids[peer.name] = lambda running=running: running
    for pid in cgroup.processes(_group(instance)):
        run(["taskset", "-acp", str(measured_cpu()), str(pid)])
        run(["chrt", "-a", "-f", "-p", "1", str(pid)])
    for peer in peers:
        lab.spawn(peer.server, *alone(str(lab.load), "server", str(PORT)))
        await_server(lab, peer, "http" if peer.name in (HAPROXY_HTTP, NGINX_HTTP) else "rr")
    traffic = Traffic({})
    for metric, (_, _, scale) in METRICS.items():
        turn_s = TURNS_S.get(metric, TURN_S)
        ways = _ways(peers, metric)
        figures = rotate(lab, ways, metric, ROUNDS[metric], scale, chance, turn_s)
        traffic.figures[metric] = figures
    cpu: dict[str, dict[str, list[float]]] = {metric: {} for metric in COSTS}
    for metric, costs in cpu.items():
        ways = [peer for peer in _ways(peers, metric) if peer.name in pids]
        for _ in range(CPU_ROUNDS):
            for peer in chance.sample(ways, len(ways)):
                took = _cpu_us(lab, peer, metric, pids[peer.name]())
                costs.setdefault(peer.name, []).append(took)
    changes = mesh_changes.measure(instance, ours[1].client, "mtls-server")
    return Mesh(traffic, cpu, _memory(instance), changes)


def _ways(peers: Iterable[Peer], metric: str) -> list[Peer]:
    """Those that carry it."""
    return [
        peer
        for peer in peers
        if metric in OF_REQUESTS or peer.name not in (HAPROXY_HTTP, NGINX_HTTP)
    ]


def _pods(lab: Lab) -> tuple[Instance, list[Peer]]:
    """Two pairs of pods, of which one is left in plaintext."""
    instance = Instance(lab, "mesh", "--mtls", "strict", "--proxy-concurrency", "1")
    names = {PLAINTEXT: "plain", OURS: "mtls"}
    objects = [pod(f"{name}-{end}") for name in names.values() for end in ("client", "server")]
    everyone = policy("all", ingress=[{}], egress=[{}])
    everyone["spec"]["podSelector"] = {}
    exempt = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "plain", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "plain-server"}},
            "mtls": {"mode": "DISABLE"},
        },
    }
    instance.apply([*objects, everyone, exempt])
    peers = []
    for title, name in names.items():
        client, server = (instance.pod(f"{name}-{end}") for end in ("client", "server"))
        for end in (client, server):
            settle(Path(end["netns"]))
        peers.append(Peer(title, Path(client["netns"]), Path(server["netns"]), server["ips"][0]))
    return instance, peers


def _group(instance: Instance) -> Path:
    return Paths(instance.name).cgroup / "proxy"


def _cpu_us(lab: Lab, peer: Peer, metric: str, pids: Iterable[int]) -> float:
    pids = list(pids)
    before = sum(map(_cpu_ns, pids))
    load = (str(lab.load), metric, peer.address, str(peer.port), str(CPU_S))
    rate = float(run(inside(peer.client, *alone(*load))))
    return (sum(map(_cpu_ns, pids)) - before) / 1e3 / (rate * CPU_S)


def _cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks)


def _memory(instance: Instance) -> dict[int, float]:
    """Of Envoy, by number of pods."""
    found = {}
    for count in (0, CROWD):
        instance.apply([pod(f"crowd-{number}") for number in range(count)] or [pod("mtls-client")])
        found[len(instance.client.objects("Endpoints"))] = _resident_mb(_group(instance))
    return found


def _resident_mb(group: Path) -> float:
    (pid,) = cgroup.processes(group)
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid}: no VmRSS")
