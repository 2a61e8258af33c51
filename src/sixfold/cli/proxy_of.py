"""Which proxy is meant, and what it says: asked at its own socket; no agent is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from sixfold.cli.client import Client, NotRunningError
from sixfold.cli.settings import Settings
from sixfold.errors import NotFoundError, UnavailableError
from sixfold.host.proxy_home import ProxyHome, home_of_node, homes_of_pods

_OF_LISTENER = re.compile(r"listener\.(?!admin\.).*\.downstream_cx_active")
NODE = "node"  # what the node's is called
Command = TypeVar("Command", bound=Callable[..., Any])

pod_option = click.option(
    "--pod",
    "whose",
    metavar="[NAMESPACE/]POD",
    default="",
    help="The proxy of this pod: its own, or the node's if that carries it; the node's.",
)


def homes(settings: Settings) -> list[ProxyHome]:
    """Of all proxies that there are, the node's first."""
    node = home_of_node(settings.paths)
    own = sorted((home for _, home in homes_of_pods(settings.paths)), key=lambda one: one.pod)
    return [*([node] if node.pid_file.exists() else []), *own]


def home(settings: Settings, pod: str) -> ProxyHome:
    """Of the proxy at which a pod sits; "": of the node's."""
    there = {one.pod: one for one in homes(settings)}
    if not pod:
        if "" not in there and there:
            raise UnavailableError(
                f"proxy: the node has none, {len(there)} pods have their own; "
                f"say which: --pod {min(there)} (sixfold proxy list)"
            )
        if len(there) > 1:
            click.echo(f"the node's proxy; {len(there) - 1} pods have their own", err=True)
        return there.get("", home_of_node(settings.paths))
    key = pod if "/" in pod else f"{settings.namespace_or_default}/{pod}"
    if key in there:
        return there[key]
    if "" not in there or f"inbound|{key}" not in _listeners(there[""]):
        raise NotFoundError(f"pod {key}: no proxy carries it; see sixfold proxy list")
    return there[""]


def ask(
    home: ProxyHome,
    path: str,
    params: Mapping[str, str] = MappingProxyType({}),
    *,
    method: str = "GET",
    pid: int = 0,
) -> bytes:
    """What Envoy answers at its admin socket; ``pid``: that of an earlier process."""
    try:
        return Client(home.put_aside(pid) if pid else home.admin_socket).read(method, path, params)
    except NotRunningError:
        whose = f"proxy of {home.pod}: does not run" if home.pod else "proxy: none runs"
        raise UnavailableError(
            f"{whose}; mTLS is off (sixfold up --mtls strict), or see sixfold status"
        ) from None


def told(home: ProxyHome) -> Iterator[dict[str, Any]]:
    """What is to be said of each process of a proxy: of that which serves, and of those before."""
    yield _told(home, home.pid(), 0)
    for pid in sorted(home.pids_before()):
        yield _told(home, pid, pid)


def _told(home: ProxyHome, pid: int, before: int) -> dict[str, Any]:
    line: dict[str, Any] = {"proxy": home.pod or NODE, "pid": pid, "state": "down"}
    query = {"format": "json", "filter": r"^control_plane\.connected_state$|_cx_active$"}
    try:
        info = json.loads(ask(home, "/server_info", pid=before))
        stats = json.loads(ask(home, "/stats", query, pid=before))["stats"]
        listeners = _listeners(home, before)
    except UnavailableError:
        return line
    values = {one["name"]: one["value"] for one in stats if "value" in one}
    return {
        **line,
        "state": "draining" if before else info["state"].lower(),
        "agent": bool(values.get("control_plane.connected_state")),
        "pods": sum(name.startswith("inbound|") for name in listeners),
        "connections": sum(value for name, value in values.items() if _OF_LISTENER.fullmatch(name)),
        "memoryBytes": _memory(pid),
        "uptimeSeconds": int(info["uptime_current_epoch"].rstrip("s")),
    }


def _listeners(home: ProxyHome, before: int = 0) -> set[str]:
    answer = json.loads(ask(home, "/listeners", {"format": "json"}, pid=before))
    return {one["name"] for one in answer.get("listener_statuses", ())}


def _memory(pid: int) -> int:
    """Of what it shares, the program above all, its part only."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
