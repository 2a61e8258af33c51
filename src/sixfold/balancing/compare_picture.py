"""A comparison of algorithms as a picture: bars for a terminal, an SVG for a page.

Pure. The course of imbalance over time is on top, one line an algorithm; below it a panel of bars
for each figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from sixfold.balancing.compare import Outcome
from sixfold.model.algorithm import Algorithm

FONT, LINE, MARGIN, WIDTH = 12, 18, 24, 760  # px
LABEL, VALUE = 150, 70  # px: left and right of a bar
COURSE_HEIGHT = 180
COLOURS = {
    Algorithm.RANDOM: "#5f6368",
    Algorithm.ROUND_ROBIN: "#174ea6",
    Algorithm.LEAST_CONNECTIONS: "#188038",
    Algorithm.MAGLEV: "#b3261e",
    Algorithm.SOURCE_HASH: "#b06000",
}
EIGHTHS = " ▏▎▍▌▋▊▉"

Figure = tuple[str, Callable[[Outcome], float], Callable[[float], str]]


def seconds(value: float) -> str:
    """``0``, ``12 ms``, ``3.4 s``."""
    if value < 0.0005:
        return "0"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def share(value: float) -> str:
    return f"{value:.0%}"


FIGURES: tuple[Figure, ...] = (
    ("imbalance (most over mean)", lambda one: one.imbalance, "{:.2f}".format),
    ("99 % wait at most", lambda one: one.wait_p99_s, seconds),
    ("moved when one goes", lambda one: one.moved_gone, share),
    ("moved when it returns", lambda one: one.moved_back, share),
)


def bar(value: float, most: float, width: int = 10) -> str:
    """A bar of blocks, an eighth of a character fine."""
    eighths = round(value / most * width * 8) if most > 0 else 0
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def cells(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row an algorithm: each figure with its bar."""
    most = [max(figure(one) for one in outcomes) for _, figure, _ in FIGURES]
    texts = [[text(figure(one)) for one in outcomes] for _, figure, text in FIGURES]
    widths = [max(map(len, column)) for column in texts]
    return [
        [
            f"{texts[at][row]:>{widths[at]}} {bar(figure(one), most[at])}"
            for at, (_, figure, _) in enumerate(FIGURES)
        ]
        for row, one in enumerate(outcomes)
    ]


def svg(outcomes: Sequence[Outcome], title: str, chosen: str = "") -> str:
    """A drawing that any browser shows; ``chosen`` is the title of the algorithm in force."""
    panel = LINE * (len(outcomes) + 1) + 10
    height = MARGIN * 2 + LINE * 2 + COURSE_HEIGHT + LINE + panel * len(FIGURES)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="{FONT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(MARGIN, MARGIN + 4, title, bold=True),
    ]
    top = float(MARGIN + LINE)
    parts += _courses(outcomes, top)
    top += COURSE_HEIGHT + 2 * LINE
    for figure in FIGURES:
        parts += _bars(outcomes, figure, top, chosen)
        top += panel
    return "\n".join((*parts, "</svg>", ""))


def _courses(outcomes: Sequence[Outcome], top: float) -> Iterator[str]:
    """Imbalance over time, from 1 upwards."""
    left, right = float(MARGIN + 36), float(WIDTH - MARGIN)
    bottom = top + COURSE_HEIGHT
    most = max(2.0, *(max(one.course) for one in outcomes))
    for level in range(1, int(most) + 1):
        y = bottom - (level - 1) / (most - 1) * COURSE_HEIGHT
        yield f'<path d="M{left:.0f} {y:.1f}H{right:.0f}" stroke="#dadce0"/>'
        yield _text(left - 8, y + 4, str(level), anchor="end")
    for one in outcomes:
        step = (right - left) / max(1, len(one.course) - 1)
        points = " ".join(
            f"{left + at * step:.1f},{bottom - (ratio - 1) / (most - 1) * COURSE_HEIGHT:.1f}"
            for at, ratio in enumerate(one.course)
        )
        yield (
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[one.algorithm]}" '
            'stroke-width="1.5"/>'
        )
    yield _text((left + right) / 2, bottom + LINE, "imbalance over time", anchor="middle")


def _bars(outcomes: Sequence[Outcome], figure: Figure, top: float, chosen: str) -> Iterator[str]:
    name, value, text = figure
    most = max(map(value, outcomes))
    yield _text(MARGIN, top + LINE - 5, name, bold=True)
    room = WIDTH - 2 * MARGIN - LABEL - VALUE
    for row, one in enumerate(outcomes, 1):
        y = top + row * LINE
        width = value(one) / most * room if most else 0.0
        mark = " (chosen)" if one.algorithm.title == chosen else ""
        yield _text(MARGIN, y + LINE - 5, one.algorithm.title + mark)
        yield (
            f'<rect x="{MARGIN + LABEL}" y="{y + 3:.0f}" width="{width:.1f}" '
            f'height="{LINE - 6}" fill="{COLOURS[one.algorithm]}"/>'
        )
        yield _text(MARGIN + LABEL + width + 6, y + LINE - 5, text(value(one)))


def _text(x: float, y: float, text: str, *, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
