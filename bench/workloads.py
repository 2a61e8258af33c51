"""A thousand workloads on one agent: real pods, each a process in namespaces of its own.

Measured through the running agent's API: from sending a changed NetworkPolicy to the moment
the kernel's policy revision moves, which is when every open connection is judged anew; to the
moment a pod that may now call everybody is told their names, or no longer; an audit of it all;
and the agent's memory and idle processor time.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.instance import Instance, Manifest, pod, policy, service
from bench.lab import Lab, LabError
from bench.peers import PORT
from sixfold.discovery.wire import encode_name
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.host.view import DatapathView
from sixfold.model.config import RESOLVER_IPV4

APPS, REPLICAS = 50, 20
CHANGES, PAUSE_S = 15, 0.25
IDLE_S = 10.0
POLL_S, GIVE_UP_S = 0.0002, 10.0
LATE_PODS = 5
AUDITS = 3
NOERROR, NXDOMAIN = 0, 3
ASKER = "asker"  # everybody lets it in


def measure(lab: Lab) -> dict[str, float]:
    instance = Instance(lab, "scale")
    start = time.perf_counter()
    instance.apply([each for number in range(APPS) for each in _app(number)])
    started_s = time.perf_counter() - start
    view = KernelDatapath.view(instance.name)
    try:
        changes = [_change(instance, view, number) for number in range(CHANGES)]
    finally:
        view.close()
    told_ms = _told_ms(instance)
    late_ms = [_late_pod(instance, number) for number in range(LATE_PODS)]
    audits = [_audit(instance) for _ in range(AUDITS)]
    busy = _processor_s(instance.pid)
    time.sleep(IDLE_S)
    idle = (_processor_s(instance.pid) - busy) / IDLE_S
    return {
        "workloads": int(instance.status()["pods"]["ready"]),
        "start_all_s": round(started_s, 1),
        "policy_median_ms": round(statistics.median(changes), 2),
        "policy_max_ms": round(max(changes), 2),
        "told_median_ms": round(statistics.median(told_ms), 2),
        "told_max_ms": round(max(told_ms), 2),
        "pod_ready_median_ms": round(statistics.median(late_ms), 1),
        "audit_s": round(statistics.median(took for took, _ in audits), 2),
        "audit_cpu_s": round(statistics.median(used for _, used in audits), 2),
        "agent_rss_mb": round(instance.memory_mb(), 1),
        "agent_idle_cpu_percent": round(idle * 100, 1),
    }


def _app(number: int) -> list[Manifest]:
    """A deployment that may talk to the next one, and its service."""
    name = f"app{number}"
    template = pod(name)
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }
    return [deployment, service(number, name), _policy(number, (number + 1) % APPS, PORT)]


def _policy(number: int, peer: int, port: int) -> Manifest:
    def rule(side: str, *apps: str) -> list[Mapping[str, object]]:
        selectors = [{"podSelector": {"matchLabels": {"app": app}}} for app in apps]
        return [{side: selectors, "ports": [{"port": port}]}]

    return policy(
        f"app{number}",
        ingress=rule("from", f"app{peer}", ASKER),
        egress=rule("to", f"app{(number - 1) % APPS}"),
    )


def _change(instance: Instance, view: DatapathView, number: int) -> float:
    """ms from the request to the kernel."""
    before = view.revision()
    changed = _policy(number % APPS, (number + 7) % APPS, PORT + 1 + number)
    return _until(lambda: view.revision() != before, instance, changed)


def _told_ms(instance: Instance) -> list[float]:
    """ms from each request to the answer that follows from it, to a pod that asks all the time."""
    resolver = {"ipBlock": {"cidr": f"{RESOLVER_IPV4}/32"}}
    ways = {
        NOERROR: policy(ASKER, egress=[{}]),
        NXDOMAIN: policy(ASKER, egress=[{"to": [resolver]}]),
    }
    instance.apply([pod(ASKER), ways[NXDOMAIN]])
    with netns.inside(Path(instance.pod(ASKER)["netns"])):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    took = []
    with sock:
        sock.settimeout(GIVE_UP_S)
        sock.connect((str(RESOLVER_IPV4), 53))
        for number in range(CHANGES):
            wanted = NXDOMAIN if number % 2 else NOERROR
            took.append(_until(partial(_tells, sock, wanted), instance, ways[wanted]))
    return took


def _until(done: Callable[[], bool], instance: Instance, changed: Manifest) -> float:
    """ms from the request until it shows; that the agent says so is awaited, not measured."""
    time.sleep(PAUSE_S)
    moments: list[float] = []

    def watch() -> None:
        deadline = time.perf_counter() + GIVE_UP_S
        while time.perf_counter() < deadline:
            if done():
                moments.append(time.perf_counter())
                return
            time.sleep(POLL_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    instance.apply([changed], wait=False)
    watcher.join()
    if not moments:
        raise LabError(f"{changed['metadata']['name']}: no change after {GIVE_UP_S:g} s")
    return (moments[0] - start) * 1e3


def _tells(sock: socket.socket, rcode: int) -> bool:
    """Whether the answer for a service that is always there has this rcode."""
    header = struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0)
    name = encode_name(f"service-{APPS - 1}.default.svc.cluster.local")
    sock.send(header + name + struct.pack("!HH", 1, 1))
    return sock.recv(512)[3] & 15 == rcode


def _late_pod(instance: Instance, number: int) -> float:
    """ms from the request to a pod that is attached, runs and is ready."""
    start = time.perf_counter()
    instance.apply([pod(f"late{number}", {"app": "app0"})])
    return (time.perf_counter() - start) * 1e3


def _audit(instance: Instance) -> tuple[float, float]:
    """Seconds of ``sixfold audit``, all its rules, and of the command's and the agent's CPU."""
    before, start = _children_s() + _processor_s(instance.pid), time.perf_counter()
    instance.sixfold("audit", "--fail-on", "never")
    took = time.perf_counter() - start
    return took, _children_s() + _processor_s(instance.pid) - before


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
