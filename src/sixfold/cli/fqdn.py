"""``sixfold fqdn``."""

from __future__ import annotations

from typing import Any

import click

from sixfold.cli.output import duration, print_structured, print_table
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared


@click.group(
    short_help="Show what names of the world have resolved to.",
    epilog=examples("sixfold fqdn cache list\nsixfold fqdn cache list -p '*.example.org' -o json"),
)
def command() -> None:
    """Show what names of the world have resolved to, and what policy opens for it."""


@command.group()
def cache() -> None:
    """Addresses that are open because a name that policies mention has resolved to them."""


@cache.command("list", epilog=examples("sixfold fqdn cache list\nsixfold fqdn cache list -o wide"))
@click.option("-p", "--matchpattern", "pattern", metavar="PATTERN", help="Names like this only.")
@shared(outputs=ANSWERS)
@pass_settings
def list_(settings: Settings, pattern: str | None) -> None:
    """List names, addresses and the time that is left.

    HELD: the time is over, and an open connection depends on the address. With -o wide also the
    patterns of policies that mean the name.
    """
    entries = settings.client.get("/v1/fqdn")["entries"]
    if pattern:
        from sixfold.model.domain import matches, plain_name

        entries = [one for one in entries if matches(plain_name(pattern), one["name"])]
    if settings.structured:
        print_structured({"entries": entries}, settings.output)
        return
    wide = settings.output == "wide"
    header = ["NAME", "ADDRESS", "LEFT", *(["PATTERNS"] if wide else [])]
    print_table(header, [_row(entry, wide=wide) for entry in entries])


def _row(entry: dict[str, Any], *, wide: bool) -> list[str]:
    left = "HELD" if entry["held"] else duration(entry["ttl_s"])
    row = [entry["name"], entry["address"], left]
    return [*row, ",".join(entry["patterns"])] if wide else row
