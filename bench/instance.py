"""A Sixfold of this run: the real command in a namespace that plays the host."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.lab import Lab, LabError, inside, run, settle
from bench.peers import PORT, Peer
from sixfold.cli.client import Client

SIXFOLD = (sys.executable, "-m", "sixfold.cli")
START_TIMEOUT_S = 120.0
Manifest = Mapping[str, Any]


class Instance:
    """One running agent; taken down with the lab. Without the mesh, where options don't say."""

    def __init__(self, lab: Lab, name: str, *options: str) -> None:
        self.name = f"{lab.prefix}{name}"
        self.host = lab.namespace(f"{name}-h")
        self._directory = lab.directory / name
        self.client = Client(self._directory / "run" / "api.sock", timeout_s=START_TIMEOUT_S)
        lab.stack.callback(self._down)
        mesh = () if "--mtls" in options else ("--mtls", "disabled")
        self.sixfold("up", "--detach", *mesh, *options)

    def apply(self, objects: Iterable[Manifest], *, wait: bool = True) -> None:
        """Returns when all of it is in force and, with ``wait``, every pod of it ready."""
        body = {"objects": list(objects), "wait": wait, "timeout_s": START_TIMEOUT_S}
        self.client.post("/v1/apply", body)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/v1/status")
        return found

    def pod(self, name: str) -> Mapping[str, Any]:
        """Endpoint status of a pod of the default namespace."""
        (found,) = self.client.objects("Endpoints", "default", name)
        status: Mapping[str, Any] = found["status"]
        return status

    def memory_mb(self) -> float:
        """VmRSS of the agent."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise LabError(f"agent {self.pid}: no VmRSS")

    @property
    def pid(self) -> int:
        return int(self.status()["agent"]["pid"])

    def sixfold(self, *arguments: str) -> str:
        variables = {
            "SIXFOLD_INSTANCE": self.name,
            "SIXFOLD_STATE_DIR": str(self._directory / "state"),
            "SIXFOLD_RUN_DIR": str(self._directory / "run"),
            "NO_COLOR": "1",
        }
        self._directory.mkdir(exist_ok=True)
        environment = [f"{key}={value}" for key, value in variables.items()]
        command = inside(self.host, "env", *environment, *SIXFOLD, *arguments)
        return run(command, timeout_s=START_TIMEOUT_S)

    def _down(self) -> None:
        self.sixfold("down", "--timeout", "0")


def sixfold(lab: Lab, services: int) -> Peer:
    """Client and server as pods, ``services`` services and as many other allowed addresses."""
    instance = Instance(lab, f"sf{services}")
    instance.apply([pod("client"), pod("server"), *(service(n) for n in range(1, services + 1))])
    instance.apply(policies(services), wait=False)
    client, server = (Path(instance.pod(name)["netns"]) for name in ("client", "server"))
    settle(client)
    settle(server)
    (tested,) = instance.client.objects("Service", "default", f"service-{services}")
    address = tested["spec"]["clusterIP"]
    return Peer(f"Sixfold, {services:,} services", client, server, address, 80)


def pod(name: str, labels: Mapping[str, str] | None = None) -> Manifest:
    container = {"name": "main", "command": ["sleep", "infinity"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


def service(number: int, app: str = "server") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"service-{number}", "namespace": "default"},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": PORT}]},
    }


def policies(entries: int) -> list[Manifest]:
    """Client to server, and ``entries`` addresses elsewhere that the client may reach too."""
    blocks = [
        {"ipBlock": {"cidr": f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32"}}
        for n in range(1, entries)
    ]
    port = [{"port": PORT}]
    return [
        policy("client", egress=[
            {"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": port},
            {"to": blocks, "ports": [{"port": 443}]},
        ]),
        policy("server", ingress=[
            {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": port}
        ]),
    ]  # fmt: skip


def policy(app: str, **rules: Any) -> Manifest:
    """A NetworkPolicy for the pods of one app; ``ingress`` and ``egress`` as in the manifest."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": app, "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": [name.capitalize() for name in rules],
            **rules,
        },
    }
