"""How soon a change of the mesh holds: routes of a thousand services, of which one is edited.

From the moment in which the agent is asked until the first answer that the new route made, over a
connection that was open before; asked every millisecond.
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


def measure(instance: Instance, client: Path, app: str) -> list[float]:
    """Milliseconds of each change; the pods of ``app`` answer."""
    numbers = range(1, SERVICES + 1)
    instance.apply([*(service(n, app) for n in numbers), *(route(n, 0) for n in numbers)])
    (tested,) = instance.client.objects("Service", "default", f"service-{SERVICES}")
    asking = _Asking(client, tested["spec"]["clusterIP"])
    try:
        asking.until(0)
        return [_change_ms(instance, asking, version) for version in range(1, CHANGES + 1)]
    finally:
        asking.stop()


def _change_ms(instance: Instance, asking: _Asking, version: int) -> float:
    start_s = time.monotonic()
    instance.apply([route(SERVICES, version)], wait=False)
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

    def until(self, version: int) -> float:
        """When that version answered first."""
        deadline_s = time.monotonic() + GIVE_UP_S
        while version not in self._seen_s:
            if time.monotonic() > deadline_s or not self._thread.is_alive():
                raise LabError(f"mesh: route {version} is not in force after {GIVE_UP_S:g} s")
            time.sleep(PAUSE_S / 2)
        return self._seen_s[version]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()
