"""Rows of reach and of differences, in cells of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sixfold.policy.reach_show import Row

NAMES_MAX = 6  # in one cell; -o wide has all


def cells(row: Row, *, wide: bool) -> tuple[str, str, str]:
    """FROM, TO, PORTS."""
    return names(row.sources, wide=wide), names(row.destinations, wide=wide), ports(row)


def names(texts: tuple[str, ...], *, wide: bool = False) -> str:
    if wide or len(texts) <= NAMES_MAX:
        return ", ".join(texts)
    return f"{', '.join(texts[:NAMES_MAX])} and {len(texts) - NAMES_MAX} more"


def ports(row: Row) -> str:
    return f"{row.ports} ({row.family})" if row.family else str(row.ports)


def structured_row(row: Row) -> dict[str, Any]:
    """A row for programs."""
    item: dict[str, Any] = {"from": list(row.sources), "to": list(row.destinations)}
    item["ports"] = row.ports.texts()
    if row.family:
        item["family"] = row.family
    return item
