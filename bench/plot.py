"""One picture: every path as part of plain veth."""

from __future__ import annotations

from html import escape

from bench.traffic import LIMIT, METRICS, Traffic

COLOURS = ("#9aa0a6", "#f4b183", "#e07b39", "#6fa8dc", "#1f5fa8")
WIDTH, LEFT, SCALE, STEP, GAP = 760, 190, 480, 18, 26  # SCALE: pixels of plain veth


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
    limit = LEFT + SCALE
    parts.append(
        f'<line x1="{limit}" y1="12" x2="{limit}" y2="{y - 30}" stroke="#444" '
        'stroke-dasharray="4 3"/>'
    )
    parts.append(f'<text x="{limit}" y="{y - 12}" text-anchor="middle">plain veth = 1</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _bar(y: int, peer: str, ratio: float, colour: str) -> list[str]:
    end = LEFT + ratio * SCALE
    return [
        f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(peer)}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.0f}" height="13" fill="{colour}"/>',
        f'<text x="{end + 6:.0f}" y="{y + 11}">{ratio:.2f}</text>',
    ]
