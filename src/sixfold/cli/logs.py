"""``sixfold logs``."""

from __future__ import annotations

import sys

import click

from sixfold.cli import completer
from sixfold.cli.client import path_of
from sixfold.cli.pods import pick_pod
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.observe.filter import duration_s


@click.command(
    short_help="Print the logs of a pod.",
    epilog=examples(
        """
sixfold logs web-0 -n shop
sixfold logs -f deploy/web --tail 20
sixfold logs web-0 -c sidecar --since 5m --timestamps
sixfold logs web-0 -p                     of the container before its last restart
"""
    ),
)
@click.argument("pod", metavar="POD|KIND/NAME", shell_complete=completer.pods)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
@click.option("--tail", type=int, help="Only the last lines.")
@click.option("--since", metavar="DURATION", help="Only younger than 5s, 2m, 3h.")
@click.option("-p", "--previous", is_flag=True, help="Of the container before its last restart.")
@click.option("-c", "--container", default="", metavar="NAME")
@click.option("--timestamps", is_flag=True)
@shared()
@pass_settings
def command(
    settings: Settings,
    pod: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    previous: bool,
    container: str,
    timestamps: bool,
) -> None:
    """Print the logs of a pod, or of one pod of a workload."""
    client = settings.client
    params: dict[str, str] = {"container": container} if container else {}
    if tail is not None and tail >= 0:  # kubectl: -1 is all
        params["tail"] = str(tail)
    if since is not None:
        if (seconds := duration_s(since)) is None:
            raise click.UsageError(f"--since {since!r}: give 5s, 2m, 3h")
        params["since"] = str(seconds)
    flags = {"follow": follow, "previous": previous, "timestamps": timestamps}
    params |= {name: "true" for name, given in flags.items() if given}
    namespace, name = pick_pod(client, settings.namespace_or_default, pod)
    with client.stream(path_of("pods", namespace, name, "log"), params) as (_, lines):
        for line in lines:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
