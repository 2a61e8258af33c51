"""A posture for others: for programs, for people (Markdown), and one HTML file with the map.

Pure. The HTML refers to nothing outside of itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from sixfold.policy.reach_picture import svg
from sixfold.policy.reach_ports import PortSet
from sixfold.policy.reach_show import Row
from sixfold.trust.posture import QUESTIONS, Posture, Standing

STYLE = """body{font:15px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}
td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left}td.no{background:#fde7e7}
td.yes{background:#e6f4ea}"""


def structured(found: Posture) -> dict[str, Any]:
    return {
        "clean": found.clean,
        "workloads": [_item(one) for one in found.workloads],
        "pairs": [_item(one) for one in found.pairs],
        "counts": {
            "workloads": {"total": len(found.workloads), **found.counts(found.workloads)},
            "pairs": {"total": len(found.pairs), **found.counts(found.pairs)},
        },
    }


def _item(one: Standing) -> dict[str, Any]:
    pair = {"to": one.to, "port": one.port, "connections": one.connections} if one.to else {}
    return {"name": one.name, **pair, "exceptions": one.exceptions}


def table(standings: Iterable[Standing]) -> list[list[str]]:
    """Rows: who, and a word for each question."""
    return [
        [who(one), *("yes" if not why else "NO" for why in one.reasons), _first(one)]
        for one in standings
    ]


def who(one: Standing) -> str:
    return f"{one.name} → {one.to} {one.port}" if one.to else one.name


def _first(one: Standing) -> str:
    return "; ".join(one.exceptions.values())


def totals(found: Posture) -> list[str]:
    lines = []
    for name, standings in (("workloads", found.workloads), ("pairs", found.pairs)):
        counts = found.counts(standings)
        said = ", ".join(f"{counts[question]} {question}" for question in QUESTIONS)
        lines.append(f"{len(standings)} {name}: {said}")
    return lines


def markdown(found: Posture) -> str:
    lines = ["# Posture", "", *(f"- {line}" for line in totals(found))]
    for title, standings in (("Workloads", found.workloads), ("Pairs", found.pairs)):
        heads = [title[:-1], *QUESTIONS, "why not"]
        lines += ["", f"## {title}", "", _row(heads), _row(["---"] * len(heads))]
        lines += [_row(row) for row in table(standings)]
    return "\n".join((*lines, ""))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html(found: Posture) -> str:
    parts = ["<!doctype html><meta charset=utf-8><title>Posture</title>", f"<style>{STYLE}</style>"]
    parts += ["<h1>Posture</h1>", *(f"<p>{escape(line)}</p>" for line in totals(found))]
    if found.pairs:
        parts += ["<h2>Who talked to whom</h2>", svg(map(_arrow, found.pairs))]
    for title, standings in (("Workloads", found.workloads), ("Pairs", found.pairs)):
        heads = "".join(f"<th>{escape(text)}</th>" for text in ("", *QUESTIONS, "why not"))
        parts.append(f"<h2>{title}</h2><table><tr>{heads}</tr>")
        for name, *answers, why in table(standings):
            cells = "".join(f'<td class="{one.lower()}">{one}</td>' for one in answers)
            parts.append(f"<tr><td>{escape(name)}</td>{cells}<td>{escape(why)}</td></tr>")
        parts.append("</table>")
    return "\n".join((*parts, ""))


def _arrow(one: Standing) -> Row:
    port, _, protocol = one.port.partition("/")
    return Row((one.name,), (one.to,), "", PortSet.of(protocol, int(port), int(port)))
