"""Backends killed at random under load: the share of requests that fail, beside HAProxy.

Four pods serve; two ways lead to them, used in turns by one client at a steady rate: a service of
Sixfold, and HAProxy with health checks on the same pods' addresses. Now and then the process of a
ready pod is killed while another is ready, and its pod starts it anew; both ways meet the same
deaths. A request fails when it is refused, reset, or has no whole answer in time; how often each
is said, too. HAProxy is measured twice: as it comes (with
checks: it tries a dead server again, later), and with ``option redispatch``, which tries another.
"""

from __future__ import annotations

import asyncio
import errno
import random
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from bench import packages
from bench.instance import Instance, pod
from bench.lab import Lab, LabError, inside
from sixfold.host.paths import Paths

PODS, PORT = 4, 8080
RATE, LOAD_S, KILL_EVERY_S = 200, 15.0, 1.5
TIMEOUT_S, START_S = 3.0, 20.0
SERVER = """
import asyncio
async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    await asyncio.sleep(0.002)
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nok")
    await writer.drain()
    writer.close()
async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 8080, backlog=512) as server:
        await server.serve_forever()
asyncio.run(main())
"""
REQUEST = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"
OURS = "Sixfold"
PROXIES = {"HAProxy, checks": 18081, "HAProxy, checks and redispatch": 18082}
Figures = dict[str, Any]


def measure(lab: Lab, chance: random.Random) -> Figures:
    if missing := packages.missing({"haproxy": "haproxy"}):
        return {"skipped": missing["haproxy"]}
    instance = Instance(lab, "failures")
    instance.apply([*(_pod(n) for n in range(PODS)), _service(), _policy()])
    (service,) = instance.client.objects("Service", "default", "web")
    ways = {OURS: (service["spec"]["clusterIP"], 80)}
    ways |= {name: ("127.0.0.1", port) for name, port in PROXIES.items()}
    _start_haproxy(lab, instance)
    command = [sys.executable, "-m", "bench.failures"]
    places = [f"{address}:{port}" for address, port in ways.values()]
    argv = inside(instance.host, *command, str(RATE), str(LOAD_S), *places)
    load = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    lab.stack.callback(load.kill)
    killed = _kill(instance, chance)
    try:
        output, _ = load.communicate(timeout=LOAD_S + START_S)
    except subprocess.TimeoutExpired:
        raise LabError("failures: the load does not end: the machine is too busy") from None
    found = {}
    for name, line in zip(ways, output.splitlines(), strict=True):
        asked, failed, slowest_ms, *reasons = line.split()
        percent = round(100 * int(failed) / int(asked), 3)
        found[name] = {"requests": int(asked), "failed %": percent}
        found[name] |= {"99.9 % within ms": float(slowest_ms), "reasons": " ".join(reasons)}
    return {"killed": killed, "ways": found}


def _pod(number: int) -> dict[str, Any]:
    made: Any = pod(f"web-{number}", {"app": "web"})
    (container,) = made["spec"]["containers"]
    container["command"] = [sys.executable, "-c", SERVER]
    container["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    return made


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "annotations": {"sixfold.dev/lb-algorithm": "round-robin"},
        },
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]},
    }


def _policy() -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]},
    }


def _start_haproxy(lab: Lab, instance: Instance) -> None:
    lines = ["defaults", " mode http", " timeout connect 1s", " timeout client 10s"]
    lines += [" timeout server 10s", " option httpchk GET /"]
    for port, extra in zip(PROXIES.values(), ("", " option redispatch"), strict=True):
        lines += [f"listen p{port}", f" bind 127.0.0.1:{port}", " balance roundrobin", extra]
        lines += [
            f" server web-{n} {instance.pod(f'web-{n}')['ips'][0]}:{PORT} "
            "check inter 1s fall 2 rise 1"
            for n in range(PODS)
        ]
    path = lab.directory / "haproxy.cfg"
    path.write_text("\n".join((*lines, "")))
    lab.spawn(instance.host, packages.which("haproxy"), "-db", "-f", str(path))
    deadline = time.monotonic() + START_S
    places = [f"127.0.0.1:{port}" for port in PROXIES.values()]
    probe = inside(instance.host, sys.executable, "-m", "bench.failures", "20", "0.5", *places)
    while time.monotonic() < deadline:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=30, check=False)
        if all(line.split()[1] == "0" for line in done.stdout.splitlines()):
            return
    raise LabError("haproxy: does not answer")


def _kill(instance: Instance, chance: random.Random) -> int:
    """One pod's process after the other, while the load goes on; returns how many."""
    root = Paths(instance.name).cgroup / "pods"
    killed, deadline = 0, time.monotonic() + LOAD_S - KILL_EVERY_S
    while time.monotonic() < deadline:
        time.sleep(KILL_EVERY_S)
        ready = [
            one["metadata"]["uid"]
            for one in instance.client.objects("Pod", "default")
            if one["status"]["containerStatuses"][0]["ready"]
        ]
        if len(ready) > 1:  # one is left to answer
            (root / chance.choice(ready) / "main" / "cgroup.kill").write_text("1")
            killed += 1
    return killed


async def _load(rate: float, seconds: float, places: list[str]) -> None:
    """Requests to the places in turns, whatever becomes of those before."""
    took: dict[str, list[float]] = {place: [] for place in places}
    failed: dict[str, Counter[str]] = {place: Counter() for place in places}

    async def ask(place: str) -> None:
        host, _, port = place.rpartition(":")
        started = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(REQUEST)
                    answer = await reader.read()
                finally:
                    writer.close()
            if not (b" 200 " in answer[:20] and answer.endswith(b"ok")):
                failed[place][answer[9:12].decode() or "cut"] += 1
        except TimeoutError:
            failed[place]["late"] += 1
        except OSError as error:
            failed[place][errno.errorcode.get(error.errno or 0, "error")] += 1
        took[place].append(time.monotonic() - started)

    tasks: list[asyncio.Task[None]] = []
    start = due = time.monotonic()
    while due < start + seconds:
        tasks += [asyncio.create_task(ask(place)) for place in places]
        due = max(due + 1 / rate, time.monotonic())  # who is late does not hurry
        await asyncio.sleep(due - time.monotonic())
    await asyncio.gather(*tasks)
    for place in places:
        slowest = sorted(took[place])[int(len(took[place]) * 0.999)]
        reasons = [f"{count}×{reason}" for reason, count in failed[place].most_common()]
        total = failed[place].total()
        print(len(took[place]), total, round(slowest * 1e3, 1), *reasons)


if __name__ == "__main__":
    asyncio.run(_load(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
