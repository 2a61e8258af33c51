"""mTLS from pod to pod, opaque and read, beside the same two hops through others.

Everybody's proxies have one thread each, and share one CPU with client and server, in one run. CPU
is what the proxies' threads took, by the kernel's count (schedstat). What the others verify, and
how they carry requests: ``mesh_peers`` (HAProxy, nginx) and ``mesh_envoy`` (Sixfold's Envoy by
hand). Sixfold takes requests of HTTP as it takes everything that no route or rule is about, as
bytes; it verifies the chain and the peer's SPIFFE ID at both ends, and asks policy. ``READ`` is a
service with a route, on a port that a rule about requests is about, so that both ends read them;
``RULED`` has such a rule on another port than the one that is dialled.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench import mesh_changes, mesh_restarts
from bench.instance import Instance, Manifest, pod, policy, service
from bench.lab import Lab, inside, run, settle
from bench.mesh_envoy import BARE, HANDSHAKES, SAME, envoys
from bench.mesh_peers import HAPROXY_HTTP, NGINX_HTTP, certificates, mesh_peers
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
    "dials": ("the same, 32 at a time", "1000/s", 1e-3),
    "stream": ("one stream", "Gb/s", 1e-9),
}
ROUNDS = {"rr": 60, "http": 40, "p50": 16, "p99": 4, "crr": 40, "dials": 40, "stream": 30}
TURNS_S = {"p50": 0.05, "p99": 0.25}
COSTS = {  # of proxies' CPU
    "rr": "a request alone",
    "http": "one among 32",
    "crr": "a connection",
    "dials": "a connection among 32",
}
OF_REQUESTS = ("http", "p50", "p99")
PUBLISHED = (
    "Published of one proxy: Istio's sidecar 200 µs of CPU a request and 60 MB, its waypoint 250\n"
    "and 60, its ztunnel 60 and 12 (Istio 1.24, at 1,000 requests/s of 1 kB in mTLS); Linkerd's\n"
    "proxy 26 MB (its blog, 2021)."
)
PLAINTEXT, OURS = "plaintext", "Sixfold"
READ, RULED = "Sixfold, requests read", "Sixfold, a rule elsewhere"
READERS = {HAPROXY_HTTP, NGINX_HTTP, BARE, SAME, READ}  # take requests only
ASKED = {HANDSHAKES: ("crr", "dials"), RULED: ("rr", "http")}  # of these nothing else is asked
CPU_ROUNDS, CPU_S = 9, 0.2
CROWD = 50  # pods, to see what one costs
Processes = Callable[[], Iterable[int]]


@dataclass
class Mesh:
    """cpu_us: of the proxies, per request or connection, by round; memory: of Envoy, in MB, by
    number of pods; change, and restart after a kill: by routed services."""

    traffic: Traffic
    cpu_us: dict[str, dict[str, list[float]]]
    memory_mb: dict[int, float] = field(default_factory=dict)
    change_ms: dict[int, list[float]] = field(default_factory=dict)
    restart_s: dict[int, list[float]] = field(default_factory=dict)

    def cpu_ratio(self, metric: str, peer: str, to: str) -> float:
        """The median over rounds: what a moment does to one it does to its neighbour too."""
        mine, theirs = self.cpu_us[metric][peer], self.cpu_us[metric][to]
        return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))


def measure(lab: Lab, chance: random.Random) -> Mesh:
    instance, ours = _pods(lab)
    peers = list(ours)
    proxy: Processes = lambda: cgroup.processes(_group(instance))  # noqa: E731
    pids: dict[str, Processes] = {OURS: proxy, READ: proxy, RULED: proxy}
    shown = certificates(lab)
    for peer, running in (*mesh_peers(lab, shown), *envoys(lab, shown)):
        peers.append(peer)
        pids[peer.name] = lambda running=running: running
    for pid in cgroup.processes(_group(instance)):
        run(["taskset", "-acp", str(measured_cpu()), str(pid)])
        run(["chrt", "-a", "-f", "-p", "1", str(pid)])
    for peer in peers:
        lab.spawn(peer.server, *alone(str(lab.load), "server", str(PORT)))
        await_server(lab, peer, "http" if peer.name in READERS else "rr")
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
    memory = _memory(instance)
    restarts = {1: mesh_restarts.measure(ours[2], proxy)}
    changes = mesh_changes.measure(instance, ours[1].client, "mtls-server")
    restarts[mesh_changes.SERVICES] = mesh_restarts.measure(ours[2], proxy)
    return Mesh(traffic, cpu, memory, changes, restarts)


def _ways(peers: Iterable[Peer], metric: str) -> list[Peer]:
    """Those that carry it."""
    return [
        peer
        for peer in peers
        if metric in OF_REQUESTS or peer.name not in READERS
        if metric in ASKED.get(peer.name, METRICS)
    ]


def _pods(lab: Lab) -> tuple[Instance, list[Peer]]:
    """Pairs of pods, of which one is left in plaintext."""
    instance = Instance(lab, "mesh", "--mtls", "strict", "--proxy-concurrency", "1")
    names = {PLAINTEXT: "plain", OURS: "mtls", READ: "read", RULED: "ruled"}
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
    read = [service(0, "read-server"), mesh_changes.route(0, 0)]
    rules = [_about_requests("read-server", PORT), _about_requests("ruled-server", PORT + 1)]
    instance.apply([*objects, everyone, exempt, *read, *rules])
    (routed,) = instance.client.objects("Service", "default", "service-0")
    peers = []
    for title, name in names.items():
        client, server = (instance.pod(f"{name}-{end}") for end in ("client", "server"))
        for end in (client, server):
            settle(Path(end["netns"]))
        places = Path(client["netns"]), Path(server["netns"])
        to = (routed["spec"]["clusterIP"], 80) if title == READ else (server["ips"][0], PORT)
        peers.append(Peer(title, *places, *to))
    return instance, peers


def _about_requests(app: str, port: int) -> Manifest:
    """Whoever may dial that port of an app may ask by GET."""
    ports = [{"port": str(port), "protocol": "TCP"}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": app, "namespace": "default"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": app}},
            "ingress": [
                {
                    "fromEndpoints": [{}],
                    "toPorts": [{"ports": ports, "rules": {"http": [{"method": "GET"}]}}],
                }
            ],
        },
    }


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
