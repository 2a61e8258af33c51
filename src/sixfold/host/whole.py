"""Files that are read at any moment: whoever looks finds the old content or the new, whole."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Written aside (``.new``), then renamed; not synced: a crash of the host may undo it."""
    aside = path.with_suffix(".new")
    aside.write_bytes(content)
    aside.replace(path)
