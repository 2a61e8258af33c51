"""What is wrong with an AuthorizationPolicy, beyond its shape.

Source: istio/istio, pkg/config/validation; what Istio takes and cannot mean anything is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from sixfold.manifest import names
from sixfold.manifest.metadata import said
from sixfold.manifest.path import Finding, Path
from sixfold.manifest.requests import is_token
from sixfold.model.authorizationpolicy import (
    AuthorizationPolicy,
    AuthorizationRule,
    Operation,
    Source,
    When,
)
from sixfold.model.gateway import GROUP
from sixfold.model.mesh import TUNNEL_PORT
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.policy import conditions as of

PLAIN_KEYS = (
    *(of.PRINCIPAL, of.NAMESPACE, of.SERVICE_ACCOUNT, of.IP, of.PORT),
    *(of.REQUEST_PRINCIPAL, of.AUDIENCES, of.PRESENTER),
)
DRY_RUN = "istio.io/dry-run"
_KEYS = ", ".join((*PLAIN_KEYS, f"{of.HEADER}NAME]", f"{of.CLAIM}NAME]"))
_BRACKETS = re.compile(r"(?:\[[^\[\]]+\])+")
_TEMPLATE = re.compile(r"\{[^}]*\}?")


def authorization_policy(obj: AuthorizationPolicy) -> Iterator[Finding]:
    """Findings about the spec."""
    if obj.metadata.annotations.get(DRY_RUN, "false") != "false":
        message = 'is read as an order here: give "sixfold.dev/enforcement: audit" instead'
        yield Finding(("metadata", "annotations", DRY_RUN), message)
    if obj.spec.action == "CUSTOM":
        message = "CUSTOM asks a server of yours, and none can be named; give ALLOW, DENY or AUDIT"
        yield Finding(("spec", "action"), message)
    yield from targets(obj)
    for at, rule in enumerate(obj.spec.rules or ()):
        yield from _rule(("spec", "rules", at), rule)


def targets(obj: AuthorizationPolicy | RequestAuthentication) -> Iterator[Finding]:
    """Findings about what it is for, when that is no selector."""
    if obj.spec.target_refs and obj.spec.selector is not None:
        yield Finding(("spec", "targetRefs"), "stands beside selector; keep one")
    for at, one in enumerate(obj.spec.target_refs):
        here: Path = ("spec", "targetRefs", at)
        if (one.group, one.kind) != (GROUP, "Gateway"):
            message = (
                f"{one.kind}: there are no waypoints; give a Gateway of {GROUP}, or a selector"
            )
            yield Finding((*here, "kind"), message)
        elif one.namespace not in ("", obj.metadata.namespace):
            yield Finding((*here, "namespace"), "is another; a policy is for Gateways of its own")


def _rule(path: Path, rule: AuthorizationRule) -> Iterator[Finding]:
    for name, items in (("from", rule.from_), ("to", rule.to), ("when", rule.when)):
        if items is not None and not items:
            yield Finding((*path, name), "an empty list; leave it out to mean anything")
    for at, each in enumerate(rule.from_ or ()):
        yield from _source((*path, "from", at, "source"), each.source)
    for at, to in enumerate(rule.to or ()):
        yield from _operation((*path, "to", at, "operation"), to.operation)
    for at, when in enumerate(rule.when or ()):
        yield from _when((*path, "when", at), when)


def _source(path: Path, source: Source) -> Iterator[Finding]:
    if source == Source():
        yield Finding(path, "an empty source; leave it out to mean anybody")
    accounts = bool(source.service_accounts or source.not_service_accounts)
    if accounts and (
        source.principals or source.not_principals or source.namespaces or source.not_namespaces
    ):
        message = "stands without principals and namespaces; keep the one or the others"
        yield Finding((*path, "serviceAccounts"), message)
    for key, given in (
        ("principals", source.principals),
        ("notPrincipals", source.not_principals),
        ("requestPrincipals", source.request_principals),
        ("notRequestPrincipals", source.not_request_principals),
        ("namespaces", source.namespaces),
        ("notNamespaces", source.not_namespaces),
    ):
        yield from _texts((*path, key), of.PRINCIPAL, given)
    for key, given in (
        ("serviceAccounts", source.service_accounts),
        ("notServiceAccounts", source.not_service_accounts),
    ):
        yield from _texts((*path, key), of.SERVICE_ACCOUNT, given)
    for key, given in (("ipBlocks", source.ip_blocks), ("notIpBlocks", source.not_ip_blocks)):
        yield from _texts((*path, key), of.IP, given)


def _operation(path: Path, operation: Operation) -> Iterator[Finding]:
    if operation == Operation():
        yield Finding(path, "an empty operation; leave it out to mean everything")
    for name, key, given in (
        ("hosts", of.HOST, operation.hosts),
        ("notHosts", of.HOST, operation.not_hosts),
        ("ports", of.PORT, operation.ports),
        ("notPorts", of.PORT, operation.not_ports),
        ("methods", of.METHOD, operation.methods),
        ("notMethods", of.METHOD, operation.not_methods),
        ("paths", of.PATH, operation.paths),
        ("notPaths", of.PATH, operation.not_paths),
    ):
        yield from _texts((*path, name), key, given)


def _when(path: Path, when: When) -> Iterator[Finding]:
    key = when.key
    if not when.values and not when.not_values:
        yield Finding((*path, "values"), "is required, or notValues; add one")
    if key.startswith((of.HEADER, of.CLAIM)):
        brackets = key[key.index("[") :]
        if not _BRACKETS.fullmatch(brackets):
            yield Finding((*path, "key"), f"{names.quoted(key)}: give a name in brackets")
        elif key.startswith(of.HEADER) and not is_token(brackets[1:-1]):
            yield Finding((*path, "key"), f"{names.quoted(key)}: no header is called so")
    elif key not in PLAIN_KEYS:
        yield Finding((*path, "key"), f"{names.quoted(key)} is not supported; give one of {_KEYS}")
        return
    for name, given in (("values", when.values), ("notValues", when.not_values)):
        yield from _texts((*path, name), key, given)


def _texts(path: Path, key: str, given: Sequence[str]) -> Iterator[Finding]:
    for at, text in enumerate(given):
        yield from _text((*path, at), key, text)


def _text(path: Path, key: str, text: str) -> Iterator[Finding]:
    if not text:
        yield Finding(path, 'is empty; give "*" to mean any')
        return
    match key:
        case of.PORT:
            if not text.isdecimal():
                yield Finding(path, f"{names.quoted(text)} is no port; give a number in quotes")
                return
            yield from said(path, names.port_number(int(text)))
            if int(text) == TUNNEL_PORT:
                yield Finding(path, "is where tunnels end; give the workload's own port")
        case of.IP:
            try:
                ip_network(text, strict=False)
            except ValueError:
                yield Finding(path, f"{names.quoted(text)} is no address and no block of them")
        case of.SERVICE_ACCOUNT:
            if "*" in text or text.count("/") > 1 or "" in text.split("/"):
                yield Finding(path, f"{names.quoted(text)}: give NAME or NAMESPACE/NAME")
        case of.PATH if "{" in text or "}" in text:
            yield from _template(path, text)
        case _:
            if "*" in text.strip("*") or text.count("*") > 1:
                message = "a star stands at one end, for all that may stand there"
                yield Finding(path, f"{names.quoted(text)}: {message}")


def _template(path: Path, text: str) -> Iterator[Finding]:
    operators = _TEMPLATE.findall(text)
    segments = [each for each in text.split("/") if "{" in each or "}" in each]
    if any(each not in ("{*}", "{**}") for each in segments) or "*" in _TEMPLATE.sub("", text):
        message = "{*} is one segment, {**} any number of them; neither beside anything else"
        yield Finding(path, f"{names.quoted(text)}: {message}")
    elif "{**}" in operators[:-1]:
        yield Finding(path, f"{names.quoted(text)}: nothing in braces comes after {{**}}")
