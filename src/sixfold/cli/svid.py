"""``sixfold svid``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
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


@command.command(
    epilog=examples(
        "sixfold svid fetch /tmp/me\n"
        "GRPC_XDS_BOOTSTRAP=/tmp/me/grpc.json python client.py    # xds:///web.shop:80"
    )
)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--once", is_flag=True, help="Write what is there now, and end.")
@shared()
@pass_settings
def fetch(settings: Settings, directory: Path, once: bool) -> None:
    """Write the identity of the pod in which this runs to files, and keep them fresh.

    svid.pem, key.pem, bundle.pem; and grpc.json, with which gRPC clients balance for themselves
    (xds:///NAME:PORT): the agent tells them routes and backends, and these files are their
    certificates.
    """
    from sixfold.cli.svid_files import follow

    follow(settings.paths, directory, once=once)


def _row(one: dict[str, Any], *, wide: bool) -> list[str]:
    left = datetime.fromisoformat(one["expires"]) - datetime.now(UTC)
    row = [one["pod"], one["spiffe_id"], duration(max(0, int(left.total_seconds())))]
    return [*row, one["serial"]] if wide else row
