"""Opaque TCP in mTLS from pod to pod, beside the same two hops through HAProxy and nginx.

Everybody's proxies have one thread each, and share one CPU with client and server, in one run. CPU
is what the proxies' threads took, by the kernel's count (schedstat). HAProxy verifies the chain at
both ends; nginx at the server's end only: it would look for a DNS name in the server's certificate.
Sixfold verifies the chain and the peer's SPIFFE ID at both ends, and asks policy.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from bench import packages
from bench.balancers import MODULE
from bench.instance import Instance, pod, policy
from bench.lab import Lab, inside, run, settle
from bench.peers import PORT, SERVER, Peer, routed
from bench.schedule import alone, measured_cpu
from bench.traffic import Traffic, await_server, rotate
from sixfold.host import cgroup
from sixfold.host.paths import Paths
from sixfold.model.spiffe import SpiffeId
from sixfold.trust.authority import create, issue

METRICS = {
    "rr": ("request and answer", "1000/s", 1e-3),
    "crr": ("connect, request, answer", "1000/s", 1e-3),
    "stream": ("one stream", "Gb/s", 1e-9),
}
ROUNDS = {"rr": 60, "crr": 40, "stream": 40}
PLAINTEXT, OURS = "plaintext", "Sixfold"
HAPROXY, NGINX = "HAProxy", "nginx"
NEAR, TUNNEL = 9001, 15443  # of peers' proxies
CPU_ROUNDS, CPU_S = 5, 0.4
CROWD = 50  # pods, to see what one costs
Certificates = tuple[Path, Path, Path]  # authority; chain and key of the client, of the server


@dataclass
class Mesh:
    """cpu_us: of the proxies, per request or connection, by round; memory: of Envoy, in MB."""

    traffic: Traffic
    cpu_us: dict[str, dict[str, list[float]]]
    memory_mb: dict[int, float] = field(default_factory=dict)


def measure(lab: Lab, chance: random.Random) -> Mesh:
    instance, ours = _pods(lab)
    peers, pids = list(ours), {OURS: lambda: cgroup.processes(_group(instance))}
    missing = packages.missing({"haproxy": "haproxy", "nginx": "nginx-light libnginx-mod-stream"})
    certificates = _certificates(lab)
    for name, make in ((HAPROXY, _haproxy), (NGINX, _nginx)):
        if name.lower() not in missing:
            peer, running = make(lab, certificates)
            peers.append(peer)
            pids[name] = lambda running=running: running
    for pid in cgroup.processes(_group(instance)):
        run(["taskset", "-acp", str(measured_cpu()), str(pid)])
        run(["chrt", "-a", "-f", "-p", "1", str(pid)])
    for peer in peers:
        lab.spawn(peer.server, *alone(str(lab.load), "server", str(PORT)))
        await_server(lab, peer)
    traffic = Traffic(
        {name: rotate(lab, peers, name, ROUNDS[name], METRICS[name][2], chance) for name in METRICS}
    )
    cpu: dict[str, dict[str, list[float]]] = {metric: {} for metric in ("rr", "crr")}
    for metric, figures in cpu.items():
        for _ in range(CPU_ROUNDS):
            for peer in chance.sample(peers, len(peers)):
                if peer.name in pids:
                    took = _cpu_us(lab, peer, metric, pids[peer.name]())
                    figures.setdefault(peer.name, []).append(took)
    return Mesh(traffic, cpu, _memory(instance))


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


# --- peers --------------------------------------------------------------------------------------


def _certificates(lab: Lab) -> Certificates:
    now, day = datetime.now(UTC), timedelta(days=1)
    authority = create("bench", now)
    paths = tuple(lab.directory / f"{name}.pem" for name in ("ca", "client", "server"))
    for path in paths[1:]:
        svid = issue(authority, SpiffeId("bench", f"/{path.stem}"), now, day)
        path.write_bytes(svid.chain_pem + svid.key_pem)
    paths[0].write_bytes(authority.root.public_bytes(Encoding.PEM))
    return paths[0], paths[1], paths[2]


def _haproxy(lab: Lab, certificates: Certificates) -> tuple[Peer, list[int]]:
    ca, client, server = certificates
    head = """
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
    near = f"""{head}
listen near
    bind 127.0.0.1:{NEAR}
    server far {SERVER}:{TUNNEL} ssl crt {client} ca-file {ca} verify required ssl-min-ver TLSv1.3
"""
    far = f"""{head}
listen far
    bind :{TUNNEL} ssl crt {server} ca-file {ca} verify required ssl-min-ver TLSv1.3
    server app 127.0.0.1:{PORT}
"""
    return _two(lab, HAPROXY, near, far, ["-db", "-f"])


def _nginx(lab: Lab, certificates: Certificates) -> tuple[Peer, list[int]]:
    ca, client, server = certificates

    def settings(name: str, body: str) -> str:
        return f"""
load_module {MODULE};
daemon off;
master_process off;
error_log stderr crit;
pid {lab.directory}/mesh-{name}.pid;
events {{ worker_connections 8000; }}
stream {{ server {{ tcp_nodelay on; {body} }} }}
"""

    near = settings(
        "near",
        f"""
listen 127.0.0.1:{NEAR} backlog=1024; proxy_pass {SERVER}:{TUNNEL};
proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse on;
proxy_ssl_certificate {client}; proxy_ssl_certificate_key {client};""",
    )
    far = settings(
        "far",
        f"""
listen {TUNNEL} ssl backlog=1024; proxy_pass 127.0.0.1:{PORT}; ssl_protocols TLSv1.3;
ssl_certificate {server}; ssl_certificate_key {server};
ssl_verify_client on; ssl_client_certificate {ca};""",
    )
    return _two(lab, NGINX, near, far, ["-c"])


def _two(lab: Lab, name: str, near: str, far: str, options: list[str]) -> tuple[Peer, list[int]]:
    """A proxy at each end, on the CPU that everybody shares; nothing logged."""
    peer = routed(lab, f"mesh-{name.lower()}")
    pids = []
    for end, place, text in (("near", peer.client, near), ("far", peer.server, far)):
        path = lab.directory / f"mesh-{name.lower()}-{end}.conf"
        path.write_text(text)
        pids.append(lab.spawn(place, *alone(packages.which(name.lower()), *options, str(path))))
    return Peer(name, peer.client, peer.server, "127.0.0.1", NEAR), pids
