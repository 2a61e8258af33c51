"""``sixfold route``."""

from __future__ import annotations

import click

from sixfold.cli.output import print_structured, print_table
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared


@click.group(
    short_help="Show how packets find their way.",
    epilog=examples("sixfold route show\nsixfold route show -o json"),
)
def command() -> None:
    """Show how packets find their way: the routes of this instance, as loaded."""


@command.command(epilog=examples("sixfold route show"))
@shared(outputs=ANSWERS)
@pass_settings
def show(settings: Settings) -> None:
    """List the routes, in the words of ip route; POD is who is reached by one."""
    routes = settings.client.get("/v1/routes")["routes"]
    if settings.structured:
        print_structured({"routes": routes}, settings.output)
        return
    columns = list(dict.fromkeys(name for route in routes for name in route))
    rows = [[_cell(route.get(name)) for name in columns] for route in routes]
    print_table([name.upper() for name in columns] or ["DST"], rows)


def _cell(value: object) -> str:
    return "-" if value in (None, "") else str(value)
