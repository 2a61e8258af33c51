"""How soon a change of the mesh holds: a thousand services, of which one or all have a route.

One route is edited. From the moment in which the agent is asked until the first answer that the new
route made, over a connection that was open before; asked every millisecond.
"""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path

from bench.instance import Instance, Manifest, service
from bench.lab import LabError
from sixfold.host import netns

SERVICES, CHANGES = 1000, 15
ROUTED = (1, SERVICES)
PAUSE_S, GIVE_UP_S = 0.001, 20.0


def route(number: int, version: int) -> Manifest:
    """To a service of this number; answers tell which version they were routed by."""
    said = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {
        "set": [{"name": "version", "value": str(version)}]
    }}  # fmt: skip
    name = f"service-{number}"
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": name}],
            "rules": [{"filters": [said], "backendRefs": [{"name": name, "port": 80}]}],
        },
    }


def measure(instance: Instance, client: Path, app: str) -> dict[int, list[float]]:
    """Milliseconds of each change, by how many services have routes; ``app``'s pods answer."""
    instance.apply([service(number, app) for number in range(1, SERVICES + 1)])
    (tested,) = instance.client.objects("Service", "default", "service-1")
    found = {}
    for routed in ROUTED:
        instance.apply([route(number, 0) for number in range(1, routed + 1)])
        asking = _routed(client, tested["spec"]["clusterIP"])
        try:
            found[routed] = [_change_ms(instance, asking, it) for it in range(1, CHANGES + 1)]
        finally:
            asking.stop()
    return found


def _routed(client: Path, address: str) -> _Asking:
    """Asks by version 0. A connection that was made before the route was there never would."""
    deadline_s = time.monotonic() + GIVE_UP_S
    while True:
        asking = _Asking(client, address)
        try:
            asking.until(0, 1.0)
        except LabError:
            asking.stop()
            if time.monotonic() > deadline_s:
                raise
        else:
            return asking


def _change_ms(instance: Instance, asking: _Asking, version: int) -> float:
    start_s = time.monotonic()
    instance.apply([route(1, version)], wait=False)
    return (asking.until(version) - start_s) * 1e3


class _Asking:
    """One connection over which one asks again and again; when each version was first seen."""

    def __init__(self, place: Path, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, 80, timeout=GIVE_UP_S)
        netns.run_inside(place, self._connection.connect)
        self._seen_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            self._connection.request("GET", "/")
            answer = self._connection.getresponse()
            answer.read()
            version = int(answer.headers.get("version", "-1"))
            self._seen_s.setdefault(version, time.monotonic())

    def until(self, version: int, timeout_s: float = GIVE_UP_S) -> float:
        """When that version answered first."""
        deadline_s = time.monotonic() + timeout_s
        while version not in self._seen_s:
            if time.monotonic() > deadline_s or not self._thread.is_alive():
                raise LabError(f"mesh: route {version} is not in force after {timeout_s:g} s")
            time.sleep(PAUSE_S / 2)
        return self._seen_s[version]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()
