"""Ways of requests as Envoy's routes.

Pure. What the Gateway API leaves to us: without a word there is no timeout, and tried again is only
what was not sent, or what the backend says that it did not touch. Codes that a route wants tried
again are so for methods that may be repeated: a POST that failed is not paid twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.type.matcher.v3 import regex_pb2

from sixfold.mesh import on_demand
from sixfold.mesh.http_filters import counted, filters_of, string_match
from sixfold.mesh.resources import NETNS_STATE, set_header
from sixfold.mesh.routes import Backend, ServicePort, Way, first_of_each
from sixfold.model.duration import seconds
from sixfold.model.httproute import (
    Filter,
    HTTPMatch,
    Mirror,
    PathMatch,
    PathModifier,
    Redirect,
    Rewrite,
    ValueMatch,
    ValueType,
)
from sixfold.model.mesh import COPIES, COPY_TO
from sixfold.model.trafficpolicy import ConsistentHash

NOWHERE = "no such backend"  # no cluster is called so: answered 500
UNSENT = "connect-failure,refused-stream,reset-before-request"
UNSENT_TRIES = 2
NO_LIMIT = timedelta(0)
SCHEMES = {"http": 80, "https": 443}
Append = base_pb2.HeaderValueOption.HeaderAppendAction
RedirectCode = components.RedirectAction.RedirectResponseCode
REDIRECTS = {
    301: RedirectCode.MOVED_PERMANENTLY,
    302: RedirectCode.FOUND,
    303: RedirectCode.SEE_OTHER,
    307: RedirectCode.TEMPORARY_REDIRECT,
    308: RedirectCode.PERMANENT_REDIRECT,
}


SERVICES = "service|"  # so begin the names of clusters of services


def cluster_of(port: ServicePort) -> str:
    return f"{SERVICES}{port}"


class Front(NamedTuple):
    """Where clients dial a listener of a Gateway: a redirect may lead back there."""

    scheme: str
    port: int


def routes_of(ways: Sequence[Way], front: Front | None = None) -> list[components.Route]:
    """In the order in which they are asked; ``front``: of a Gateway."""
    return [route for way in ways for route in _routes(way, front)]


def _routes(way: Way, front: Front | None) -> Iterator[components.Route]:
    """Twice where only some methods may be tried again."""
    answer = _answer(way, front)
    if isinstance(answer, components.RouteAction) and way.retry is not None and way.retry.codes:
        repeated = components.RouteAction()
        repeated.CopyFrom(answer)
        repeated.retry_policy.CopyFrom(_retries(way))
        yield _route(way, repeated, [_method("|".join(way.repeatable), regex=True)])
    yield _route(way, answer)


def _route(way: Way, answer: Any, more: Iterable[dict[str, Any]] = ()) -> components.Route:
    match answer:
        case components.RedirectAction():
            action = {"redirect": answer}
        case components.DirectResponseAction():
            action = {"direct_response": answer}
        case _:
            action = {"route": answer}
    return components.Route(
        name=way.name,
        match=_match(way.match, more),
        typed_per_filter_config=filters_of(way),
        **_headers(way.filters),
        **action,
    )


# --- matches ------------------------------------------------------------------------------------


def _match(match: HTTPMatch, more: Iterable[dict[str, Any]]) -> components.RouteMatch:
    headers = [
        {"name": one.name, **string_match(one)} for one in first_of_each(match.headers).values()
    ]
    if match.method is not None:
        headers.append(_method(match.method))
    return components.RouteMatch(
        headers=[*headers, *more],
        query_parameters=[
            {"name": one.name, **string_match(one)}
            for one in first_of_each(match.query_params, str).values()
        ],
        **_path(match.path),
    )


def _path(path: PathMatch) -> dict[str, Any]:
    if path.type == "Exact":
        return {"path": path.value}
    if path.type == "RegularExpression":
        return {"safe_regex": {"regex": path.value}}
    prefix = path.value.rstrip("/")
    return {"path_separated_prefix": prefix} if prefix else {"prefix": "/"}


def _method(text: str, *, regex: bool = False) -> dict[str, Any]:
    kind: ValueType = "RegularExpression" if regex else "Exact"
    return {"name": ":method", **string_match(ValueMatch(":method", text, kind))}


# --- answers ------------------------------------------------------------------------------------


def _answer(
    way: Way, front: Front | None
) -> components.RedirectAction | components.DirectResponseAction | components.RouteAction:
    for step in way.filters:
        if step.request_redirect is not None:
            return _redirect(step.request_redirect, way.match.path, front)
    weighted = [one for one in way.backends if one.weight]
    if not weighted:
        return components.DirectResponseAction(status=500)
    action = components.RouteAction(
        timeout=_limit(way.timeout_s),
        cluster_not_found_response_code="INTERNAL_SERVER_ERROR",
        request_mirror_policies=list(_mirrors(way)),
        retry_policy=_unsent(way.try_s),
        upgrade_configs=[{"upgrade_type": "websocket"}],
        rate_limits=counted(way.limits),
        # A client is a pod, or an address outside.
        hash_policy=[
            *map(_hashed, way.hashes),
            {"filter_state": {"key": NETNS_STATE}},
            {"connection_properties": {"source_ip": True}},
        ],
        **_destination(weighted),
    )
    for step in way.filters:
        if step.url_rewrite is not None:
            action.MergeFrom(_rewrite(step.url_rewrite, way.match.path))
    return action


def _hashed(given: ConsistentHash) -> dict[str, Any]:
    """Of a request that has it nothing else counts."""
    if given.header is not None:
        return {"header": {"header_name": given.header}, "terminal": True}
    assert given.cookie is not None
    cookie: dict[str, Any] = {"name": given.cookie.name}
    if given.cookie.ttl is not None:
        cookie |= {"ttl": timedelta(seconds=seconds(given.cookie.ttl)), "path": "/"}
    return {"cookie": cookie, "terminal": True}


def _limit(limit_s: float) -> timedelta:
    return timedelta(seconds=limit_s) if limit_s else NO_LIMIT


def _destination(backends: Sequence[Backend]) -> dict[str, Any]:
    clusters = [
        {
            "name": cluster_of(one.to) if one.to is not None else NOWHERE,
            "weight": {"value": one.weight},
            **_headers(one.filters),
            **({} if one.to is not None else {"typed_per_filter_config": on_demand.never}),
        }
        for one in backends
    ]
    if len(clusters) == 1 and not backends[0].filters and backends[0].to is not None:
        return {"cluster": clusters[0]["name"]}
    return {"weighted_clusters": {"clusters": clusters}}


def _redirect(
    redirect: Redirect, path: PathMatch, front: Front | None
) -> components.RedirectAction:
    action = components.RedirectAction(
        host_redirect=redirect.hostname,
        port_redirect=_redirected_port(redirect, front),
        response_code=REDIRECTS[redirect.status_code],
    )
    if redirect.scheme is not None:
        action.scheme_redirect = redirect.scheme
    if redirect.path is not None and redirect.path.type == "ReplaceFullPath":
        action.path_redirect = redirect.path.replace_full_path or "/"
    elif redirect.path is not None:
        for field, value in _replaced_prefix(redirect.path, path).items():
            if isinstance(value, str):
                setattr(action, field, value)
            else:
                getattr(action, field).CopyFrom(value)
    return action


def _redirected_port(redirect: Redirect, front: Front | None) -> int:
    """A port that is not said is that of the scheme that is, or the listener's; of a Service it
    stays. 0: none, as it goes without saying."""
    if redirect.port is not None or front is None:
        return redirect.port or 0
    scheme = redirect.scheme or front.scheme
    port = SCHEMES[redirect.scheme] if redirect.scheme else front.port
    unsaid = redirect.hostname or front.port == SCHEMES[front.scheme]  # in what was asked
    return 0 if port == SCHEMES[scheme] and unsaid else port


def _rewrite(rewrite: Rewrite, path: PathMatch) -> components.RouteAction:
    fields: dict[str, Any] = {}
    if rewrite.hostname:
        fields["host_rewrite_literal"] = rewrite.hostname
    if rewrite.path is not None and rewrite.path.type == "ReplaceFullPath":
        fields["regex_rewrite"] = _substitution("^/.*$", rewrite.path.replace_full_path or "/")
    elif rewrite.path is not None:
        fields |= _replaced_prefix(rewrite.path, path)
    return components.RouteAction(**fields)


def _replaced_prefix(modifier: PathModifier, path: PathMatch) -> dict[str, Any]:
    """/foo becomes /bar, /foo/x becomes /bar/x: whole elements, and never two slashes."""
    old, new = path.value.rstrip("/"), (modifier.replace_prefix_match or "").rstrip("/")
    if not new:
        return {"regex_rewrite": _substitution(f"^{re.escape(old)}/*", "/")}
    return {"prefix_rewrite": new if old else f"{new}/"}


def _substitution(pattern: str, text: str) -> Any:

    return regex_pb2.RegexMatchAndSubstitute(
        pattern={"regex": pattern}, substitution=text.replace("\\", "\\\\")
    )


def _mirrors(way: Way) -> Iterator[dict[str, Any]]:
    """A backend that is none gets no copies; the others by way of ``mesh.copies``."""
    for at, step in enumerate(way.filters):
        target = way.mirrors.get(at)
        if step.request_mirror is None or target is None:
            continue
        yield {
            "cluster_header": COPIES,
            "request_headers_mutations": [set_header(COPY_TO, cluster_of(target))],
            "runtime_fraction": {"default_value": _share(step.request_mirror)},
        }


def _share(mirror: Mirror) -> dict[str, Any]:
    """In millionths, which is as fine as Envoy can."""
    millionths = 1_000_000
    if mirror.percent is not None:
        millionths = mirror.percent * 10_000
    elif mirror.fraction is not None:
        millionths = mirror.fraction.numerator * 1_000_000 // mirror.fraction.denominator
    return {"numerator": millionths, "denominator": "MILLION"}


# --- tries --------------------------------------------------------------------------------------


def _unsent(try_s: float) -> components.RetryPolicy:
    return _tried_again(UNSENT, UNSENT_TRIES, try_s)


def _retries(way: Way) -> components.RetryPolicy:
    retry = way.retry
    assert retry is not None
    policy = _tried_again(f"{UNSENT},retriable-status-codes,reset", retry.attempts, way.try_s)
    policy.retriable_status_codes.extend(retry.codes)
    if retry.backoff is not None and (base_s := seconds(retry.backoff)):
        policy.retry_back_off.base_interval.FromTimedelta(timedelta(seconds=base_s))
    return policy


def _tried_again(when: str, tries: int, try_s: float) -> components.RetryPolicy:
    policy = components.RetryPolicy(retry_on=when, num_retries={"value": tries})
    if try_s:
        policy.per_try_timeout.FromTimedelta(timedelta(seconds=try_s))
    return policy


# --- headers ------------------------------------------------------------------------------------


def _headers(steps: Iterable[Filter]) -> dict[str, Any]:
    """Of a route, or of one of its backends."""
    fields: dict[str, Any] = {}
    for step in steps:
        for side, modifier in (
            ("request", step.request_header_modifier),
            ("response", step.response_header_modifier),
        ):
            if modifier is not None:
                fields[f"{side}_headers_to_remove"] = list(modifier.remove)
                fields[f"{side}_headers_to_add"] = [
                    *(_value(one.name, one.value, replaces=True) for one in modifier.set),
                    *(_value(one.name, one.value, replaces=False) for one in modifier.add),
                ]
    return fields


def _value(name: str, text: str, *, replaces: bool) -> dict[str, Any]:
    append = Append.OVERWRITE_IF_EXISTS_OR_ADD if replaces else Append.APPEND_IF_EXISTS_OR_ADD
    literal = text.replace("%", "%%")  # Envoy has commands behind one
    return {"header": {"key": name, "value": literal}, "append_action": append}
