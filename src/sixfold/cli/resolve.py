"""``sixfold resolve``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import click

from sixfold.cli import completer
from sixfold.cli.output import print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared

TYPES = ("A", "AAAA", "SRV", "PTR", "TXT", "NS", "CNAME", "SOA", "ANY")


@click.command(
    short_help="What is a name answered, by whom, and why?",
    epilog=examples(
        """
sixfold resolve web.shop
sixfold resolve web --as shop/client
sixfold resolve _http._tcp.web.shop --type SRV
sixfold resolve 10.96.0.1 --type PTR
"""
    ),
)
@click.argument("name", metavar="NAME|IP")
@click.option(
    "--as",
    "source",
    metavar="WORKLOAD",
    default="",
    shell_complete=completer.places,
    help="Whose question it is: its search path, and whether it may ask at all.",
)
@click.option(
    "--type", "type_", type=click.Choice(TYPES, case_sensitive=False), default="A", help="A."
)
@shared(outputs=ANSWERS)
@pass_settings
@click.pass_context
def command(ctx: click.Context, settings: Settings, name: str, source: str, type_: str) -> None:
    """What is a name answered, by whom, and why? Each question that libc asks on its way.

    Who answers is read from the kernel's maps. Names that are not ours are not asked. Exit code
    0: there are records, or upstream is asked; 1: there are none, or WORKLOAD may not ask.
    """
    asked = {
        "name": name,
        "type": type_.upper(),
        "namespace": settings.namespace_or_default,
        "as": source,
    }
    found: dict[str, Any] = settings.client.get(f"/v1/resolve?{urlencode(asked)}")
    if settings.structured:
        print_structured(found, settings.output)
    else:
        for line in lines_of(found):
            click.echo(line)
    steps = found["steps"]
    ctx.exit(0 if steps and (steps[-1]["records"] or steps[-1]["by"] == "upstream") else 1)


def lines_of(found: dict[str, Any]) -> list[str]:
    """One line for each question, its records below."""
    if found["denied"]:
        return [f"{found['as']} may not ask the resolver: {found['denied']}"]
    lines = []
    for step in found["steps"]:
        ttl = "" if step["ttl_s"] is None else f", TTL {step['ttl_s']} s"
        said = f"{step['rcode']} by the " if step["rcode"] else "asked of "
        lines.append(f"{step['name']} {step['type']}: {said}{step['by']}{ttl} ({step['why']})")
        lines += [f"    {text}" for text in step["records"]]
    return lines
