"""Which way does this request take, and is it allowed? As Envoy would, for explanations.

Pure. ``tests/mesh/test_http_routes.py`` asks a real Envoy the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from sixfold.mesh.routes import Way, first_of_each
from sixfold.model.httproute import HTTPMatch, PathMatch, ValueMatch
from sixfold.policy.requests import Allowance


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; names of headers in lower case. ``path`` with what follows a question mark."""

    method: str = "GET"
    path: str = "/"
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def plain_path(self) -> str:
        return self.path.partition("?")[0]

    @property
    def server(self) -> str:
        """What a handshake for it names: the host, without a port."""
        return self.host.rpartition(":")[0] or self.host

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def way_for(ways: Sequence[Way], asked: Asked) -> Way | None:
    """The first that matches; None: answered 404."""
    return next((way for way in ways if _matches(way.match, asked)), None)


def allowing(allowances: Iterable[Allowance], asked: Asked) -> Allowance | None:
    """The first rule that lets it pass; None: answered 403."""
    return next((one for one in allowances if _allows(one, asked)), None)


def _matches(match: HTTPMatch, asked: Asked) -> bool:
    query: dict[str, str] = {}
    for name, text in parse_qsl(asked.path.partition("?")[2], keep_blank_values=True):
        query.setdefault(name, text)
    return (
        match.method in (None, asked.method)
        and _has_path(match.path, asked.plain_path)
        and _has_all(match.headers, asked.headers, str.lower)
        and _has_all(match.query_params, query, str)
    )


def _has_path(wanted: PathMatch, path: str) -> bool:
    match wanted.type:
        case "Exact":
            return path == wanted.value
        case "RegularExpression":
            return re.fullmatch(wanted.value, path) is not None
        case "PathPrefix":
            prefix = wanted.value.rstrip("/")
            return path == prefix or path.startswith(f"{prefix}/")


def _has_all(
    wanted: Iterable[ValueMatch], given: Mapping[str, str], spell: Callable[[str], str]
) -> bool:
    return all(
        (text := given.get(name)) is not None
        and (
            text == one.value if one.type == "Exact" else re.fullmatch(one.value, text) is not None
        )
        for name, one in first_of_each(wanted, spell).items()
    )


def _allows(allowance: Allowance, asked: Asked) -> bool:
    return allowance.requests is None or any(
        re.fullmatch(one.method or ".*", asked.method)
        and re.fullmatch(one.path or ".*", asked.plain_path)
        and re.fullmatch(f"(?:{one.host or '.*'})(?::[0-9]+)?", asked.host)
        and all(
            name in asked.headers and value in (None, asked.headers[name])
            for name, value in one.headers
        )
        for one in allowance.requests
    )
