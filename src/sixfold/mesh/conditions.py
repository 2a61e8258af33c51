"""Conditions of AuthorizationPolicies as filters of Envoy's RBAC.

Pure. Beside the filter for what network policy allows stand two: one that denies, and one that
allows what some ALLOW policy allows, if there is one. Both have shadow rules for what is in audit.
All conditions are written as principals, which may speak of requests too. Which port is meant is
read where the destination stands: in a header of requests, in the authority of a tunnel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac

from sixfold.mesh.messages import asleep, extension, packed
from sixfold.model.mesh import DESTINATION
from sixfold.policy import conditions as of
from sixfold.policy.conditions import Alternative, Authorization, Clauses, Condition, How, Text
from sixfold.policy.foreign import LOCAL_DOMAIN, for_foreign

DENY_FILTER, ALLOW_FILTER = "sixfold.authorization.deny", "sixfold.authorization.allow"
PREFIXES = {DENY_FILTER: "deny_", ALLOW_FILTER: "allow_"}  # of what they say of a request
JWT_FILTER, PAYLOAD = "envoy.filters.http.jwt_authn", "payload"
OURS = f"{LOCAL_DOMAIN}/"
SPIFFE = "spiffe://"
TOLD = "told "  # before names of rules that deny nothing: of action AUDIT
ANYBODY: dict[str, Any] = {"any": True}


def filters() -> list[dict[str, Any]]:
    """As they stand in a chain: asleep, until a route has rules."""
    return [asleep(extension(name, http_rbac.RBAC())) for name in (DENY_FILTER, ALLOW_FILTER)]


def of_requests(policies: Sequence[Authorization], domain: str) -> dict[str, Any]:
    """What routes of requests say to the filters."""
    return _configured(policies, _Writer(domain, DESTINATION))


def of_gateway(policies: Sequence[Authorization], domain: str, port: int) -> dict[str, Any]:
    """What routes of a Gateway's port say of clients outside, who prove no identity."""
    return _configured(policies, _Writer(domain, "", port))


def of_tunnels(policies: Sequence[Authorization], domain: str) -> dict[str, Any]:
    """What routes of tunnels say: nothing is known of what is in them."""
    return _configured([_over_tcp(one) for one in policies], _Writer(domain, ":authority"))


def of_foreign(policies: Sequence[Authorization], domain: str, port: int) -> dict[str, Any]:
    """What routes of other trust domains' tunnels say: each leads to one port."""
    writer = _Writer(domain, ":authority", port)
    return _configured([_over_tcp(one) for one in for_foreign(policies, domain)], writer)


def of_foreign_requests(
    policies: Sequence[Authorization], domain: str, port: int
) -> dict[str, Any]:
    """What routes of other trust domains' requests say: each leads to one port."""
    return _configured(for_foreign(policies, domain), _Writer(domain, DESTINATION, port))


def _over_tcp(policy: Authorization) -> Authorization:
    rules = (rule.over_tcp(policy.action) for rule in policy.rules)
    return policy._replace(rules=tuple(rule for rule in rules if rule is not None))


def _configured(policies: Sequence[Authorization], writer: _Writer) -> dict[str, Any]:
    denying = [one for one in policies if one.action == "DENY"]
    told = [one for one in policies if one.action == "AUDIT"]
    allowing = [one for one in policies if one.action == "ALLOW"]
    found: dict[str, Any] = {}
    for name, action, enforced, shadowed in (
        (
            DENY_FILTER,
            "DENY",
            [one for one in denying if not one.audit],
            [*(one for one in denying if one.audit), *told],
        ),
        (
            ALLOW_FILTER,
            "ALLOW",
            [one for one in allowing if not one.audit],
            allowing if any(one.audit for one in allowing) else [],
        ),
    ):
        fields: dict[str, Any] = {}
        if enforced:
            fields["rules"] = writer.rules(action, enforced)
        if shadowed:
            fields["shadow_rules"] = writer.rules(action, shadowed)
            fields["shadow_rules_stat_prefix"] = PREFIXES[name]
        if fields:
            rbac = http_rbac.RBAC(rules_stat_prefix=PREFIXES[name], **fields)
            found[name] = packed(http_rbac.RBACPerRoute(rbac=rbac))
    return found


class _Writer:
    """``place``: the header that a destination stands in; ``port``: it is this one, whatever
    that says."""

    def __init__(self, domain: str, place: str, port: int = 0) -> None:
        self._domain = domain
        self._place = place
        self._port = port

    def rules(self, action: str, policies: Iterable[Authorization]) -> rbac_pb2.RBAC:
        written = {}
        for policy in policies:
            before = TOLD if policy.action == "AUDIT" else ""
            for rule in policy.rules:
                one = rbac_pb2.Policy(permissions=[ANYBODY], principals=[self._rule(rule)])
                written[f"{before}{rule.rule}"] = one
        return rbac_pb2.RBAC(action=action, policies=written)

    def _rule(self, rule: Clauses) -> dict[str, Any]:
        parts = [
            _any([self._alternative(each) for each in alternatives])
            for alternatives in (rule.sources, rule.operations, (rule.when,))
            if all(alternatives)  # else one of them is everything
        ]
        return _all(parts)

    def _alternative(self, conditions: Alternative) -> dict[str, Any]:
        return _all([part for one in conditions for part in self._condition(one)])

    def _condition(self, one: Condition) -> Iterator[dict[str, Any]]:
        if one.values:
            yield _any([self._text(one.key, text) for text in one.values])
        if one.excluded:
            yield {"not_id": _any([self._text(one.key, text) for text in one.excluded])}

    def _text(self, key: str, text: Text) -> dict[str, Any]:
        match key:
            case of.PRINCIPAL:
                return _peer(self._principal(text))
            case of.SERVICE_ACCOUNT:
                namespace, _, name = text.text.partition("/")
                return _peer({"exact": f"{SPIFFE}{self._domain}/ns/{namespace}/sa/{name}"})
            case of.NAMESPACE:
                return _peer(_regex(f"{SPIFFE}[^/]+/ns/{_pattern(text, '[^/]')}/sa/.*"))
            case of.IP:
                return _from(text.text)
            case of.PORT if self._port:
                return ANYBODY if text.text == str(self._port) else {"not_id": ANYBODY}
            case of.PORT:
                return _header(self._place, {"suffix": f":{text.text}"})
            case of.HOST:
                return _header(":authority", {**_string(text), "ignore_case": True}, text)
            case of.METHOD:
                return _header(":method", _string(text), text)
            case of.PATH:
                return {"url_path": {"path": _path(text)}}
            case of.REQUEST_PRINCIPAL:
                return _request_principal(text)
            case of.AUDIENCES:
                return _claim(["aud"], text)
            case of.PRESENTER:
                return _claim(["azp"], text)
            case _ if key.startswith(of.HEADER):
                (name,) = of.in_brackets(key)
                return _header(name.lower(), _string(text), text)
            case _:
                assert key.startswith(of.CLAIM), f"manifest refuses {key}"
                return _claim(of.in_brackets(key), text)

    def _principal(self, text: Text) -> dict[str, Any]:
        if text.how not in (How.EXACT, How.PREFIX):
            return _string(text) if text.how is How.SUFFIX else {"prefix": SPIFFE}
        given = text.text
        if given.startswith(OURS):
            given = f"{self._domain}/{given.removeprefix(OURS)}"
        return {text.how.value: f"{SPIFFE}{given}"}


def _peer(match: dict[str, Any]) -> dict[str, Any]:
    return {"authenticated": {"principal_name": match}}


def _from(block: str) -> dict[str, Any]:
    network = ip_network(block, strict=False)
    length = {"value": network.prefixlen}
    address = str(network.network_address)
    return {"direct_remote_ip": {"address_prefix": address, "prefix_len": length}}


def _header(name: str, match: dict[str, Any], text: Text | None = None) -> dict[str, Any]:
    if text is not None and text.how is How.PRESENT:
        return {"header": {"name": name, "present_match": True}}
    return {"header": {"name": name, "string_match": match}}


def _path(text: Text) -> dict[str, Any]:
    return _regex(of.template(text.text)) if text.how is How.TEMPLATE else _string(text)


def _request_principal(text: Text) -> dict[str, Any]:
    """Issuer, slash, subject: both may have slashes, so that each may be the one."""
    issuer, subject = ["iss"], ["sub"]
    if text.how is How.PRESENT:
        return _all([_claim(issuer, text), _claim(subject, text)])
    ways = []
    for at, sign in enumerate(text.text):
        if sign == "/":
            before = Text(How.SUFFIX if text.how is How.SUFFIX else How.EXACT, text.text[:at])
            after = Text(How.PREFIX if text.how is How.PREFIX else How.EXACT, text.text[at + 1 :])
            ways.append(_all([_claim(issuer, before), _claim(subject, after)]))
    if text.how is How.PREFIX:
        ways.append(_all([_claim(issuer, text), _claim(subject, Text(How.PRESENT))]))
    if text.how is How.SUFFIX:
        ways.append(_all([_claim(issuer, Text(How.PRESENT)), _claim(subject, text)]))
    return _any(ways) if ways else {"not_id": ANYBODY}


def _claim(path: Sequence[str], text: Text) -> dict[str, Any]:
    """A text, or one of a list of texts."""
    one = {"string_match": _string(text)}
    either = {"or_match": {"value_matchers": [one, {"list_match": {"one_of": one}}]}}
    steps = [{"key": step} for step in (PAYLOAD, *path)]
    return {"metadata": {"filter": JWT_FILTER, "path": steps, "value": either}}


def _string(text: Text) -> dict[str, Any]:
    """Of an empty end everything is one: Envoy wants no empty texts there."""
    if text.how is How.PRESENT:
        return _regex(".+")
    if text.how is not How.EXACT and not text.text:
        return _regex(".*")
    return {text.how.value: text.text}


def _pattern(text: Text, sign: str) -> str:
    literal = re.escape(text.text)
    return {
        How.EXACT: literal,
        How.PREFIX: f"{literal}{sign}*",
        How.SUFFIX: f"{sign}*{literal}",
    }.get(text.how, f"{sign}+")


def _regex(text: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": text}}


def _all(parts: list[dict[str, Any]]) -> dict[str, Any]:
    if not parts:
        return ANYBODY
    return parts[0] if len(parts) == 1 else {"and_ids": {"ids": parts}}


def _any(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {"or_ids": {"ids": parts}}
