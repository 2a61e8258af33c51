"""A thousand workloads on one agent: real pods, each a process in namespaces of its own.

Measured through the running agent's API: from sending a changed NetworkPolicy to the moment
the kernel's policy revision moves, which is when every open connection is judged anew; and the
agent's memory and idle processor time.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from bench.instance import Instance, Manifest, pod, policy, service
from bench.lab import Lab, LabError
from bench.peers import PORT
from sixfold.host.datapath import KernelDatapath
from sixfold.host.view import DatapathView

APPS, REPLICAS = 50, 20
CHANGES, PAUSE_S = 15, 0.25
IDLE_S = 10.0
POLL_S, GIVE_UP_S = 0.0002, 10.0
LATE_PODS = 5


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
    late_ms = [_late_pod(instance, number) for number in range(LATE_PODS)]
    busy = _processor_s(instance.pid)
    time.sleep(IDLE_S)
    idle = (_processor_s(instance.pid) - busy) / IDLE_S
    return {
        "workloads": int(instance.status()["pods"]["ready"]),
        "start_all_s": round(started_s, 1),
        "policy_median_ms": round(statistics.median(changes), 2),
        "policy_max_ms": round(max(changes), 2),
        "pod_ready_median_ms": round(statistics.median(late_ms), 1),
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
    def rule(side: str, app: int) -> list[Mapping[str, object]]:
        selector = {"podSelector": {"matchLabels": {"app": f"app{app}"}}}
        return [{side: [selector], "ports": [{"port": port}]}]

    return policy(
        f"app{number}", ingress=rule("from", peer), egress=rule("to", (number - 1) % APPS)
    )


def _change(instance: Instance, view: DatapathView, number: int) -> float:
    """ms from the request to the kernel."""
    time.sleep(PAUSE_S)
    before = view.revision()
    moments: list[float] = []

    def watch() -> None:
        deadline = time.perf_counter() + GIVE_UP_S
        while time.perf_counter() < deadline:
            if view.revision() != before:
                moments.append(time.perf_counter())
                return
            time.sleep(POLL_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    instance.apply([_policy(number % APPS, (number + 7) % APPS, PORT + 1 + number)], wait=False)
    watcher.join()
    if not moments:
        raise LabError(f"policy change {number}: not in the kernel after {GIVE_UP_S:g} s")
    return (moments[0] - start) * 1e3


def _late_pod(instance: Instance, number: int) -> float:
    """ms from the request to a pod that is attached, runs and is ready."""
    start = time.perf_counter()
    instance.apply([pod(f"late{number}", {"app": "app0"})])
    return (time.perf_counter() - start) * 1e3


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
