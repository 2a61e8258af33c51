"""Registrations: what a process says of itself to the Consul API, and how it fares.

Pure: a request's JSON in, typed values or a reason out; time is an argument. Source: Consul's
agent API (register service, register check). Keys come in any case, with or without underscores:
clients in Python send ``check_id``, those in Go ``CheckID``. What is not done here is refused
with words, unless it is empty or says what happens anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

Status = Literal["passing", "warning", "critical", "maintenance"]
CheckType = Literal["ttl", "http", "tcp", "grpc", "maintenance"]
STATUSES: tuple[Status, ...] = ("passing", "warning", "critical")
INTERVAL_MIN_S = 1.0
DEREGISTER_MIN_S = 60.0  # as Consul has it
TIMEOUT_S = 10.0
TEXT_MAX = 4096  # of an output or note
ITEMS_MAX = 64  # tags, meta entries, checks
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?")
_ID = re.compile(r"[\x21-\x7e]{1,255}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class RegistrationError(ValueError):
    """The request cannot be taken; the message says why."""


class Check(msgspec.Struct, frozen=True):
    """What is asked, and how answers add up. ``url`` is Consul's HTTP, TCP or GRPC value."""

    id: str
    name: str
    type: CheckType
    notes: str = ""
    url: str = ""
    header: dict[str, list[str]] = {}
    ttl_s: float = 0.0
    interval_s: float = 0.0
    timeout_s: float = TIMEOUT_S
    initial: Status = "critical"
    deregister_after_s: float = 0.0  # 0: never
    successes: int = 0  # Consul's "before": so many are not enough
    failures: int = 0

    @property
    def destination(self) -> tuple[str, int]:
        """Host and port that the agent dials; ("", 0) when it dials nobody."""
        return split_destination(self.type, self.url)


class Registration(msgspec.Struct, frozen=True):
    """One instance of a service. ``address`` "": that of the node.

    owner  the pod that registered itself, or that has the address; "" is nobody's
    uid    of that pod: what comes after it is somebody else
    """

    id: str
    name: str
    namespace: str
    port: int = 0
    address: str = ""
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    weight: int = 1
    checks: tuple[Check, ...] = ()
    owner: str = ""
    uid: str = ""
    own: bool = False  # the pod did it, not the operator

    @property
    def service(self) -> str:
        """The key of the Service that it stands behind."""
        return f"{self.namespace}/{self.name}"


class Health(msgspec.Struct, frozen=True):
    """How one check fares. ``due_s``: when it is asked again, or when its TTL
    is over; None: it is."""

    status: Status
    output: str = ""
    due_s: float | None = 0.0
    critical_since_s: float | None = None
    streak: int = 0  # of results that agree, and that the status does not follow yet


def begin(check: Check, now_s: float) -> Health:
    """A check that nobody has asked yet. One that is dialled is asked at once."""
    due_s = now_s + check.ttl_s if check.type == "ttl" else now_s
    return Health(check.initial, "", due_s, now_s if check.initial == "critical" else None)


def report(check: Check, health: Health, status: Status, output: str, now_s: float) -> Health:
    """After a result: an answer of a probe, or what a client says of a TTL."""
    due_s = now_s + (check.ttl_s if check.type == "ttl" else check.interval_s)
    shown, streak = status, 0
    if status != health.status and check.type != "ttl":
        streak = health.streak + 1
        enough = check.failures if status == "critical" else check.successes
        if status != "warning" and streak <= enough - 1:
            shown = health.status
        else:
            streak = 0
    since = health.critical_since_s if health.critical_since_s is not None else now_s
    return Health(shown, output[:TEXT_MAX], due_s, since if shown == "critical" else None, streak)


def expire(check: Check, health: Health, now_s: float) -> Health:
    """A TTL that nobody renewed."""
    if check.type != "ttl" or health.due_s is None or now_s < health.due_s:
        return health
    since = health.critical_since_s if health.critical_since_s is not None else now_s
    return Health("critical", "TTL expired", None, since)


def is_overdue(check: Check, health: Health, now_s: float) -> bool:
    """Whether its service has been critical for so long that it goes."""
    since, after_s = health.critical_since_s, check.deregister_after_s
    return since is not None and after_s > 0 and now_s >= since + after_s


def worst(statuses: Iterable[Status]) -> Status:
    """The status of an instance, out of those of its checks."""
    order: Sequence[Status] = ("passing", "warning", "critical", "maintenance")
    return max(statuses, key=order.index, default="passing")


# --- requests -------------------------------------------------------------------------------

_SERVICE_FIELDS = frozenset(
    ("id", "name", "namespace", "tags", "address", "port", "meta", "weights", "check", "checks")
)
_CHECK_FIELDS = frozenset(
    (
        *("id", "checkid", "name", "notes", "status", "ttl", "http", "tcp", "grpc", "interval"),
        *("timeout", "header", "method", "tlsskipverify", "deregistercriticalserviceafter"),
        *("successbeforepassing", "failuresbeforecritical", "serviceid", "namespace"),
    )
)
_TOKENS = frozenset(("token", "replaceexistingchecks", "partition", "datacenter"))


def parse_registration(body: object, default_namespace: str) -> Registration:
    """A register request; RegistrationError when it asks for what is not done here."""
    asked = _fields(body, _SERVICE_FIELDS, "service")
    name, namespace = split_name(
        str(asked.get("name") or ""), str(asked.get("namespace") or default_namespace)
    )
    id_ = str(asked.get("id") or name)
    if not _ID.fullmatch(id_):
        raise RegistrationError(f"ID {id_[:40]!r}: give 1 to 255 printable characters, no spaces")
    port = asked.get("port") or 0
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise RegistrationError(f"Port {port!r}: give 1 to 65535")
    single = asked.get("check")
    several = asked.get("checks") or []
    if not isinstance(several, list) or len(several) > ITEMS_MAX:
        raise RegistrationError(f"Checks: give a list of at most {ITEMS_MAX}")
    bodies = ([single] if single else []) + several
    checks = tuple(
        parse_check(one, f"service:{id_}" + (f":{n}" if len(bodies) > 1 else ""), f"{name} check")
        for n, one in enumerate(bodies, 1)
    )
    if len({check.id for check in checks}) < len(checks):
        raise RegistrationError("Checks: the same CheckID twice; give each its own")
    weights = _fields(asked.get("weights") or {}, frozenset(("passing", "warning")), "weights")
    weight = weights.get("passing", 1)
    if not isinstance(weight, int) or not 0 <= weight <= 100:
        raise RegistrationError(f"Weights.Passing {weight!r}: give 0 to 100")
    return Registration(
        id=id_,
        name=name,
        namespace=namespace,
        port=port,
        address=_address(str(asked.get("address") or "")),
        tags=_tags(asked.get("tags")),
        meta=_meta(asked.get("meta")),
        weight=weight,
        checks=checks,
    )


def parse_check(body: object, id_: str, name: str) -> Check:
    """One check. ``id_`` and ``name`` are taken when the request names none."""
    asked = _fields(body, _CHECK_FIELDS, "check")
    kinds = [kind for kind in ("ttl", "http", "tcp", "grpc") if asked.get(kind)]
    if len(kinds) != 1:
        given = ", ".join(kind.upper() for kind in kinds) or "none of them"
        raise RegistrationError(f"check: give one of TTL, HTTP, TCP, GRPC; there is {given}")
    kind: Any = kinds[0]
    status = asked.get("status") or "critical"
    if status not in STATUSES:
        raise RegistrationError(f"Status {status!r}: give one of {', '.join(STATUSES)}")
    after_s = duration_s(asked.get("deregistercriticalserviceafter") or 0)
    url = "" if kind == "ttl" else str(asked[kind])
    check = Check(
        id=str(asked.get("checkid") or asked.get("id") or id_),
        name=str(asked.get("name") or name),
        type=kind,
        notes=str(asked.get("notes") or "")[:TEXT_MAX],
        url=url,
        header=_header(asked.get("header")),
        ttl_s=duration_s(asked["ttl"]) if kind == "ttl" else 0.0,
        interval_s=0.0 if kind == "ttl" else duration_s(asked.get("interval") or 0),
        timeout_s=duration_s(asked.get("timeout") or TIMEOUT_S),
        initial=status,
        deregister_after_s=max(after_s, DEREGISTER_MIN_S) if after_s else 0.0,
        successes=_count(asked, "successbeforepassing"),
        failures=_count(asked, "failuresbeforecritical"),
    )
    if not _ID.fullmatch(check.id):
        raise RegistrationError(f"CheckID {check.id[:40]!r}: give printable characters, no spaces")
    if kind == "ttl" and check.ttl_s <= 0:
        raise RegistrationError("TTL: give a duration above 0, as 30s")
    if kind != "ttl" and check.interval_s < INTERVAL_MIN_S:
        raise RegistrationError(f"Interval: give {INTERVAL_MIN_S:g}s or more")
    if str(asked.get("method") or "GET").upper() != "GET":
        raise RegistrationError("Method: only GET is asked")
    if url.startswith("https:") and not asked.get("tlsskipverify"):
        raise RegistrationError("HTTP: certificates are not looked at here; set TLSSkipVerify")
    if kind != "ttl":
        split_destination(kind, url)
    return check


def split_name(name: str, namespace: str) -> tuple[str, str]:
    """Name and namespace: ``web.shop`` is service web of namespace shop."""
    if not _NAME.fullmatch(name):
        raise RegistrationError(
            f"Name {name[:80]!r}: give the name of a Service, as web, or web.shop for another "
            "namespace's"
        )
    label, _, other = name.partition(".")
    return label, other or namespace


def split_destination(type_: str, url: str) -> tuple[str, int]:
    """Host and port of an HTTP URL, ``host:port``, or ``host:port/service``."""
    if type_ not in ("http", "tcp", "grpc"):
        return "", 0
    try:
        parts = urlsplit(url if type_ == "http" else f"//{url}")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise RegistrationError(f"{type_.upper()} {url[:80]!r}: {error}") from None
    wanted = parts.scheme in ("http", "https") if type_ == "http" else True
    if not wanted or not parts.hostname or not port or any(c <= " " for c in url):
        form = "http://HOST:PORT/PATH" if type_ == "http" else "HOST:PORT"
        raise RegistrationError(f"{type_.upper()} {url[:80]!r}: give {form}")
    return parts.hostname, port


def duration_s(value: object) -> float:
    """Go's durations (``1m30s``); a number counts nanoseconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value * 1e-9 if value >= 1e6 else float(value)
    parts = _DURATION.findall(str(value))
    if not parts or "".join(number + unit for number, unit in parts) != str(value):
        raise RegistrationError(f"duration {str(value)[:40]!r}: give one as 10s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _fields(body: object, known: frozenset[str], what: str) -> dict[str, Any]:
    """The fields by their lower-case names; what is not done here only when it is empty."""
    if not isinstance(body, Mapping):
        raise RegistrationError(f"{what}: give a JSON object")
    found = {}
    for name, value in body.items():
        plain = str(name).lower().replace("_", "")
        if plain in known:
            found[plain] = value
        elif plain not in _TOKENS and value not in (None, "", False, 0, [], {}):
            raise RegistrationError(f"{what}: {str(name)[:60]}: not supported; leave it out")
    return found


def _count(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name) or 0
    if not isinstance(value, int) or not 0 <= value <= 100:
        raise RegistrationError(f"{name} {value!r}: give 0 to 100")
    return value


def _address(text: str) -> str:
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        raise RegistrationError(f"Address {text[:60]!r}: give an IP address, or none") from None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise RegistrationError(f"Address {text}: nobody else reaches it; give another, or none")
    if address.is_link_local:
        raise RegistrationError(f"Address {text}: is of one link only; give another, or none")
    return str(address)


def _tags(value: object) -> tuple[str, ...]:
    tags = value or []
    if not isinstance(tags, list) or len(tags) > ITEMS_MAX:
        raise RegistrationError(f"Tags: give a list of at most {ITEMS_MAX}")
    return tuple(str(tag)[:255] for tag in tags)


def _meta(value: object) -> dict[str, str]:
    meta = value or {}
    if not isinstance(meta, Mapping) or len(meta) > ITEMS_MAX:
        raise RegistrationError(f"Meta: give an object of at most {ITEMS_MAX} strings")
    return {str(key)[:128]: str(text)[:512] for key, text in meta.items()}


def _header(value: object) -> dict[str, list[str]]:
    header = value or {}
    if not isinstance(header, Mapping):
        raise RegistrationError("Header: give an object of lists")
    return {
        str(name): [str(one) for one in (values if isinstance(values, list) else [values])]
        for name, values in header.items()
    }
