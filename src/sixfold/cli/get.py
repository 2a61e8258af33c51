"""``sixfold get``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from sixfold.cli import completer
from sixfold.cli.client import Client
from sixfold.cli.columns import COLUMNS
from sixfold.cli.kinds import parse_targets
from sixfold.cli.output import print_structured, print_table
from sixfold.cli.selector import parse_selector, selects
from sixfold.cli.settings import OUTPUTS, Settings, examples, pass_settings, shared
from sixfold.model.kinds import Kind
from sixfold.model.meta import LabelSelector

WATCH_PERIOD_S = 0.5
ObjectKey = tuple[str, str, str]  # kind, namespace, name


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for: whole kinds, or objects by name."""

    kinds: Sequence[Kind]
    named: Sequence[tuple[Kind, str]]
    namespace: str  # "" is all of them
    selector: LabelSelector

    def run(self, client: Client) -> list[tuple[Kind, list[dict[str, Any]]]]:
        """Objects by kind, in the order asked for."""
        if self.named:
            return [(kind, self._find(client, kind, name)) for kind, name in self.named]
        return [(kind, self._list(client, kind)) for kind in self.kinds]

    def _find(self, client: Client, kind: Kind, name: str) -> list[dict[str, Any]]:
        namespace = self.namespace if kind.namespaced else ""
        return client.objects(kind.name, namespace, name)

    def _list(self, client: Client, kind: Kind) -> list[dict[str, Any]]:
        items = client.objects(kind.name, self.namespace if kind.namespaced else "")
        return [item for item in items if selects(self.selector, item)]


@click.command(
    short_help="List objects.",
    epilog=examples(
        """
sixfold get pods
sixfold get deploy,svc -n shop -o wide
sixfold get pod web-0 -n shop -o yaml
sixfold get endpoints -A -o json
sixfold get pods -l app=web -w
"""
    ),
)
@click.argument("kinds", metavar="KIND[,KIND]", shell_complete=completer.kinds)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completer.names)
@click.option("-l", "--selector", default="", metavar="LABELS", help="Such as app=web,tier!=db.")
@click.option("-w", "--watch", is_flag=True, help="Go on, and print what changes.")
@click.option("--show-labels", is_flag=True, help="A last column with all labels.")
@click.option("--no-headers", is_flag=True, help="Rows only.")
@shared(outputs=OUTPUTS, everywhere=True)
@pass_settings
def command(
    settings: Settings,
    kinds: str,
    names: tuple[str, ...],
    selector: str,
    watch: bool,
    show_labels: bool,
    no_headers: bool,
) -> None:
    """List objects.

    Kinds: pods, deployments, statefulsets, daemonsets, replicasets, jobs, services,
    networkpolicies, namespaces, endpointslices, endpoints; their short names; or "all".
    "endpoints" are the pods' attachments to the network: address, identity, namespace.
    """
    wanted, named = parse_targets(kinds, names)
    if named and settings.all_namespaces:
        raise click.UsageError("a name needs a namespace; give -n instead of -A")
    namespace = "" if settings.all_namespaces else settings.namespace_or_default
    query = Query(wanted, named, namespace, parse_selector(selector))
    found = query.run(settings.client)
    if settings.structured:
        print_structured(_document(found, single=len(named) == 1), settings.output)
    else:
        printer = Printer(settings, headers=not no_headers, labels=show_labels)
        printer.show(found)
        if watch:
            printer.follow(query, settings.client)


def _document(found: Sequence[tuple[Kind, list[dict[str, Any]]]], *, single: bool) -> Any:
    items = [item for _, objects in found for item in objects]
    if single and len(items) == 1:
        return items[0]
    return {"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}}


class Printer:
    """Tables or names; remembers what it printed, for ``--watch``."""

    def __init__(self, settings: Settings, *, headers: bool, labels: bool = False) -> None:
        self._output = settings.output
        self._namespaced = settings.all_namespaces
        self._namespace = settings.namespace_or_default
        self._headers = headers
        self._labels = labels
        self._printed: dict[ObjectKey, Any] = {}

    def show(self, found: Sequence[tuple[Kind, list[dict[str, Any]]]]) -> None:
        grouped: dict[str, tuple[Kind, list[dict[str, Any]]]] = {}
        for kind, items in found:
            grouped.setdefault(kind.name, (kind, []))[1].extend(items)
        total = sum(len(items) for _, items in grouped.values())
        if not total and self._output != "name":
            where = "" if self._namespaced else f" in {self._namespace} namespace"
            click.echo(f"No resources found{where}.", err=True)
        shown = [(kind, items) for kind, items in grouped.values() if items]
        for number, (kind, items) in enumerate(shown):
            if number and self._output != "name":
                click.echo("")
            self._print(kind, items, several=len(grouped) > 1)

    def follow(self, query: Query, client: Client) -> None:
        """Print rows that changed until interrupted."""
        self._headers = False
        several = len(query.kinds) > 1
        while True:
            time.sleep(WATCH_PERIOD_S)
            for kind, items in query.run(client):
                changed = [item for item in items if self._printed.get(_key(kind, item)) != item]
                gone = self._gone(kind, {_key(kind, item) for item in items})
                if changed or gone:
                    self._print(kind, changed + gone, several=several)
                for item in gone:
                    del self._printed[_key(kind, item)]

    def _gone(self, kind: Kind, left: set[ObjectKey]) -> list[dict[str, Any]]:
        """What was printed and is no more, to be printed a last time as such."""
        gone = [
            item for key, item in self._printed.items() if key[0] == kind.name and key not in left
        ]
        deleted = {"deletionTimestamp": None}
        return [
            {**item, "metadata": {**item["metadata"], **deleted}, "status": {"phase": "Deleted"}}
            for item in gone
        ]

    def _print(self, kind: Kind, items: list[dict[str, Any]], *, several: bool) -> None:
        self._printed.update({_key(kind, item): item for item in items})
        if self._output == "name":
            for item in items:
                click.echo(f"{_typed(kind)}/{item['metadata']['name']}")
            return
        wide = self._output == "wide"
        columns = COLUMNS[kind.name].labelled() if self._labels else COLUMNS[kind.name]
        header, rows = columns.header(wide=wide), [columns.row(i, wide=wide) for i in items]
        if several:
            rows = [[f"{_typed(kind)}/{row[0]}", *row[1:]] for row in rows]
        if self._namespaced and kind.namespaced:
            header = ["NAMESPACE", *header]
            rows = [
                [item["metadata"].get("namespace", ""), *row]
                for item, row in zip(items, rows, strict=True)
            ]
        if self._headers:
            print_table(header, rows)
        else:
            print_table(rows[0], rows[1:])


def _typed(kind: Kind) -> str:
    return f"{kind.name.lower()}.{kind.group}" if kind.group else kind.name.lower()


def _key(kind: Kind, item: dict[str, Any]) -> ObjectKey:
    return kind.name, item["metadata"].get("namespace", ""), item["metadata"]["name"]
