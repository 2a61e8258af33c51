"""``sixfold describe``."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import click

from sixfold.cli import completer
from sixfold.cli.client import Client
from sixfold.cli.columns import label_selector, pod_status
from sixfold.cli.kinds import parse_targets
from sixfold.cli.output import age
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.errors import SixfoldError
from sixfold.model.kinds import Kind

FLOWS = 5  # newest drops shown of a pod


@click.command(
    short_help="Show one object in full, and what happened to it.",
    epilog=examples("sixfold describe pod web-0 -n shop\nsixfold describe svc/web deploy/web"),
)
@click.argument("kind", metavar="KIND", shell_complete=completer.kinds)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completer.names)
@shared()
@pass_settings
def command(settings: Settings, kind: str, names: tuple[str, ...]) -> None:
    """Show one object in full, and what happened to it; without a name, all of the kind."""
    kinds, named = parse_targets(kind, names)
    client, namespace = settings.client, settings.namespace_or_default
    found: list[tuple[Kind, dict[str, Any]]] = [
        (one, item)
        for one, name in named
        for item in client.objects(one.name, namespace if one.namespaced else "", name)
    ]
    if not named:
        found = [
            (one, item)
            for one in kinds
            for item in client.objects(one.name, namespace if one.namespaced else "")
        ]
    for number, (one, item) in enumerate(found):
        if number:
            click.echo("\n")
        for line in describe(one, item):
            click.echo(line)
        for line in _around(client, one, item):
            click.echo(line)


def describe(kind: Kind, item: Mapping[str, Any]) -> Iterator[str]:
    """The object as lines: who it is, then everything it says."""
    meta = item["metadata"]
    yield f"{'Name:':<14}{meta['name']}"
    if kind.namespaced:
        yield f"{'Namespace:':<14}{meta.get('namespace', '')}"
    if kind.name == "Pod":
        yield f"{'Status:':<14}{pod_status(item)}"
    if created := meta.get("creationTimestamp"):
        yield f"{'Created:':<14}{created} ({age(created)} ago)"
    yield from _mapping("Labels:", meta.get("labels") or {})
    if annotations := meta.get("annotations"):
        yield from _mapping("Annotations:", annotations)
    for section in ("spec", "status"):
        if content := item.get(section):
            yield f"{section.capitalize()}:"
            yield from _walk(content, 2)
    if kind.name in ("Secret", "ConfigMap"):
        yield from _values(item)
    rest = {k: v for k, v in item.items() if k in ("addressType", "endpoints", "ports")}
    yield from _walk(rest, 0)


def _values(item: Mapping[str, Any]) -> Iterator[str]:
    """How much there is; of a Secret no more than that."""
    if kind := item.get("type"):
        yield f"{'Type:':<14}{kind}"
    yield "Data:"
    plain = item["kind"] == "ConfigMap"
    for name, text in sorted((item.get("data") or {}).items()):
        yield f"  {name}: " + (text if plain else f"{len(b64decode(text))} bytes")
    for name, text in sorted((item.get("binaryData") or {}).items()):
        yield f"  {name}: {len(b64decode(text))} bytes"


def _mapping(title: str, values: Mapping[str, str]) -> Iterator[str]:
    lines = [f"{key}={value}" for key, value in values.items()] or ["<none>"]
    for line in lines:
        yield f"{title:<14}{line}"
        title = ""


def _walk(value: Any, indent: int) -> Iterator[str]:
    """Nested values as indented ``Title Case: value`` lines."""
    pad = " " * indent
    for key, inner in value.items():
        title = _title(key)
        if isinstance(inner, Mapping) and key in ("labels", "annotations", "matchLabels"):
            yield f"{pad}{title}: " + (",".join(f"{k}={v}" for k, v in inner.items()) or "<none>")
        elif isinstance(inner, Mapping) and key.lower().endswith("selector"):
            yield f"{pad}{title}: {_selector(inner)}"
        elif isinstance(inner, Mapping):
            yield f"{pad}{title}:" + ("" if inner else " {}")
            yield from _walk(inner, indent + 2)
        elif isinstance(inner, list) and any(isinstance(one, Mapping) for one in inner):
            yield f"{pad}{title}:"
            for one in inner:
                lines = list(_walk(one, indent + 4)) or [f"{pad}    {{}}"]
                yield f"{pad}  - {lines[0].lstrip()}"
                yield from lines[1:]
        elif isinstance(inner, list):
            yield f"{pad}{title}: {' '.join(map(str, inner)) or '[]'}"
        else:
            yield f"{pad}{title}: {inner}"


def _selector(selector: Mapping[str, Any]) -> str:
    """A label selector, or the plain labels of a service or node selector."""
    if set(selector) <= {"matchLabels", "matchExpressions"}:
        return label_selector(selector)
    return label_selector({"matchLabels": selector})


def _title(key: str) -> str:
    """``terminationGracePeriodSeconds`` as ``Termination Grace Period Seconds``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    titled = words[:1].upper() + words[1:]
    return re.sub(r"\b(Ip|Id)(s?)\b", lambda m: m[1].upper() + m[2], titled)


def _around(client: Client, kind: Kind, item: Mapping[str, Any]) -> Iterator[str]:
    """What belongs to it: a pod's endpoint and newest drops, a service's endpoints."""
    meta = item["metadata"]
    namespace, name = meta.get("namespace", ""), meta["name"]
    if kind.name == "Pod":
        yield from _endpoint(client, namespace, name)
        yield from _drops(client, f"{namespace}/{name}")
    elif kind.name == "Service":
        yield from _ways_in(item)
        states = yield from _balancing(client, namespace, name)
        yield from _slices(client, namespace, name, states)


def _endpoint(client: Client, namespace: str, name: str) -> Iterator[str]:
    try:
        found = client.objects("Endpoints", namespace, name)
    except SixfoldError:
        found = []
    yield "Endpoint:" + ("" if found else " <none>")
    for endpoint in found:
        yield from _walk(endpoint["status"], 2)


def _drops(client: Client, pod: str) -> Iterator[str]:
    import json

    lines: list[str] = []
    for side in ("from", "to"):
        params: dict[str, str | int] = {side: pod, "verdict": "DROPPED", "last": FLOWS}
        with client.stream("/v1/flows", params) as (_, answer):
            lines += [record["text"] for record in map(json.loads, answer) if "text" in record]
    yield f"Drops (newest {FLOWS} of each side):" + ("" if lines else " <none>")
    yield from (f"  {line}" for line in lines)


def _ways_in(service: Mapping[str, Any]) -> Iterator[str]:
    """From outside, in kubectl's words."""
    status = service.get("status", {})
    ingress = status.get("loadBalancer", {}).get("ingress", [])
    if service["spec"].get("type") == "LoadBalancer":
        lacks = [one["message"] for one in status.get("conditions", []) if one.get("message")]
        given = ", ".join(f"{one['ip']} (VIP)" for one in ingress) or "<pending>"
        yield f"LoadBalancer Ingress: {given}" + "".join(f" ({text})" for text in lacks)
    for port in service["spec"].get("ports") or ():
        if number := port.get("nodePort"):
            name, protocol = port.get("name") or "<unset>", port.get("protocol", "TCP")
            yield f"NodePort: {name} {number}/{protocol}"
    if number := service["spec"].get("healthCheckNodePort"):
        yield f"HealthCheck NodePort: {number}"


def _balancing(client: Client, namespace: str, name: str) -> Generator[str, None, dict[str, str]]:
    """Which algorithm each port has, and why; a port of two addresses has one line.

    Returns what is known of each address: its state, and where it is.
    """
    found = client.get("/v1/balancing", {"namespace": namespace, "service": name})["frontends"]
    lines: dict[str, None] = {}
    for one in found:
        near = f"; {one['near']}" if one["near"] else ""
        lines[f"  {one['port']}/{one['protocol']} {one['algorithm']} ({one['why']}{near})"] = None
        if requests := one.get("requests"):
            more = f" ({requests['carried']})" if requests["carried"] else ""
            lines[f"  {one['port']} each request {requests['algorithm']}{more}"] = None
    yield "Balancing:" + ("" if lines else " <none>")
    yield from lines
    troubles = {
        f"  {one['address']} unhealthy: {one['detail']}": None
        for frontend in found
        for one in frontend.get("backends", ())
        if one.get("detail")
    }
    if troubles:
        panic = any(frontend["panic"] for frontend in found)
        yield "Health:" + (" panic: too few are healthy, so all are used" if panic else "")
        yield from troubles
    return {
        back["address"]: " ".join(filter(None, (back["state"], back["locality"])))
        for one in found
        for back in one["backends"]
    }


def _slices(client: Client, namespace: str, name: str, states: Mapping[str, str]) -> Iterator[str]:
    label = "kubernetes.io/service-name"
    slices = [
        item
        for item in client.objects("EndpointSlice", namespace)
        if (item["metadata"].get("labels") or {}).get(label) == name
    ]
    yield "Endpoints:" + ("" if slices else " <none>")
    for item in slices:
        ports = ",".join(str(port.get("port")) for port in item.get("ports") or ())
        for endpoint in item.get("endpoints") or ():
            ready = (endpoint.get("conditions") or {}).get("ready", True)
            target = (endpoint.get("targetRef") or {}).get("name", "")
            address = ",".join(endpoint["addresses"])
            state = states.get(address) or ("ready" if ready else "not ready")
            yield "  " + " ".join(filter(None, (address, "port", ports, target, state)))
