"""``sixfold run``."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NoReturn

import click

from sixfold.cli.apply import require_ready, show_results
from sixfold.cli.client import Client
from sixfold.cli.logs import Stream
from sixfold.cli.output import print_structured, progress
from sixfold.cli.settings import OUTPUTS, Settings, examples, pass_settings, shared
from sixfold.errors import SixfoldError


@click.command(
    short_help="Run one workload from the command line.",
    context_settings={"ignore_unknown_options": False},
    epilog=examples(
        """
sixfold run web --port 8080 -- python3 -m http.server 8080
sixfold run probe -n shop --labels app=probe --env LEVEL=debug -- sleep 600
sixfold run web --replicas 3 --port 8080 -- python3 -m http.server 8080
sixfold run tmp -n shop --rm -it -- bash           a shell among the pods of shop, for a while
sixfold run tmp -n shop --rm -- curl -sS http://db  print what it says, pass its exit code on
"""
    ),
)
@click.argument("name")
@click.argument("argv", metavar="-- COMMAND [ARG]...", nargs=-1, required=True)
@click.option("--image", default="host", help="Only 'host' runs here: the host's file system.")
@click.option("-l", "--labels", multiple=True, metavar="K=V[,K=V]", help="Besides run=NAME.")
@click.option("--port", "ports", multiple=True, metavar="[NAME:]N[/PROTO]", help="It listens on.")
@click.option("--env", multiple=True, metavar="K=V", help="Variables of its environment.")
@click.option("--replicas", type=click.IntRange(min=0), help="Make a Deployment of so many.")
@click.option(
    "--restart",
    type=click.Choice(["Always", "OnFailure", "Never"]),
    default="Always",
    help="What to do when it ends; Always.",
)
@click.option("--rm", "passing", is_flag=True, help="Stay with it to its end, then delete it.")
@click.option("-i", "--stdin", is_flag=True, help="With --rm: keep standard input.")
@click.option("-t", "--tty", is_flag=True, help="With --rm: use this terminal.")
@click.option("--dry-run", is_flag=True, help="Print what would be created; with -o yaml or json.")
@click.option("--wait/--no-wait", default=True, help="Return when it is in force; the default.")
@click.option("--timeout", "timeout_s", type=float, default=120.0, help="Seconds for --wait.")
@shared(outputs=OUTPUTS)
@pass_settings
def command(
    settings: Settings,
    /,
    name: str,
    dry_run: bool,
    wait: bool,
    timeout_s: float,
    passing: bool,
    stdin: bool,
    tty: bool,
    **options: Any,
) -> None:
    """Run one workload from the command line: a Pod, or a Deployment with --replicas.

    With --rm the pod lives as long as the command does. -i and -t run the command in an idle
    pod, as exec does.
    """
    if passing:
        if options["replicas"] is not None:
            raise click.UsageError("--rm is for one pod; leave --replicas out")
        visit(settings, name, stdin=stdin, tty=tty, timeout_s=timeout_s, **options)
    if stdin or tty:
        raise click.UsageError("-i and -t need --rm; or sixfold exec -it in a pod that runs")
    manifest = build(name, settings.namespace_or_default, **options)
    if dry_run:
        print_structured(manifest, "json" if settings.output == "json" else "yaml")
        return
    with progress(f"starting {name}"):
        answer = settings.client.post(
            "/v1/apply",
            {
                "objects": [manifest],
                "sources": [{"source": "command line", "line": 0}],
                "wait": wait,
                "timeout_s": timeout_s,
            },
        )
    if settings.structured:
        print_structured(answer, settings.output)
    else:
        show_results(answer["results"], settings.output)
    require_ready(answer)


def visit(
    settings: Settings,
    name: str,
    *,
    argv: tuple[str, ...],
    stdin: bool,
    tty: bool,
    timeout_s: float,
    **options: Any,
) -> NoReturn:
    """One command in a pod of its own; the pod goes with it, and the exit code is passed on."""
    client, namespace = settings.client, settings.namespace_or_default
    interactive = stdin or tty
    idle = ("sleep", "infinity")
    options["restart"] = "Never"
    manifest = build(name, namespace, argv=idle if interactive else argv, **options)
    if any(pod["metadata"]["name"] == name for pod in client.objects("Pod", namespace)):
        raise SixfoldError(f"pod {namespace}/{name}: is there already; give another name")
    request = {"objects": [manifest], "sources": [{"source": "command line", "line": 0}]}
    try:
        waiting = {"wait": interactive, "timeout_s": timeout_s}
        require_ready(client.post("/v1/apply", {**request, **waiting}))
        if interactive:
            flags = [flag for flag, given in (("-i", stdin), ("-t", tty)) if given]
            sixfold = (sys.executable, "-m", "sixfold.cli", "--instance", settings.paths.instance)
            line = (*sixfold, "exec", "-n", namespace, *flags, name, "--", *argv)
            code = subprocess.run(line, check=False).returncode
        else:
            code = _watched(client, namespace, name)
    finally:
        key = {"kind": "Pod", "namespace": namespace, "name": name}
        client.post("/v1/delete", {"keys": [key], "grace_s": 1, "ignore_missing": True})
    raise click.exceptions.Exit(code)


def _watched(client: Client, namespace: str, name: str) -> int:
    """Print the pod's log to its end; returns the exit code of its container."""
    Stream(client, namespace, name, "", {"follow": "true"}, prefixed=False).copy()
    (pod,) = client.objects("Pod", namespace, name)
    for status in pod["status"].get("containerStatuses", ()):
        if ended := status["state"].get("terminated"):
            if message := ended.get("message"):
                click.echo(f"error: {message}", err=True)
            return int(ended["exitCode"])
    raise SixfoldError(f"pod {namespace}/{name}: ended without an exit code; see its log")


def build(
    name: str,
    namespace: str,
    *,
    argv: tuple[str, ...],
    image: str,
    labels: tuple[str, ...],
    ports: tuple[str, ...],
    env: tuple[str, ...],
    replicas: int | None,
    restart: str,
) -> dict[str, Any]:
    """The manifest that says the same."""
    container: dict[str, Any] = {"name": name, "image": image, "command": list(argv)}
    if ports:
        container["ports"] = [_port(text) for text in ports]
    if env:
        pairs = [_pair(text, "--env") for text in env]
        container["env"] = [{"name": key, "value": value} for key, value in pairs]
    named = [_pair(part, "--labels") for text in labels for part in text.split(",")]
    metadata = {"name": name, "namespace": namespace, "labels": {"run": name, **dict(named)}}
    spec: dict[str, Any] = {"containers": [container], "restartPolicy": restart}
    if replicas is None:
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"run": name}},
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": spec},
        },
    }


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"{option} {text!r}: give KEY=VALUE")
    return key, value


def _port(text: str) -> dict[str, Any]:
    left, _, protocol = text.partition("/")
    name, colon, number = left.rpartition(":")
    if not number.isdecimal() or not 1 <= int(number) <= 65535:
        raise click.UsageError(f"--port {text!r}: give 8080, http:8080 or 53/UDP")
    port: dict[str, Any] = {"containerPort": int(number)}
    if colon:
        port["name"] = name
    if protocol:
        port["protocol"] = protocol.upper()
    return port
