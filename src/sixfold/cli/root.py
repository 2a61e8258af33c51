"""``sixfold``: the verbs by name, each imported when it is used; errors become exit codes.

Exit codes: 0 yes or done, 1 denied or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import click

from sixfold.cli.settings import Settings, global_options
from sixfold.errors import ManifestError, SixfoldError

# verb -> one line of help. The module is sixfold.cli.<verb>, its command is called `command`;
# help must not import them all: a test compares these lines with theirs.
VERBS = {
    "up": "Start Sixfold on this host, and apply manifests.",
    "down": "Stop everything, and leave nothing behind.",
    "status": "Show what the agent does and how it is.",
    "doctor": "Check this host: what is missing, and what to do.",
    "apply": "Create or change objects from manifests.",
    "delete": "Delete objects by name or by manifest.",
    "get": "List objects.",
    "describe": "Show one object in full, and what happened to it.",
    "run": "Run one workload from the command line.",
    "exec": "Run a command inside a pod.",
    "logs": "Print the logs of a pod.",
    "flows": "Show connections and drops, with the rule behind each.",
    "explain": "Would this connection be allowed, and which rule says so?",
    "reach": "Who can reach whom, on what?",
    "diff": "Which flows does a change open, and which does it close?",
    "verify": "Prove assertions about who can reach whom.",
    "lint": "Find policies that probably do not do what was meant.",
    "audit": "Is the whole set as it should be?",
    "posture": "Is every workload, and every pair that talked, as zero trust asks?",
    "harden": "Walk a namespace from what it does to least privilege.",
    "suggest": "Write policies that allow what was seen, and nothing else.",
    "ca": "Show and replace who signs identities.",
    "svid": "Show identities of workloads, and what verifies them.",
    "fqdn": "Show what names of the world have resolved to.",
    "lb": "Show and steer how services are balanced.",
    "dns": "Let this host, and its resolver, find the names of workloads.",
    "resolve": "What is a name answered, by whom, and why?",
    "route": "Show how packets find their way.",
    "metrics": "Print the metrics, as Prometheus reads them.",
    "proxy": "Look inside the mesh's proxies.",
    "bpf": "Show what is really loaded in the kernel.",
    "completion": "Print the completion script for a shell.",
    "version": "Print the versions of the command and of the agent.",
}
GROUPS = {
    "Host": ("up", "down", "status", "doctor"),
    "Objects": ("apply", "delete", "get", "describe"),
    "Workloads": ("run", "exec", "logs"),
    "Network": (
        "flows",
        "explain",
        "resolve",
        "dns",
        "fqdn",
        "lb",
        "svid",
        "ca",
        "route",
        "metrics",
        "proxy",
        "bpf",
    ),
    "Policy": ("reach", "diff", "verify", "lint", "audit", "posture", "suggest", "harden"),
    "Other": ("completion", "version"),
}


class Root(click.Group):
    """Looks verbs up lazily, and is the one place where errors become exit codes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(as_click(args)))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"sixfold.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            from sixfold.cli import elsewhere

            close = get_close_matches(args[0], VERBS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else "; see sixfold --help"
            if there := elsewhere.VERBS.get(args[0]):
                hint = f"; {there}"
            raise click.UsageError(f"unknown command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(verb, VERBS[verb]) for verb in verbs])

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            ctx.color = False
        try:
            return super().invoke(ctx)
        except ManifestError as error:
            click.echo(str(error), err=True)
            ctx.exit(1)
        except SixfoldError as error:
            for line in str(error).splitlines():
                click.echo(f"error: {line}", err=True)
            ctx.exit(1)
        except BrokenPipeError:  # who reads has seen enough: end as SIGPIPE would
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(141)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            name = errno.errorcode.get(error.errno or 0, type(error).__name__)
            click.echo(f"error: {where}{name}: {error.strerror or error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(130)


FLAGS = {
    "--dry-run=client": "--dry-run",
    "--dry-run=server": "--dry-run",
    "--wait=true": "--wait",
    "--wait=false": "--no-wait",
    "--now=true": "--now",
    "--force=true": "--force",
}


def as_click(args: Sequence[str]) -> Iterator[str]:
    """kubectl's spellings as click has them: ``-o=json``, ``--wait=false``; up to ``--``."""
    for number, arg in enumerate(args):
        if arg == "--":
            yield from args[number:]
            return
        yield FLAGS.get(arg) or re.sub(r"^(-[a-zA-Z])=(.)", r"\1\2", arg)


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  sudo sixfold up -f examples/basecamp --detach",
)
@global_options
@click.version_option(package_name="sixfold", message="%(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A zero-trust service network for one Linux host: the Kubernetes YAML you have, no Kubernetes.

    Options may stand before or after the command.
    """
    ctx.ensure_object(Settings)
