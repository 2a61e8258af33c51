"""Names and patterns of HTTP requests, as routes and policies write them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.path import Finding, Path

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_|~`]+")
_NOT_RE2 = re.compile(r"\(\?[=!<]|\\[1-9]|\(\?P=")


def is_token(text: str) -> bool:
    """Whether a header may be called so. RFC 9110, §5.6.2."""
    return _TOKEN.fullmatch(text) is not None


def regex(path: Path, text: str) -> Iterator[Finding]:
    """RE2's, which Envoy has, is nearly a part of Python's: no look-around, no references back."""
    try:
        re.compile(text)
    except re.error as error:
        yield Finding(path, f"{names.quoted(text)} is no regular expression: {error}")
        return
    if _NOT_RE2.search(text):
        yield Finding(path, f"{names.quoted(text)}: RE2 has no look-around and no references back")
