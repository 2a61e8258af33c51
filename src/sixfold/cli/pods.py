"""Which pod is meant: ``web-0``, ``pod/web-0``, ``deploy/web``, ``shop/web-0``."""

from __future__ import annotations

from typing import Any

import click

from sixfold.cli.client import Client
from sixfold.cli.kinds import parse_kind
from sixfold.errors import SixfoldError
from sixfold.model.kinds import find


def pick_pod(client: Client, namespace: str, text: str) -> tuple[str, str]:
    """Namespace and name of the pod; of a workload, its first pod that is ready, else any."""
    kind_word, slash, name = text.partition("/")
    if not slash:
        return namespace, text
    if not name:
        raise click.UsageError(f"{text!r}: give POD or KIND/NAME")
    if find(kind_word) is None:
        return kind_word, name
    kind = parse_kind(kind_word)
    if kind.name == "Pod":
        return namespace, name
    owned = [pod for pod in client.objects("Pod", namespace) if owned_by(pod, kind.name, name)]
    if not owned:
        client.objects(kind.name, namespace, name)  # says so when there is no such thing
        raise SixfoldError(f"{kind.name.lower()} {namespace}/{name}: has no pods")
    best = max(owned, key=_ready)
    return namespace, best["metadata"]["name"]


def owned_by(pod: dict[str, Any], kind: str, name: str) -> bool:
    """Whether the workload made this pod."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") == kind and owner.get("name") == name for owner in owners)


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
