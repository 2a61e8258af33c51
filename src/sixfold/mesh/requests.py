"""Who may send which request to a port of a pod: as Envoy's RBAC.

Pure. A request is judged where it arrives, by who the handshake says sent it, from which address,
and by what policy says of the two pods: both sides', for requests are balanced by the proxy, which
no kernel saw dial. Only what is allowed is written. Where it wants to go, the sender's proxy says
in a header; the port's own rules hold for whatever it says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from envoy.config.rbac.v3 import rbac_pb2

from sixfold.mesh.authorization import from_any_of, policy_name
from sixfold.mesh.member import Member, authority
from sixfold.model.endpoint import Endpoint
from sixfold.model.mesh import DESTINATION
from sixfold.model.rule import Rule
from sixfold.policy import ir
from sixfold.policy.requests import Allowance, Requests

Who = dict[str, Member]  # by pod


def request_rules(
    requests: Requests,
    server: Endpoint,
    ports: Iterable[int],
    clients: Mapping[str, tuple[Endpoint, Member]],
    numbers: Mapping[Rule, int],
) -> rbac_pb2.RBAC:
    """For all addresses of a pod; a policy for each rule and port."""
    return _rules(requests.allowed, server, ports, clients, numbers)


def told_rules(
    requests: Requests,
    server: Endpoint,
    ports: Iterable[int],
    clients: Mapping[str, tuple[Endpoint, Member]],
    numbers: Mapping[Rule, int],
) -> rbac_pb2.RBAC | None:
    """What would be, if what is in audit was in force; None: the same."""
    if not requests.written(server) or not requests.told_only(server):
        return None
    return _rules(requests.would_allow, server, ports, clients, numbers)


def _rules(
    allows: Callable[[Endpoint, int, Endpoint], Iterable[Allowance]],
    server: Endpoint,
    ports: Iterable[int],
    clients: Mapping[str, tuple[Endpoint, Member]],
    numbers: Mapping[Rule, int],
) -> rbac_pb2.RBAC:
    policies: dict[str, rbac_pb2.Policy] = {}
    for port in sorted(ports):
        allowed: defaultdict[tuple[Rule, tuple[ir.Request, ...] | None], Who] = defaultdict(dict)
        for key, (client, member) in clients.items():
            if key != server.key:
                for one in allows(server, port, client):
                    allowed[one][key] = member
        for turn, ((rule, wanted), who) in enumerate(sorted(allowed.items(), key=_order)):
            name = f"{policy_name(numbers.get(rule, 0), {numbers.get(rule, 0): rule})} :{port}"
            policies[f"{name} #{turn}" if name in policies else name] = rbac_pb2.Policy(
                permissions=[_permission(server, port, wanted)],
                principals=list(from_any_of(who.values())),
            )
    return rbac_pb2.RBAC(action="ALLOW", policies=policies)


def _order(one: tuple[tuple[Rule, tuple[ir.Request, ...] | None], Who]) -> tuple[str, str]:
    (rule, wanted), _ = one
    return str(rule), repr(wanted)


def _permission(
    server: Endpoint, port: int, wanted: tuple[ir.Request, ...] | None
) -> dict[str, Any]:
    places = [
        _header(DESTINATION, {"exact": authority(address, port)}) for address in server.addresses
    ]
    parts = [_any(places)]
    if wanted is not None:
        parts.append(permission_to_ask(wanted))
    return _all(parts)


def permission_to_ask(wanted: tuple[ir.Request, ...] | None) -> dict[str, Any]:
    """``wanted`` None: for whatever there is."""
    return {"any": True} if wanted is None else _any([_request(one) for one in wanted])


def _request(one: ir.Request) -> dict[str, Any]:
    parts = []
    if one.method:
        parts.append(_header(":method", _regex(one.method)))
    if one.path:  # what is asked of, without what follows a question mark
        parts.append({"url_path": {"path": _regex(one.path)}})
    if one.host:
        parts.append(_header(":authority", _regex(f"(?:{one.host})(?::[0-9]+)?")))
    for name, value in one.headers:
        if value is None:
            parts.append({"header": {"name": name, "present_match": True}})
        else:
            parts.append(_header(name, {"exact": value}))
    return _all(parts) if parts else {"any": True}


def _header(name: str, match: dict[str, Any]) -> dict[str, Any]:
    return {"header": {"name": name, "string_match": match}}


def _regex(text: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": text}}


def _all(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {"and_rules": {"rules": parts}}


def _any(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {"or_rules": {"rules": parts}}
