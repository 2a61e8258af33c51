"""Filter expressions of the Consul API, a subset of go-bexpr.

Pure. ``Service.Meta.env == prod and "primary" in Service.Tags``: compiled against the type of what
is filtered, so that a selector that does not exist is an error, never an empty answer. There are
no regular expressions: in Python a stranger's could take for ever.

    expression  = and-term { "or" and-term }
    and-term    = term { "and" term }
    term        = "not" term | "(" expression ")" | match
    match       = selector ("==" | "!=" | "contains" | "not contains") value
                | value ("in" | "not in") selector
                | selector "is" ["not"] "empty"
    selector    = NAME { "." NAME | "[" STRING "]" }
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

LENGTH_MAX = 4096
DEPTH_MAX = 64

Predicate = Callable[[Any], bool]
Get = Callable[[Any], Any]
_TOKEN = re.compile(
    r"\s*(?:(?P<op>==|!=|\(|\)|\[|\]|\.)|(?P<quoted>\"(?:[^\"\\]|\\.)*\"|`[^`]*`)"
    r"|(?P<word>[^\s()\[\]\"`=!.]+))"
)


class FilterError(ValueError):
    """The expression is not one of this subset; the message says where."""


def compile_filter(text: str, of: type[msgspec.Struct]) -> Predicate:
    """The predicate that an expression means for values of this type."""
    if len(text) > LENGTH_MAX:
        raise FilterError(f"filter: longer than {LENGTH_MAX} characters")
    if not text.strip():
        return lambda _: True
    return _Parser(text, of).parse()


class _Parser:
    def __init__(self, text: str, of: type[msgspec.Struct]) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._of = of
        self._depth = 0

    def parse(self) -> Predicate:
        found = self._expression()
        if (token := self._peek()) is not None:
            raise FilterError(f"filter: nothing may follow here, but {token[1]!r} does")
        return found

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        if token is None:
            raise FilterError("filter: ends too early")
        self._at += 1
        return token

    def _word(self, *words: str) -> bool:
        """Take these words, when they are next."""
        ahead = self._tokens[self._at : self._at + len(words)]
        if [(kind, text.lower()) for kind, text in ahead] != [("word", word) for word in words]:
            return False
        self._at += len(words)
        return True

    def _op(self, op: str) -> bool:
        if self._peek() != ("op", op):
            return False
        self._at += 1
        return True

    def _expression(self) -> Predicate:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise FilterError(f"filter: more than {DEPTH_MAX} levels deep")
        terms = [self._and_term()]
        while self._word("or"):
            terms.append(self._and_term())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else lambda value: any(term(value) for term in terms)

    def _and_term(self) -> Predicate:
        terms = [self._term()]
        while self._word("and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else lambda value: all(term(value) for term in terms)

    def _term(self) -> Predicate:
        negations = 0
        while self._word("not"):
            negations += 1
        if self._op("("):
            found = self._expression()
            if not self._op(")"):
                raise FilterError('filter: a ")" is missing')
        else:
            found = self._match()
        return (lambda value: not found(value)) if negations % 2 else found

    def _match(self) -> Predicate:
        begun = self._at
        if self._peek() is not None and self._next()[0] in ("quoted", "word"):
            text = _unquoted(self._tokens[begun])
            if self._word("in"):
                return _contains(*self._selector(), text)
            if self._word("not", "in"):
                inside = _contains(*self._selector(), text)
                return lambda value: not inside(value)
        self._at = begun
        name, get, type_ = self._selector()
        return self._test(name, get, type_)

    def _test(self, name: str, get: Get, type_: Any) -> Predicate:
        if self._word("is", "not", "empty"):
            return lambda value: bool(get(value))
        if self._word("is", "empty"):
            return lambda value: not get(value)
        if self._op("=="):
            return _equals(name, get, type_, self._value())
        if self._op("!="):
            same = _equals(name, get, type_, self._value())
            return lambda value: not same(value)
        if self._word("not", "contains"):
            found = _contains(name, get, type_, self._value())
            return lambda value: not found(value)
        if self._word("contains"):
            return _contains(name, get, type_, self._value())
        if self._word("matches") or self._word("not", "matches"):
            raise FilterError("filter: matches: no regular expressions here; give == or in")
        raise FilterError(f"filter: {name}: an operator (==, !=, contains, is) follows")

    def _value(self) -> str:
        token = self._next()
        if token[0] == "op":
            raise FilterError(f"filter: a value belongs here, not {token[1]!r}")
        text = _unquoted(token)
        while token[0] == "word" and self._op("."):  # 10.0.0.1, unquoted
            text += "." + _unquoted(self._next())
        return text

    def _selector(self) -> tuple[str, Get, Any]:
        """Its name, how to get what it means, and of which type that is."""
        path = [self._name()]
        while True:
            if self._op("."):
                path.append(self._name())
            elif self._op("["):
                path.append(_unquoted(self._next()))
                if not self._op("]"):
                    raise FilterError('filter: a "]" is missing')
            else:
                break
        name = ".".join(path)
        type_: Any = self._of
        for part in path:
            type_ = _inside(type_, part)
            if type_ is None:
                raise FilterError(f'filter: selector "{name}" is not valid')
        return name, lambda value: _get(value, path), type_

    def _name(self) -> str:
        kind, text = self._next()
        if kind != "word":
            raise FilterError(f"filter: a selector belongs here, not {text!r}")
        return text


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, text = 0, text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise FilterError(f"filter: {text[at : at + 20]!r} is not understood")
        at = found.end()
        assert found.lastgroup
        yield found.lastgroup, found[found.lastgroup]


def _unquoted(token: tuple[str, str]) -> str:
    kind, text = token
    if kind != "quoted":
        return text
    return text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", r"\1", text[1:-1])


def _plain(type_: Any) -> Any:
    """Without None."""
    if get_origin(type_) in (Union, UnionType):
        (type_,) = (one for one in get_args(type_) if one is not type(None))
    return type_


def _inside(type_: Any, part: str) -> Any:
    """The type of a field or of a map's values; None when there is no such thing."""
    type_ = _plain(type_)
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return get_type_hints(type_).get(part)
    return get_args(type_)[1] if get_origin(type_) is dict else None


def _get(value: Any, path: list[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if value is None:
            return None
    return value


def _equals(name: str, get: Get, type_: Any, text: str) -> Predicate:
    plain = _plain(type_)
    if plain is str:
        return lambda value: get(value) == text
    if plain is bool and text in ("true", "false"):
        return lambda value: get(value) is (text == "true")
    if plain is int and re.fullmatch(r"-?[0-9]+", text):
        return lambda value: get(value) == int(text)
    if plain in (bool, int):
        raise FilterError(f"filter: {name} is {plain.__name__}, not {text!r}")
    raise FilterError(f'filter: {name}: "==" is for single values; use "in" or "is empty"')


def _contains(name: str, get: Get, type_: Any, text: str) -> Predicate:
    plain = _plain(type_)
    if plain is str or get_origin(plain) in (list, dict):
        return lambda value: text in (get(value) or ())
    raise FilterError(f'filter: {name}: "in" is for lists, maps and strings')
