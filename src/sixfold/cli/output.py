"""How things look on a terminal and in a pipe: tables, JSON, YAML, colour, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

COLOURS = {
    **dict.fromkeys(("FORWARDED", "Running", "Ready", "True", "ok", "Active", "Complete"), "green"),
    **dict.fromkeys(("allowed", "in force"), "green"),
    **dict.fromkeys(("DROPPED", "Failed", "CrashLoopBackOff", "Error", "fail", "denied"), "red"),
    **dict.fromkeys(("critical", "high"), "red"),
    "medium": "yellow",
    **dict.fromkeys(("Pending", "Terminating", "warn", "ContainerCreating", "AUDIT"), "yellow"),
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Columns as kubectl sets them: three spaces apart, nothing at the end of a line."""
    cells = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        padded[-1] = row[-1]
        if number:
            padded = list(map(coloured, padded))
        yield "   ".join(padded).rstrip()


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for line in table(header, rows):
        click.echo(line)


def coloured(cell: str) -> str:
    """A known word in its colour; click takes colour out again where there is no terminal."""
    colour = COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour else cell


def print_structured(value: Any, output: str) -> None:
    """Print a value as JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True)
    click.echo(text, nl=False)


def age(timestamp: str | None, now: datetime | None = None) -> str:
    """How long ago, as kubectl says it: two units at most ("3m12s", "5d")."""
    if not timestamp:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return "<invalid>"
    passed = (now or datetime.now(UTC)) - then.replace(tzinfo=then.tzinfo or UTC)
    return duration(passed.total_seconds())


def duration(seconds: float) -> str:
    """kubectl's HumanDuration."""
    s = max(0, int(seconds))
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if s < 120:
        return f"{s}s"
    if minutes < 10:
        return f"{minutes}m{s % 60}s" if s % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show that we wait, on a terminal, when it takes longer than a second."""
    if not sys.stderr.isatty():
        yield
        return
    from threading import Timer

    shown: list[Any] = []

    def show() -> None:
        from rich.console import Console

        shown.append(Console(stderr=True).status(text))
        shown[0].start()

    timer = Timer(1.0, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if shown:
            shown[0].stop()
