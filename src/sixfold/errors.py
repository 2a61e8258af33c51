"""Every error that Sixfold raises on purpose, by whose turn it is.

SixfoldError
├── ManifestError     the author's: the YAML is wrong, or outside our subset
├── NotFoundError     the asker's: there is no such object or name here
├── HostError         the operator's: this kernel or host lacks something
└── UnavailableError  nobody's: a peer is away; try again after ``retry_s``

Bugs are ``assert``s. A message reads *where: what: why; what next*: lower case, no full stop,
values quoted or bare, errno by symbol, units named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SixfoldError(Exception):
    """Base of all; ``str(error)`` is the whole message for the user."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one manifest."""

    source: str  # file name as the user gave it, or "-" for standard input
    line: int  # 1-based; 0 when there is no text to point at
    path: str  # field path, "spec.ingress[0].ports[0].endPort"; "" for the whole object
    message: str  # what, why; what next
    column: int = 0  # 1-based; only where the text is not even YAML

    def __str__(self) -> str:
        places = (self.source, *(str(n) for n in (self.line, self.column) if n))
        where = ":".join(place for place in places if place)
        return ": ".join(part for part in (where, self.path, self.message) if part)


class ManifestError(SixfoldError):
    """The manifests cannot be taken; all problems found at once, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class NotFoundError(SixfoldError):
    """What was asked for is not there; the message names what is like it."""


class HostError(SixfoldError):
    """This kernel or host lacks something, or refused; the message says what to do."""


class UnavailableError(SixfoldError):
    """A peer is away; worth another try after ``retry_s`` seconds."""

    def __init__(self, message: str, *, retry_s: float = 1.0) -> None:
        self.retry_s = retry_s
        super().__init__(message)
