"""Pictures: every path as part of plain veth; how even algorithms keep what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from bench.traffic import LIMIT, METRICS, Traffic

COLOURS = ("#9aa0a6", "#f4b183", "#e07b39", "#6fa8dc", "#1f5fa8")
WIDTH, LEFT, SCALE, STEP, GAP = 760, 190, 480, 18, 26  # SCALE: pixels of plain veth
EVEN = 130  # pixels of a backend that has its share


def traffic_plot(found: Traffic) -> str:
    """An SVG with a group of bars per metric."""
    parts: list[str] = []
    y = 30
    for metric, (title, _, _) in METRICS.items():
        parts.append(f'<text x="{LEFT}" y="{y}" font-weight="bold">{escape(title)}</text>')
        y += 8
        peers = [peer for peer in found.figures[metric] if peer != LIMIT]
        for number, peer in enumerate(peers):
            ratio = found.ratio(metric, peer, LIMIT)
            parts += _bar(y, peer, ratio.median if ratio else 0.0, COLOURS[number % len(COLOURS)])
            y += STEP
        y += GAP
    parts += _line(LEFT + SCALE, y, "plain veth = 1")
    return _svg(y, parts)


def spread_plot(found: Mapping[str, Mapping[str, float]]) -> str:
    """A group of bars per workload: the busiest backend's share, 1 is even."""
    parts: list[str] = []
    y = 30
    for workload in next(iter(found.values())):
        parts.append(f'<text x="{LEFT}" y="{y}" font-weight="bold">{escape(workload)}</text>')
        y += 8
        for number, (algorithm, ratios) in enumerate(found.items()):
            parts += _bar(y, algorithm, ratios[workload], COLOURS[number % len(COLOURS)], EVEN)
            y += STEP
        y += GAP
    parts += _line(LEFT + EVEN, y, "every backend has its share")
    return _svg(y, parts)


def _line(x: int, y: int, text: str) -> list[str]:
    return [
        f'<line x1="{x}" y1="12" x2="{x}" y2="{y - 30}" stroke="#444" stroke-dasharray="4 3"/>',
        f'<text x="{x}" y="{y - 12}" text-anchor="middle">{escape(text)}</text>',
    ]


def _svg(height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _bar(y: int, peer: str, ratio: float, colour: str, scale: int = SCALE) -> list[str]:
    end = LEFT + ratio * scale
    return [
        f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(peer)}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.0f}" height="13" fill="{colour}"/>',
        f'<text x="{end + 6:.0f}" y="{y + 11}">{ratio:.2f}</text>',
    ]
