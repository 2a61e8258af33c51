"""``sixfold lint``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli.output import coloured, print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.cli.world import config_of, filename_option, live_world, world_options

if TYPE_CHECKING:
    from sixfold.manifest import Manifests
    from sixfold.policy.lint_finding import Finding

SEVERITIES = ("info", "warning")


@click.command(
    short_help="Find policies that probably do not do what was meant.",
    epilog=examples(
        """
sixfold lint -f manifests/
sixfold lint -f manifests/ --posture kubernetes --fail-on info
sixfold lint -f manifests/ -o json
sixfold lint                                     the running system
"""
    ),
)
@filename_option
@world_options
@click.option(
    "--fail-on",
    type=click.Choice(["info", "warning", "never"]),
    default="warning",
    show_default=True,
    help="The least severity that makes the exit code 1.",
)
@shared(outputs=ANSWERS)
@pass_settings
@click.pass_context
def command(
    ctx: click.Context,
    settings: Settings,
    filenames: tuple[str, ...],
    posture: str | None,
    ipblock_matches_pods: bool | None,
    fail_on: str,
) -> None:
    """Find policies that probably do not do what was meant, with file, line and path.

    Checks: allow-without-deny-base, cidr-instead-of-identity, empty-selector, host-lockout,
    no-effect, not-http, redundant, selects-nothing, shadowed, unknown-port-name. They are judged by
    what is in the manifests: give workloads and policies together. Exit code 0: nothing of that
    severity; 1: something; 2: wrong usage.
    """
    from sixfold.cli.apply import read, report_ignored
    from sixfold.manifest import offline
    from sixfold.policy.lint import lint
    from sixfold.policy.reach_parties import View

    manifests = None
    if filenames:
        namespace = settings.namespace_or_default
        manifests = read(filenames, namespace, offline=True, positions=True)
        report_ignored(manifests)
        world = offline(manifests, config_of(posture, ipblock_matches_pods))
    elif posture or ipblock_matches_pods is not None:
        raise click.UsageError("the running agent has its own settings; give -f as well")
    else:
        world = live_world(settings)
    found = lint(View(world))
    items = [structured(one, manifests) for one in found]
    if settings.structured:
        print_structured(items, settings.output)
    else:
        show(items)
    worst = max((SEVERITIES.index(one.severity) for one in found), default=-1)
    limit = len(SEVERITIES) if fail_on == "never" else SEVERITIES.index(fail_on)
    ctx.exit(1 if worst >= limit else 0)


def structured(finding: Finding, manifests: Manifests | None) -> dict[str, Any]:
    """A finding with its place in the files, when it came from files."""
    from sixfold.manifest.path import show as show_path
    from sixfold.model.policies import POLICY_KINDS, policy_key

    item: dict[str, Any] = {"policy": finding.policy, "path": show_path(finding.path)}
    for loaded in manifests.objects if manifests else ():
        if loaded.key.kind in POLICY_KINDS and policy_key(loaded.object) == finding.policy:  # type: ignore[arg-type]
            line = loaded.line_at(finding.path) if loaded.line_at else loaded.line
            item = {"file": loaded.source, "line": line, **item}
    return {
        **item,
        "severity": finding.severity,
        "check": finding.check,
        "message": finding.message,
    }


def show(items: Sequence[dict[str, Any]]) -> None:
    for item in items:
        where = f"{item['file']}:{item['line']}" if "file" in item else item["policy"]
        severity = coloured("warn") + "ing" if item["severity"] == "warning" else "info"
        text = f"{severity}: {item['message']} [{item['check']}]"
        click.echo(": ".join(part for part in (where, item["path"], text) if part))
    warnings = sum(item["severity"] == "warning" for item in items)
    click.echo(f"{warnings} warnings, {len(items) - warnings} infos", err=True)
