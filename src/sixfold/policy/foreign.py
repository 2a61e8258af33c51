"""What AuthorizationPolicies say of identities of other trust domains.

Pure. None of them is let in unless an ALLOW rule names it, or its trust domain, by
``principals`` (or ``when`` on ``source.principal``): ``partner.example/ns/shop/sa/web``,
``partner.example/*``. What names nobody, a namespace, or everybody (``*``, ``*/sa/web``) is about
our own trust domain only. DENY rules hold for whomever they match. Audit opens nothing to them: an
ALLOW policy in audit lets none of them in.

Network policy says who may *carry* them: it must let the Gateway by which they come reach the port.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sixfold.model.authorizationpolicy import AUTHORIZATION_POLICY
from sixfold.model.rule import Rule
from sixfold.policy.conditions import (
    PRINCIPAL,
    Alternative,
    Authorization,
    Clauses,
    Condition,
    How,
    Text,
)

LOCAL_DOMAIN = "cluster.local"  # means our own, whatever it is called; as in Istio


def for_foreign(policies: Sequence[Authorization], own: str) -> tuple[Authorization, ...]:
    """The same policies, as they are for others; one that allows is always among them.

    own  trust domain
    """
    allowing = tuple(
        found
        for one in policies
        if one.action == "ALLOW" and not one.audit
        for rule in one.rules
        if (found := _naming(rule, own)) is not None
    )
    others = (one for one in policies if one.action != "ALLOW")
    return (*others, Authorization("", "ALLOW", allowing, audit=False))


def not_named(policies: Sequence[Authorization]) -> Rule:
    """The rule that denies whom no ALLOW rule names."""
    names = ", ".join(one.name for one in policies if one.action == "ALLOW" and one.name)
    among = f"none of {AUTHORIZATION_POLICY} {names}" if names else f"no {AUTHORIZATION_POLICY}"
    because = f"{among} names this identity of another trust domain"
    return Rule("posture", "", "default-deny", "ingress", because=because)


def domains(policies: Sequence[Authorization], own: str) -> Iterator[tuple[Rule, str, bool]]:
    """Rules that let others in, whose trust domain they name, and whether all of it."""
    for one in for_foreign(policies, own):
        for rule in one.rules if one.action == "ALLOW" else ():
            alternatives = (*rule.sources, rule.when)
            for text in {text for each in alternatives for text in _principals(each)}:
                if (domain := foreign_domain(text, own)) is not None:
                    yield rule.rule, domain, text.text == f"{domain}/"


def foreign_domain(text: Text, own: str) -> str | None:
    """The trust domain that a principal names; None: it names none, or ours."""
    domain, slash, _ = text.text.partition("/")
    if text.how not in (How.EXACT, How.PREFIX) or not slash or domain in (own, LOCAL_DOMAIN):
        return None
    return domain


def _naming(rule: Clauses, own: str) -> Clauses | None:
    """What is left of a rule that allows; None: nothing."""
    when = _narrowed(rule.when, own)
    if when is not None:
        return rule._replace(when=when)
    sources = tuple(it for each in rule.sources if (it := _narrowed(each, own)) is not None)
    return rule._replace(sources=sources) if sources else None


def _narrowed(alternative: Alternative, own: str) -> Alternative | None:
    """Only others' principals are left; None: none is named."""
    found: list[Condition] = []
    named = False
    for one in alternative:
        if one.key == PRINCIPAL and one.values:
            values = tuple(text for text in one.values if foreign_domain(text, own) is not None)
            if not values:
                return None
            named, one = True, one._replace(values=values)
        found.append(one)
    return tuple(found) if named else None


def _principals(alternative: Alternative) -> Iterator[Text]:
    for one in alternative:
        if one.key == PRINCIPAL:
            yield from one.values
