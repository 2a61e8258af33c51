"""From the proxy's access log to a request that is still open, and what became of it.

Pure. An entry tells the same of a request while it is open and when it is over, but for its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict

from sixfold.model.flow import Flow, Verdict
from sixfold.model.mesh import CLIENT_PORT, DESTINATION, HEADERS_ABSENT, HEADERS_KEPT
from sixfold.model.reason import DropReason
from sixfold.model.rule import Rule
from sixfold.observe.access import Place, from_abroad, method_of, place, proved, request_ends

JWT = "envoy.filters.http.jwt_authn"
Key = tuple[int, int, Place, str]  # when it began, where from: one request


class OpenRequest(NamedTuple):
    """``near``, ``far``: of the proxy's socket to the process that it was passed on to."""

    source: Place
    destination: Place
    near: Place
    far: Place
    method: str
    path: str
    host: str
    headers: Mapping[str, str]
    absent: frozenset[str]  # headers that it came without
    claims: Mapping[str, Any]
    foreign: str = ""  # SPIFFE ID of who sent it, of another trust domain


def key_of(entry: Any) -> Key:
    common = entry.common_properties
    began = common.start_time
    source = place(common.downstream_direct_remote_address)
    return began.seconds, began.nanos, source, entry.request.path


def open_request(entry: Any, *, at_gateway: bool = False) -> OpenRequest:
    """At a Gateway what is asked is what the client asked for, whatever a route makes of it."""
    common, asked = entry.common_properties, entry.request
    source, destination = request_ends(entry)
    if at_gateway:
        destination = place(common.downstream_local_address)
    said = common.metadata.filter_metadata
    headers = _struct(said, HEADERS_KEPT)
    for between_proxies in (CLIENT_PORT, DESTINATION):
        headers.pop(between_proxies, None)
    return OpenRequest(
        source,
        destination,
        place(common.upstream_local_address),
        place(common.upstream_remote_address),
        method_of(asked),
        headers.pop(":path", asked.path),
        headers.pop(":authority", asked.authority),
        {name: str(value) for name, value in headers.items()},
        frozenset(_struct(said, HEADERS_ABSENT)),
        _struct(said, JWT).get("payload", {}),
        proved(common).get("source_id", "") if from_abroad(common) else "",
    )


def cut(flow: Flow, rule: Rule | None, why: str) -> Flow:
    """The flow of a request that ended because a rule refuses it now."""
    extra = {name: text for name, text in flow.extra.items() if name != "mesh"}
    explicit = rule is not None and rule.index >= 0
    egress = rule is not None and rule.direction == "egress"
    return replace(
        flow,
        verdict=Verdict.DROPPED,
        direction="egress" if egress else "ingress",
        drop_reason=DropReason.POLICY_DENY if explicit else DropReason.POLICY_DENIED,
        egress_rule=rule if egress else None,
        ingress_rule=None if egress else rule,
        extra={**extra, "connection": "cut", "mesh": f"cut: {why or 'a rule refuses it now'}"},
    )


def _struct(said: Any, name: str) -> dict[str, Any]:
    return dict(MessageToDict(said[name])) if name in said else {}
