"""Envoy's RBAC as its API describes it, in Python: the reference that compiled rules are put to."""

import re
from ipaddress import ip_address, ip_network
from typing import Any


def allows(rbac: Any, principal: str, source: str, authority: str) -> str | None:
    """Name of the first policy that matches, in order of names; None when none does."""
    for name in sorted(rbac.policies):
        policy = rbac.policies[name]
        if any(_permits(one, authority) for one in policy.permissions) and any(
            _means(one, principal, source) for one in policy.principals
        ):
            return name
    return None


def _permits(permission: Any, authority: str) -> bool:
    assert permission.WhichOneof("rule") == "header", permission
    assert permission.header.name == ":authority"
    return _matches(permission.header.string_match, authority)


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
