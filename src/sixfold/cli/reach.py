"""``sixfold reach``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from sixfold.cli.output import print_structured, print_table
from sixfold.cli.rows import cells, structured_row
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.world import (
    filename_option,
    read_world,
    warn_of_unknown_addresses,
    world_options,
)

if TYPE_CHECKING:
    from sixfold.model.world import World
    from sixfold.policy.reach_parties import View
    from sixfold.policy.reach_show import Reach

OUTPUTS = ("table", "wide", "json", "yaml", "dot", "svg")


@click.command(
    short_help="Who can reach whom, on what?",
    epilog=examples(
        """
sixfold reach                                        the running system
sixfold reach -f manifests/                          offline: no root, no agent
sixfold reach -f manifests/ --posture kubernetes     upstream's default-allow
sixfold reach -f manifests/ -o svg > reach.svg
echo '{"from": "shop/web", "to": "shop/db", "protocol": "TCP", "port": 6379}' |
  sixfold reach -f manifests/ --probes -
"""
    ),
)
@filename_option
@world_options
@click.option(
    "--probes", "probes", metavar="FILE|-", help="Flows to judge, one JSON object a line."
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
    probes: str | None,
) -> None:
    """Who can reach whom, on what: workloads, addresses outside, and the host.

    Proved by the compiled policies, for all ports and all addresses. Offline, pods whose address
    is not known (status.podIP) are meant by no ipBlock; a workload with hostNetwork is the host.
    With -n, what has a side in that namespace.

    --probes reads {"from", "to", "protocol", "port"} and prints the same lines, in order, with
    "verdict" (ALLOWED or DENIED), "egress" and "ingress". FROM and TO are ns/name, ns/Kind/name
    where two kinds share a name, an address, or host. A line that means nothing gets "error"
    instead. Exit code 0; 1 when a probe had an error; 2 for wrong usage.
    """
    if probes == "-" and "-" in filenames:
        raise click.UsageError("--probes - and -f - both read standard input; give one a file")
    world = read_world(settings, filenames, posture, ipblock_matches_pods)
    if probes is not None:
        ctx.exit(0 if answer(world, probes) else 1)
    show(world, settings)


def answer(world: World, probes: str) -> bool:
    """Answer each line as it comes; False when one of them had an error."""
    import msgspec

    from sixfold.policy.reach_parties import View
    from sixfold.policy.reach_probe import Probes

    judge = Probes(View(world))
    good = True
    encode = msgspec.json.encode
    with _opened(probes) as lines:
        for probe in _decoded(lines):
            found = judge.answer(probe) if "error" not in probe else probe
            good = good and "error" not in found
            click.echo(encode(found))
    return good


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdin
        return
    try:
        with open(name, encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise click.UsageError(f"--probes {name}: {error.strerror or error}") from None


def _decoded(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            probe = json.loads(line)
        except ValueError as error:
            probe = {"error": f"line {number}: not JSON: {error}"}
        if not isinstance(probe, dict):
            probe = {"error": f'line {number}: no object; give {{"from": …, "to": …}}'}
        yield probe


def show(world: World, settings: Settings) -> None:
    from sixfold.policy.reach_parties import View
    from sixfold.policy.reach_show import Reach

    view = View(world)
    found = Reach(view, settings.namespace)
    match settings.output:
        case "dot" | "svg":
            from sixfold.policy.reach_picture import dot, svg

            draw = dot if settings.output == "dot" else svg
            click.echo(draw(found.rows(compact=False)), nl=False)
        case "json" | "yaml":
            print_structured(structured(view, found), settings.output)
        case _:
            click.echo(_posture(world), err=True)
            warn_of_unknown_addresses(view)
            show_table(found, wide=settings.output == "wide")
            show_audit(view, wide=settings.output == "wide")


def _posture(world: World) -> str:
    if world.config.posture == "kubernetes":
        return "posture kubernetes: what no policy isolates is allowed"
    return "posture zero-trust: what no rule allows is denied"


def show_table(found: Reach, *, wide: bool) -> None:
    print_table(("FROM", "TO", "PORTS"), [cells(row, wide=wide) for row in found.rows()])


def show_audit(view: View, *, wide: bool) -> None:
    """What is told and not enforced, and which of the flows above pass only because of that."""
    from sixfold.policy.audit import in_audit
    from sixfold.policy.diff import only_by_audit

    if audited := in_audit(view.world, view.plan):
        rows = [cells(row, wide=wide) for row in only_by_audit(view)]
        click.echo(f"\nin audit, so allowed and told: {', '.join(audited)}")
        print_table(("FROM", "TO", "PORTS"), rows)


def structured(view: View, found: Reach) -> dict[str, Any]:
    """Edges one by one, for programs; those that only audit lets pass again, by rows."""
    from sixfold.policy.audit import in_audit
    from sixfold.policy.diff import only_by_audit

    edges = []
    for edge in sorted(found.edges(), key=lambda one: (one.source, one.destination, one.family)):
        item: dict[str, Any] = {"from": edge.source, "to": edge.destination}
        item["ports"] = edge.ports.texts()
        if edge.family:
            item["family"] = edge.family
        edges.append(item)
    answer: dict[str, Any] = {"posture": view.world.config.posture, "edges": edges}
    if audited := in_audit(view.world, view.plan):
        flows = [structured_row(row) for row in only_by_audit(view)]
        answer["audit"] = {"by": list(audited), "flows": flows}
    return answer
