"""What the shell offers after TAB: kinds, and names that the agent knows; silence otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from sixfold.cli.settings import Settings
from sixfold.errors import SixfoldError


def kinds(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Kinds that ``get`` takes, also after a comma; names after ``KIND/``."""
    from sixfold.model.kinds import KINDS

    if "/" in prefix:
        return _slashed(ctx, prefix)
    before, comma, word = prefix.rpartition(",")
    return _starting(word, (kind.plural for kind in KINDS.values()), before + comma)


def names(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Names of objects of the kind already typed."""
    if "/" in prefix:
        return _slashed(ctx, prefix)
    return _starting(prefix, _named(ctx, str(ctx.params.get("kinds") or ctx.params.get("kind"))))


def pods(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Names of pods; of workloads after ``KIND/``."""
    return _slashed(ctx, prefix) if "/" in prefix else _starting(prefix, _named(ctx, "pods"))


def services(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Names of services."""
    return _starting(prefix, _named(ctx, "services"))


def containers(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Names of the containers of the pod already typed."""
    from sixfold.cli.pods import pick_pod

    settings = ctx.find_root().ensure_object(Settings)
    # click stops reading at an option that lacks its value: the pod is among the rest then
    pod = ctx.params.get("pod") or next(iter(ctx.args), "")
    try:
        named = pick_pod(settings.client, settings.namespace_or_default, pod)
        found = settings.client.objects("Pod", *named)
    except (SixfoldError, click.UsageError):
        return []
    spec = found[0]["spec"]
    listed = [*(spec.get("initContainers") or ()), *spec["containers"]]
    return _starting(prefix, (container["name"] for container in listed))


def places(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Ends of a flow: pods and services, here or after ``NAMESPACE/``."""
    from sixfold.model.kinds import find

    namespace, slash, word = prefix.rpartition("/")
    if find(namespace):
        return _slashed(ctx, prefix)
    found = [name for kind in ("pods", "services") for name in _named(ctx, kind, namespace)]
    here = _starting(word, found, namespace + slash)
    return here if slash else [*here, *_starting(prefix, (f"{n}/" for n in _named(ctx, "ns")))]


def namespaces(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Names of namespaces."""
    return _starting(prefix, _named(ctx, "namespaces"))


def _slashed(ctx: click.Context, prefix: str) -> list[CompletionItem]:
    kind, slash, word = prefix.partition("/")
    return _starting(word, _named(ctx, kind), kind + slash)


def _starting(prefix: str, words: Iterable[str], before: str = "") -> list[CompletionItem]:
    return [CompletionItem(before + word) for word in words if word.startswith(prefix)]


def _named(ctx: click.Context, kind: str, namespace: str = "") -> list[str]:
    """Names of all objects of a kind, in a namespace or in the one that was chosen."""
    from sixfold.model.kinds import find

    settings = ctx.find_root().ensure_object(Settings)
    if (known := find(kind)) is None:
        return []
    where = (namespace or settings.namespace_or_default) if known.namespaced else ""
    try:
        found: list[dict[str, Any]] = settings.client.objects(known.name, where)
    except SixfoldError:
        return []
    return [item["metadata"]["name"] for item in found]
