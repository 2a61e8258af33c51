"""YAML text to plain values, each with the line it came from.

Theory of operation: libyaml's events are built into dicts and lists as they come, one document
at a time, so that a big file costs one document of memory. Lines are kept beside the values:
for every mapping and sequence (by ``id``) the line of each key or item, in order. Values are never
copied or changed afterwards, so the ids stay good as long as the document lives.

Scalars are typed as kubectl types them (``scalar``); keys are strings as written. Duplicate
keys, foreign tags, cyclic anchors, deep nesting and alias bombs are problems. JSON is YAML here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from sixfold.errors import Problem
from sixfold.manifest.path import Path, show
from sixfold.manifest.scalar import plain

DEPTH_MAX = 100  # of nesting; Kubernetes objects stay under 20
NODES_MAX = 4_000_000  # per text: a 10 MB manifest has under a million
PROBLEMS_MAX = 1000  # then reading stops: nobody reads more, and each costs a search
ALIASED_NODES_MAX = 100_000  # per text: what aliases repeat, counted as if written out

Lines = dict[int, list[int]]  # id of a dict or list -> line of each child, in order

_JSON_PAIR = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)
_CORE_TAGS = {"str", "int", "bool", "float", "null", "map", "seq", "merge"}
_TAG_PREFIX = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its value, its first line, and the lines of everything in it."""

    value: Any
    line: int
    lines: Lines


def line_of(document: Document, path: Path) -> int:
    """The line of the value at this path, or of the closest container that is there."""
    value, line = document.value, document.line
    for step in path:
        children = document.lines.get(id(value))
        if children is None:
            break
        if isinstance(value, dict) and step in value:
            index = list(value).index(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            index = step
        else:
            break
        line, value = children[index], value[step]
    return line


def parse(text: str, source: str, problems: list[Problem]) -> Iterator[Document]:
    """Yield the documents of one text; what is wrong with the YAML goes to ``problems``.

    Text that is not YAML ends the stream; everything before it has been yielded.
    """
    parser: Any = None
    if text.lstrip()[:1] in ("{", "["):
        text = _JSON_PAIR.sub(_one_escape, text)
    try:
        parser = yaml.CSafeLoader(text)
        builder = _Builder(source, problems)
        while parser.check_event():
            document = builder.take(parser.get_event())
            if document is not None:
                yield document
    except yaml.MarkedYAMLError as error:
        problems.append(_malformed(error, source, text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not YAML: character U+{_code(error.character):04X} is not allowed; remove it"
        problems.append(Problem(source, line, "", message))
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        problems.append(Problem(source, line, "", "not YAML: half of a UTF-16 pair; write UTF-8"))
    except _TooMuch as error:
        problems.append(Problem(source, error.line, "", str(error)))
    finally:
        if parser is not None:
            parser.dispose()


def _one_escape(pair: re.Match[str]) -> str:
    """JSON writes characters beyond 16 bits as two escapes; YAML knows one long escape."""
    backslashes, high, low = pair.groups()
    code = 0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00)
    return f"{backslashes}\\U{code:08x}"


def _code(character: int | str | bytes) -> int:
    return character if isinstance(character, int) else ord(character)


def _malformed(error: yaml.MarkedYAMLError, source: str, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = ", ".join(part for part in (error.context, error.problem) if part)
    rows = text.splitlines()
    row = rows[line - 1] if 0 < line <= len(rows) else ""
    indent = row[: len(row) - len(row.lstrip())]
    hint = "; a tab indents this line, use spaces" if "\t" in indent else ""
    return Problem(source, line, "", f"not YAML: {what}{hint}", column=column)


class _TooMuch(Exception):
    """A bound of this parser was reached; the rest of the text is not read."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is still open."""

    value: Any  # dict or list
    lines: list[int]
    line: int
    anchor: str | None
    key: str | None = None  # of a mapping: the key that waits for its value
    key_line: int = 0
    expects_key: bool = True
    is_merge: bool = False  # the key is a plain <<; in quotes it is a name as others
    nodes: int = 1  # in here, aliases counted as if written out
    merges: list[tuple[Any, list[int]]] = field(default_factory=list)


@dataclass(slots=True)
class _Builder:
    """Feeds on events, gives documents."""

    source: str
    problems: list[Problem]
    stack: list[_Frame] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    lines: Lines = field(default_factory=dict)
    aliased: int = 0
    nodes: int = 0
    first_line: int = 1
    root: Any = None

    def take(self, event: Any) -> Document | None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent:
            self._open({}, event)
        elif kind is yaml.SequenceStartEvent:
            self._open([], event)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close()
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.DocumentStartEvent:
            self.anchors, self.lines, self.root = {}, {}, None
            self.first_line = 0
        elif kind is yaml.DocumentEndEvent:
            return Document(self.root, self.first_line, self.lines)
        return None

    def _scalar(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if self.stack and self._wants_key():
            self._set_key(event.value, line)
            self.stack[-1].is_merge = event.value == "<<" and event.implicit[0]
            return
        value: Any = event.value
        tag: str | None = event.tag
        if tag is not None:
            value = self._tagged(tag, value, line)
        elif event.implicit[0]:
            value = plain(value)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        self._attach(value, line, 1)

    def _open(self, value: Any, event: Any) -> None:
        line = event.start_mark.line + 1
        if len(self.stack) >= DEPTH_MAX:
            raise _TooMuch(line, f"nested deeper than {DEPTH_MAX} levels; is this a manifest?")
        if self.stack and self._wants_key():
            self._report(line, "a key is a mapping or a list; keys are strings")
            self._set_key("?", line)
            self.stack[-1].expects_key = True  # its value arrives first, as the key did
        if event.tag is not None:
            self._tagged(event.tag, "", line)
        self.stack.append(_Frame(value, [], line, event.anchor))
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)

    def _close(self) -> None:
        frame = self.stack.pop()
        if frame.merges:
            _merge(frame)
        self.lines[id(frame.value)] = frame.lines
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.value, frame.nodes)
        self._attach(frame.value, frame.line, frame.nodes)

    def _alias(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if event.anchor not in self.anchors:
            cyclic = any(frame.anchor == event.anchor for frame in self.stack)
            why = "refers to itself" if cyclic else "has no anchor before it"
            raise _TooMuch(line, f"alias *{event.anchor} {why}; write the value out")
        value, nodes = self.anchors[event.anchor]
        self.aliased += nodes
        if self.aliased > ALIASED_NODES_MAX:
            limit = f"{ALIASED_NODES_MAX} nodes"
            raise _TooMuch(line, f"aliases repeat more than {limit}; write the values out")
        if self.stack and self._wants_key():
            self._set_key(value if isinstance(value, str) else "?", line)
            return
        self._attach(value, line, nodes)

    def _wants_key(self) -> bool:
        frame = self.stack[-1]
        return type(frame.value) is dict and frame.expects_key

    def _set_key(self, key: str, line: int) -> None:
        frame = self.stack[-1]
        if key in frame.value:
            first = frame.lines[list(frame.value).index(key)]
            self._report(line, f"key {key!r} is here twice, first in line {first}; keep one", key)
        frame.key, frame.key_line, frame.expects_key, frame.is_merge = key, line, False, False

    def _attach(self, value: Any, line: int, nodes: int) -> None:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise _TooMuch(line, f"more than {NODES_MAX} values in one text; apply it in parts")
        if not self.stack:
            self.root = value
            self.first_line = self.first_line or line
            return
        frame = self.stack[-1]
        frame.nodes += nodes
        if type(frame.value) is list:
            frame.value.append(value)
            frame.lines.append(line)
            return
        if frame.expects_key:  # a mapping or list stood where a key should: already reported
            frame.expects_key = False
            return
        key, frame.expects_key = frame.key, True
        if frame.is_merge:
            self._merge_later(frame, value, line)
            return
        if key not in frame.value:  # the first of two duplicates stays
            frame.value[key] = value
            frame.lines.append(frame.key_line)

    def _merge_later(self, frame: _Frame, value: Any, line: int) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                self._report(line, "<< merges mappings only", "<<")
                continue
            frame.merges.append((part, self.lines.get(id(part), [line] * len(part))))

    def _tagged(self, tag: str, value: str, line: int) -> Any:
        name = tag.removeprefix(_TAG_PREFIX)
        if tag == "!" or name == "str":
            return value
        if name not in _CORE_TAGS:
            self._report(line, f"tag {tag} is not supported; write plain YAML")
        return plain(value)

    def _report(self, line: int, message: str, *more: str) -> None:
        path = (*(self._step(frame) for frame in self.stack[:-1]), *more)
        self.problems.append(Problem(self.source, line, show(path), message))
        if len(self.problems) >= PROBLEMS_MAX:
            raise _TooMuch(line, f"{PROBLEMS_MAX} problems so far; the rest was not read")

    @staticmethod
    def _step(frame: _Frame) -> str | int:
        return len(frame.value) if isinstance(frame.value, list) else frame.key or ""


def _merge(frame: _Frame) -> None:
    """YAML 1.1 merge keys: what is written wins, then the first mapping that has the key."""
    for mapping, lines in frame.merges:
        for (key, value), line in zip(mapping.items(), lines, strict=True):
            if key not in frame.value:
                frame.value[key] = value
                frame.lines.append(line)
