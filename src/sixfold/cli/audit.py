"""``sixfold audit``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click
import msgspec

from sixfold.cli.output import coloured, print_structured, print_table
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.world import config_of, filename_option, live_world, world_options

if TYPE_CHECKING:
    from sixfold.manifest import Manifests
    from sixfold.trust.audit_finding import Evidence, Finding, Live
    from sixfold.trust.audit_show import Placed

SEVERITIES = ("low", "medium", "high", "critical")
OUTPUTS = ("table", "json", "yaml", "markdown", "sarif")


@click.command(
    short_help="Is the whole set as it should be?",
    epilog=examples(
        """
sixfold audit                                       the running system
sixfold audit -f manifests/                         what manifests alone can tell
sixfold audit -f manifests/ --posture kubernetes --fail-on critical
sixfold audit --rule Z23
sixfold audit --rules                               what is asked
sixfold audit --probe                               and strangers try, from pods
sixfold audit -o sarif > audit.sarif                for code scanners; markdown for people
"""
    ),
)
@filename_option
@world_options
@click.option("--rule", "rules", multiple=True, metavar="Znn", help="Ask only this; repeatable.")
@click.option("--rules", "listing", is_flag=True, help="List the rules, and ask nothing.")
@click.option(
    "--probe",
    is_flag=True,
    help="Live: try it as well: packets past the proxy, tunnel ports, our own doors, from pods.",
)
@click.option(
    "--unused-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Z04, Z10: a permissive port, a rule, may be without use for so long.",
)
@click.option(
    "--fail-on",
    type=click.Choice([*SEVERITIES, "never"]),
    default="high",
    show_default=True,
    help="The least severity that makes the exit code 1.",
)
@shared(outputs=OUTPUTS)
@pass_settings
@click.pass_context
def command(
    ctx: click.Context,
    settings: Settings,
    filenames: tuple[str, ...],
    posture: str | None,
    ipblock_matches_pods: bool | None,
    rules: tuple[str, ...],
    listing: bool,
    probe: bool,
    unused_days: float,
    fail_on: str,
) -> None:
    """Is the whole set as it should be? Each finding has its evidence, and the fix.

    `sixfold audit --rules` lists what is asked. Exit code 0: nothing of that severity; 1:
    something; 2: wrong usage.
    """
    from sixfold.trust.audit import RULES, audit

    if listing:
        list_rules(settings)
        return
    numbers = [rule.number for rule in RULES]
    asked = [rule.upper() for rule in rules]
    if unknown := [rule for rule in asked if rule not in numbers]:
        raise click.UsageError(f"{unknown[0]}: no rule; there are {', '.join(numbers)}")
    if probe and filenames:
        raise click.UsageError("--probe is for the running system; leave out -f")
    evidence, manifests = _evidence(settings, filenames, posture, ipblock_matches_pods, probe)
    evidence = replace(evidence, unused_s=unused_days * 86400)
    placed = [_placed(finding, manifests) for finding in audit(evidence, asked)]
    if settings.namespace:
        placed = [one for one in placed if one.finding.about.namespace in ("", settings.namespace)]
    show(placed, settings.output)
    worst = max((SEVERITIES.index(one.finding.severity) for one in placed), default=-1)
    limit = len(SEVERITIES) if fail_on == "never" else SEVERITIES.index(fail_on)
    ctx.exit(1 if worst >= limit else 0)


def _evidence(
    settings: Settings,
    filenames: Sequence[str],
    posture: str | None,
    ipblock_matches_pods: bool | None,
    probe: bool,
) -> tuple[Evidence, Manifests | None]:
    from sixfold.cli.apply import read, report_ignored
    from sixfold.manifest import offline
    from sixfold.policy.reach_parties import View
    from sixfold.trust.audit_finding import Evidence

    if filenames:
        namespace = settings.namespace_or_default
        manifests = read(tuple(filenames), namespace, offline=True, positions=True)
        report_ignored(manifests)
        world = offline(manifests, config_of(posture, ipblock_matches_pods))
        return Evidence(View(world)), manifests
    if posture or ipblock_matches_pods is not None:
        raise click.UsageError("the running agent has its own settings; give -f as well")
    return Evidence(View(live_world(settings)), _live(settings, probe)), None


def _live(settings: Settings, probe: bool) -> Live:
    from sixfold.trust.audit_finding import Live

    parameters = {"probe": "true"} if probe else {}
    return msgspec.convert(settings.client.get("/v1/evidence", parameters), Live)


def _placed(finding: Finding, manifests: Manifests | None) -> Placed:
    """With its place in the files, when it came from files."""
    from sixfold.manifest.path import show as show_path
    from sixfold.trust.audit_show import Placed

    path = show_path(finding.path)
    for loaded in manifests.objects if manifests else ():
        if tuple(loaded.key) == tuple(finding.about):
            line = loaded.line_at(finding.path) if loaded.line_at else loaded.line
            return Placed(finding, loaded.source, line, path)
    return Placed(finding, path=path)


def list_rules(settings: Settings) -> None:
    from sixfold.trust.audit import RULES

    rows = [
        [
            rule.number,
            rule.severity,
            "" if rule.offline else "live",
            rule.title,
            rule.anti_pattern,
        ]
        for rule in RULES
    ]
    if settings.structured:
        names = ("rule", "severity", "evidence", "title", "anti_pattern")
        print_structured([dict(zip(names, row, strict=True)) for row in rows], settings.output)
        return
    print_table(["RULE", "SEVERITY", "EVIDENCE", "FINDING WHEN", "ANTI-PATTERN"], rows)


def show(placed: Sequence[Placed], output: str) -> None:
    from sixfold import __version__
    from sixfold.trust.audit_show import markdown, sarif, structured

    if output == "markdown":
        click.echo(markdown(placed), nl=False)
    elif output == "sarif":
        click.echo(json.dumps(sarif(placed, __version__), indent=2, ensure_ascii=False))
    elif output in ("json", "yaml"):
        print_structured([structured(one) for one in placed], output)
    else:
        for one in placed:
            _print(one)
        counts = [sum(one.finding.severity == word for one in placed) for word in SEVERITIES]
        said = ", ".join(f"{n} {word}" for n, word in zip(counts, SEVERITIES, strict=True) if n)
        click.echo(said or "nothing found", err=True)


def _print(one: Placed) -> None:
    """Who and what on one line, evidence and fix under it."""
    found = one.finding
    path = f"{one.path}: " if one.path else ""
    who = f"{one.where}: {path}" if one.file else ""
    severity = coloured(found.severity)
    click.echo(f"{who}{found.rule} {severity}: {found.about}: {found.message}")
    click.echo(f"    evidence  {found.evidence}")
    first, *rest = found.fix.splitlines()
    click.echo(f"    fix       {first}")
    for line in rest:
        click.echo(f"              {line}")
