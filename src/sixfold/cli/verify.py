"""``sixfold verify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

import click

from sixfold.cli.output import coloured, print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.cli.world import (
    filename_option,
    read_world,
    warn_of_unknown_addresses,
    world_options,
)
from sixfold.errors import ManifestError, Problem

if TYPE_CHECKING:
    from sixfold.manifest.document import Document
    from sixfold.manifest.path import Path as FieldPath
    from sixfold.policy.verify import Outcome
    from sixfold.policy.verify_assertion import Assertion


@click.command(
    short_help="Prove assertions about who can reach whom.",
    epilog=examples(
        """
sixfold verify -f manifests/ --assert rules.yaml
sixfold verify -f manifests/ --assert rules.yaml --junit report.xml
sixfold verify --assert rules.yaml                     the running system

rules.yaml:
- name: only web reaches the database
  only:
    to: {namespace: shop, podSelector: {matchLabels: {app: db}}}
    from: [{workload: shop/web}]
    ports: [{port: 6379}]
- deny: {from: {world: true}, to: {namespace: shop}}
- allow: {from: {namespace: shop}, to: {cidr: 192.0.2.0/24}, ports: [{port: 443}]}
- isolated: {namespaceSelector: {}, direction: ingress}
"""
    ),
)
@filename_option
@world_options
@click.option(
    "--assert", "asserted", required=True, metavar="FILE|-", help="Assertions, a YAML list."
)
@click.option("--junit", metavar="FILE", help="Write a report that CI systems read.")
@shared(outputs=ANSWERS)
@pass_settings
@click.pass_context
def command(
    ctx: click.Context,
    settings: Settings,
    filenames: tuple[str, ...],
    posture: str | None,
    ipblock_matches_pods: bool | None,
    asserted: str,
    junit: str | None,
) -> None:
    """Prove assertions about who can reach whom, for all pods, ports and addresses.

    Nothing is sampled: policies are compiled, and whole sets of ports and addresses compared. What
    does not hold comes with a flow that shows it, and the rules that let it pass or stopped it.

    Each assertion is one of deny, allow, only, isolated. A side is {namespace, namespaceSelector,
    podSelector} (all that are given must hold), {workload: ns/name}, {cidr}, {world: true}
    (addresses that are no pod's) or {host: true}, or a list of these; absent, it is anybody. Absent
    ports are all. DNS to the node's resolver and the node's own access to its pods are built in and
    count only where the host is named. A file of "apiVersion: sixfold.dev/v1, kind: Assertions,
    assertions: […]" may lie beside the manifests: they leave it alone. Exit code 0: all hold; 1:
    one does not; 2: wrong usage.
    """
    if asserted == "-" and "-" in filenames:
        raise click.UsageError("--assert - and -f - both read standard input; give one a file")
    from sixfold.policy.reach_parties import View
    from sixfold.policy.verify import verify

    assertions = read_assertions(asserted)
    world = read_world(settings, filenames, posture, ipblock_matches_pods)
    view = View(world)
    warn_of_unknown_addresses(view)
    outcomes = verify(view, assertions)
    if junit:
        Path(junit).write_text(report(outcomes, asserted), encoding="utf-8")
    if settings.structured:
        print_structured([structured(one) for one in outcomes], settings.output)
    else:
        show(outcomes)
    ctx.exit(0 if all(one.holds for one in outcomes) else 1)


def read_assertions(name: str) -> list[Assertion]:
    """Read one file; raises ManifestError with file, line and path."""
    from sixfold.manifest.document import parse

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--assert {name}: {error.strerror or error}") from None
    problems: list[Problem] = []
    found = [
        assertion
        for document in parse(text, name, problems)
        for path, raw in _items(document)
        if (assertion := _assertion(document, path, raw, name, problems)) is not None
    ]
    if not found and not problems:
        problems.append(Problem(name, 0, "", "no assertion; give a list of deny, allow, only, …"))
    if problems:
        raise ManifestError(problems)
    return found


def _items(document: Document) -> list[tuple[FieldPath, Any]]:
    value = document.value
    if isinstance(value, dict) and isinstance(value.get("assertions"), list):
        return [(("assertions", at), item) for at, item in enumerate(value["assertions"])]
    if isinstance(value, list):
        return [((at,), item) for at, item in enumerate(value)]
    return [] if value is None else [((), value)]


def _assertion(
    document: Document, path: FieldPath, raw: Any, name: str, problems: list[Problem]
) -> Assertion | None:
    from sixfold.manifest.document import line_of
    from sixfold.manifest.path import Finding, show
    from sixfold.manifest.shape import shaped
    from sixfold.policy.verify_assertion import Assertion

    assertion, findings = shaped(_listed(raw), Assertion, offline=True)
    if not findings and len(assertion.kinds) != 1:
        findings = [Finding((), "give one of deny, allow, only, isolated")]
    findings = findings or list(_meaning(assertion))
    for finding in findings:
        where = line_of(document, (*path, *finding.path))
        problems.append(Problem(name, where, show((*path, *finding.path)), finding.message))
    return None if findings else assertion


def _listed(raw: Any) -> Any:
    """``from`` and ``to`` as lists: one mapping is a list of one."""
    if not isinstance(raw, dict):
        return raw
    return {
        key: {k: [v] if k in ("from", "to") and isinstance(v, dict) else v for k, v in part.items()}
        if isinstance(part, dict)
        else part
        for key, part in raw.items()
    }


def _meaning(assertion: Assertion) -> list[Any]:
    """What is wrong with values that have the right shape."""
    from sixfold.manifest import names
    from sixfold.manifest.path import Finding

    found = []
    for end in assertion.ends:
        if end.cidr and isinstance(network := names.cidr(end.cidr), str):
            found.append(Finding(tuple(assertion.kinds), network))
        selects = end.namespace or end.workload or end.pod_selector or end.namespace_selector
        if sum(map(bool, (selects, end.cidr, end.host, end.world))) > 1:
            message = "pods, cidr, host and world are sides of their own; make a list of them"
            found.append(Finding(tuple(assertion.kinds), message))
    for flows in (assertion.deny, assertion.allow, assertion.only):
        for port in (flows and flows.ports) or ():
            if isinstance(port.port, str):
                message = f'"{port.port}" is a name; give the number, names differ per pod'
                found.append(Finding((*assertion.kinds, "ports"), message))
    return found


def show(outcomes: Sequence[Outcome]) -> None:
    titles = [title(one, number) for number, one in enumerate(outcomes, 1)]
    for one, text in zip(outcomes, titles, strict=True):
        click.echo(f"{coloured('ok  ' if one.holds else 'fail')}  {text}")
        if one.why:
            click.echo(f"      {explained(one)}")
    failed = sum(not one.holds for one in outcomes)
    held = len(outcomes) - failed
    click.echo(f"{held} of {len(outcomes)} hold", err=True)


def title(outcome: Outcome, number: int) -> str:
    assertion = outcome.assertion
    return f"{assertion.kinds[0]}  {assertion.name or f'assertion {number}'}"


def explained(outcome: Outcome) -> str:
    """Why it does not hold, with the flow and the rule of each side."""
    flow = outcome.example
    if flow is None:
        return outcome.why
    sides = "; ".join(f"{side} {_side(flow[side])}" for side in ("egress", "ingress"))
    return (
        f"{outcome.why}: {flow['from']} → {flow['to']} {flow['protocol']}/{flow['port']}: {sides}"
    )


def _side(side: dict[str, Any]) -> str:
    verb = "allowed" if side["verdict"] == "ALLOWED" else "denied"
    if side.get("audit"):
        verb = "in audit, so allowed, else denied"
    if side["policy"] is None:
        return f"{verb} by {side['default']}"
    rule = "" if side["rule"] == side["policy"] else f" {side['rule']}"
    return f"{verb} by {side['policy']}{rule}"


def structured(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": outcome.assertion.name,
        "kind": outcome.assertion.kinds[0],
        "holds": outcome.holds,
    }
    if outcome.why:
        found["why"] = outcome.why
    if outcome.example:
        found["counterexample"] = outcome.example
    return found


def report(outcomes: Sequence[Outcome], name: str) -> str:
    """JUnit XML: one test case per assertion."""
    failed = sum(not one.holds for one in outcomes)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name={quoteattr(f"sixfold verify {name}")} tests="{len(outcomes)}" '
        f'failures="{failed}">',
    ]
    for number, one in enumerate(outcomes, 1):
        case = f'  <testcase classname="verify" name={quoteattr(title(one, number))}'
        if one.holds:
            lines.append(f"{case}/>")
            continue
        text = explained(one)
        lines += (
            f"{case}>",
            f"    <failure message={quoteattr(one.why)}>{escape(text)}</failure>",
            "  </testcase>",
        )
    return "\n".join((*lines, "</testsuite>", ""))
