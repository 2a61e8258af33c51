"""From the proxy's access log to a flow: what became of one connection through the mesh.

Pure. Logs by name: ``inbound``, a tunnel that was made, or refused by name of its rule;
``requests``, what came on a port that is looked into; ``gateway``, what clients of a Gateway asked;
``listener``, a connection whose handshake proved nothing; ``outbound``, one that did not get that
far; ``sent``, a request that did not; ``foreign``, a connection to a service of another trust
domain; ``abroad``, a request to one; ``door``, a connection from there to nothing of ours;
``named``, one to a service whose route has nobody for it. Fields are those of
envoy/data/accesslog/v3/accesslog.proto, which is not imported: who has no mesh does not pay for it.
The two SPIFFE IDs are those of this connection's handshake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from sixfold.model.flow import Flow, Verdict
from sixfold.model.mesh import CLIENT_PORT, DESTINATION, HEADERS_KEPT
from sixfold.model.reason import DropReason
from sixfold.model.rule import Direction, Rule
from sixfold.observe.names import IPAddress, Names, peer_at

RBAC = "envoy.filters.http.rbac"
NETNS = "envoy.network.upstream_bind_override.network_namespace"
CLIENT = "sixfold.client"  # likewise, of who dialled a service of another trust domain
LED = "sixfold.led"  # likewise, of who dialled a service with a TLSRoute or TCPRoute: by which
# Routes of what comes from another trust domain: where it leads to.
_FROM_ABROAD = re.compile(r"foreign (?:requests )?(.+)")
_RESET = "system library"  # of TLS's words for what was no fault of the handshake
_CONNECTED, _ENDED = 1, 6  # access log types: TcpUpstreamConnected, DownstreamEnd
DENIED = 403
REDIRECTED = range(300, 400)
_BY_CODE = {421: "for another listener's host", 500: "its route has a backend that is none"}
TCP = 6
TOLD = "told "  # before the name of a rule whose action is AUDIT
# Of envoy.config.core.v3.RequestMethod.
_METHODS = ("", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
NOWHERE = "not to a pod of the mesh"
# Envoy's words (response code details) for what a request met before any backend.
ANSWERED_HERE = {
    "overflow": "circuit breaker: too many at once",
    "local_rate_limited": "rate limit: too many in this time",
    "fault_filter_abort": "fault: injected, as a policy says",
    "no_healthy_upstream": "no backend is left: none is ready, or all are ejected",
    "route_not_found": "no match of a route",
    "cluster_not_found": NOWHERE,
    "response_timeout": "timeout: the backend did not answer in time",
    "upstream_per_try_timeout": "timeout: the backend did not answer in time",
}
_AUTHORITY = re.compile(r"\[?([0-9a-fA-F.:]+?)\]?:(\d+)")
_AUTHORIZATION = re.compile(r"(\w+) ([^/ ]+)/([^/ ]+) rules\[(\d+)\]")
_CLIENT_PORT = re.compile(r'for="_pod:(\d+)"')

Place = tuple[IPAddress, int]  # address, port
# The rule that denies a connection: from, to, to which port. None: nothing does any more.
DeniedBy = Callable[[IPAddress, IPAddress, int], Rule | None]
# The rule that denies what no ALLOW AuthorizationPolicy of a pod allows; None: it has none.
NotAllowedBy = Callable[[IPAddress], Rule | None]
# A pod's address of an IP version, by the path of its namespace; None: it is gone.
AddressIn = Callable[[str, int], IPAddress | None]


# What denies an identity of another trust domain (SPIFFE ID) at a pod.
NotNamedBy = Callable[[IPAddress, str], Rule | None]
# Of a foreign service at an address and port: its name, SPIFFE IDs, and why nothing leaves.
ForeignAt = Callable[[IPAddress, int], tuple[str, tuple[str, ...], str] | None]
# Of a foreign service by its name and port: its SPIFFE IDs.
ForeignIds = Callable[[str, int], tuple[str, ...]]
# SPIFFE ID of the pod at an address; "": there is none.
IdOf = Callable[[IPAddress], str]


class Asked(NamedTuple):
    """What the plan that the proxy's rules were made of answers."""

    denied_by: DeniedBy
    not_allowed_by: NotAllowedBy
    address_in: AddressIn
    no_token_by: NotAllowedBy = lambda _: None
    told_by: NotAllowedBy = lambda _: None  # the default of policies in audit
    told_not_allowed_by: NotAllowedBy = lambda _: None  # of ALLOW policies, those in audit too
    not_named_by: NotNamedBy = lambda *_: None
    foreign_ids: ForeignIds = lambda *_: ()
    foreign_at: ForeignAt = lambda *_: None
    id_of: IdOf = lambda _: ""
    kept_in_by: NotAllowedBy = lambda _: None  # of who dials the world, by the pod's address


def access(log: str, entry: Any, names: Names, plan: Asked) -> Flow | None:
    """What an entry of a log tells; None when another log tells it, or nothing happened."""
    match log:
        case "inbound":
            return _inbound(entry, names, plan)
        case "requests":
            return _request(entry, names, plan)
        case "listener":
            return _listener(entry, names)
        case "outbound":
            return _outbound(entry, names, plan.address_in)
        case "gateway":
            return _at_gateway(entry, names, plan)
        case "sent":
            return _sent(entry, names, plan)
        case "foreign":
            return _to_foreign(entry, names, plan)
        case "abroad":
            return _sent_abroad(entry, names, plan)
        case "door":
            return _at_door(entry, names)
        case "named":
            return _led_nowhere(entry, names, plan)
        case "outward":
            return _outward(entry, names, plan)
        case "external":
            return _external(entry, names, plan)
        case _:
            return None  # of another version's configuration


def _inbound(entry: Any, names: Names, plan: Asked) -> Flow | None:
    common, code = entry.common_properties, entry.response.response_code.value
    source, _ = place(common.downstream_direct_remote_address)
    destination, port = place(common.downstream_local_address)
    where = from_abroad(common) or entry.request.authority
    if (told := _AUTHORITY.fullmatch(where)) is not None:
        destination, port = ip_address(told[1]), int(told[2])
    verdict, reason, rule, extra = Verdict.FORWARDED, DropReason.NONE, None, proved(common)
    if code == DENIED:
        verdict = Verdict.DROPPED
        foreign = is_foreign(extra)
        rule = _narrowed(common, destination, plan, extra)
        rule = rule or plan.denied_by(source, destination, port)
        if rule is None and foreign:
            rule = plan.not_named_by(destination, extra["source_id"])
        if foreign and not from_abroad(common):
            extra["mesh"] = (
                f"no tunnel from abroad leads to {where}; requests may (appProtocol: http)"
            )
        explicit = rule is not None and rule.index >= 0
        reason = DropReason.POLICY_DENY if explicit else DropReason.POLICY_DENIED
    elif common.metadata.filter_metadata:
        rule = names.rules.get(_policy(common))
        if code >= 400:
            verdict = Verdict.ERROR
            extra["mesh"] = f"the workload was not reached: {entry.response.response_code_details}"
        elif is_foreign(extra):
            rule = naming(common) or rule
        else:
            verdict, rule = _in_audit(common, destination, plan, extra, rule)
    else:
        verdict = Verdict.ERROR
        extra["mesh"] = f"no tunnel: {entry.response.response_code_details}"
    ends = tunnel_client(entry), (destination, port)
    return _flow(common, names, verdict, ends, extra, reason, rule)


def _request(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """One request; denied by the proxy, or answered by the workload, whatever the answer."""
    common, details = entry.common_properties, entry.response.response_code_details
    (source, source_port), (destination, port) = request_ends(entry)
    extra = {
        **proved(common),
        "http": _answered(entry),
    }
    verdict, reason, rule = _refused(entry, destination, plan, extra)
    if verdict is Verdict.DROPPED:
        if rule is None:
            rule = plan.denied_by(source, destination, port)
        if rule is None:  # the port is open to it, this request is not
            extra["mesh"] = "no rule allows this request"
    elif common.metadata.filter_metadata:
        rule = names.rules.get(_policy(common))
    if verdict is Verdict.FORWARDED and not details.startswith("via_upstream"):
        verdict = Verdict.ERROR
        extra["mesh"] = f"not answered by the workload: {details}"
    if verdict is Verdict.FORWARDED and is_foreign(extra):
        rule = naming(common) or rule
    elif verdict is Verdict.FORWARDED:
        verdict, rule = _in_audit(common, destination, plan, extra, rule)
    ends = (source, source_port), (destination, port)
    return _flow(common, names, verdict, ends, extra, reason, rule)


def from_abroad(common: Any) -> str:
    """Where what comes from another trust domain leads to: what that says are names. "": it is
    ours."""
    found = _FROM_ABROAD.fullmatch(common.route_name)
    return found[1] if found is not None else ""


def request_ends(entry: Any) -> tuple[Place, Place]:
    """Who sent it, and to whom."""
    common = entry.common_properties
    destination = place(common.downstream_local_address)
    abroad = from_abroad(common)
    said = abroad or _between_proxies(entry, DESTINATION)
    told = _AUTHORITY.fullmatch(said)
    if told is not None:
        destination = ip_address(told[1]), int(told[2])
    elif common.upstream_remote_address.socket_address.address:  # it has got there
        destination = place(common.upstream_remote_address)
    source, port = place(common.downstream_direct_remote_address)
    own = 0 if abroad else client_port(entry)
    return (source, own or port), destination  # else it is the tunnel's


def client_port(entry: Any) -> int:
    """Of the connection that a request came by."""
    own = _between_proxies(entry, CLIENT_PORT)
    return int(own) if own.isdecimal() else 0


def _between_proxies(entry: Any, header: str) -> str:
    """Kept when the request was passed on, else still a header."""
    kept = entry.common_properties.metadata.filter_metadata
    own = kept[HEADERS_KEPT].fields[header].string_value if HEADERS_KEPT in kept else ""
    return own or str(entry.request.request_headers.get(header, ""))


def bytes_of(entry: Any) -> tuple[int, int]:
    """Sent by the client, and to it."""
    return entry.request.request_body_bytes, entry.response.response_body_bytes


def is_end(entry: Any) -> bool:
    """Whether it tells the end of a tunnel that was made, which another entry told of before."""
    made = entry.response.response_code.value < 400
    return bool(made and entry.common_properties.access_log_type == _ENDED)


def tunnel_client(entry: Any) -> Place:
    """The client's own end of what a tunnel carries."""
    source, _ = place(entry.common_properties.downstream_direct_remote_address)
    client = _CLIENT_PORT.fullmatch(entry.request.request_headers.get("forwarded", ""))
    return source, int(client[1]) if client else 0


def _listener(entry: Any, names: Names) -> Flow | None:
    common = entry.common_properties
    if not (why := common.downstream_transport_failure_reason):
        return None
    if _RESET in why and proved(common):  # both had proved who they are: it was cut
        return None
    ends = (
        place(common.downstream_direct_remote_address),
        place(common.downstream_local_address),
    )
    extra = {**proved(common), "mesh": f"handshake: {_tls_error(why)}"}
    return _flow(common, names, Verdict.ERROR, ends, extra)


def _outbound(entry: Any, names: Names, address_in: AddressIn) -> Flow | None:
    common = entry.common_properties
    flags = common.response_flags
    why = common.upstream_transport_failure_reason
    if why.startswith("tunnel_response"):  # the other end has told it
        return None
    if not (why or flags.upstream_connection_failure or flags.no_cluster_found):
        return None
    if flags.no_cluster_found:
        text = NOWHERE
    elif why:
        text = f"handshake: {_tls_error(why)}"
    else:
        text = "its proxy was not reached"
    ends = _captured(common, address_in)
    return _flow(common, names, Verdict.ERROR, ends, {"mesh": text}, direction="egress")


def _sent(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """A request that the client's side of the proxy answered itself, by what was said of it."""
    common, details = entry.common_properties, entry.response.response_code_details
    if details.startswith("via_upstream"):  # told where it arrived
        return None
    ends = _captured(common, plan.address_in)
    extra = {
        "http": _answered(entry),
        "mesh": NOWHERE if ends[1][0].is_loopback else _answered_here(details),
    }
    if (known := plan.foreign_at(*ends[1])) is not None:
        why = common.upstream_transport_failure_reason
        extra["mesh"] = known[2] or (f"handshake: {_tls_error(why)}" if why else extra["mesh"])
    service, _, port = common.upstream_cluster.removeprefix("service|").rpartition(":")
    flow = _flow(common, names, Verdict.ERROR, ends, extra, direction="egress")
    return replace(flow, service=service, service_port=int(port)) if service else flow


def _to_foreign(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """A connection to a service of another trust domain: made, or why not."""
    common = entry.common_properties
    client, dialled = _captured(common, plan.address_in, CLIENT)
    if (known := plan.foreign_at(*dialled)) is None:
        return None
    service, ids, closed = known
    there = dialled
    if common.upstream_remote_address.socket_address.address:
        there = place(common.upstream_remote_address)
    why, verdict = common.upstream_transport_failure_reason, Verdict.ERROR
    extra: dict[str, str] = {}
    if closed:
        extra["mesh"] = closed
    elif why.startswith("tunnel_response"):
        extra["mesh"] = f"refused by {ids[0]}: {why.rpartition(':')[2]}"
    elif why:
        extra["mesh"] = f"handshake: {_tls_error(why)}"
    elif not common.upstream_remote_address.socket_address.address or (
        common.response_flags.upstream_connection_failure
    ):
        extra["mesh"] = "the other gateway was not reached, or it closed: does it trust us?"
    elif common.access_log_type != _CONNECTED:  # it is over
        return None
    else:
        verdict = Verdict.FORWARDED
        shown = {"source_id": plan.id_of(client[0]), "destination_id": " or ".join(ids)}
        extra = {"mtls": "TLS 1.3", **shown}
    flow = _flow(common, names, verdict, (client, there), extra, direction="egress")
    return replace(flow, service=service, service_port=dialled[1])


def _sent_abroad(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """A request to a service of another trust domain, and what was answered over there."""
    common, details = entry.common_properties, entry.response.response_code_details
    service, _, port = common.upstream_cluster.removeprefix("service|").rpartition(":")
    if not details.startswith("via_upstream") or not service:
        return None  # ``sent`` tells it
    client, there = _captured(common, plan.address_in)
    if common.upstream_remote_address.socket_address.address:
        there = place(common.upstream_remote_address)
    extra = {
        "mtls": "TLS 1.3",
        "source_id": plan.id_of(client[0]),
        "destination_id": " or ".join(plan.foreign_ids(service, int(port))),
        "http": _answered(entry),
    }
    flow = _flow(common, names, Verdict.FORWARDED, (client, there), extra, direction="egress")
    return replace(flow, service=service, service_port=int(port))


def _at_door(entry: Any, names: Names) -> Flow | None:
    """Somebody of another trust domain, or who knows whom, who named nothing that is known."""
    common = entry.common_properties
    if not common.response_flags.no_route_found:
        return None
    name = common.tls_properties.tls_sni_hostname
    ends = (
        place(common.downstream_direct_remote_address),
        place(common.downstream_local_address),
    )
    text = f"{name}: no name of ours for other trust domains" if name else "named nothing of ours"
    return _flow(common, names, Verdict.ERROR, ends, {"mesh": text})


def _led_nowhere(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """A connection to a service, whose name no TLSRoute has, or whose route has no backend."""
    common = entry.common_properties
    if not common.response_flags.no_cluster_found:
        return None
    dialled, _, route = _state(common, LED).partition(" ")
    service, _, port = dialled.rpartition(":")
    why = f"its route {route} has a backend that is none"
    extra = {
        "sni": common.tls_properties.tls_sni_hostname or "none",
        "mesh": why if route else f"no TLSRoute of {dialled} has this name",
    }
    ends = _captured(common, plan.address_in)
    flow = _flow(common, names, Verdict.ERROR, ends, extra, direction="egress")
    return replace(flow, service=service, service_port=int(port))


def _outward(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """A connection to the world that was not passed; or was, and nobody took it."""
    common = entry.common_properties
    flags = common.response_flags
    if not (flags.no_cluster_found or flags.upstream_connection_failure):
        return None
    ends = _captured(common, plan.address_in)
    extra = {"sni": common.tls_properties.tls_sni_hostname or "none"}
    if flags.upstream_connection_failure:
        extra["mesh"] = "the server was not reached"
        return _flow(common, names, Verdict.ERROR, ends, extra, direction="egress")
    flow = _flow(
        *(common, names, Verdict.DROPPED, ends, extra, DropReason.POLICY_DENIED),
        direction="egress",
    )
    return replace(flow, egress_rule=plan.kept_in_by(ends[0][0]))


def _external(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """A request to a service outside, in TLS that the proxy began; or to nobody known there."""
    common, asked, code = entry.common_properties, entry.request, entry.response.response_code.value
    details = entry.response.response_code_details
    if not asked.path:
        return None
    ends = _captured(common, plan.address_in)
    extra = {"http": _answered(entry)}
    if details.startswith("via_upstream"):
        extra["mesh"] = "TLS begun by the proxy, the server verified"
        return _flow(common, names, Verdict.FORWARDED, ends, extra, direction="egress")
    if details == "direct_response" and code == DENIED:
        flow = _flow(
            *(common, names, Verdict.DROPPED, ends, extra, DropReason.POLICY_DENIED),
            direction="egress",
        )
        return replace(flow, egress_rule=plan.kept_in_by(ends[0][0]))
    why = common.upstream_transport_failure_reason
    if why:
        extra["mesh"] = f"handshake: {_tls_error(why)}"
    elif details == "direct_response":
        extra["mesh"] = "the server cannot be verified: see sixfold get destinationrules -o yaml"
    else:
        extra["mesh"] = _answered_here(details)
    return _flow(common, names, Verdict.ERROR, ends, extra, direction="egress")


def _captured(common: Any, address_in: AddressIn, state: str = NETNS) -> tuple[Place, Place]:
    """The client of a connection that was captured in a pod, and whom it dialled.

    state  that says which namespace it was captured in
    """
    there = place(common.downstream_local_address)
    _, from_port = place(common.downstream_direct_remote_address)
    source = address_in(_state(common, state), there[0].version) or there[0]
    return (source, from_port), there


def _at_gateway(entry: Any, names: Names, plan: Asked) -> Flow | None:
    """A request of a client of a Gateway, whoever answered it; None: nothing was asked."""
    common, asked, code = entry.common_properties, entry.request, entry.response.response_code.value
    details = entry.response.response_code_details
    if not asked.path:
        return None
    extra = {"http": _answered(entry)}
    ends = (
        place(common.downstream_direct_remote_address),
        place(common.downstream_local_address),
    )
    verdict, reason, rule = _refused(entry, ends[1][0], plan, extra)
    if verdict is Verdict.FORWARDED:
        if not details.startswith("via_upstream") and code not in REDIRECTED:
            verdict, extra["mesh"] = Verdict.ERROR, _BY_CODE.get(code) or _answered_here(details)
        else:
            verdict, rule = _in_audit(common, ends[1][0], plan, extra, rule)
    return _flow(common, names, verdict, ends, extra, reason, rule)


def _refused(
    entry: Any, destination: IPAddress, plan: Asked, extra: dict[str, str]
) -> tuple[Verdict, DropReason, Rule | None]:
    """Whether a token or an AuthorizationPolicy was against a request."""
    details = entry.response.response_code_details
    if details.startswith("jwt_authn_access_denied"):
        extra["mesh"] = f"token: {_why(details)}"
        return Verdict.DROPPED, DropReason.POLICY_DENIED, plan.no_token_by(destination)
    if details.startswith("rbac_access_denied"):
        rule = _narrowed(entry.common_properties, destination, plan, extra)
        explicit = rule is not None and rule.index >= 0
        reason = DropReason.POLICY_DENY if explicit else DropReason.POLICY_DENIED
        return Verdict.DROPPED, reason, rule
    return Verdict.FORWARDED, DropReason.NONE, None


def _answered_here(details: str) -> str:
    """``upstream_reset_before_response_started{overflow}``: the last word that means something."""
    words = [one for one in re.findall(r"[a-z_]+", details) if one in ANSWERED_HERE]
    return ANSWERED_HERE[words[-1]] if words else details


def tunnel_cut(
    names: Names,
    client: Place,
    server: Place,
    why: str,
    ids: tuple[str, str],
    now_ns: int,
    direction: Direction = "ingress",
) -> Flow:
    """A tunnel that was closed, with all that was in it: what it rested on is no more."""
    extra = {"mtls": "TLS 1.3", "source_id": ids[0], "destination_id": ids[1], "mesh": why}
    return Flow(
        now_ns,
        Verdict.DROPPED,
        direction,
        TCP,
        peer_at(names, *client),
        peer_at(names, *server),
        node=names.node,
        extra=extra,
    )


def _flow(
    common: Any,
    names: Names,
    verdict: Verdict,
    ends: tuple[Place, Place],
    extra: dict[str, str],
    reason: DropReason = DropReason.NONE,
    ingress_rule: Rule | None = None,
    direction: str = "ingress",
) -> Flow:
    """Of one entry; ``ends``: who sent, and to whom."""
    source, destination = ends
    return Flow(
        _time_ns(common),
        verdict,
        direction,
        TCP,
        peer_at(names, *source),
        peer_at(names, *destination),
        reason,
        ingress_rule=ingress_rule,
        node=names.node,
        extra=extra,
    )


def _state(common: Any, key: str) -> str:
    state = common.filter_state_objects.get(key)
    return StringValue.FromString(state.value).value if state is not None else ""


def place(address: Any) -> Place:
    at = address.socket_address
    return ip_address(at.address or "0.0.0.0"), at.port_value


def _answered(entry: Any) -> str:
    """A request and its status, as flows tell them."""
    asked, code = entry.request, entry.response.response_code.value
    return f"{method_of(asked)} {asked.authority}{asked.path} {code}"


def method_of(asked: Any) -> str:
    return _METHODS[asked.request_method]


def _policy(common: Any) -> int:
    """The rule that RBAC names: the start of its policy's name."""
    fields = common.metadata.filter_metadata[RBAC].fields
    digits = fields["enforced_effective_policy_id"].string_value.partition(" ")[0]
    return int(digits) if digits.isdigit() else 0


def _narrowed(
    common: Any, destination: IPAddress, plan: Asked, ids: Mapping[str, str]
) -> Rule | None:
    """The rule of an AuthorizationPolicy that denied; None when none did."""
    fields = common.metadata.filter_metadata[RBAC].fields
    if fields["deny_enforced_engine_result"].string_value == "denied":
        return _written(fields["deny_enforced_effective_policy_id"].string_value)
    if fields["allow_enforced_engine_result"].string_value == "denied":
        if is_foreign(ids):
            return plan.not_named_by(destination, ids["source_id"])
        return plan.not_allowed_by(destination)
    return None


def naming(common: Any) -> Rule | None:
    """The rule of an AuthorizationPolicy that let somebody of another trust domain in."""
    fields = common.metadata.filter_metadata[RBAC].fields
    return _written(fields["allow_enforced_effective_policy_id"].string_value)


def is_foreign(proven: Mapping[str, str]) -> bool:
    """Whether the two ends of a handshake are of different trust domains."""
    ids = (proven.get(key, "") for key in ("source_id", "destination_id"))
    return len({one.removeprefix("spiffe://").partition("/")[0] for one in ids}) > 1


def _why(details: str) -> str:
    """``jwt_authn_access_denied{Jwt_is_expired}``."""
    return details.partition("{")[2].rstrip("}").replace("_", " ")


def _in_audit(
    common: Any, destination: IPAddress, plan: Asked, extra: dict[str, str], rule: Rule | None
) -> tuple[Verdict, Rule | None]:
    """What a rule that is told only says of what passed; ``rule``: what let it pass."""
    fields = common.metadata.filter_metadata[RBAC].fields

    def denied(prefix: str) -> bool:
        return bool(fields[f"{prefix}_shadow_engine_result"].string_value == "denied")

    if denied("policy"):
        return Verdict.AUDIT, plan.told_by(destination)
    if denied("deny"):
        said = fields["deny_shadow_effective_policy_id"].string_value
        if not said.startswith(TOLD):
            return Verdict.AUDIT, _written(said)
        extra["mesh"] = f"told by {said.removeprefix(TOLD)}"  # action AUDIT: no denial
    if denied("allow"):
        return Verdict.AUDIT, plan.told_not_allowed_by(destination)
    return Verdict.FORWARDED, rule


def _written(text: str) -> Rule | None:
    """A rule of an AuthorizationPolicy, by what it is called."""
    if (found := _AUTHORIZATION.fullmatch(text)) is None:
        return None
    kind, namespace, name, at = found.groups()
    return Rule(kind, namespace, name, "ingress", int(at), section="rules")


def proved(common: Any) -> dict[str, str]:
    """Who proved to be whom; empty when nobody did."""
    tls = common.tls_properties
    ids = [
        next((one.uri for one in side.subject_alt_name if one.uri), "")
        for side in (tls.peer_certificate_properties, tls.local_certificate_properties)
    ]
    return {"mtls": "TLS 1.3", "source_id": ids[0], "destination_id": ids[1]} if all(ids) else {}


def _tls_error(text: str) -> str:
    """``TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:…``."""
    words = [part for part in re.split(r"[:|]", text) if part and not part.isdigit()]
    skipped = ("TLS_error", "SSL routines", "OPENSSL_internal", "TLS_error_end")
    return ": ".join(part.strip() for part in words if part.strip() not in skipped) or text


def _time_ns(common: Any) -> int:
    return int(common.start_time.seconds * 10**9 + common.start_time.nanos)
