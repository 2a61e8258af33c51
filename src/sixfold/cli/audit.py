"""``sixfold audit``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sixfold.cli.output import coloured, print_structured
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.world import config_of, filename_option, live_world, world_options

if TYPE_CHECKING:
    from sixfold.manifest import Manifests
    from sixfold.trust.audit_finding import Evidence, Finding, Live, PortSeen
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
sixfold audit -o sarif > audit.sarif                for code scanners; markdown for people
"""
    ),
)
@filename_option
@world_options
@click.option("--rule", "rules", multiple=True, metavar="Znn", help="Ask only this; repeatable.")
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
    fail_on: str,
) -> None:
    """Is the whole set as it should be? Each finding has its evidence, and the fix.

    Z01 a workload that no policy selects is open. Z02 an allow-list without a base that denies.
    Z06 a policy names addresses where it means workloads. Z17 everything outside may be dialled.
    Z21 decisions were not recorded (live). Z22 the datapath lags (live). Z23 long-lived connections
    on a rotation that suits short ones (live: as they are seen). Z24 a client keeps addresses for
    longer than an answer holds (live). Exit code 0: nothing of that
    severity; 1: something; 2: wrong usage.
    """
    from sixfold.trust.audit import RULES, audit

    numbers = [rule.number for rule in RULES]
    asked = [rule.upper() for rule in rules]
    if unknown := [rule for rule in asked if rule not in numbers]:
        raise click.UsageError(f"{unknown[0]}: no rule; there are {', '.join(numbers)}")
    evidence, manifests = _evidence(settings, filenames, posture, ipblock_matches_pods)
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
    return Evidence(View(live_world(settings)), _live(settings)), None


def _live(settings: Settings) -> Live:
    from sixfold.trust.audit_finding import DialsSeen, Live

    client = settings.client
    status = client.get("/v1/status")
    agent, drops = status["agent"], status["drops"]
    return Live(
        ports=tuple(map(_port_seen, client.get("/v1/balancing")["frontends"])),
        dials=tuple(msgspec.convert(client.get("/v1/dials")["dials"], list[DialsSeen])),
        flows_lost=status["flows"]["lost"],
        hits_lost=drops.get("rule_hits_lost", 0),
        generation=agent["generation"],
        applied=agent["applied"],
        problem=agent["problem"],
    )


def _port_seen(frontend: dict[str, Any]) -> PortSeen:
    from sixfold.trust.audit_finding import PortSeen

    return PortSeen(
        frontend["service"],
        frontend["port"],
        frontend["protocol"],
        frontend["algorithm"],
        frontend["why"],
        frontend["lifetime_s"],
        tuple(
            one["connections"] / one["weight"]
            for one in frontend["backends"]
            if one["state"] in ("active", "slow start") and one["weight"]
        ),
    )


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
