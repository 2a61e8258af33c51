"""Reach as a graph: Graphviz' language, or a drawing of our own.

Pure. Workloads that stand together in every row are one node; what all do alike (DNS to the node's
resolver) is left to the table. The drawing is layered: sources left, and
whoever is reached one step to the right of those that reach it, as far as there is no circle. An
arrow that passes a layer has a lane there, so that it runs behind no node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from sixfold.policy.reach_show import WORLD_NAME, Row

FONT, LINE, CHARACTER = 12, 16, 7.3  # px: font size, line height, width of a character
COLUMN_GAP, ROW_GAP, MARGIN, PADDING = 150, 34, 24, 10
NAMES_MAX, PORTS_MAX = 8, 34  # names in one node, characters on one edge
FILLS = {"workload": "#e8f0fe", "host": "#fef3d6", "world": "#f1f3f4"}


@dataclass(frozen=True, slots=True)
class Arrow:
    """One edge between nodes."""

    source: str
    destination: str
    text: str


@dataclass(slots=True)
class Box:
    """A node, or the lane of an arrow, and its place; ``column``: how wide its layer is."""

    lines: list[str]
    x: float = 0
    y: float = 0
    column: float = 0

    @property
    def width(self) -> float:
        return max(map(len, self.lines), default=0) * CHARACTER + 2 * PADDING

    @property
    def height(self) -> float:
        return len(self.lines) * LINE + 2 * PADDING

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def dot(rows: Iterable[Row]) -> str:
    """For Graphviz: ``dot -Tsvg``."""
    arrows = _arrows(rows)
    names = _nodes(arrows)
    lines = ["digraph reach {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled"];']
    lines += [f"  {_quoted(name)} [fillcolor={_quoted(_fill(name))}];" for name in names]
    lines += [
        f"  {_quoted(one.source)} -> {_quoted(one.destination)} [label={_quoted(one.text)}];"
        for one in arrows
    ]
    return "\n".join((*lines, "}", ""))


def svg(rows: Iterable[Row]) -> str:
    """A drawing that any browser shows."""
    arrows = _arrows(rows)
    boxes = {name: Box(name.split("\n")) for name in _nodes(arrows)}
    layers = _layers(list(boxes), arrows)
    lanes = _lanes(layers, arrows)
    width, height = _place(layers, boxes, lanes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="{FONT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#5f6368"/></marker></defs>',
    ]
    spots = _ports(boxes, arrows)
    curves = [_curve(boxes, arrow, spots[arrow], lanes[arrow]) for arrow in arrows]
    parts += [path for path, _ in curves]
    parts += [_drawn(name, box) for name, box in boxes.items()]
    parts += [label for _, label in curves]
    return "\n".join((*parts, "</svg>", ""))


def _arrows(rows: Iterable[Row]) -> list[Arrow]:
    """Arrows between nodes; a node is names that stand together in every row."""
    rows = [row for row in rows if row.destinations != ("resolver",)]
    standing: defaultdict[str, set[tuple[int, bool]]] = defaultdict(set)
    for at, row in enumerate(rows):
        for names, leaves in ((row.sources, True), (row.destinations, False)):
            for name in names:
                standing[name].add((at, leaves))
    together: defaultdict[tuple[frozenset[tuple[int, bool]], str], list[str]] = defaultdict(list)
    for name, places in standing.items():
        together[frozenset(places), _kind(name)].append(name)
    node = {name: _label(names) for names in together.values() for name in names}
    texts: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        text = f"{row.ports} ({row.family})" if row.family else str(row.ports)
        for source in dict.fromkeys(node[name] for name in row.sources):
            for destination in dict.fromkeys(node[name] for name in row.destinations):
                if destination != "resolver":
                    texts[source, destination].append(text)
    return [Arrow(*ends, _short(" ".join(found))) for ends, found in texts.items()]


def _short(text: str) -> str:
    return text if len(text) <= PORTS_MAX else f"{text[: PORTS_MAX - 1]}…"


def _label(names: Sequence[str]) -> str:
    shown = sorted(names)[:NAMES_MAX]
    if len(names) > NAMES_MAX:
        shown.append(f"and {len(names) - NAMES_MAX} more")
    return "\n".join(name if len(name) <= 60 else f"{name[:59]}…" for name in shown)


def _kind(name: str) -> str:
    if name in ("host", "resolver"):
        return "host"
    first = name.partition("/")[0]
    outside = name == WORLD_NAME or ":" in first or first.replace(".", "").isdigit()
    return "world" if outside else "workload"


def _fill(label: str) -> str:
    return FILLS[_kind(label.partition("\n")[0])]


def _nodes(arrows: Iterable[Arrow]) -> list[str]:
    return list(dict.fromkeys(end for one in arrows for end in (one.source, one.destination)))


def _layers(names: Sequence[str], arrows: Sequence[Arrow]) -> list[list[str]]:
    """Nodes by depth: edges that would close a circle are left out of account."""
    depth = dict.fromkeys(names, 0)
    after: defaultdict[str, list[str]] = defaultdict(list)
    for arrow in arrows:
        if arrow.source != arrow.destination:
            after[arrow.source].append(arrow.destination)
    reached = {arrow.destination for arrow in arrows if arrow.source != arrow.destination}
    first = [name for name in names if name not in reached] or names[:1]
    open_ways: list[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in first]
    budget = 50 * len(names) * max(1, len(arrows))
    while open_ways and budget:
        budget -= 1
        name, way = open_ways.pop()
        for following in after[name]:
            if following not in way and depth[following] < depth[name] + 1:
                depth[following] = depth[name] + 1
                open_ways.append((following, (*way, following)))
    layers: defaultdict[int, list[str]] = defaultdict(list)
    for name in names:
        layers[depth[name]].append(name)
    return [layers[at] for at in sorted(layers)]


def _lanes(layers: Sequence[list[str]], arrows: Sequence[Arrow]) -> dict[Arrow, list[Box]]:
    """A box without a name in every layer that an arrow passes on its way to the right."""
    depth = {name: at for at, layer in enumerate(layers) for name in layer}
    return {
        arrow: [Box([]) for _ in range(depth[arrow.source] + 1, depth[arrow.destination])]
        for arrow in arrows
    }


def _place(
    layers: Sequence[list[str]], boxes: dict[str, Box], lanes: dict[Arrow, list[Box]]
) -> tuple[float, float]:
    """Columns by layer; within one, near the middle of those that lead there."""
    columns = [[boxes[name] for name in layer] for layer in layers]
    depth = {name: at for at, layer in enumerate(layers) for name in layer}
    led_by: defaultdict[int, list[Box]] = defaultdict(list)  # by id of a box
    for arrow, passed in lanes.items():
        for at, lane in enumerate(passed, depth[arrow.source] + 1):
            columns[at].append(lane)
        way = [boxes[arrow.source], *passed, boxes[arrow.destination]]
        for before, after in pairwise(way):
            led_by[id(after)].append(before)
    heights = [sum(box.height + ROW_GAP for box in column) - ROW_GAP for column in columns]
    tallest, x = max(heights, default=0), float(MARGIN)
    placed: set[int] = set()
    label = max((len(arrow.text) for arrow in lanes), default=0) * CHARACTER
    for column, height in zip(columns, heights, strict=True):
        y = MARGIN + (tallest - height) / 2
        width = max(box.width for box in column)
        pulls = {id(box): _pull(led_by[id(box)], placed) for box in column}
        for box in sorted(column, key=lambda box: pulls[id(box)]):
            box.x, box.y, box.column = x, y, width
            y += box.height + ROW_GAP
        placed.update(map(id, column))
        x += width + max(COLUMN_GAP, label + 40)
    right = max((box.x + box.width for box in boxes.values()), default=0)
    return right + MARGIN + 60, tallest + 2 * MARGIN + LINE


def _pull(led_by: Sequence[Box], placed: set[int]) -> float:
    pulls = [box.middle for box in led_by if id(box) in placed]
    return sum(pulls) / len(pulls) if pulls else 0.0


def _ports(boxes: dict[str, Box], arrows: Sequence[Arrow]) -> dict[Arrow, tuple[float, float]]:
    """Where each arrow leaves and arrives: spread over the sides, in the order of the far ends."""
    leaving: dict[Arrow, float] = {}
    arriving: dict[Arrow, float] = {}
    for name, box in boxes.items():
        out = [a for a in arrows if a.source == name]
        into = [a for a in arrows if a.destination == name]
        out.sort(key=lambda a: boxes[a.destination].y)
        into.sort(key=lambda a: boxes[a.source].y)
        for row, spots in ((out, leaving), (into, arriving)):
            for at, arrow in enumerate(row, 1):
                spots[arrow] = box.y + box.height * at / (len(row) + 1)
    return {arrow: (leaving[arrow], arriving[arrow]) for arrow in arrows}


def _curve(
    boxes: dict[str, Box], arrow: Arrow, spots: tuple[float, float], lanes: Sequence[Box]
) -> tuple[str, str]:
    """The line, and its label: near the source, where lines of one node are apart."""
    source, destination = boxes[arrow.source], boxes[arrow.destination]
    (y1, y2), x1 = spots, source.x + source.width
    if source is destination:
        top = source.y
        x = source.x + source.width / 2
        path = f"M{x - 18:.0f} {top:.0f}C{x - 18:.0f} {top - 26:.0f} "
        path += f"{x + 18:.0f} {top - 26:.0f} {x + 18:.0f} {top:.0f}"
        return _path(path, x, top - 12, arrow.text)
    x2, bend = destination.x, 70.0
    if x2 <= x1:  # back, or within a column: round the right side
        x2, end = destination.x + destination.width, destination.x + destination.width + bend
        far = max(x1, x2) + bend
        path = f"M{x1:.0f} {y1:.0f}C{far:.0f} {y1:.0f} {end:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
        return _path(path, (x1 + x2) / 2 + bend * 0.75, (y1 + y2) / 2, arrow.text)
    path, (x, y) = f"M{x1:.0f} {y1:.0f}", (x1, y1)
    stops = [(lane.x, lane.middle, lane.x + lane.column) for lane in lanes]
    for near, level, far in [*stops, (x2, y2, x2)]:
        path += f"C{x + bend:.0f} {y:.0f} {near - bend:.0f} {level:.0f} {near:.0f} {level:.0f}"
        path += f"L{far:.0f} {level:.0f}" if far > near else ""
        x, y = far, level
    near, level, _ = [*stops, (x2, y2, x2)][0]
    spot = min(source.x + source.column + COLUMN_GAP / 2, near - 30)  # beside the whole column
    at = (spot - x1) / (near - x1)
    rise = at * at * (3 - 2 * at)  # of a curve whose ends are level
    return _path(path, spot, y1 + (level - y1) * rise - 3, arrow.text)


def _path(path: str, x: float, y: float, text: str) -> tuple[str, str]:
    return (
        f'<path d="{path}" fill="none" stroke="#5f6368" marker-end="url(#tip)"/>',
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" fill="#174ea6" stroke="white" '
        f'stroke-width="4" paint-order="stroke">{escape(text)}</text>',
    )


def _drawn(name: str, box: Box) -> str:
    parts = [
        f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" '
        f'height="{box.height:.0f}" rx="6" fill="{_fill(name)}" stroke="#5f6368"/>'
    ]
    for number, line in enumerate(box.lines):
        y = box.y + PADDING + (number + 0.75) * LINE
        parts.append(f'<text x="{box.x + PADDING:.0f}" y="{y:.0f}">{escape(line)}</text>')
    return "".join(parts)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
