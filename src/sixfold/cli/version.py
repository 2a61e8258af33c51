"""``sixfold version``."""

from __future__ import annotations

import platform

import click

from sixfold import __version__
from sixfold.cli.client import ApiError, NotRunningError
from sixfold.cli.output import print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared
from sixfold.errors import HostError


@click.command(
    short_help="Print the versions of the command and of the agent.",
    epilog=examples("sixfold version\nsixfold version -o json"),
)
@shared(outputs=ANSWERS)
@pass_settings
def command(settings: Settings) -> None:
    """Print the versions of the command and of the agent."""
    versions = {"client": __version__, "agent": "", "kernel": platform.release()}
    try:
        versions["agent"] = settings.client.get("/v1/status")["agent"]["version"]
    except NotRunningError:
        versions["agent"] = "not running"
    except (HostError, ApiError) as error:
        versions["agent"] = f"unknown ({error})"
    if settings.structured:
        print_structured(versions, settings.output)
        return
    for name, version in versions.items():
        click.echo(f"{name + ':':<8} {version}")
