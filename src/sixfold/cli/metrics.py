"""``sixfold metrics``."""

from __future__ import annotations

import click

from sixfold.cli.settings import Settings, examples, pass_settings, shared


@click.command(
    short_help="Print the metrics, as Prometheus reads them.",
    epilog=examples(
        """
sixfold metrics
sixfold metrics sixfold_drops        those whose name begins so
sudo sixfold up --metrics-address 127.0.0.1:9153    for Prometheus to scrape
"""
    ),
)
@click.argument("prefixes", nargs=-1, metavar="[NAME]...")
@shared()
@pass_settings
def command(settings: Settings, prefixes: tuple[str, ...]) -> None:
    """Print the metrics, as Prometheus reads them: all, or those whose name begins so."""
    from sixfold.cli.client import Client

    with Client(settings.paths.metrics_socket).stream("/metrics") as (_, lines):
        for raw in lines:
            line = raw.decode().rstrip("\n")
            name = line.split(" ", 3)[2] if line.startswith("#") else line
            if not prefixes or name.startswith(prefixes):
                click.echo(line)
