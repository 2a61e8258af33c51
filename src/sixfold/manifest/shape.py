"""Does a mapping have the shape of a struct? All that is wrong at once, each with its path.

``msgspec`` decides the good case at its own speed; it stops at the first error, so the bad case
is walked here, over the same struct types. A ``null`` field is an absent field, as in
Kubernetes. Fields that upstream has and we refuse come with their reason (``fields``).

The walk also repairs: unknown fields dropped, wrong values replaced by harmless ones, so that
the checks of meaning can run over the rest and one pass reports everything.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from sixfold.manifest.fields import ONLY_RUN, OPTIONAL_OFFLINE, REFUSED
from sixfold.manifest.names import quoted
from sixfold.manifest.path import Finding, Path
from sixfold.model.meta import Object

StructT = TypeVar("StructT", bound=Object)

_NAMED = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
_FINDINGS_MAX = 1000


@cache
def struct_type(struct: type[Object]) -> inspect.StructType:
    """The fields of a struct, by reflection; cached, it is not cheap."""
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    return described


def shaped(raw: Any, struct: type[StructT], *, offline: bool) -> tuple[StructT, list[Finding]]:
    """The typed object, and what is wrong with it; wrong fields hold stand-ins.

    ``offline`` tolerates fields that matter only to a pod that runs here (volumes, hooks).
    """
    try:
        return msgspec.convert(raw, struct), []
    except (msgspec.ValidationError, RecursionError):
        walk = _Walk(offline)
        repaired = walk.value((), raw, struct_type(struct))
        return msgspec.convert(repaired, struct), walk.findings


@dataclass(slots=True)
class _Walk:
    offline: bool
    findings: list[Finding] = field(default_factory=list)

    def report(self, path: Path, message: str) -> None:
        if len(self.findings) < _FINDINGS_MAX:
            self.findings.append(Finding(path, message))

    def value(self, path: Path, raw: Any, wanted: inspect.Type) -> Any:
        """The value as it may be converted; what is wrong is reported."""
        match wanted:
            case inspect.StructType():
                return self._struct(path, raw, wanted)
            case inspect.ListType(item_type=item):
                return self._list(path, raw, item)
            case inspect.DictType(value_type=item):
                return self._dict(path, raw, item)
            case inspect.LiteralType(values=values):
                return self._literal(path, raw, values)
            case inspect.UnionType(types=types):
                return self._union(path, raw, types)
            case inspect.AnyType():
                return raw
            case _:
                return self._scalar(path, raw, (_python_type(wanted),))

    def _struct(self, path: Path, raw: Any, wanted: inspect.StructType) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.report(path, f"is {_describe(raw)}; give a mapping")
            raw = None
        known = {f.encode_name: f for f in wanted.fields}
        good: dict[str, Any] = {}
        for name, value in (raw or {}).items():
            here = (*path, str(name))
            if name not in known:
                self._unknown(here, name, value, wanted, known)
            elif value is not None:
                good[name] = self.value(here, value, known[name].type)
        for name, described in known.items():
            if described.required and name not in good:
                assert issubclass(wanted.cls, Object)
                spared = self.offline and name in OPTIONAL_OFFLINE.get(wanted.cls, ())
                if raw is not None and not spared:
                    self.report((*path, name), "is required; add it")
                good[name] = _stand_in(described.type)
        return good

    def _unknown(
        self, path: Path, name: Any, value: Any, wanted: inspect.StructType, known: dict[str, Any]
    ) -> None:
        assert issubclass(wanted.cls, Object)
        refusal = REFUSED.get(wanted.cls, {}).get(name)
        if refusal is None:
            spared = self.offline and wanted.cls in ONLY_RUN
            close = difflib.get_close_matches(str(name), known, 1, 0.85 if spared else 0.6)
            if spared and not close:
                return
            hint = f"did you mean {close[0]}?" if close else "remove it, or see docs/support.md"
            self.report(path, f"unknown field; {hint}")
        elif not refusal.tolerates(value, offline=self.offline):
            self.report(path, f"not supported: {refusal.why}; see docs/support.md")

    def _list(self, path: Path, raw: Any, item: inspect.Type) -> list[Any]:
        if not isinstance(raw, list):
            self.report(path, f"is {_describe(raw)}; give a list")
            return []
        good = []
        for index, value in enumerate(raw):
            if value is None:
                self.report((*path, index), "is null; fill the item in or remove it")
                good.append(_stand_in(item))
            else:
                good.append(self.value((*path, index), value, item))
        return good

    def _dict(self, path: Path, raw: Any, item: inspect.Type) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.report(path, f"is {_describe(raw)}; give a mapping")
            return {}
        good = {}
        for key, value in raw.items():
            if type(key) is int and isinstance(item, inspect.StructType):
                key = str(key)  # a port: YAML reads a number, JSON knows no such keys
            if not isinstance(key, str):
                self.report(path, f"key {quoted(key)} is {_describe(key)}; quote it")
            elif value is None and not isinstance(item, inspect.AnyType):
                self.report((*path, key), 'is null; give "" when it is meant to be empty')
            else:
                good[key] = self.value((*path, key), value, item)
        return good

    def _literal(self, path: Path, raw: Any, values: tuple[Any, ...]) -> Any:
        if isinstance(raw, str) and raw in values:
            return raw
        options = ", ".join(map(str, values))
        shown = quoted(raw) if isinstance(raw, str | int | float) else f"is {_describe(raw)}: it"
        if len(values) == 1:
            self.report(path, f"{shown} is not supported; give {options}")
            return values[0]
        by_case = {str(value).lower(): value for value in values}
        close = difflib.get_close_matches(str(raw).lower()[:64], by_case, 1, 0.6)
        hint = f"; did you mean {by_case[close[0]]}?" if close else ""
        self.report(path, f"{shown} is not one of {options}{hint}")
        return values[0]

    def _union(self, path: Path, raw: Any, types: tuple[inspect.Type, ...]) -> Any:
        options = [t for t in types if not isinstance(t, inspect.NoneType)]
        if len(options) == 1:
            return self.value(path, raw, options[0])
        return self._scalar(path, raw, tuple(_python_type(t) for t in options))

    def _scalar(self, path: Path, raw: Any, types: tuple[type, ...]) -> Any:
        if type(raw) in types:
            return raw
        names = " or ".join(_NAMED[t] for t in types)
        hint = f"give {names}"
        if types == (str,) and type(raw) in (bool, int, float):
            hint = f'give a string: quote it, "{_yaml(raw)}"'
        elif types == (int,) and isinstance(raw, str) and raw.isdecimal():
            hint = f"give {raw[:20]} without quotes"
        elif types == (bool,):
            hint = "give true or false"
        shown = f"{quoted(raw)} is " if type(raw) in (str, int) else "is "
        self.report(path, f"{shown}{_describe(raw)}; {hint}")
        return types[0]()


def _python_type(wanted: inspect.Type) -> type:
    match wanted:
        case inspect.StrType():
            return str
        case inspect.IntType():
            return int
        case inspect.BoolType():
            return bool
    raise AssertionError(f"no struct of ours has a field of type {wanted}")


def _stand_in(wanted: inspect.Type) -> Any:
    """A value of this type that converts; its place is reported, so nobody acts on it."""
    match wanted:
        case inspect.StructType():
            required = (f for f in wanted.fields if f.required)
            return {f.encode_name: _stand_in(f.type) for f in required}
        case inspect.ListType():
            return []
        case inspect.DictType():
            return {}
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.UnionType(types=types):
            return _stand_in(types[0])
        case inspect.NoneType() | inspect.AnyType():
            return None
        case _:
            return _python_type(wanted)()


def _yaml(raw: Any) -> str:
    return str(raw).lower() if isinstance(raw, bool) else str(raw)[:40]


def _describe(raw: Any) -> str:
    match raw:
        case None:
            return "null"
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return _NAMED.get(type(raw), type(raw).__name__)
