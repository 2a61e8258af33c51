"""``sixfold run``."""

from __future__ import annotations

from typing import Any

import click

from sixfold.cli.apply import show_results
from sixfold.cli.output import print_structured, progress
from sixfold.cli.settings import OUTPUTS, Settings, examples, pass_settings, shared


@click.command(
    short_help="Run one workload from the command line.",
    context_settings={"ignore_unknown_options": False},
    epilog=examples(
        """
sixfold run web --port 8080 -- python3 -m http.server 8080
sixfold run probe -n shop --labels app=probe --env LEVEL=debug -- sleep 600
sixfold run web --replicas 3 --port 8080 -- python3 -m http.server 8080
"""
    ),
)
@click.argument("name")
@click.argument("argv", metavar="-- COMMAND [ARG]...", nargs=-1, required=True)
@click.option("--image", default="host", help="Only 'host' runs here: the host's file system.")
@click.option("-l", "--labels", multiple=True, metavar="K=V[,K=V]", help="Besides run=NAME.")
@click.option("--port", "ports", multiple=True, metavar="[NAME:]N[/PROTO]", help="It listens on.")
@click.option("--env", multiple=True, metavar="K=V")
@click.option("--replicas", type=click.IntRange(min=0), help="Make a Deployment of so many.")
@click.option("--restart", type=click.Choice(["Always", "OnFailure", "Never"]), default="Always")
@click.option("--dry-run", is_flag=True, help="Print what would be created; with -o yaml or json.")
@click.option("--wait/--no-wait", default=True, help="Return when it is in force; the default.")
@click.option("--timeout", "timeout_s", type=float, default=120.0, help="Seconds for --wait.")
@shared(outputs=OUTPUTS)
@pass_settings
def command(
    settings: Settings, /, name: str, dry_run: bool, wait: bool, timeout_s: float, **options: Any
) -> None:
    """Run one workload from the command line: a Pod, or a Deployment with --replicas."""
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
