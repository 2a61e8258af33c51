"""AuthorizationPolicy and RequestAuthentication to ``ir``: what the kernel can say of one.

It narrows what other policies let in, and isolates nothing. Who proves no identity (the host, the
world) is denied wherever a policy might be about it: the conditions are the proxy's to judge, and
nobody comes past it. At a Gateway the proxy judges clients of the world: the kernel has no part.
"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.datapath import DENY, INGRESS
from sixfold.model.gateway import GATEWAY_LABEL
from sixfold.model.identity import HOST, WORLD
from sixfold.model.meta import LabelSelector, LabelSelectorRequirement
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.rule import Rule
from sixfold.policy import ir
from sixfold.policy.conditions import Authorization, conditions_of

WITHOUT_IDENTITY = (ir.Reserved(HOST, "host"), ir.Reserved(WORLD, "world"))


def lower_authorization(key: str, policy: AuthorizationPolicy) -> ir.Policy:
    lines = () if policy.gateways else tuple(_lines(conditions_of(policy), key))
    return ir.Policy(key=key, title=key, subject=_subject(policy), lines=lines)


def lower_authentication(key: str, policy: RequestAuthentication) -> ir.Policy:
    about_pods = policy.spec.jwt_rules and not policy.gateways
    lines = (_without_identity(key, (ir.Port("TCP"),)),) if about_pods else ()
    return ir.Policy(key=key, title=key, subject=_subject(policy), lines=lines)


def _subject(policy: AuthorizationPolicy | RequestAuthentication) -> ir.Pods:
    if not policy.gateways:
        return ir.Pods(policy.namespace, pods=LabelSelector(match_labels=policy.labels))
    named = LabelSelectorRequirement(GATEWAY_LABEL, "In", sorted(policy.gateways))
    return ir.Pods(policy.metadata.namespace, pods=LabelSelector(match_expressions=[named]))


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
