"""``sixfold exec``."""

from __future__ import annotations

import os
import sys

import click

from sixfold.cli import completer
from sixfold.cli.client import path_of
from sixfold.cli.pods import pick_pod
from sixfold.cli.settings import Settings, examples, pass_settings, shared


@click.command(
    name="exec",
    short_help="Run a command inside a pod.",
    epilog=examples(
        """
sixfold exec web-0 -n shop -- ip addr
sixfold exec -it web-0 -c app -- bash
sixfold exec deploy/web -- curl -s db:6379
"""
    ),
)
@click.argument("pod", metavar="POD|KIND/NAME", shell_complete=completer.pods)
@click.argument("argv", metavar="-- COMMAND [ARG]...", nargs=-1, required=True)
@click.option("-i", "--stdin", is_flag=True, help="Keep standard input.")
@click.option("-t", "--tty", is_flag=True, help="Use this terminal.")
@click.option(
    "-c",
    "--container",
    default="",
    metavar="NAME",
    help="Its first container, unless told.",
    shell_complete=completer.containers,
)
@shared()
@pass_settings
def command(
    settings: Settings, pod: str, argv: tuple[str, ...], stdin: bool, tty: bool, container: str
) -> None:
    """Run a command inside a pod: its namespaces, cgroup and user. Its exit code is passed on."""
    from sixfold.host.enter import Target, enter

    client = settings.client
    namespace, name = pick_pod(client, settings.namespace_or_default, pod)
    params = {"container": container} if container else None
    found = client.get(path_of("pods", namespace, name, "exec"), params)
    target = Target(
        pid=found["pid"],
        start=found.get("start", 0),
        cgroup=found["cgroup"],
        uid=found.get("uid", 0),
        gid=found.get("gid", 0),
        groups=tuple(found.get("groups", ())),
        no_new_privs=found.get("no_new_privs", False),
        env=found.get("env", {}),
        cwd=found.get("cwd") or "/",
    )
    if not stdin:
        with open(os.devnull) as null:
            os.dup2(null.fileno(), 0)
    sys.stdout.flush()
    enter(target, argv, tty=tty)
