"""``sixfold posture``."""

from __future__ import annotations

import click
import msgspec

from sixfold.cli.output import print_structured, print_table
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.world import live_world

OUTPUTS = ("table", "json", "yaml", "markdown", "html")


@click.command(
    short_help="Is every workload, and every pair that talked, as zero trust asks?",
    epilog=examples(
        """
sixfold posture
sixfold posture -n shop -o markdown
sixfold posture -o html > posture.html    one file, with the map
"""
    ),
)
@shared(outputs=OUTPUTS)
@pass_settings
@click.pass_context
def command(ctx: click.Context, settings: Settings) -> None:
    """Five questions, of every workload and of every pair that the kernel remembers to have talked:
    found by name, balanced, on an allow-list, authenticated with mTLS, observed.

    Exit code 0: yes to all of them; 1: there are exceptions.
    """
    from sixfold.policy.reach_parties import View
    from sixfold.trust.audit_finding import Evidence, Live
    from sixfold.trust.posture import QUESTIONS, Posture, posture
    from sixfold.trust.posture_show import html, markdown, structured, table, totals

    live = msgspec.convert(settings.client.get("/v1/evidence"), Live)
    found = posture(Evidence(View(live_world(settings)), live))
    if settings.namespace:
        start = f"{settings.namespace}/"
        found = Posture(
            tuple(one for one in found.workloads if one.name.startswith(start)),
            tuple(
                one for one in found.pairs if one.name.startswith(start) or one.to.startswith(start)
            ),
        )
    match settings.output:
        case "json" | "yaml":
            print_structured(structured(found), settings.output)
        case "markdown":
            click.echo(markdown(found), nl=False)
        case "html":
            click.echo(html(found), nl=False)
        case _:
            heads = [*(question.upper() for question in QUESTIONS), "WHY NOT"]
            print_table(["WORKLOAD", *heads], table(found.workloads))
            click.echo("")
            print_table(["PAIR", *heads], table(found.pairs))
            for line in totals(found):
                click.echo(line, err=True)
    ctx.exit(0 if found.clean else 1)
