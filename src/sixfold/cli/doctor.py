"""``sixfold doctor``."""

from __future__ import annotations

import dataclasses

import click

from sixfold.cli.output import coloured, print_structured
from sixfold.cli.settings import ANSWERS, Settings, examples, pass_settings, shared


@click.command(
    short_help="Check this host: what is missing, and what to do.",
    epilog=examples("sudo sixfold doctor\nsixfold doctor -o json"),
)
@shared(outputs=ANSWERS)
@pass_settings
@click.pass_context
def command(ctx: click.Context, settings: Settings) -> None:
    """Check this host: what is missing, and what to do.

    Exit code 1 when something is missing that Sixfold cannot do without.
    """
    from sixfold.host.doctor import examine

    checks = examine(settings.paths)
    if settings.structured:
        print_structured([dataclasses.asdict(check) for check in checks], settings.output)
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{coloured(check.state.ljust(4))}  {check.name:<{width}}  {check.detail}")
            if check.fix and check.state != "ok":
                click.echo(f"{'':<{width + 6}}  {check.fix}")
    ctx.exit(1 if any(check.state == "fail" for check in checks) else 0)
