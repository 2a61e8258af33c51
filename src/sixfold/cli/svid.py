"""``sixfold svid``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from sixfold.cli.output import duration, print_structured, print_table
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared


@click.group(
    short_help="Show identities of workloads, and what verifies them.",
    epilog=examples("sixfold svid list\nsixfold svid bundle > bundle.pem"),
)
def command() -> None:
    """Show identities of workloads (SPIFFE), and what verifies them."""


@command.command("list", epilog=examples("sixfold svid list\nsixfold svid list -o json"))
@shared(outputs=ANSWERS)
@pass_settings
def list_(settings: Settings) -> None:
    """List X.509-SVIDs that workloads have asked for, by pod."""
    found = settings.client.get("/v1/svids")
    if settings.structured:
        print_structured({"svids": found["svids"]}, settings.output)
        return
    wide = settings.output == "wide"
    header = ["POD", "SPIFFE ID", "EXPIRES IN", *(["SERIAL"] if wide else [])]
    print_table(header, [_row(one, wide=wide) for one in found["svids"]])


@command.command(epilog=examples("sixfold svid bundle > bundle.pem\nsixfold svid bundle --jwks"))
@click.option("--jwks", "form", flag_value="jwks", help="The key set that verifies JWT-SVIDs.")
@click.option("--spiffe", "form", flag_value="document", help="Both, as SPIFFE federates them.")
@shared()
@pass_settings
def bundle(settings: Settings, form: str | None) -> None:
    """Print the trust bundle: what verifies a workload's certificate, or its tokens."""
    found: dict[str, Any] = settings.client.get("/v1/svids")
    click.echo(found[form or "bundle"].rstrip("\n"))


def _row(one: dict[str, Any], *, wide: bool) -> list[str]:
    left = datetime.fromisoformat(one["expires"]) - datetime.now(UTC)
    row = [one["pod"], one["spiffe_id"], duration(max(0, int(left.total_seconds())))]
    return [*row, one["serial"]] if wide else row
