"""Envoy's RBAC as its API describes it, in Python: the reference that compiled rules are put to."""

import re
from ipaddress import ip_address, ip_network
from typing import Any


def allows(rbac: Any, principal: str, source: str, authority: str, **headers: str) -> str | None:
    """Name of the first policy that matches, in order of names; None when none does.

    headers  of a request besides its authority; ``_`` for ``-``, ``path`` and ``method`` for those
    """
    asked = {name.replace("_", "-"): text for name, text in headers.items()}
    asked = {
        ":authority": authority,
        **{f":{name}" if name in ("path", "method") else name: it for name, it in asked.items()},
    }
    for name in sorted(rbac.policies):
        policy = rbac.policies[name]
        if any(_permits(one, asked) for one in policy.permissions) and any(
            _means(one, principal, source) for one in policy.principals
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
    text = asked.get(permission.header.name)
    if permission.header.WhichOneof("header_match_specifier") == "present_match":
        return text is not None
    return text is not None and _matches(permission.header.string_match, text)


def _means(one: Any, principal: str, source: str) -> bool:
    kind = one.WhichOneof("identifier")
    if kind == "and_ids":
        return all(_means(inner, principal, source) for inner in one.and_ids.ids)
    if kind == "or_ids":
        return any(_means(inner, principal, source) for inner in one.or_ids.ids)
    if kind == "not_id":
        return not _means(one.not_id, principal, source)
    if kind == "authenticated":
        return _matches(one.authenticated.principal_name, principal)
    assert kind == "direct_remote_ip", kind
    block = one.direct_remote_ip
    network = ip_network(f"{block.address_prefix}/{block.prefix_len.value}")
    address = ip_address(source)
    return address.version == network.version and address in network


def _matches(match: Any, text: str) -> bool:
    kind = match.WhichOneof("match_pattern")
    if kind == "exact":
        return bool(text == match.exact)
    if kind == "prefix":
        return text.startswith(match.prefix)
    assert kind == "safe_regex", kind
    return re.fullmatch(match.safe_regex.regex, text) is not None
