"""What a request passes before its backend is picked: CORS, faults, rate limits, sessions.

Pure. Every listener of requests has all of the filters, asleep; a route's own configuration wakes
one, and no other request pays for it. So what changes is in routes, never in listeners. Source:
Envoy's API, extensions.filters.http.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2 as local
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2 as sessions
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2
from envoy.type.v3.percent_pb2 import FractionalPercent as fractional
from google.protobuf import any_pb2

from sixfold.mesh import on_demand
from sixfold.mesh.messages import asleep, extension, packed
from sixfold.mesh.resources import ROUTER
from sixfold.mesh.routes import Limit, RuleName, Way
from sixfold.mesh.said import session_name
from sixfold.model.duration import seconds
from sixfold.model.httproute import Cors, SessionPersistence, ValueMatch
from sixfold.model.trafficpolicy import FaultInjection

# Written by the listener of a request: who it is counted as, alone and together with others.
CLIENT, CLIENTS = "x-sixfold-client", "x-sixfold-clients"
CORS, FAULT = "envoy.filters.http.cors", "envoy.filters.http.fault"
LIMIT, SESSION = "envoy.filters.http.local_ratelimit", "envoy.filters.http.stateful_session"
CLIENTS_MAX = 65_536  # that are counted one by one; then the longest silent is forgotten
UNLIMITED = 2**32 - 1


def http_filters() -> list[dict[str, Any]]:
    """Of every listener of requests."""
    return [
        on_demand.filter_,
        asleep(extension(CORS, cors_pb2.Cors())),
        asleep(extension(LIMIT, local.LocalRateLimit(stat_prefix="rate_limit"))),
        asleep(extension(FAULT, fault_pb2.HTTPFault())),
        asleep(extension(SESSION, sessions.StatefulSession())),
        ROUTER,
    ]


def filters_of(way: Way) -> dict[str, any_pb2.Any]:
    """What a way has of its own."""
    found = {}
    cors = next((step.cors for step in way.filters if step.cors is not None), None)
    if cors is not None:
        found[CORS] = packed(_cors(cors))
    if way.fault is not None:
        found[FAULT] = packed(_fault(way.fault))
    if way.session is not None and way.rule is not None:
        state = _session(way.session, way.rule)
        whole = sessions.StatefulSessionPerRoute(stateful_session={"session_state": state})
        found[SESSION] = packed(whole)
    return found


def filters_of_host(ways: Iterable[Way]) -> dict[str, any_pb2.Any]:
    """What its ways share: those that are counted together find one bucket."""
    limits = _each(limit for way in ways for limit in way.limits)
    return {LIMIT: packed(_limits(limits))} if limits else {}


def counted(limits: Sequence[Limit]) -> list[dict[str, Any]]:
    """Which buckets a request of a way is taken from."""
    return [{"actions": [_action(limit)]} for limit in _each(limits)]


def string_match(one: ValueMatch) -> dict[str, Any]:
    if one.type == "Exact":
        return {"string_match": {"exact": one.value}}
    return {"string_match": {"safe_regex": {"regex": one.value}}}


def _each(limits: Iterable[Limit]) -> list[Limit]:
    """Once, if it is there twice."""
    return list({_key(limit): limit for limit in limits}.values())


def _limits(limits: Sequence[Limit]) -> local.LocalRateLimit:
    """A bucket for each limit and client, or namespace of clients; one that is empty refuses."""
    endless = {
        "max_tokens": UNLIMITED,
        "tokens_per_fill": {"value": UNLIMITED},
        "fill_interval": timedelta(seconds=1),
    }
    return local.LocalRateLimit(
        stat_prefix="rate_limit",
        token_bucket=endless,
        filter_enabled=_always(),
        filter_enforced=_always(),
        descriptors=[_bucket(limit) for limit in limits],
        max_dynamic_descriptors={"value": CLIENTS_MAX},
        rate_limited_as_resource_exhausted=True,
    )


def _bucket(limit: Limit) -> dict[str, Any]:
    """The descriptor has no value of its own: it is a bucket for each value there is."""
    key, one = _key(limit), limit.rate
    return {
        "entries": [{"key": key}],
        "token_bucket": {
            "max_tokens": one.requests,
            "tokens_per_fill": {"value": one.requests},
            "fill_interval": timedelta(seconds=seconds(one.per)),
        },
    }


def _action(limit: Limit) -> dict[str, Any]:
    header = CLIENT if limit.rate.each == "Identity" else CLIENTS
    return {"request_headers": {"header_name": header, "descriptor_key": _key(limit)}}


def _key(limit: Limit) -> str:
    return f"{limit.owner}: {limit.rate.requests} in {limit.rate.per} of each {limit.rate.each}"


def _always() -> dict[str, Any]:
    return {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}


def _fault(fault: FaultInjection) -> fault_pb2.HTTPFault:
    found = fault_pb2.HTTPFault(
        headers=[{"name": one.name, **string_match(one)} for one in fault.headers]
    )
    if (delay := fault.delay) is not None:
        found.delay.fixed_delay.FromTimedelta(timedelta(seconds=seconds(delay.duration)))
        _share(found.delay.percentage, delay.percent)
    if (abort := fault.abort) is not None:
        if abort.grpc_status is not None:
            found.abort.grpc_status = abort.grpc_status
        else:
            assert abort.status is not None
            found.abort.http_status = abort.status
        _share(found.abort.percentage, abort.percent)
    return found


def _share(part: Any, percent: int) -> None:
    part.numerator, part.denominator = percent, fractional.HUNDRED


def _session(session: SessionPersistence, rule: RuleName) -> dict[str, Any]:
    name = session_name(session, rule)
    if session.type == "Header":
        return extension(
            "envoy.http.stateful_session.header", header_pb2.HeaderBasedSessionState(name=name)
        )
    cookie = cookie_pb2.CookieBasedSessionState(cookie={"name": name, "path": "/"})
    if session.absolute_timeout is not None:
        cookie.cookie.ttl.FromTimedelta(timedelta(seconds=seconds(session.absolute_timeout)))
    return extension("envoy.http.stateful_session.cookie", cookie)


def _cors(cors: Cors) -> cors_pb2.CorsPolicy:
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=[_origin(text) for text in cors.allow_origins],
        allow_methods=", ".join(cors.allow_methods),
        allow_headers=", ".join(cors.allow_headers),
        expose_headers=", ".join(cors.expose_headers),
        max_age=str(cors.max_age),
        allow_credentials={"value": cors.allow_credentials},
    )


def _origin(text: str) -> dict[str, Any]:
    """A star stands for a part of a name."""
    if "*" not in text:
        return {"exact": text}
    return {"safe_regex": {"regex": re.escape(text).replace(r"\*", ".*")}}
