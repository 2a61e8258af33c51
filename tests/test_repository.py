"""The repository keeps its own promises: layers have tests, documents tell the truth."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sixfold.model.reason import DropReason

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
LINES_MAX = 400
MAP = re.compile(r"struct \{((?:[^{}]|\n)*?)\} (\w+) SEC\(\"\.maps\"\)")


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SRC.glob("sixfold/**/*.py"))}


def imports_of(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def reached() -> set[str]:
    """Modules that tests import, and all that these import; commands are reached by their verb,
    the resolver as a process of its own."""
    tests = [path for path in ROOT.glob("tests/**/*.py") if path != Path(__file__)]
    text = "\n".join(path.read_text() for path in tests)
    todo = {name for path in tests for name in imports_of(path) if name in MODULES}
    todo.add("sixfold.serve.dns")
    todo |= {
        name
        for name in MODULES
        if name.startswith("sixfold.cli.") and f'"{name.rpartition(".")[2]}"' in text
    }
    found: set[str] = set()
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= {other for other in imports_of(MODULES[name]) if other in MODULES} - found
    return found


@pytest.mark.parametrize(
    "name",
    [name for name, path in MODULES.items() if not path.stem.startswith("__")],
)
def test_tests_reach_every_module(name):
    assert name in reached(), f"{name}: no test imports it, or anything that does"


@pytest.mark.parametrize("package", sorted(p.parent.name for p in SRC.glob("sixfold/*/*.py")))
def test_every_package_has_a_folder_of_tests(package):
    folder = ROOT / "tests" / package
    assert list(folder.glob("test_*.py"))


def test_every_dependency_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    reasons = dict(re.findall(r'^ +"([^"]+)", *# *(\S.*)$', text, re.MULTILINE))
    assert [name for name in wanted if name not in reasons] == []


@pytest.mark.parametrize(
    ("name", "lines_max"),
    [
        ("README.md", 120),
        ("ARCHITECTURE.md", 200),
        ("CHANGELOG.md", None),
        ("LICENSE", None),
        ("docs/decisions.md", None),
        ("docs/doors.md", None),
        ("docs/drops.md", None),
        ("docs/glossary.md", None),
        ("docs/support.md", None),
        (".ci/run", None),
    ],
)
def test_what_a_reader_looks_for_is_there_and_short(name, lines_max):
    text = (ROOT / name).read_text()
    assert text
    assert lines_max is None or len(text.splitlines()) <= lines_max


def test_the_readme_shows_a_command_early():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("    $ ") for line in lines[:20])


def test_a_long_file_has_its_reason_among_the_decisions():
    decisions = (ROOT / "docs/decisions.md").read_text()
    sources = [p for part in ("src", "bpf", "shim") for p in (ROOT / part).rglob("*.[pch]*")]
    long = [
        str(path.relative_to(ROOT))
        for path in sources
        if path.suffix in {".py", ".c", ".h"} and len(path.read_text().splitlines()) > LINES_MAX
    ]
    assert [name for name in long if name not in decisions] == []


PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "src/**/*.md", "bench/**/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        aim = (page.parent / file) if file else page
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            dead.append(target)
    assert dead == []


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_drop_reason_is_on_its_page():
    page = (ROOT / "docs/drops.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE))
    wanted = {str(int(reason)): reason.name for reason in DropReason if reason}
    assert rows == wanted


def test_the_table_of_maps_is_the_one_of_the_kernel():
    """Name, type and size of every BPF map, as ARCHITECTURE.md has them."""
    sources = [*ROOT.glob("bpf/*.c"), *ROOT.glob("bpf/lib/*.h")]
    declared = {}
    for body, name in MAP.findall("\n".join(path.read_text() for path in sources)):
        kind = re.search(r"BPF_MAP_TYPE_(\w+)", body)
        size = re.search(r"max_entries, ([^)]+)\)", body)
        assert kind
        declared[name] = (kind[1].lower(), eval_size(size[1]) if size else None)
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\d,]*) ?(?:bytes)? ?\|", text, re.MULTILINE)
    shown = {name: (kind, int(n.replace(",", "")) if n else None) for name, kind, n in rows}
    assert shown == declared


def eval_size(text: str) -> int:
    number, _, shift = text.partition("<<")
    return int(number) << int(shift or 0)


@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"
)
def test_the_wheel_carries_the_datapath_and_the_shim(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    objects = "sixfold/host/objects"
    assert {f"{objects}/{path.stem}.o" for path in ROOT.glob("bpf/*.bpf.c")} <= modes.keys()
    assert modes[f"{objects}/shim"] & 0o111
    assert [name for name in modes if not name.startswith("sixfold")] == []
