"""``sixfold down``."""

from __future__ import annotations

import asyncio
import os

import click

from sixfold.cli.output import progress
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.errors import HostError
from sixfold.model.config import Config


@click.command(
    short_help="Stop everything, and leave nothing behind.",
    epilog=examples(
        """
sudo sixfold down
sudo sixfold down --keep          the next 'up' starts the same objects again
sudo sixfold down --timeout 0     kill workloads at once
"""
    ),
)
@click.option(
    "--timeout",
    "grace_s",
    type=click.FloatRange(min=0),
    default=10.0,
    help="Seconds that workloads have to end by themselves; 10.",
)
@click.option("--keep", is_flag=True, help="Keep the objects for the next start.")
@shared()
@pass_settings
def command(settings: Settings, grace_s: float, keep: bool) -> None:
    """Stop everything, and leave nothing behind.

    Ends the agent, all workloads, their namespaces, links, programs, maps and rules. Works by
    looking at the host: it cleans up after a crash as well. The state directory stays.
    """
    if os.geteuid() != 0:
        raise HostError("sixfold down: needs root; use sudo")
    from sixfold.agent.settings import stored_config
    from sixfold.agent.teardown import teardown

    paths = settings.paths
    try:
        config = stored_config(paths)
    except HostError as error:  # a store that cannot be read keeps nothing running
        click.echo(f"warning: {error}", err=True)
        config = None
    config = config or Config(instance=paths.instance)
    with progress("stopping"):
        done = asyncio.run(teardown(paths, config, grace_s=grace_s, keep=keep))
    for line in done or ["nothing was running"]:
        click.echo(line)
