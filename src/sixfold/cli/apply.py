"""``sixfold apply``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sixfold.cli.lockout import end_my_session_option, refuse_lockout
from sixfold.cli.output import print_structured, progress
from sixfold.cli.settings import OUTPUTS, Settings, examples, pass_settings, shared
from sixfold.cli.world import live_world
from sixfold.errors import SixfoldError, UnavailableError

if TYPE_CHECKING:
    from sixfold.manifest import Loaded, Manifests

FOREIGN_POLICIES = ("NetworkPolicy", "AuthorizationPolicy", "EgressFirewall")  # Calico's, Istio's…


@click.command(
    short_help="Create or change objects from manifests.",
    epilog=examples(
        """
sixfold apply -f examples/basecamp --wait
sixfold apply -f policy.yaml --dry-run
kubectl get netpol -o yaml | sixfold apply -f -
"""
    ),
)
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="Manifests; directories are read whole, - is standard input.",
)
@click.option("--wait", is_flag=True, help="Return when all of it is in force.")
@click.option("--dry-run", is_flag=True, help="Check and compare, change nothing.")
@click.option("--timeout", "timeout_s", type=float, default=120.0, help="Seconds for --wait.")
@end_my_session_option
@shared(outputs=OUTPUTS)
@pass_settings
def command(
    settings: Settings,
    filenames: tuple[str, ...],
    wait: bool,
    dry_run: bool,
    timeout_s: float,
    end_my_session: bool,
) -> None:
    """Create or change objects from manifests.

    All or nothing: one problem in one file, and nothing is applied. Kinds that are not ours are
    counted and left alone.
    """
    manifests = read(filenames, settings.namespace_or_default, runnable=True)
    report_ignored(manifests)
    if not manifests.objects and not manifests.ignored:
        raise SixfoldError(f"{', '.join(filenames)}: no objects in it")
    if not (end_my_session or dry_run):
        refuse_lockout(manifests.objects, lambda: live_world(settings))
    with progress("applying" + (" and waiting until all is in force" if wait else "")):
        body = apply_body(manifests, wait=wait, dry_run=dry_run, timeout_s=timeout_s)
        answer = settings.client.post("/v1/apply", body)
    if settings.structured:
        print_structured(answer, settings.output)
    else:
        show_results(answer["results"], settings.output, dry_run=dry_run)
    for warning in answer.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)
    require_ready(answer)


def read(filenames: Sequence[str], namespace: str, **how: bool) -> Manifests:
    """Manifests from files, directories and standard input; ManifestError names all problems.

    ``how`` goes to ``manifest.load``: ``runnable`` for what is to run, ``offline`` for questions.
    """
    from sixfold.manifest import load

    return load(filenames, sys.stdin if "-" in filenames else None, namespace=namespace, **how)


def apply_body(
    manifests: Manifests, *, wait: bool, dry_run: bool = False, timeout_s: float = 120.0
) -> dict[str, Any]:
    """What the agent's ``/v1/apply`` takes."""
    return {
        "objects": [wire(item) for item in manifests.objects],
        "sources": [{"source": item.source, "line": item.line} for item in manifests.objects],
        "wait": wait,
        "dry_run": dry_run,
        "timeout_s": timeout_s,
    }


def wire(item: Loaded) -> dict[str, Any]:
    """The object for the agent, with the namespace that it was read into."""
    if not item.key.namespace:
        return item.raw
    metadata = {**item.raw["metadata"], "namespace": item.key.namespace}
    return {**item.raw, "metadata": metadata}


def report_ignored(manifests: Manifests) -> None:
    """Name what is not ours: never an error, never in silence. (``verify`` reads Assertions.)"""
    foreign = [one for one in manifests.ignored if not one.api_version.startswith("sixfold.dev/")]
    counted = Counter(item.kind for item in foreign if item.kind)
    policies = {kind: count for kind, count in counted.items() if kind.endswith(FOREIGN_POLICIES)}
    others = {kind: count for kind, count in counted.items() if kind not in policies}
    files = dict.fromkeys(item.source for item in manifests.ignored if not item.kind)
    for what, found in (
        ("NOT in force, a policy that Sixfold does not know", _counts(policies)),
        ("ignored, not a kind of Sixfold's", _counts(others)),
        ("ignored, no Kubernetes object", ", ".join(files)),
    ):
        if found:
            click.echo(f"{what}: {found}", err=True)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counted.items()))


def require_ready(answer: Mapping[str, Any]) -> None:
    """Taken, but not ready in time: told after what was taken."""
    if problem := answer.get("problem"):
        raise UnavailableError(problem)


def show_results(
    results: Iterable[Mapping[str, Any]], output: str = "table", *, dry_run: bool = False
) -> None:
    """kubectl's words: ``pod/web created``."""
    suffix = " (dry run)" if dry_run else ""
    for result in results:
        name = f"{result['kind'].lower()}/{result['name']}"
        click.echo(name if output == "name" else f"{name} {result['action']}{suffix}")
