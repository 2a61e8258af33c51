"""What is wrong with an HTTPRoute, a GRPCRoute or a ReferenceGrant, beyond its shape.

Source: validation of the Gateway API 1.4 (its CRDs' schemas and CEL rules).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sixfold.manifest import names
from sixfold.manifest.metadata import between, said
from sixfold.manifest.path import Finding, Path
from sixfold.manifest.requests import is_token, regex
from sixfold.model.duration import seconds
from sixfold.model.gateway import GROUP
from sixfold.model.httproute import (
    BackendReference,
    Filter,
    GRPCMatch,
    GRPCRoute,
    GRPCRule,
    Header,
    HeaderModifier,
    HTTPMatch,
    HTTPRoute,
    HTTPRule,
    Mirror,
    ParentReference,
    PathModifier,
    Redirect,
    Rewrite,
    Route,
    Timeouts,
    ValueMatch,
)
from sixfold.model.streamroute import StreamRoute, TLSRoute

HOSTS_MAX = 16
PARENTS_MAX, RULES_MAX, MATCHES_MAX, FILTERS_MAX, BACKENDS_MAX = 32, 16, 64, 16, 16
WEIGHT_MAX = 1_000_000
SERVICE = ("", "Service")
PARENTS = (SERVICE, (GROUP, "Gateway"), (GROUP, "ListenerSet"))
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")
_GRPC_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*")
_FIELDS = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "RequestMirror": "request_mirror",
    "CORS": "cors",
}
_ONCE = set(_FIELDS) - {"RequestMirror"}
_OF_BACKENDS = ("RequestHeaderModifier", "ResponseHeaderModifier")


def route(obj: Route) -> Iterator[Finding]:
    """Findings about the spec."""
    path: Path = ("spec",)
    yield from _parents((*path, "parentRefs"), obj.spec.parent_refs)
    for index, host in enumerate(obj.spec.hostnames):
        here = (*path, "hostnames", index)
        yield from said(here, names.dns_subdomain(host.removeprefix("*.")))
    yield from _count((*path, "rules"), obj.spec.rules, 1, RULES_MAX)
    if isinstance(obj, HTTPRoute):
        for index, rule in enumerate(obj.spec.rules):
            yield from _http_rule((*path, "rules", index), rule)
    else:
        yield from _grpc_rules((*path, "rules"), obj)


def stream_route(obj: StreamRoute) -> Iterator[Finding]:
    """Findings about the spec."""
    path: Path = ("spec",)
    yield from _parents((*path, "parentRefs"), obj.spec.parent_refs)
    if isinstance(obj, TLSRoute):
        yield from _count((*path, "hostnames"), obj.spec.hostnames, 1, HOSTS_MAX)
        for index, host in enumerate(obj.spec.hostnames):
            here = (*path, "hostnames", index)
            yield from said(here, names.dns_subdomain(host.removeprefix("*.")))
    yield from _count((*path, "rules"), obj.spec.rules, 1, 1)
    for number, rule in enumerate(obj.spec.rules):
        here = (*path, "rules", number, "backendRefs")
        yield from _count(here, rule.backend_refs, 1, BACKENDS_MAX)
        yield from _backends(here, rule.backend_refs)


def _parents(path: Path, parents: Sequence[ParentReference]) -> Iterator[Finding]:
    yield from _count(path, parents, 1, PARENTS_MAX)
    for index, parent in enumerate(parents):
        here = (*path, index)
        kind = parent.group, parent.kind
        if kind not in PARENTS:
            what = f"{parent.kind} of {parent.group or 'core'}"
            message = f"{what} is no parent here; give a Gateway, or kind: Service with group: ''"
            yield Finding((*here, "kind"), message, also=((*here, "group"),))
        if parent.section_name and kind == SERVICE:
            yield Finding((*here, "sectionName"), "a Service has no sections; give port")
        yield from said((*here, "name"), names.dns_subdomain(parent.name))
        if parent.port is not None:
            yield from said((*here, "port"), names.port_number(parent.port))


def _http_rule(path: Path, rule: HTTPRule) -> Iterator[Finding]:
    yield from _count((*path, "matches"), rule.matches, 0, MATCHES_MAX)
    for index, match in enumerate(rule.matches):
        yield from _http_match((*path, "matches", index), match)
    yield from _filters((*path, "filters"), rule.filters)
    if any(step.request_redirect is not None for step in rule.filters) and rule.backend_refs:
        yield Finding((*path, "backendRefs"), "means nothing beside a RequestRedirect; remove it")
    yield from _prefix_of((*path, "filters"), rule)
    yield from _backends((*path, "backendRefs"), rule.backend_refs)
    yield from _session((*path, "sessionPersistence"), rule)
    yield from _timeouts((*path, "timeouts"), rule.timeouts)
    if rule.retry is not None:
        here = (*path, "retry")
        yield from between((*here, "attempts"), rule.retry.attempts, 0, 100)
        for index, code in enumerate(rule.retry.codes):
            yield from between((*here, "codes", index), code, 400, 599)
        yield from _duration((*here, "backoff"), rule.retry.backoff)


def _http_match(path: Path, match: HTTPMatch) -> Iterator[Finding]:
    here, value = (*path, "path", "value"), match.path.value
    if match.path.type == "RegularExpression":
        yield from regex(here, value)
    elif not value.startswith("/"):
        yield Finding(here, f"{names.quoted(value)} does not begin with /")
    elif not _PATH.fullmatch(value):
        yield Finding(here, f"{names.quoted(value)} has characters that no path has")
    elif any(part in value for part in ("//", "/./", "/../")) or value.endswith(("/..", "/.")):
        yield Finding(here, f"{names.quoted(value)}: requests are compared without //, . and ..")
    yield from header_values((*path, "headers"), match.headers)
    yield from header_values((*path, "queryParams"), match.query_params)


def header_values(path: Path, wanted: Sequence[ValueMatch]) -> Iterator[Finding]:
    """Of headers, or of query parameters."""
    yield from _count(path, wanted, 0, 16)
    for index, one in enumerate(wanted):
        if not is_token(one.name):
            yield Finding((*path, index, "name"), f"{names.quoted(one.name)} is no name")
        if one.type == "RegularExpression":
            yield from regex((*path, index, "value"), one.value)


def _grpc_rules(path: Path, obj: GRPCRoute) -> Iterator[Finding]:
    for number, rule in enumerate(obj.spec.rules):
        here = (*path, number)
        yield from _count((*here, "matches"), rule.matches, 0, MATCHES_MAX)
        for index, match in enumerate(rule.matches):
            yield from _grpc_match((*here, "matches", index), match)
        for index, step in enumerate(rule.filters):
            if step.type not in (*_OF_BACKENDS, "RequestMirror"):
                yield Finding((*here, "filters", index, "type"), f"{step.type} is not for calls")
        yield from _filters((*here, "filters"), rule.filters)
        yield from _backends((*here, "backendRefs"), rule.backend_refs)
        yield from _session((*here, "sessionPersistence"), rule)


def _session(path: Path, rule: HTTPRule | GRPCRule) -> Iterator[Finding]:
    session = rule.session_persistence
    if session is None:
        return
    if session.session_name and not is_token(session.session_name):
        message = f"{names.quoted(session.session_name)} is no name of a cookie or header"
        yield Finding((*path, "sessionName"), message)
    yield from _duration((*path, "absoluteTimeout"), session.absolute_timeout)
    kind = session.cookie_config.lifetime_type if session.cookie_config is not None else "Session"
    if session.type == "Header":
        if session.cookie_config is not None:
            yield Finding((*path, "cookieConfig"), "means nothing of a header; remove it")
        if session.absolute_timeout is not None:
            yield Finding((*path, "absoluteTimeout"), "a header has no end; give type: Cookie")
    elif (kind == "Permanent") != (session.absolute_timeout is not None):
        message = "absoluteTimeout goes with cookieConfig.lifetimeType: Permanent; give both"
        yield Finding((*path, "absoluteTimeout"), message)
    if sum(1 for one in rule.backend_refs if one.weight) > 1:
        message = "a session is kept within one Service; give one backendRef with a weight"
        yield Finding(path, message)


def _grpc_match(path: Path, match: GRPCMatch) -> Iterator[Finding]:
    yield from header_values((*path, "headers"), match.headers)
    if match.method is None:
        return
    here = (*path, "method")
    if not (match.method.service or match.method.method):
        yield Finding(here, "give service, method or both")
    for field, value in (("service", match.method.service), ("method", match.method.method)):
        if match.method.type == "RegularExpression":
            yield from regex((*here, field), value)
        elif value and not _GRPC_NAME.fullmatch(value):
            yield Finding((*here, field), f"{names.quoted(value)} is no name of gRPC")


def _filters(path: Path, steps: Sequence[Filter]) -> Iterator[Finding]:
    yield from _count(path, steps, 0, FILTERS_MAX)
    seen: set[str] = set()
    for index, step in enumerate(steps):
        here = (*path, index)
        given = [kind for kind, field in _FIELDS.items() if getattr(step, field) is not None]
        if given != [step.type]:
            message = f"type {step.type} goes with exactly {_camel(_FIELDS[step.type])}"
            yield Finding((*here, "type"), message)
            continue
        if step.type in _ONCE and step.type in seen:
            yield Finding((*here, "type"), f"a second {step.type}; keep one")
        seen.add(step.type)
        yield from _filter((*here, _camel(_FIELDS[step.type])), step)
    if {"RequestRedirect", "URLRewrite"} <= seen:
        yield Finding(path, "a request is redirected or rewritten, not both; remove one")


def _filter(path: Path, step: Filter) -> Iterator[Finding]:
    for modifier in (step.request_header_modifier, step.response_header_modifier):
        if modifier is not None:
            yield from _modifier(path, modifier)
    if step.request_redirect is not None:
        yield from _redirect(path, step.request_redirect)
    if step.url_rewrite is not None:
        yield from _rewrite(path, step.url_rewrite)
    if step.request_mirror is not None:
        yield from _mirror(path, step.request_mirror)
    if step.cors is not None:
        yield from between((*path, "maxAge"), step.cors.max_age, 1, 86400 * 365)
        if step.cors.allow_credentials and "*" in step.cors.allow_origins:
            message = "with allowCredentials, anybody's page could act for a user; name origins"
            yield Finding((*path, "allowOrigins"), message)


def _modifier(path: Path, modifier: HeaderModifier) -> Iterator[Finding]:
    given: tuple[tuple[str, Sequence[Header]], ...]
    given = (("set", modifier.set), ("add", modifier.add))
    for field, headers in given:
        for index, header in enumerate(headers):
            yield from _header_name((*path, field, index, "name"), header.name)
    for index, name in enumerate(modifier.remove):
        yield from _header_name((*path, "remove", index), name)


def _header_name(path: Path, name: str) -> Iterator[Finding]:
    if not is_token(name):
        yield Finding(path, f"{names.quoted(name)} is no name of a header")
    elif name.lower() in ("host", "x-sixfold-destination"):
        yield Finding(path, f"{name} says where a request goes; urlRewrite.hostname changes it")


def _redirect(path: Path, redirect: Redirect) -> Iterator[Finding]:
    if redirect.hostname:
        yield from said((*path, "hostname"), names.dns_subdomain(redirect.hostname))
    if redirect.port is not None:
        yield from said((*path, "port"), names.port_number(redirect.port))
    yield from _path_modifier((*path, "path"), redirect.path)


def _rewrite(path: Path, rewrite: Rewrite) -> Iterator[Finding]:
    if rewrite.hostname:
        yield from said((*path, "hostname"), names.dns_subdomain(rewrite.hostname))
    elif rewrite.path is None:
        yield Finding(path, "rewrites nothing; give hostname or path")
    yield from _path_modifier((*path, "path"), rewrite.path)


def _path_modifier(path: Path, modifier: PathModifier | None) -> Iterator[Finding]:
    if modifier is None:
        return
    given = {
        "ReplaceFullPath": modifier.replace_full_path,
        "ReplacePrefixMatch": modifier.replace_prefix_match,
    }
    if [kind for kind, value in given.items() if value is not None] != [modifier.type]:
        field = modifier.type[0].lower() + modifier.type[1:]
        yield Finding((*path, "type"), f"type {modifier.type} goes with exactly {field}")


def _prefix_of(path: Path, rule: HTTPRule) -> Iterator[Finding]:
    """A prefix is replaced where exactly one was matched."""
    for index, step in enumerate(rule.filters):
        for field, one in (
            ("requestRedirect", step.request_redirect),
            ("urlRewrite", step.url_rewrite),
        ):
            if one is None or one.path is None or one.path.type != "ReplacePrefixMatch":
                continue
            if [match.path.type for match in rule.matches or [HTTPMatch()]] != ["PathPrefix"]:
                message = "ReplacePrefixMatch goes with exactly one match, of type PathPrefix"
                yield Finding((*path, index, field, "path", "type"), message)


def _mirror(path: Path, mirror: Mirror) -> Iterator[Finding]:
    yield from _backend((*path, "backendRef"), mirror.backend_ref)
    if mirror.percent is not None and mirror.fraction is not None:
        yield Finding((*path, "fraction"), "give percent or fraction, not both")
    if mirror.percent is not None:
        yield from between((*path, "percent"), mirror.percent, 0, 100)
    if mirror.fraction is not None:
        here = (*path, "fraction")
        yield from between((*here, "denominator"), mirror.fraction.denominator, 1, 1_000_000)
        most = max(1, mirror.fraction.denominator)
        yield from between((*here, "numerator"), mirror.fraction.numerator, 0, most)


def _backends(path: Path, backends: Sequence[BackendReference]) -> Iterator[Finding]:
    yield from _count(path, backends, 0, BACKENDS_MAX)
    for index, backend in enumerate(backends):
        here = (*path, index)
        yield from _backend(here, backend)
        yield from between((*here, "weight"), backend.weight, 0, WEIGHT_MAX)
        for number, step in enumerate(getattr(backend, "filters", ())):
            at = (*here, "filters", number, "type")
            if step.type not in _OF_BACKENDS:
                yield Finding(at, f"{step.type} is for a rule, not for one of its backends")
        yield from _filters((*here, "filters"), getattr(backend, "filters", ()))


def _backend(path: Path, backend: BackendReference) -> Iterator[Finding]:
    if (backend.group, backend.kind) == ("", "Service"):
        if backend.port is None:
            yield Finding((*path, "port"), "is required for a Service; add it")
        else:
            yield from said((*path, "port"), names.port_number(backend.port))


def _timeouts(path: Path, timeouts: Timeouts) -> Iterator[Finding]:
    yield from _duration((*path, "request"), timeouts.request)
    yield from _duration((*path, "backendRequest"), timeouts.backend_request)
    if _is_over(timeouts.backend_request, timeouts.request):
        message = f"{timeouts.backend_request} is longer than request: {timeouts.request}"
        yield Finding((*path, "backendRequest"), message)


def _is_over(one: str | None, limit: str | None) -> bool:
    try:
        return bool(one and limit) and seconds(one or "") > seconds(limit or "") > 0
    except ValueError:
        return False  # said already


def _duration(path: Path, text: str | None) -> Iterator[Finding]:
    if text is not None:
        try:
            seconds(text)
        except ValueError as error:
            yield Finding(path, str(error))


def _count(path: Path, items: Sequence[object], least: int, most: int) -> Iterator[Finding]:
    if not least <= len(items) <= most:
        yield Finding(path, f"has {len(items)}; give {least} to {most}")


def _camel(field: str) -> str:
    if field == "url_rewrite":
        return "urlRewrite"
    first, *rest = field.split("_")
    return first + "".join(part.title() for part in rest)
