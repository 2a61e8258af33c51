"""From a revocation to the last byte; and requests while the authority changes under them.

Two pods of the mesh, and a stream between them at full speed. What lets it is taken away: the rule
of policy, the trust in the authority that signed, the pod whose identity it is. Measured from the
request to the agent until the last byte has come. Then requests, each over a connection of its own,
while one authority succeeds the other three times: none may fail.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bench.instance import Instance, Manifest, pod, policy
from bench.lab import Lab, LabError
from bench.peers import PORT
from sixfold.host import netns

ROUNDS = 3
SUCCESSIONS = 3
FLOWING_S, GIVE_UP_S = 0.3, 15.0
SILENT_S = 2.0  # as good as an end: who reads in a pod that is gone may never hear of it
BLOCK = bytes(64 * 1024)
ANSWER = b"ok"
STREAM = b"s"  # the first byte says what is asked for; a request has another


def measure(lab: Lab) -> dict[str, float]:
    instance = Instance(lab, "revoke", "--mtls", "strict", "--proxy-concurrency", "1")
    rules = policies()
    instance.apply([pod("server"), *rules])
    server = Path(instance.pod("server")["netns"])
    found: dict[str, float] = {}
    with _Server(server):
        for name, revoke, restore in (
            ("rule", _without_rule, lambda: instance.apply(rules, wait=False)),
            ("authority", _without_authority, lambda: None),
            ("identity", _without_pod, lambda: None),
        ):
            took = []
            for _ in range(ROUNDS):
                instance.apply([pod("client")])
                took.append(_last_byte_ms(instance, revoke))
                restore()
            found[f"{name}_median_ms"] = round(statistics.median(took), 1)
            found[f"{name}_max_ms"] = round(max(took), 1)
        instance.apply([pod("client")])
        found |= _succession(instance)
    return found


def policies() -> list[Manifest]:
    ports = [{"port": PORT}]

    def peer(name: str) -> list[Manifest]:
        return [{"podSelector": {"matchLabels": {"app": name}}}]

    return [
        policy("server", ingress=[{"from": peer("client"), "ports": ports}]),
        policy("client", egress=[{"to": peer("server"), "ports": ports}]),
    ]


class _Server:
    """In the pod's network: sends without end, or answers once."""

    def __init__(self, path: Path) -> None:
        with netns.inside(path):
            self._listener = socket.create_server(("0.0.0.0", PORT), backlog=256)

    def __enter__(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        if connection.recv(1) != STREAM:
            connection.sendall(ANSWER)
            return
        while True:
            connection.sendall(BLOCK)


class Way(NamedTuple):
    """From the client's network to the server's address."""

    client: Path
    server: str

    @classmethod
    def of(cls, instance: Instance) -> Way:
        return cls(Path(instance.pod("client")["netns"]), instance.pod("server")["ips"][0])

    def dial(self) -> socket.socket:
        with netns.inside(self.client):
            sock = socket.socket()
        sock.settimeout(GIVE_UP_S)
        sock.connect((self.server, PORT))
        return sock


def _last_byte_ms(instance: Instance, revoke: Callable[[Instance], Callable[[], Any]]) -> float:
    last, arrived = [0.0], [0]

    def receive() -> None:
        with suppress(OSError):
            while chunk := sock.recv(len(BLOCK)):
                last[0] = time.perf_counter()
                arrived[0] += len(chunk)

    with Way.of(instance).dial() as sock:
        sock.sendall(STREAM)
        sock.settimeout(SILENT_S)
        receiving = threading.Thread(target=receive)
        receiving.start()
        time.sleep(FLOWING_S)
        act = revoke(instance)
        before, start = arrived[0], time.perf_counter()
        act()
        receiving.join(GIVE_UP_S)
        if receiving.is_alive() or not before:
            raise LabError("revocation: the stream did not flow, or did not end")
    return (last[0] - start) * 1e3


def _without_rule(instance: Instance) -> Callable[[], Any]:
    keys = [{"kind": "NetworkPolicy", "namespace": "default", "name": "server"}]
    return lambda: instance.client.post("/v1/delete", {"keys": keys})


def _without_authority(instance: Instance) -> Callable[[], Any]:
    """Another signs already; the stream rests on the one before."""
    old = _activate(instance)
    time.sleep(FLOWING_S)
    asked = {"verb": "revoke", "kind": "x509", "id": old}
    return lambda: instance.client.post("/v1/authorities", asked)


def _without_pod(instance: Instance) -> Callable[[], Any]:
    keys = [{"kind": "Pod", "namespace": "default", "name": "client"}]
    asked = {"keys": keys, "grace_s": 0, "wait": True}
    return lambda: instance.client.post("/v1/delete", asked)


def _activate(instance: Instance) -> str:
    """A new authority signs, and nothing is new of the old; which is trusted still. Its id."""
    authorities = instance.client.get("/v1/authorities")["authorities"]
    (old,) = [one for one in authorities if (one["kind"], one["status"]) == ("x509", "active")]
    for verb in ("prepare", "activate"):
        instance.client.post("/v1/authorities", {"verb": verb, "kind": "x509"})
    instance.client.post("/v1/authorities", {"verb": "taint", "kind": "x509", "id": old["id"]})
    return str(old["id"])


def _succession(instance: Instance) -> dict[str, float]:
    """Requests while authorities succeed one another, and are revoked."""
    counts, over, way = {"requests": 0, "failed": 0}, threading.Event(), Way.of(instance)

    def ask() -> None:
        while not over.is_set():
            counts["requests"] += 1
            try:
                with way.dial() as sock:
                    sock.sendall(b"r")
                    if sock.recv(len(ANSWER)) != ANSWER:
                        counts["failed"] += 1
            except OSError:
                counts["failed"] += 1

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(SUCCESSIONS):
        time.sleep(FLOWING_S)
        _activate(instance)
    time.sleep(FLOWING_S)
    over.set()
    asking.join()
    return {"successions": SUCCESSIONS, **counts}
