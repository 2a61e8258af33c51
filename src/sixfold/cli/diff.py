"""``sixfold diff``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli.output import print_structured, print_table
from sixfold.cli.rows import cells, names, ports, structured_row
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.world import config_of, live_world, read_manifests, world_options
from sixfold.errors import SixfoldError

if TYPE_CHECKING:
    from sixfold.model.world import World
    from sixfold.policy.diff import Difference
    from sixfold.policy.reach_show import Row

OUTPUTS = ("table", "wide", "json", "yaml", "markdown")


@click.command(
    short_help="Which flows does a change open, and which does it close?",
    epilog=examples(
        """
sixfold diff old/ new/                       exit code 1 when a flow changes
sixfold diff old/ new/ -o markdown           for a pull request
sixfold diff --live policy.yaml              before you apply it
"""
    ),
)
@click.argument("paths", nargs=-1, metavar="[OLD] NEW")
@click.option("--live", is_flag=True, help="OLD is the running system; NEW is applied to it.")
@world_options
@shared(outputs=OUTPUTS)
@pass_settings
@click.pass_context
def command(
    ctx: click.Context,
    settings: Settings,
    paths: tuple[str, ...],
    live: bool,
    posture: str | None,
    ipblock_matches_pods: bool | None,
) -> None:
    """Which flows does a change open (+), and which does it close (-)?

    OLD and NEW are files, directories or -. With --live, NEW is taken as sixfold apply takes it:
    its policies and namespaces replace those of the same name, and the rest stays; workloads are
    those that run. Exit code 0: no flow changes; 1: some do; 2: trouble, or wrong usage.
    """
    if len(paths) != (1 if live else 2):
        raise click.UsageError("give NEW with --live, else OLD and NEW")
    if live and (posture or ipblock_matches_pods is not None):
        raise click.UsageError("--live has the settings of the running agent; leave the others out")
    try:
        config = None if live else config_of(posture, ipblock_matches_pods)
        old, new = worlds(settings, paths, config)
    except SixfoldError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        ctx.exit(2)
    from sixfold.policy.diff import compare
    from sixfold.policy.reach_parties import View

    found = compare(View(old), View(new))
    match settings.output:
        case "json" | "yaml":
            print_structured(structured(found), settings.output)
        case "markdown":
            click.echo(markdown(found))
        case _:
            show(found, wide=settings.output == "wide")
    ctx.exit(1 if found else 0)


def worlds(settings: Settings, paths: tuple[str, ...], config: Any) -> tuple[World, World]:
    """Before and after."""
    from sixfold.manifest import offline
    from sixfold.model.meta import Namespace

    namespace = settings.namespace_or_default
    if config is not None:
        old, new = (offline(read_manifests((path,), namespace), config) for path in paths)
        return old, new
    running = live_world(settings)
    manifests = read_manifests(paths, namespace)
    given = offline(manifests, running.config)
    written = {one.key.name for one in manifests.objects if isinstance(one.object, Namespace)}
    fresh = {name: labels for name, labels in given.namespaces.items() if name in written}
    return running, replace(
        running,
        namespaces={**running.namespaces, **fresh},
        audited=(running.audited - written) | given.audited,
        policies={**running.policies, **given.policies},
        cidr_groups={**running.cidr_groups, **given.cidr_groups},
    )


def show(found: Difference, *, wide: bool) -> None:
    if not found:
        click.echo("no flow changes", err=True)
        return
    rows = [
        (sign, *cells(row, wide=wide))
        for sign, changed in (("+", found.opened), ("-", found.closed))
        for row in changed
    ]
    print_table(("", "FROM", "TO", "PORTS"), rows)
    for sign, some in (("+", found.came), ("-", found.went)):
        if some:
            click.echo(f"{sign} workloads: {names(some, wide=wide)}", err=True)


def structured(found: Difference) -> dict[str, Any]:
    return {
        "opened": [structured_row(row) for row in found.opened],
        "closed": [structured_row(row) for row in found.closed],
        "workloads": {"added": list(found.came), "removed": list(found.went)},
    }


def markdown(found: Difference) -> str:
    """A comment for a pull request."""
    if not found:
        return "**No flow changes.**"
    lines = [f"**Flows: {len(found.opened)} opened, {len(found.closed)} closed** (rows)", ""]
    lines += ("| | from | to | ports |", "|---|---|---|---|")
    lines += _markdown_rows("➕", found.opened)
    lines += _markdown_rows("➖", found.closed)
    for what, some in (("New", found.came), ("Removed", found.went)):
        if some:
            lines += ("", f"{what} workloads: {_code(some)}")
    return "\n".join(lines)


def _markdown_rows(sign: str, rows: Iterable[Row]) -> list[str]:
    return [
        f"| {sign} | {_code(row.sources)} | {_code(row.destinations)} | `{ports(row)}` |"
        for row in rows
    ]


def _code(texts: tuple[str, ...]) -> str:
    return ", ".join(f"`{text}`" for text in texts)
