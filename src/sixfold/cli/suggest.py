"""``sixfold suggest``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli.output import print_structured
from sixfold.cli.settings import Settings, examples, pass_settings, shared
from sixfold.cli.world import filename_option, live_world, read_world

if TYPE_CHECKING:
    from sixfold.model.world import World
    from sixfold.policy.suggest import Observations, Suggestion

OUTPUTS = ("yaml", "json")


@click.command(
    short_help="Write policies that allow what was seen, and nothing else.",
    epilog=examples(
        """
sixfold suggest > policies.yaml                    all flows that the agent remembers
sixfold suggest --since 1h -n shop                 the last hour, one namespace
sixfold suggest --include-denied                   what was denied is wanted too
sixfold flows --all -o json > flows.json; sixfold suggest --flows flows.json
"""
    ),
)
@click.option("--flows", "recorded", metavar="FILE|-", help="Lines of flows -o json, or Hubble's.")
@filename_option
@click.option("--since", metavar="WHEN", help="Live: 5m, 1h30m, or an RFC 3339 time.")
@click.option("--include-denied", is_flag=True, help="Take what policy dropped for wanted.")
@shared(outputs=OUTPUTS)
@pass_settings
def command(
    settings: Settings,
    recorded: str | None,
    filenames: tuple[str, ...],
    since: str | None,
    include_denied: bool,
) -> None:
    """Write NetworkPolicies that allow what was seen, and nothing else, as YAML that applies.

    One policy for each workload, both directions, on a deny-all base in each namespace. Workloads
    that were not seen get nothing. What is printed was compiled again and compared with the flows;
    a difference is said on standard error. Look at it before you apply it: what has not happened
    yet (a nightly job, a failover) is denied.
    """
    from sixfold.policy.suggest import Observations, suggest

    if filenames and recorded is None:
        raise click.UsageError("-f names workloads for --flows; give --flows as well")
    if since and recorded is not None:
        raise click.UsageError("--since is for the running agent; --flows takes the whole file")
    found = Observations()
    world = world_known(settings, filenames, recorded, found)
    with records(settings, recorded, since) as lines:
        for record in lines:
            found.add(record, denied=include_denied)
    pods = (world.config.pod_ipv4, world.config.pod_ipv6) if world else _default_pods()
    suggestion = suggest(found, pods, settings.namespace)
    show(suggestion, settings.output_choice or "yaml")
    tell(suggestion, world, found, whole=settings.namespace is None)


def world_known(
    settings: Settings, filenames: tuple[str, ...], recorded: str | None, found: Observations
) -> World | None:
    """The workloads that there are, seen or not; None when only flows tell."""
    world = None
    if filenames:
        world = read_world(settings, filenames)
    elif recorded is None:
        world = live_world(settings)
    for endpoint in world.endpoints.values() if world else ():
        found.add_endpoint(endpoint)
    return world


@contextmanager
def records(
    settings: Settings, recorded: str | None, since: str | None
) -> Iterator[Iterator[dict[str, Any]]]:
    """Flow records of a file, or of the agent."""
    if recorded is None:
        with settings.client.stream("/v1/flows", {"since": since or "3650d"}) as (_, lines):
            yield decoded(lines, "flows")
    elif recorded == "-":
        yield decoded(sys.stdin, "-")
    else:
        try:
            with open(recorded, encoding="utf-8") as file:
                yield decoded(file, recorded)
        except OSError as error:
            raise click.UsageError(f"--flows {recorded}: {error.strerror or error}") from None


def decoded(lines: Iterable[str | bytes], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise click.UsageError(f"{name}:{number}: not JSON: {error}") from None
        if isinstance(record, dict) and "lost_events" not in record:
            yield record


def show(suggestion: Suggestion, output: str) -> None:
    import msgspec

    objects = [msgspec.to_builtins(policy) for policy in suggestion.policies]
    if output == "json":
        print_structured({"apiVersion": "v1", "kind": "List", "items": objects}, "json")
        return
    for item in objects:
        click.echo("---")
        print_structured(_ordered(item), "yaml")


def _ordered(item: dict[str, Any]) -> dict[str, Any]:
    return {key: item[key] for key in ("apiVersion", "kind", "metadata", "spec")}


def tell(suggestion: Suggestion, world: World | None, found: Observations, *, whole: bool) -> None:
    """On standard error: notes, and whether the policies allow exactly what was seen."""
    from sixfold.policy.suggest_check import differences, world_of

    for note in suggestion.notes:
        click.echo(f"note: {note}", err=True)
    if not whole:
        return
    denied, unseen = differences(world or world_of(found), suggestion.policies, found)
    for text in denied:
        click.echo(f"warning: seen, and would be denied: {text}", err=True)
    for text in unseen:
        click.echo(f"warning: never seen, and would be allowed: {text}", err=True)
    if not denied and not unseen:
        count = f"{len(found.seen)} kinds of flow were seen"
        click.echo(f"{count}; the policies allow exactly these", err=True)


def _default_pods() -> tuple[Any, Any]:
    from sixfold.model.config import Config

    return Config().pod_ipv4, Config().pod_ipv6
