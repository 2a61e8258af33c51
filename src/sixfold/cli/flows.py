"""``sixfold flows``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import click

from sixfold.cli.kinds import by_kind
from sixfold.cli.output import COLOURS, coloured, print_structured, print_table
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.observe.filter import FilterError, FlowFilter

OUTPUTS = ("compact", "table", "wide", "json", "yaml")
FILTERS = (
    *("from", "to", "verdict", "port", "protocol", "namespace", "drop_reason", "stale"),
    "traffic_direction",
)
HEADER = ("TIME", "VERDICT", "SOURCE", "DESTINATION", "RULE")
WIDTHS = (18, 9, 40, 60, 20)  # of a streamed table: its rows are not known in advance


@click.command(
    short_help="Show connections and drops, with the rule behind each.",
    epilog=examples(
        """
sixfold flows                                    the last 20
sixfold flows -f --verdict DROPPED               every drop, as it happens
sixfold flows --to '!resolver' --since 1m        without name look-ups
sixfold flows --from shop/web --to shop/db --last 5
sixfold flows --to 10.96.0.0/16 --port 443 --since 5m -o json
sixfold flows --from app=intruder --drop-reason policy_denied
"""
    ),
)
@click.option("-f", "--follow", is_flag=True, help="Go on as flows happen.")
@click.option("--last", type=click.IntRange(min=0), help="How many flows; 20 without --since.")
@click.option("--all", "everything", is_flag=True, help="All that the agent remembers.")
@click.option("--from", "from_", multiple=True, metavar="PEER", help="Source.")
@click.option("--to", multiple=True, metavar="PEER", help="Destination, or the service dialled.")
@click.option("--verdict", multiple=True, metavar="WORD", help="FORWARDED, DROPPED, AUDIT, …")
@click.option("--port", multiple=True, metavar="N", help="Port of either side or of the service.")
@click.option("--protocol", multiple=True, metavar="WORD", help="tcp, udp, icmp, sctp or a number.")
@click.option("--drop-reason", multiple=True, metavar="WORD", help="policy_denied, …")
@click.option(
    "--traffic-direction",
    multiple=True,
    metavar="WORD",
    help="ingress or egress: the side that saw it.",
)
@click.option(
    "--stale",
    multiple=True,
    metavar="WORD",
    help="Dials of addresses no fresh answer had: retired, expired, no_lookup, redirected, any.",
)
@click.option("--since", metavar="WHEN", help="5m, 1h30m ago, or an RFC 3339 time.")
@click.option("--until", metavar="WHEN", help="The same.")
@shared(outputs=OUTPUTS, everywhere=True)
@pass_settings
def command(
    settings: Settings, /, follow: bool, last: int | None, everything: bool, **options: Any
) -> None:
    """Show connections and drops, with the rule behind each.

    A PEER is a pod (shop/web-0), a workload (shop/web, deploy/web), a namespace (shop/), a
    reserved name (host, world, resolver), an address or block, a domain name (*.example.org), a
    label (app=web) or an identity number; "!" before it leaves it out (--to '!resolver'). Options
    given several times widen the choice; different options narrow it.
    """
    params = parameters(settings, options)
    if last is not None:
        params["last"] = str(last)
    elif everything:
        params["since"] = params.get("since", "3650d")
    if follow:
        params["follow"] = "true"
    output = settings.output_choice or "compact"
    if output not in OUTPUTS:
        raise click.UsageError(f"-o {output}: flows have {', '.join(OUTPUTS)}")
    with settings.client.stream("/v1/flows", params) as (headers, lines):
        if lost := int(headers.get("x-flows-lost", headers.get("X-Flows-Lost", "0"))):
            click.echo(f"warning: {lost} events lost since the agent started", err=True)
        show(map(json.loads, lines), output, streamed=follow)


def parameters(settings: Settings, options: dict[str, Any]) -> dict[str, str]:
    """Options as the agent takes them; raises UsageError for what it would not understand."""
    for side, given in (("from", options.pop("from_")), ("to", options["to"])):
        options[side] = tuple(peer(part) for text in given for part in text.split(","))
    if settings.namespace and not settings.all_namespaces:
        options["namespace"] = (settings.namespace,)
    for name in ("since", "until"):
        options[name] = (options[name],) if options[name] else ()
    params = {name: ",".join(given) for name, given in options.items() if given}
    try:
        FlowFilter.parse(params, time.time_ns())
    except FilterError as error:
        raise click.UsageError(str(error)) from None
    return params


def peer(text: str) -> str:
    """``!deploy/web`` as ``!Deployment/web``; pods and services need no kind."""
    name = text.removeprefix("!")
    if (found := by_kind(name)) is None:
        return text
    steps = [found[0], found[1].name, found[2]]
    if found[1].name in ("Pod", "Service"):
        del steps[1]
    return "!" * (name != text) + "/".join(filter(None, steps))


def show(records: Iterable[dict[str, Any]], output: str, *, streamed: bool) -> None:
    """Print flows as they come; what was lost in between is said in between.

    Only a table that ends can have columns as wide as what is in them.
    """
    rows: list[tuple[str, ...]] = []
    if streamed and output in ("table", "wide"):
        click.echo(_row(HEADER))
    for record in records:
        if (missed := record.get("lost_events")) is not None:
            click.echo(f"warning: {missed['num_events_lost']} events lost here", err=True)
            continue
        text = record.pop("text", "")
        if output == "json":
            click.echo(json.dumps(record, ensure_ascii=False))
        elif output == "yaml":
            click.echo("---")
            print_structured(record, output)
        elif output == "compact":
            click.echo(_in_colour(text))
        else:
            rows.append(_columns(record["flow"], wide=output == "wide"))
            if streamed:
                click.echo(_row(rows.pop()))
    if rows:
        print_table(HEADER, rows)


def _in_colour(text: str) -> str:
    for verdict in ("FORWARDED", "DROPPED", "AUDIT"):
        text = text.replace(f" {verdict} ", f" {coloured(verdict)} ", 1)
    return text


def _columns(flow: dict[str, Any], *, wide: bool) -> tuple[str, ...]:
    l4 = flow.get("l4", {})
    protocol = next(iter(l4), "")
    ports = l4.get(protocol, {})
    service = flow.get("destination_service", {})
    destination = _peer(flow, "destination", ports.get("destination_port"))
    if service:
        name = f"{service['namespace']}/{service['name']}"
        destination += f" ({name}:{flow['sixfold'].get('service_port', 0)})"
    ours = flow["sixfold"]
    rule = ours.get("rule", "") or flow.get("drop_reason_desc", "")
    if "system_call" in ours:
        why = f"lacks {ours['capability']}" if "capability" in ours else ours["drop_reason"]
        rule = f"{flow['Summary']} {why}"
    moment = flow["time"][5:23].replace("T", " ")
    extra = f"  {flow.get('Summary', '')} {flow['traffic_direction']}" if wide else ""
    source = _peer(flow, "source", ports.get("source_port"))
    return moment, flow["verdict"], source, destination, rule + extra


def _peer(flow: dict[str, Any], side: str, port: int | None) -> str:
    peer = flow.get(side, {})
    if pod := peer.get("pod_name"):
        name = f"{peer.get('namespace', '')}/{pod}"
    else:
        address = flow.get("IP", {}).get(side, "?")
        name = f"[{address}]" if ":" in address and port else address
        if names := flow.get(f"{side}_names"):
            name = f"{names[-1]} ({name})"
    return f"{name}:{port}" if port else name


def _row(cells: tuple[str, ...]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)]
    return "  ".join(coloured(c) if c.strip() in COLOURS else c for c in padded).rstrip()
