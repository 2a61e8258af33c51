"""Envoy's RBAC as its API describes it, in Python: the reference that compiled rules are put to."""

import re
from ipaddress import ip_address, ip_network
from typing import Any


def allows(rbac: Any, principal: str, source: str, authority: str, **headers: str) -> str | None:
    """Name of the first policy that matches, in order of names; None when none does.

    headers  of a request besides its authority; ``_`` for ``-``, ``path`` and ``method`` for those
    """
    return matching(rbac, principal, source, authority, {}, **headers)


def matching(
    rbac: Any, principal: str, source: str, authority: str, claims: dict[str, Any], **headers: str
) -> str | None:
    """The same, of a request with a token of these claims."""
    seen = {"principal": principal, "source": source, "claims": claims}
    asked = {name.replace("_", "-"): text for name, text in headers.items()}
    asked = {
        ":authority": authority,
        **{f":{name}" if name in ("path", "method") else name: it for name, it in asked.items()},
    }
    for name in sorted(rbac.policies):
        policy = rbac.policies[name]
        if any(_permits(one, asked) for one in policy.permissions) and any(
            _means(one, asked, **seen) for one in policy.principals
        ):
            return name
    return None


def _permits(permission: Any, asked: dict[str, str]) -> bool:
    kind = permission.WhichOneof("rule")
    if kind == "and_rules":
        return all(_permits(inner, asked) for inner in permission.and_rules.rules)
    if kind == "or_rules":
        return any(_permits(inner, asked) for inner in permission.or_rules.rules)
    if kind == "any":
        return True
    if kind == "url_path":
        return _matches(permission.url_path.path, asked[":path"].partition("?")[0])
    assert kind == "header", permission
    return _has(permission.header, asked)


def _has(header: Any, asked: dict[str, str]) -> bool:
    text = asked.get(header.name)
    if header.WhichOneof("header_match_specifier") == "present_match":
        return text is not None
    return text is not None and _matches(header.string_match, text)


def _means(
    one: Any, asked: dict[str, str], principal: str, source: str, claims: dict[str, Any]
) -> bool:
    kind = one.WhichOneof("identifier")
    if kind == "and_ids":
        return all(_means(inner, asked, principal, source, claims) for inner in one.and_ids.ids)
    if kind == "or_ids":
        return any(_means(inner, asked, principal, source, claims) for inner in one.or_ids.ids)
    if kind == "not_id":
        return not _means(one.not_id, asked, principal, source, claims)
    if kind == "authenticated":
        return _matches(one.authenticated.principal_name, principal)
    if kind == "any":
        return True
    if kind == "header":
        return _has(one.header, asked)
    if kind == "url_path":
        return _matches(one.url_path.path, asked[":path"].partition("?")[0])
    if kind == "metadata":
        return _claims(one.metadata, claims)
    assert kind == "direct_remote_ip", kind
    block = one.direct_remote_ip
    network = ip_network(f"{block.address_prefix}/{block.prefix_len.value}")
    address = ip_address(source)
    return address.version == network.version and address in network


def _claims(matcher: Any, claims: dict[str, Any]) -> bool:
    first, *path = [step.key for step in matcher.path]
    assert (matcher.filter, first) == ("envoy.filters.http.jwt_authn", "payload")
    found: Any = claims
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return any(_is(one, found) for one in matcher.value.or_match.value_matchers)


def _is(matcher: Any, value: Any) -> bool:
    if matcher.WhichOneof("match_pattern") == "list_match":
        return isinstance(value, list) and any(_is(matcher.list_match.one_of, it) for it in value)
    return isinstance(value, str) and _matches(matcher.string_match, value)


def _matches(match: Any, text: str) -> bool:
    if match.ignore_case:
        match, text = _lower(match), text.lower()
    kind = match.WhichOneof("match_pattern")
    if kind == "exact":
        return bool(text == match.exact)
    if kind == "prefix":
        return text.startswith(match.prefix)
    if kind == "suffix":
        return text.endswith(match.suffix)
    assert kind == "safe_regex", kind
    return re.fullmatch(match.safe_regex.regex, text) is not None


def _lower(match: Any) -> Any:
    kind = match.WhichOneof("match_pattern")
    return type(match)(**{kind: getattr(match, kind).lower()})
