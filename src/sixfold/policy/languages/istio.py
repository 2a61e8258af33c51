"""AuthorizationPolicy and RequestAuthentication to ``ir``: what the kernel can say of one.

It narrows what other policies let in, and isolates nothing. Who proves no identity (the host, the
world) is denied wherever a policy might be about it: the conditions are the proxy's to judge, and
nobody comes past it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.datapath import DENY, INGRESS
from sixfold.model.identity import HOST, WORLD
from sixfold.model.meta import LabelSelector
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.rule import Rule
from sixfold.policy import ir
from sixfold.policy.conditions import Authorization, conditions_of

WITHOUT_IDENTITY = (ir.Reserved(HOST, "host"), ir.Reserved(WORLD, "world"))


def lower_authorization(key: str, policy: AuthorizationPolicy) -> ir.Policy:
    return ir.Policy(
        key=key,
        title=key,
        subject=ir.Pods(policy.namespace, pods=LabelSelector(match_labels=policy.labels)),
        lines=tuple(_lines(conditions_of(policy), key)),
    )


def lower_authentication(key: str, policy: RequestAuthentication) -> ir.Policy:
    lines = (_without_identity(key, (ir.Port("TCP"),)),) if policy.spec.jwt_rules else ()
    subject = ir.Pods(policy.namespace, pods=LabelSelector(match_labels=policy.labels))
    return ir.Policy(key=key, title=key, subject=subject, lines=lines)


def _lines(policy: Authorization, key: str) -> Iterator[ir.Line]:
    if policy.action not in ("ALLOW", "DENY"):
        return
    spans = [rule.ports for rule in policy.rules]
    if policy.action == "ALLOW" or any(ports is None for ports in spans):
        ports: tuple[ir.Port, ...] = (ir.Port("TCP"),)
    else:
        named = sorted({port for some in spans for port in some or ()})
        ports = tuple(ir.Port("TCP", port) for port in named)
    if ports:
        yield _without_identity(key, ports)


def _without_identity(key: str, ports: tuple[ir.Port, ...]) -> ir.Line:
    because = f"{key}: for who proves an identity"
    rule = Rule("posture", "", "default-deny", "ingress", because=because)
    return ir.Line(rule, INGRESS, DENY, WITHOUT_IDENTITY, ports)
