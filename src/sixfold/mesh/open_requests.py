"""A request that has begun, and is not over: would it be let in if it came now?

Pure. The proxy judges a request when it begins; a stream of gRPC or a WebSocket may last for days.
So when rules have changed, the proxy is asked what is still open at a pod, and whatever would be
refused today is cut, by the name of the rule that refuses it. Everything that a rule may look at
is asked again: who, what, which token, which headers. A header that was not kept when the request
began cannot be looked at: such a request has to begin anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from envoy.service.runtime.v3 import rtds_pb2
from google.protobuf import struct_pb2

from sixfold.mesh import logs
from sixfold.mesh.asked import Asked, allowing
from sixfold.mesh.authorized import (
    authorized,
    authorized_abroad,
    caller_of,
    foreign_caller,
    outside,
)
from sixfold.mesh.messages import Resource, resource
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.rule import Rule
from sixfold.policy.conditions import no_token
from sixfold.policy.requests import Requests

LEEWAY_S = 60  # after a token's end, as the proxy has it
ALWAYS = 100.0  # percent of what is open


class Refusal(NamedTuple):
    """``rule``: what denies it, where one does; ``why``: what else is to be said."""

    rule: Rule | None
    why: str = ""


class Begun(NamedTuple):
    """What is known of a request that is open.

    claims   of its token; empty: it came without
    headers  names of those that are known, of which ``asked`` has those that there were
    """

    asked: Asked
    claims: Mapping[str, Any]
    headers: Collection[str]


def refusal(
    requests: Requests,
    domain: str,
    client: Endpoint,
    server: Endpoint,
    port: int,
    begun: Begun,
    now_s: float,
    foreign: str = "",
) -> Refusal | None:
    """None: it may go on. What is in audit refuses nothing.

    domain   of trust
    client   of another one's requests the Gateway
    foreign  the SPIFFE ID of who sent those; "": the client did
    """
    if (unknown := _unknown(requests.headers(server), begun)) is not None:
        return unknown
    allowed = requests.would_allow if foreign else requests.allowed
    if allowing(allowed(server, port, client), begun.asked) is None:
        denied = requests.denied_by(server, port, client)
        return Refusal(denied, "" if denied else "no rule allows this request")
    written = requests.authorizations.tokens(server)
    if (over := _token(requests, server, begun, now_s)) is not None:
        return over
    claims = begun.claims if written else {}
    policies = requests.authorizations.of(server)
    if foreign:
        caller = foreign_caller(foreign, client, port, begun.asked, claims)
        answer = authorized_abroad(policies, domain, caller)
    else:
        caller = caller_of(client, domain, port, begun.asked, claims)
        answer = authorized(policies, caller)
    return None if answer.allow else Refusal(answer.rule)


def refused_at_gateway(
    requests: Requests,
    client: IPAddress,
    server: Endpoint,
    port: int,
    begun: Begun,
    now_s: float,
) -> Refusal | None:
    """The same of a client outside; ``server``: the Gateway's pod."""
    policies = requests.authorizations.at_gateway(server)
    names = frozenset[str]().union(*(one.headers for one in policies))
    if (unknown := _unknown(names, begun)) is not None:
        return unknown
    if (over := _token(requests, server, begun, now_s)) is not None:
        return over
    claims = begun.claims if requests.authorizations.tokens(server) else {}
    answer = authorized(policies, outside(client, port, begun.asked, claims))
    return None if answer.allow else Refusal(answer.rule)


def _unknown(names: frozenset[str], begun: Begun) -> Refusal | None:
    if not (unknown := names - set(begun.headers)):
        return None
    text = ", ".join(sorted(unknown))
    return Refusal(None, f"a rule looks at {text}, which was not kept of it")


def _token(requests: Requests, server: Endpoint, begun: Begun, now_s: float) -> Refusal | None:
    written = requests.authorizations.tokens(server)
    if not begun.claims or not written or requests.authorizations.in_audit(server):
        return None
    if _over(begun.claims, now_s):
        return Refusal(no_token(written), "token: has expired")
    if begun.claims.get("iss") not in {
        rule.issuer for one in written for rule in one.spec.jwt_rules
    }:
        return Refusal(no_token(written), "token: of an issuer that is none any more")
    return None


def _over(claims: Mapping[str, Any], now_s: float) -> bool:
    end_s = claims.get("exp")
    return isinstance(end_s, int | float) and end_s + LEEWAY_S < now_s


def asking(pods: Collection[str]) -> Resource:
    """What has the proxy tell of all that is open at these pods."""
    keys = struct_pb2.Struct()
    keys.update({logs.asks(pod): ALWAYS for pod in pods})
    return resource(logs.RUNTIME_LAYER, rtds_pb2.Runtime(name=logs.RUNTIME_LAYER, layer=keys))
