"""``sixfold delete``."""

from __future__ import annotations

import click

from sixfold.cli import completer
from sixfold.cli.apply import read, report_ignored, show_results
from sixfold.cli.client import Client
from sixfold.cli.kinds import parse_targets
from sixfold.cli.output import print_structured, progress
from sixfold.cli.selector import parse_selector, selects
from sixfold.cli.settings import OUTPUTS, Settings, examples, pass_settings, shared
from sixfold.model.kinds import Kind

WireKey = dict[str, str]


@click.command(
    short_help="Delete objects by name or by manifest.",
    epilog=examples(
        """
sixfold delete pod web -n shop
sixfold delete deploy/web svc/web
sixfold delete -f examples/basecamp
sixfold delete pods -l app=web --now
sixfold delete pod web-0 --force
sixfold delete pods --all -n shop
"""
    ),
)
@click.argument("kind", required=False, shell_complete=completer.kinds)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completer.names)
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    metavar="FILE|DIR|-",
    help="What these manifests name.",
)
@click.option("-l", "--selector", default="", metavar="LABELS", help="Such as app=web.")
@click.option("--all", "everything", is_flag=True, help="All of the kind, in the namespace.")
@click.option("--wait/--no-wait", default=True, help="Return when they are gone; the default.")
@click.option("--grace-period", "grace_s", type=click.IntRange(min=0), help="Seconds; 0: at once.")
@click.option("--now", is_flag=True, help="As --grace-period 1.")
@click.option("--force", is_flag=True, help="As --grace-period 0 --no-wait.")
@click.option("--timeout", "timeout_s", type=float, default=120.0, help="Seconds for --wait.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there counts as deleted.")
@shared(outputs=OUTPUTS)
@pass_settings
def command(
    settings: Settings,
    kind: str | None,
    names: tuple[str, ...],
    filenames: tuple[str, ...],
    selector: str,
    everything: bool,
    wait: bool,
    grace_s: int | None,
    now: bool,
    force: bool,
    timeout_s: float,
    ignore_not_found: bool,
) -> None:
    """Delete objects by name or by manifest, and what they own."""
    if now and (force or grace_s is not None):
        raise click.UsageError("--now is a grace period of its own; give one of them")
    if now or force:
        grace_s = 1 if now else grace_s or 0
    if bool(kind) == bool(filenames):
        raise click.UsageError("give either -f, or KIND and NAME")
    client = settings.client
    if filenames:
        keys = _written(filenames, settings.namespace_or_default)
    else:
        keys = _named(client, settings, str(kind), names, selector, everything)
    if not keys:
        click.echo("No resources found.", err=True)
        return
    body = {
        "keys": keys,
        "wait": wait and not force,
        "grace_s": grace_s,
        "ignore_missing": ignore_not_found,
        "timeout_s": timeout_s,
    }
    with progress("deleting"):
        answer = client.post("/v1/delete", body)
    if settings.structured:
        print_structured(answer, settings.output)
    else:
        show_results(answer["results"], settings.output)


def _written(filenames: tuple[str, ...], namespace: str) -> list[WireKey]:
    manifests = read(filenames, namespace)
    report_ignored(manifests)
    # Last applied, first deleted: a namespace goes after what is in it.
    return [dict(item.key._asdict()) for item in reversed(manifests.objects)]


def _named(
    client: Client,
    settings: Settings,
    kind: str,
    names: tuple[str, ...],
    selector: str,
    everything: bool,
) -> list[WireKey]:
    kinds, named = parse_targets(kind, names)
    namespace = settings.namespace_or_default
    if named:
        return [_key(one, namespace, name) for one, name in named]
    if bool(selector) == everything:
        raise click.UsageError("give names, -l LABELS or --all")
    wanted = parse_selector(selector)
    return [
        _key(one, namespace, item["metadata"]["name"])
        for one in kinds
        for item in client.objects(one.name, namespace if one.namespaced else "")
        if selects(wanted, item)
    ]


def _key(kind: Kind, namespace: str, name: str) -> WireKey:
    if kind.derived:
        raise click.UsageError(f"{kind.plural}: derived from others, nothing to delete")
    return {"kind": kind.name, "namespace": namespace if kind.namespaced else "", "name": name}
