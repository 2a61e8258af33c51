from xml.etree import ElementTree

from sixfold.policy.reach_picture import dot, svg
from sixfold.policy.reach_ports import EVERY_PORT, PortSet
from sixfold.policy.reach_show import Row

HTTP = PortSet.of("TCP", 80, 80)
ROWS = [
    Row(("x/a", "x/b"), ("x/c",), "", HTTP),
    Row(("x/c",), ("x/a", "x/b", "192.0.2.0/24"), "IPv4", EVERY_PORT),
    Row(("x/a", "x/b", "x/c"), ("resolver",), "", HTTP),
]
TEXT = "{http://www.w3.org/2000/svg}text"


def test_names_that_stand_together_in_every_row_are_one_node():
    text = dot(ROWS)
    assert '"x/a\\nx/b" -> "x/c" [label="TCP/80"];' in text
    assert '"x/c" -> "192.0.2.0/24" [label="all (IPv4)"];' in text
    assert "resolver" not in text


def test_the_drawing_is_xml_with_every_name_and_port_in_it():
    root = ElementTree.fromstring(svg(ROWS))
    texts = [element.text for element in root.iter(TEXT)]
    assert sorted(set(texts)) == sorted(
        {"x/a", "x/b", "x/c", "192.0.2.0/24", "TCP/80", "all (IPv4)"}
    )


def test_boxes_do_not_lie_on_each_other():
    rows = [Row((f"x/{n}",), (f"y/{n % 3}", "z/z"), "", HTTP) for n in range(12)]
    root = ElementTree.fromstring(svg(rows))
    boxes = [
        tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
        for rect in root.iter("{http://www.w3.org/2000/svg}rect")
        if rect.get("x")
    ]
    assert len(boxes) == 16
    for at, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[at + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_an_arrow_runs_behind_no_node_that_it_passes():
    """a → b → c, and a → c: past b, not behind it."""
    rows = [Row(("x/a",), ("x/b", "x/c"), "", HTTP), Row(("x/b",), ("x/c",), "", EVERY_PORT)]
    root = ElementTree.fromstring(svg(rows))
    rects = [one for one in root.iter("{http://www.w3.org/2000/svg}rect") if one.get("x")]
    xs = sorted({float(one.get("x")) for one in rects})
    assert len(xs) == 3
    (middle,) = [one for one in rects if float(one.get("x")) == xs[1]]
    top, height = float(middle.get("y")), float(middle.get("height"))
    ways = [one.get("d") for one in root.iter("{http://www.w3.org/2000/svg}path")]
    (past,) = [way for way in ways if "L" in way and "C" in way]
    level = float(past.partition("L")[2].split()[1].partition("C")[0])
    assert not top <= level <= top + height


def test_nothing_to_draw_is_a_drawing_too():
    assert ElementTree.fromstring(svg([])) is not None
    assert dot([]).startswith("digraph")
