"""Where manifests are read from: files, directories, standard input; bounded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from sixfold.errors import Problem

TOTAL_BYTES_MAX = 64 * 1024 * 1024  # over all sources of one call
_ENDINGS = (".yaml", ".yml", ".json")


def read(
    sources: Iterable[Path | str], stdin: TextIO | None, problems: list[Problem]
) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of each file; what cannot be read goes to ``problems``."""
    left = TOTAL_BYTES_MAX
    seen: set[tuple[int, int]] = set()
    for source in sources:
        for name in _files(str(source), problems):
            text = (
                _standard_input(stdin, left) if name == "-" else _file(name, left, seen, problems)
            )
            if text is None:
                continue
            left -= len(text)
            if left < 0:
                limit = f"{TOTAL_BYTES_MAX >> 20} MiB of manifests"
                problems.append(Problem(name, 0, "", f"more than {limit}; apply them in parts"))
                return
            yield name, text


def _files(source: str, problems: list[Problem]) -> Iterator[str]:
    if source == "-" or not os.path.isdir(source):
        yield source
        return
    found = False
    for folder, folders, files in os.walk(source):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(folder, file)
            if file.endswith(_ENDINGS) and not _is_special(path):
                found = True
                yield path
    if not found:
        wanted = ", ".join(f"*{ending}" for ending in _ENDINGS)
        problems.append(Problem(source, 0, "", f"holds no manifest; give a folder with {wanted}"))


def _is_special(path: str) -> bool:
    """A pipe or device, where reading might never end; a link to nowhere is an error instead."""
    return os.path.exists(path) and not os.path.isfile(path)


def _standard_input(stdin: TextIO | None, left: int) -> str:
    assert stdin is not None, "the caller passes sys.stdin when it lets users say -"
    return stdin.read(left + 1)


def _file(name: str, left: int, seen: set[tuple[int, int]], problems: list[Problem]) -> str | None:
    """The text, None when it cannot be read or was read before in this call."""
    try:
        with open(name, "rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) in seen:
                return None
            seen.add((status.st_dev, status.st_ino))
            content = file.read(left + 1)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        problems.append(Problem(name, 0, "", f"{why}; give a file, a folder or -"))
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(content) > left:  # cut in the middle of a character: too big, not wrong
            return content.decode("latin-1")
        line = content.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        problems.append(Problem(name, line, "", message))
        return None
