"""AuthorizationPolicies as conditions: attributes of a connection or request, and texts for them.

Pure values. A rule holds when any of its sources, any of its operations and all else hold; of a
condition one text must match, and none of those that are excluded. Attributes are called as
Istio's ``when`` calls them. What only HTTP has begins with ``request.``. Of a connection that is
not looked into that is not known: an ALLOW rule with such a condition allows no such connection,
and a DENY rule denies by what is left (istio.io, "Authorization policy conditions").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from sixfold.model.authorizationpolicy import (
    AUTHORIZATION_POLICY,
    Action,
    AuthorizationPolicy,
    AuthorizationRule,
    Operation,
    Source,
)
from sixfold.model.enforcement import in_audit
from sixfold.model.requestauthentication import (
    REQUEST_AUTHENTICATION,
    RequestAuthentication,
)
from sixfold.model.rule import Rule

REQUEST = "request."
PRINCIPAL, NAMESPACE, IP = "source.principal", "source.namespace", "source.ip"
SERVICE_ACCOUNT = "source.serviceAccount"  # namespace/name
PORT = "destination.port"
HOST, METHOD, PATH = f"{REQUEST}host", f"{REQUEST}method", f"{REQUEST}path"
REQUEST_PRINCIPAL = f"{REQUEST}auth.principal"
AUDIENCES, PRESENTER = f"{REQUEST}auth.audiences", f"{REQUEST}auth.presenter"
HEADER, CLAIM = f"{REQUEST}headers[", f"{REQUEST}auth.claims["


class How(StrEnum):
    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    PRESENT = "present"
    TEMPLATE = "template"  # of a path: {*} is a segment, {**} any number of them


class Text(NamedTuple):
    how: How
    text: str = ""

    def matches(self, said: str) -> bool:
        """Not for templates."""
        match self.how:
            case How.EXACT:
                return said == self.text
            case How.PREFIX:
                return said.startswith(self.text)
            case How.SUFFIX:
                return said.endswith(self.text)
            case _:
                return bool(said)


class Condition(NamedTuple):
    """``values`` empty: anything, unless it is excluded."""

    key: str
    values: tuple[Text, ...] = ()
    excluded: tuple[Text, ...] = ()

    @property
    def of_requests(self) -> bool:
        return self.key.startswith(REQUEST)


Alternative = tuple[Condition, ...]  # all of them


class Clauses(NamedTuple):
    """One rule. ``sources`` and ``operations``: any of them; never empty, but with an empty
    alternative where everything is meant."""

    rule: Rule
    sources: tuple[Alternative, ...]
    operations: tuple[Alternative, ...]
    when: Alternative

    @property
    def of_requests(self) -> bool:
        alternatives = (*self.sources, *self.operations, self.when)
        return any(one.of_requests for each in alternatives for one in each)

    @property
    def ports(self) -> frozenset[int] | None:
        """Those that it names; None: it is about any."""
        found: set[int] = set()
        for each in self.operations:
            named = [one for one in (*each, *self.when) if one.key == PORT and one.values]
            if not named:
                return None
            found.update(int(text.text) for one in named for text in one.values)
        return frozenset(found)

    def over_tcp(self, action: Action) -> Clauses | None:
        """As it is for a connection that is not looked into; None: it never matches."""
        if not self.of_requests:
            return self
        if action == "ALLOW":
            sources = tuple(each for each in self.sources if not _of_requests(each))
            operations = tuple(each for each in self.operations if not _of_requests(each))
            if not sources or not operations or _of_requests(self.when):
                return None
            return self._replace(sources=sources, operations=operations)
        return self._replace(
            sources=tuple(map(_of_connections, self.sources)),
            operations=tuple(map(_of_connections, self.operations)),
            when=_of_connections(self.when),
        )


class Authorization(NamedTuple):
    """One policy. ``audit``: what it would deny passes, and is told."""

    name: str  # namespace/name
    action: Action
    rules: tuple[Clauses, ...]
    audit: bool

    @property
    def headers(self) -> frozenset[str]:
        """Names, in lower case, of those that it looks at."""
        return frozenset(
            in_brackets(one.key)[0].lower()
            for rule in self.rules
            for each in (*rule.sources, *rule.operations, rule.when)
            for one in each
            if one.key.startswith(HEADER)
        )


def conditions_of(policy: AuthorizationPolicy, *, audit: bool = False) -> Authorization:
    """What a policy says; ``audit``: its workload's namespace is in audit, or everything."""
    meta = policy.metadata
    return Authorization(
        f"{meta.namespace}/{meta.name}",
        policy.spec.action,
        tuple(_clauses(policy, at, rule) for at, rule in enumerate(policy.spec.rules or ())),
        audit or in_audit(meta),
    )


def not_allowed(policies: Iterable[Authorization], *, audit: bool = False) -> Rule | None:
    """The rule that denies what none of those that allow does; None: none of them allows.

    audit  those in audit count, too
    """
    names = [one.name for one in policies if one.action == "ALLOW" and (audit or not one.audit)]
    if not names:
        return None
    because = f"{AUTHORIZATION_POLICY} {', '.join(names)}"
    return Rule("posture", "", "default-deny", "ingress", because=because)


def no_token(written: Iterable[RequestAuthentication]) -> Rule | None:
    """The rule that refuses tokens that are not good; None: nothing is said of any."""
    names = [f"{one.metadata.namespace}/{one.metadata.name}" for one in written]
    if not names:
        return None
    because = f"{REQUEST_AUTHENTICATION} {', '.join(names)}"
    return Rule("posture", "", "default-deny", "ingress", because=because)


def _clauses(policy: AuthorizationPolicy, at: int, rule: AuthorizationRule) -> Clauses:
    here = policy.metadata.namespace
    sources = [tuple(_source(each.source, here)) for each in rule.from_ or ()]
    operations = [tuple(_operation(each.operation)) for each in rule.to or ()]
    when = tuple(
        Condition(one.key, _texts(one.key, one.values), _texts(one.key, one.not_values))
        for one in rule.when or ()
    )
    return Clauses(rule_of(policy, at), tuple(sources or [()]), tuple(operations or [()]), when)


def rule_of(policy: AuthorizationPolicy, at: int) -> Rule:
    meta = policy.metadata
    return Rule(policy.kind, meta.namespace, meta.name, "ingress", at, section="rules")


def _source(source: Source, here: str) -> Iterator[Condition]:
    accounts, not_accounts = (
        [one if "/" in one else f"{here}/{one}" for one in given]
        for given in (source.service_accounts, source.not_service_accounts)
    )
    yield from _condition(PRINCIPAL, source.principals, source.not_principals)
    yield from _condition(SERVICE_ACCOUNT, accounts, not_accounts)
    yield from _condition(
        REQUEST_PRINCIPAL, source.request_principals, source.not_request_principals
    )
    yield from _condition(NAMESPACE, source.namespaces, source.not_namespaces)
    yield from _condition(IP, source.ip_blocks, source.not_ip_blocks)


def _operation(operation: Operation) -> Iterator[Condition]:
    yield from _condition(HOST, operation.hosts, operation.not_hosts)
    yield from _condition(PORT, operation.ports, operation.not_ports)
    yield from _condition(METHOD, operation.methods, operation.not_methods)
    yield from _condition(PATH, operation.paths, operation.not_paths)


def _condition(key: str, values: Sequence[str], excluded: Sequence[str]) -> Iterator[Condition]:
    if values or excluded:
        yield Condition(key, _texts(key, values), _texts(key, excluded))


def _texts(key: str, values: Sequence[str]) -> tuple[Text, ...]:
    return tuple(_text(key, value) for value in values)


def _text(key: str, value: str) -> Text:
    """Istio's matching: a star at one end. Of what is a number, block or account there is none."""
    if key in (IP, PORT, SERVICE_ACCOUNT):
        return Text(How.EXACT, value)
    if key == PATH and "{" in value:
        return Text(How.TEMPLATE, value)
    if value == "*":
        return Text(How.PRESENT)
    if value.endswith("*"):
        return Text(How.PREFIX, value[:-1])
    if value.startswith("*"):
        return Text(How.SUFFIX, value[1:])
    return Text(How.EXACT, value)


def in_brackets(key: str) -> list[str]:
    """What an attribute is asked for: of ``request.auth.claims[a][b]`` a and b."""
    return key[key.index("[") + 1 : -1].split("][")


def template(path: str) -> str:
    """A regular expression of all that a path with ``{*}`` and ``{**}`` means."""
    parts = re.split(r"(\{\*\*?\})", path)
    return "".join(_WILD.get(part) or re.escape(part) for part in parts)


_WILD = {"{*}": "[^/]+", "{**}": ".*"}


def _of_requests(alternative: Alternative) -> bool:
    return any(one.of_requests for one in alternative)


def _of_connections(alternative: Alternative) -> Alternative:
    return tuple(one for one in alternative if not one.of_requests)
