"""``sixfold status``."""

from __future__ import annotations

from typing import Any

import click

from sixfold.cli.output import coloured, duration, print_structured, print_table
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared

RELAXED_SHOWN = 2  # of each layer; sixfold audit --rule Z26 lists all


@click.command(
    short_help="Show what the agent does and how it is.",
    epilog=examples("sixfold status\nsixfold status -o json | jq .agent.applied"),
)
@shared(outputs=ANSWERS)
@pass_settings
def command(settings: Settings) -> None:
    """Show what the agent does and how it is.

    "applied" is the generation of your objects that the kernel holds; when it equals
    "generation", everything you asked for is in force. The six patterns follow, and the six things
    that they deny by default, with what relaxes them, and until when.
    """
    status = settings.client.get("/v1/status")
    if settings.structured:
        print_structured(status, settings.output)
        return
    for line in overview(status):
        click.echo(line)
    print_table(
        ("PATTERN", "STATE", "DETAIL"),
        [(p["name"], p["state"], p.get("detail", "")) for p in status.get("patterns", ())],
    )
    if denials := status.get("denials"):
        click.echo("")
        print_table(
            ("LAYER", "BY DEFAULT", "RELAXED"),
            [(one["layer"], one["denies"], _relaxed(one)) for one in denials],
        )
    if counts := {name: n for name, n in status.get("drops", {}).items() if n}:
        click.echo("")
        print_table(("COUNTER", "COUNT"), [(name, str(n)) for name, n in counts.items()])


def _relaxed(one: dict[str, Any]) -> str:
    """What does not hold somewhere, and until when."""
    parts = [
        f"{it['what']} (until {it['until']})" if it["until"] else f"{it['what']} ({it['by']})"
        for it in one["relaxed"][:RELAXED_SHOWN]
    ]
    if more := len(one["relaxed"]) - RELAXED_SHOWN:
        parts += [f"and {more} more"] if more > 0 else []
    return "; ".join(parts) or "-"


def overview(status: dict[str, Any]) -> list[str]:
    """The first lines: who runs, and whether what was asked for is in force."""
    agent, pods, flows = status["agent"], status.get("pods", {}), status.get("flows", {})
    in_force = agent["applied"] == agent["generation"]
    state = coloured("in force") if in_force else coloured("Pending")
    lost = flows.get("lost", 0)
    counted = {state: n for state, n in pods.items() if isinstance(n, int)}
    lines = [
        f"agent      pid {agent['pid']}, version {agent['version']}, "
        f"up {duration(agent.get('uptime_s', 0))}, node {agent['node']}, "
        f"posture {agent['posture']}",
        f"uplinks    {', '.join(agent.get('devices', ())) or 'none'}",
        f"objects    generation {agent['generation']}, applied {agent['applied']}: {state}",
        f"pods       {', '.join(f'{n} {state}' for state, n in counted.items()) or 'none'}",
        f"services   {status.get('services', 0)}",
        f"policies   {status.get('policies', 0)}",
        f"flows      {flows.get('seen', 0)} seen, {lost} lost",
    ]
    lines += [f"unsettled  {pod}" for pod in pods.get("unsettled", ())]
    if problem := agent.get("problem"):
        lines.append(f"problem    {problem}")
    lines += [f"repaired   {repair}" for repair in agent.get("repairs", ())]
    return [*lines, ""]
