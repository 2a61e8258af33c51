"""``sixfold lb``: who is behind a service, how busy each is; and taking one out of the rotation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from sixfold.cli import completer, lb_compare
from sixfold.cli.client import Client
from sixfold.cli.output import print_structured, print_table, progress
from sixfold.cli.pods import pick_pod
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.errors import UnavailableError
from sixfold.model.algorithm import DRAIN

PERIOD_S = 0.2
PLACES = ("LOCALITY", "PRIORITY")


@click.group(
    short_help="Show and steer how services are balanced.",
    epilog=examples(
        """
sixfold lb list -A
sixfold lb list web -n shop -o wide
sixfold lb compare web -n shop --rate 20 --duration exp:30s
sixfold lb drain web-0 -n shop --wait
sixfold lb drain web-0 -n shop --undo
"""
    ),
)
def command() -> None:
    """Show and steer how services are balanced."""


command.add_command(lb_compare.command)


@command.command("list", epilog=examples("sixfold lb list -A\nsixfold lb list web -o wide"))
@click.argument("service", metavar="[SERVICE]", default="")
@shared(outputs=ANSWERS, everywhere=True)
@pass_settings
def listing(settings: Settings, service: str) -> None:
    """List frontends and the backends behind them: state, weight, live connections.

    Connections are those of each backend, as the kernel counts them: sockets of this host and
    its pods that are connecting or connected, connected UDP, and connections from outside that
    somebody has answered. Where places are known they are shown, and which of them come first;
    who stands by is of another. WIDE adds why the algorithm was chosen, and all connections so
    far.
    """
    if service and settings.all_namespaces:
        raise click.UsageError("a name needs a namespace; give -n instead of -A")
    namespace = "" if settings.all_namespaces else settings.namespace_or_default
    asked = {"namespace": namespace, "service": service.removeprefix("svc/")}
    frontends = settings.client.get("/v1/balancing", asked)["frontends"]
    if settings.structured:
        print_structured({"frontends": frontends}, settings.output)
    elif not frontends:
        click.echo("No services found.", err=True)
    else:
        wide = settings.output == "wide"
        header = ["SERVICE", "TYPE", "FRONTEND", "ALGORITHM", "BACKEND", "STATE", "WEIGHT"]
        header += ["CONNECTIONS"]
        places = wide or any(one["locality"] for each in frontends for one in each["backends"])
        header += [*(["TOTAL"] if wide else []), *(PLACES if places else []), "ENDPOINT"]
        header += ["WHY"] if wide else []
        rows = (row for each in frontends for row in _rows(each, wide=wide, places=places))
        print_table(header, rows)


def _rows(frontend: Mapping[str, Any], *, wide: bool, places: bool) -> Iterator[list[str]]:
    """A line per backend; what they share is on the first."""
    backends = frontend["backends"]
    place = _place(frontend["address"], frontend["port"])
    what = [frontend["service"], frontend["type"]]
    requests = frontend.get("requests") or {}
    algorithm = f"{frontend['algorithm']}, requests {requests['algorithm']}" if requests else ""
    what += [f"{place}/{frontend['protocol']}", algorithm or frontend["algorithm"]]
    troubles = [f"{one['address']}: {one['detail']}" for one in backends if one.get("detail")]
    kept = f"; affinity {frontend['affinity_s']} s" if frontend["affinity_s"] else ""
    near = [frontend["near"]] if frontend["near"] else []
    carried = [requests["carried"]] if requests.get("carried") else []
    why = ["; ".join((frontend["why"] + kept, *near, *carried, *troubles))] if wide else []
    if not frontend["backends"]:
        unknown = ["-"] * (3 + wide + len(PLACES) * places)
        yield [*what, "<none>", "refused", *unknown, *why]
    for one in frontend["backends"]:
        counts = [str(one["weight"]), str(one["connections"])]
        counts += [str(one["total"])] if wide else []
        if places:
            priority = one["priority"]
            counts += [one["locality"] or "-", "-" if priority is None else str(priority)]
        yield [
            *what,
            _place(one["address"], one["port"]),
            f"{one['state']}, used (panic)" if _panics(frontend, one) else one["state"],
            *counts,
            one["endpoint"],
            *why,
        ]
        what, why = [""] * len(what), [""] * len(why)


def _panics(frontend: Mapping[str, Any], backend: Mapping[str, Any]) -> bool:
    """Whether it gets connections though it is not well."""
    return bool(frontend.get("panic")) and backend["state"] in ("unhealthy", "not ready")


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@command.command(
    epilog=examples("sixfold lb drain web-0 --wait\nsixfold lb drain web-0 --undo"),
)
@click.argument("pod", metavar="POD", shell_complete=completer.pods)
@click.option("--undo", is_flag=True, help="Let it have new connections again.")
@click.option("--wait", is_flag=True, help="Return when its last connection has ended.")
@click.option("--timeout", type=float, default=120.0, metavar="SECONDS", help="How long to wait.")
@shared()
@pass_settings
def drain(settings: Settings, pod: str, undo: bool, wait: bool, timeout: float) -> None:
    """Send a pod nothing new; the connections that it has go on.

    It stays so until --undo, whatever restarts, also when its manifest is applied again. A pod that
    a controller makes in its place is another one, and not drained.
    """
    client = settings.client
    namespace, name = pick_pod(client, settings.namespace_or_default, pod)
    (found,) = client.objects("Pod", namespace, name)
    annotations = dict(found["metadata"].get("annotations") or {})
    annotations[DRAIN] = "false" if undo else "true"
    changed = {**found, "metadata": {**found["metadata"], "annotations": annotations}}
    changed.pop("status", None)
    client.post("/v1/apply", {"objects": [changed]})
    if undo:
        click.echo(f"pod/{name} back")
        return
    left = _connections(client, namespace, f"{namespace}/{name}")
    if wait:
        with progress(f"waiting for {left} connections to {name}"):
            left = _wait(client, namespace, f"{namespace}/{name}", timeout)
    click.echo(f"pod/{name} draining, {left} connections" if left else f"pod/{name} drained")


def _wait(client: Client, namespace: str, endpoint: str, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while left := _connections(client, namespace, endpoint):
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{endpoint}: {left} connections left after {timeout_s:g} s; it gets nothing new"
            )
        time.sleep(PERIOD_S)
    return 0


def _connections(client: Client, namespace: str, endpoint: str) -> int:
    """Live connections to a pod through services; each place counted once."""
    frontends = client.get("/v1/balancing", {"namespace": namespace})["frontends"]
    places = {
        (one["address"], one["port"], frontend["protocol"]): one["connections"]
        for frontend in frontends
        for one in frontend["backends"]
        if one["endpoint"] == endpoint
    }
    return sum(places.values())
