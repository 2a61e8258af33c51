"""Does an AuthorizationPolicy let this connection or request in? As Envoy would, for explanations.

Pure. ``tests/mesh/test_conditions.py`` asks the compiled RBAC, and a real Envoy, the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any

from sixfold.mesh.asked import Asked
from sixfold.mesh.conditions import OURS
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.rule import Rule
from sixfold.model.spiffe import parse
from sixfold.policy import conditions as of
from sixfold.policy.conditions import Alternative, Authorization, Clauses, Condition, How, Text
from sixfold.policy.foreign import for_foreign, not_named


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for which port; ``asked`` None: over a connection that nobody looks into.

    claims  of its token, once that was verified
    name    of its SPIFFE ID, where that is of another trust domain
    """

    domain: str
    namespace: str
    account: str
    addresses: tuple[IPAddress, ...]
    port: int
    asked: Asked | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def principal(self) -> str:
        """ "": who proves none."""
        if self.name or not self.account:
            return self.name
        return f"{self.domain}/ns/{self.namespace}/sa/{self.account}"


def caller_of(
    client: Endpoint,
    domain: str,
    port: int,
    asked: Asked | None = None,
    claims: Mapping[str, Any] = MappingProxyType({}),
) -> Caller:
    addresses = client.addresses
    account = client.subject.service_account
    return Caller(domain, client.namespace, account, addresses, port, asked, claims)


def foreign_caller(
    id_: str,
    gateway: Endpoint | None,
    port: int,
    asked: Asked | None = None,
    claims: Mapping[str, Any] = MappingProxyType({}),
) -> Caller:
    """Of another trust domain, by the pod of a Gateway; it has no account here."""
    found = parse(id_)
    within = re.fullmatch(r"/ns/([^/]+)/sa/.*", found.path)
    at = gateway.addresses if gateway is not None else ()
    name = f"{found.trust_domain}{found.path}"
    namespace = within[1] if within else ""
    return Caller(found.trust_domain, namespace, "", at, port, asked, claims, name)


def outside(
    address: IPAddress | None, port: int, asked: Asked, claims: Mapping[str, Any]
) -> Caller:
    """Who asks a Gateway: nobody knows more of it than where it is."""
    return Caller("", "", "", (address,) if address else (), port, asked, claims)


@dataclass(frozen=True, slots=True)
class Answer:
    """``rule``: what decides; None: nothing is about it. ``told``: what is told only."""

    allow: bool
    rule: Rule | None
    told: tuple[Rule, ...] = ()


def authorized(policies: Sequence[Authorization], caller: Caller) -> Answer:
    """A rule that denies, before one that allows, before the default of those that allow."""
    told = tuple(
        rule
        for one in policies
        if one.action == "AUDIT" or (one.action == "DENY" and one.audit)
        for rule in _matching([one], caller)
    )
    denying = [one for one in policies if one.action == "DENY" and not one.audit]
    if (found := next(_matching(denying, caller), None)) is not None:
        return Answer(False, found, told)
    allowing = [one for one in policies if one.action == "ALLOW" and not one.audit]
    default = of.not_allowed(policies)
    found = next(_matching(allowing, caller), default)
    every = [one for one in policies if one.action == "ALLOW"]
    told_default = of.not_allowed(policies, audit=True)
    if len(every) > len(allowing) and told_default and not any(_matching(every, caller)):
        told = (*told, told_default)
    return Answer(found is not default or found is None, found, told)


def authorized_abroad(policies: Sequence[Authorization], own: str, caller: Caller) -> Answer:
    """The same for somebody of another trust domain; whom no rule lets is denied by a default.

    own  our trust domain
    """
    answer = authorized(for_foreign(policies, own), caller)
    if answer.allow or (answer.rule is not None and answer.rule.index >= 0):
        return answer
    return replace(answer, rule=not_let_in(policies, own, caller))


def names(policies: Sequence[Authorization], caller: Caller) -> bool:
    """Whether some ALLOW rule is about this identity, whatever it may do. ``policies``: as they
    are for others (``for_foreign``)."""
    return any(
        all(_condition(it, caller) for it in (*each, *rule.when) if it.key == of.PRINCIPAL)
        for one in policies
        if one.action == "ALLOW"
        for rule in one.rules
        for each in rule.sources
    )


def not_let_in(policies: Sequence[Authorization], own: str, caller: Caller) -> Rule:
    """The rule that denies somebody of another trust domain what no ALLOW rule lets him."""
    named = names(for_foreign(policies, own), caller)
    return (of.not_allowed(policies) if named else None) or not_named(policies)


def _matching(policies: Iterable[Authorization], caller: Caller) -> Iterator[Rule]:
    for policy in policies:
        for rule in policy.rules:
            seen = rule if caller.asked is not None else rule.over_tcp(policy.action)
            if seen is not None and _holds(seen, caller):
                yield rule.rule


def _holds(rule: Clauses, caller: Caller) -> bool:
    return (
        any(_all(each, caller) for each in rule.sources)
        and any(_all(each, caller) for each in rule.operations)
        and _all(rule.when, caller)
    )


def _all(conditions: Alternative, caller: Caller) -> bool:
    return all(_condition(one, caller) for one in conditions)


def _condition(one: Condition, caller: Caller) -> bool:
    wanted = not one.values or any(_is(one.key, text, caller) for text in one.values)
    return wanted and not any(_is(one.key, text, caller) for text in one.excluded)


def _is(key: str, text: Text, caller: Caller) -> bool:
    match key:
        case of.PRINCIPAL:
            given = text.text
            if caller.name and given.startswith(OURS):
                return False  # ours is meant
            if text.how in (How.EXACT, How.PREFIX) and given.startswith(OURS):
                text = text._replace(text=f"{caller.domain}/{given.removeprefix(OURS)}")
            return text.matches(caller.principal)
        case of.SERVICE_ACCOUNT:
            return text.text == f"{caller.namespace}/{caller.account}"
        case of.NAMESPACE:
            return text.matches(caller.namespace)
        case of.IP:
            network = ip_network(text.text, strict=False)
            return any(
                one.version == network.version and one in network for one in caller.addresses
            )
        case of.PORT:
            return int(text.text) == caller.port
    assert caller.asked is not None, "of connections nothing of the kind is asked"
    return any(_matches(text, key, said) for said in _said(key, caller.asked, caller.claims))


def _said(key: str, asked: Asked, claims: Mapping[str, Any]) -> list[str]:
    """All that an attribute of a request is."""
    match key:
        case of.HOST:
            return [asked.host]
        case of.METHOD:
            return [asked.method]
        case of.PATH:
            return [asked.plain_path]
        case of.REQUEST_PRINCIPAL:
            ends = _claimed(claims, ["iss"]), _claimed(claims, ["sub"])
            return [f"{issuer}/{subject}" for issuer in ends[0] for subject in ends[1]]
        case of.AUDIENCES:
            return _claimed(claims, ["aud"])
        case of.PRESENTER:
            return _claimed(claims, ["azp"])
    if key.startswith(of.HEADER):
        (name,) = of.in_brackets(key)
        return [asked.headers[name.lower()]] if name.lower() in asked.headers else []
    return _claimed(claims, of.in_brackets(key))


def _claimed(claims: Mapping[str, Any], path: Sequence[str]) -> list[str]:
    """A text, or a list of texts; nothing of what is neither."""
    found: Any = claims
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, str)]


def _matches(text: Text, key: str, said: str) -> bool:
    if text.how is How.TEMPLATE:
        return re.fullmatch(of.template(text.text), said) is not None
    if text.how is How.PRESENT and key.startswith(of.HEADER):
        return True
    if key == of.HOST:
        return Text(text.how, text.text.lower()).matches(said.lower())
    return text.matches(said)
