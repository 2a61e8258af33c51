"""What the shell offers after TAB: kinds, and names that the agent knows; silence otherwise."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from sixfold.cli.settings import Settings
from sixfold.errors import SixfoldError


def kinds(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Kinds that ``get`` takes."""
    from sixfold.manifest.kinds import KINDS

    return [
        CompletionItem(kind.plural) for kind in KINDS.values() if kind.plural.startswith(prefix)
    ]


def names(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Names of objects of the kind already typed."""
    from sixfold.manifest.kinds import find

    kind = find(str(ctx.params.get("kinds") or ctx.params.get("kind") or ""))
    return _named(ctx, kind.name, prefix) if kind else []


def pods(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Names of pods."""
    return _named(ctx, "Pod", prefix)


def _named(ctx: click.Context, kind: str, prefix: str) -> list[CompletionItem]:
    settings = ctx.find_root().ensure_object(Settings)
    try:
        found = settings.client.objects(kind, settings.namespace_or_default)
    except SixfoldError:
        return []
    named = [item["metadata"]["name"] for item in found]
    return [CompletionItem(name) for name in named if name.startswith(prefix)]
