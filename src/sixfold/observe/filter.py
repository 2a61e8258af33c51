"""Which flows does the user want to see?

Pure. A filter is a conjunction; a field given several times is a disjunction within itself, as
in Hubble. Text is parsed once, at the border; matching never fails.

A peer (``--from``, ``--to``) is one of

    shop/            everything in namespace shop
    shop/web         pod web, the pods of workload web, or pods named web-…
    web              the same in any namespace
    web*             pods whose name starts so
    Deployment/web   the pods of that workload (also shop/Deployment/web)
    host, world, resolver, unknown
    192.0.2.7        an address; 192.0.2.0/24 a block
    api.example.org  a name of the world that the address was known by; *.example.org others
    app=web          a label; 1234 an identity
    !web             any other: what "!" excludes stays out whatever else is asked for
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network

from sixfold.errors import SixfoldError
from sixfold.model.dial import Dial
from sixfold.model.domain import matches, plain_name
from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import RESERVED_NAMES
from sixfold.model.reason import DropReason

PeerMatch = Callable[[Peer], bool]
RESERVED = {name.removeprefix("reserved:"): number for number, name in RESERVED_NAMES.items()}
PROTOCOLS: dict[str, frozenset[int]] = {
    "icmp": frozenset({1, 58}),
    "icmpv4": frozenset({1}),
    "icmpv6": frozenset({58}),
    "tcp": frozenset({6}),
    "udp": frozenset({17}),
    "sctp": frozenset({132}),
}
STALE: dict[str, Callable[[Flow], bool]] = {
    "any": lambda flow: flow.dial is not Dial.FRESH or flow.redirected,
    "retired": lambda flow: flow.dial is Dial.RETIRED,
    "expired": lambda flow: flow.dial is Dial.EXPIRED,
    "no_lookup": lambda flow: flow.dial is Dial.NO_LOOKUP,
    "redirected": lambda flow: flow.redirected,
}
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


Params = Mapping[str, str | Sequence[str]]  # each string a comma-separated list


class FilterError(SixfoldError, ValueError):
    """A filter that cannot be read; the message names the option."""


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """What a flow must satisfy; empty fields ask nothing."""

    sources: tuple[PeerMatch, ...] = ()
    destinations: tuple[PeerMatch, ...] = ()
    not_sources: tuple[PeerMatch, ...] = ()
    not_destinations: tuple[PeerMatch, ...] = ()
    verdicts: frozenset[Verdict] = frozenset()
    ports: frozenset[int] = frozenset()  # of either side, or of the service
    protocols: frozenset[int] = frozenset()
    namespaces: frozenset[str] = frozenset()  # of either side
    drop_reasons: frozenset[DropReason] = frozenset()
    directions: frozenset[str] = frozenset()  # "ingress", "egress"
    stale: frozenset[str] = frozenset()  # words of STALE
    since_ns: int | None = None
    until_ns: int | None = None

    @classmethod
    def parse(cls, params: Params, now_ns: int) -> FlowFilter:
        """Read options by their name (``from``, ``drop_reason``…); raises FilterError."""
        return cls(
            sources=_peers(params, "from"),
            destinations=_peers(params, "to"),
            not_sources=_peers(params, "from", negated=True),
            not_destinations=_peers(params, "to", negated=True),
            verdicts=frozenset(map(_verdict, _values(params, "verdict"))),
            ports=frozenset(map(_port, _values(params, "port"))),
            protocols=frozenset().union(*map(_protocol, _values(params, "protocol"))),
            namespaces=frozenset(_values(params, "namespace")),
            drop_reasons=frozenset(map(_reason, _values(params, "drop_reason"))),
            directions=frozenset(map(_direction, _values(params, "traffic_direction"))),
            stale=frozenset(map(_stale, _values(params, "stale"))),
            since_ns=_bound("since", params, now_ns),
            until_ns=_bound("until", params, now_ns),
        )

    def matches(self, flow: Flow) -> bool:
        """Whether the flow satisfies every field."""
        return (
            (self.since_ns is None or flow.time_ns >= self.since_ns)
            and (self.until_ns is None or flow.time_ns <= self.until_ns)
            and (not self.verdicts or flow.verdict in self.verdicts)
            and (not self.drop_reasons or flow.drop_reason in self.drop_reasons)
            and (not self.directions or flow.direction in self.directions)
            and (not self.stale or any(STALE[word](flow) for word in self.stale))
            and (not self.protocols or flow.protocol in self.protocols)
            and (not self.ports or not self.ports.isdisjoint(_ports(flow)))
            and (not self.namespaces or not self.namespaces.isdisjoint(_namespaces(flow)))
            and (not self.sources or any(match(flow.source) for match in self.sources))
            and (not self.destinations or any(self._reaches(flow, m) for m in self.destinations))
            and not any(match(flow.source) for match in self.not_sources)
            and not any(self._reaches(flow, match) for match in self.not_destinations)
        )

    @staticmethod
    def _reaches(flow: Flow, match: PeerMatch) -> bool:
        """A service that was dialled counts as a destination by its name."""
        if match(flow.destination):
            return True
        if not flow.service:
            return False
        namespace, _, name = flow.service.partition("/")
        dialled = Peer(
            flow.destination.address, flow.service_port, flow.destination.identity, namespace, name
        )
        return match(dialled)


def _peers(params: Params, name: str, *, negated: bool = False) -> tuple[PeerMatch, ...]:
    return tuple(
        peer_match(text.removeprefix("!"))
        for text in _values(params, name)
        if text.startswith("!") == negated
    )


def peer_match(text: str) -> PeerMatch:
    """Read one peer; see the module's table. Raises FilterError."""
    if not text:
        raise FilterError("peer: empty; give a pod, a namespace/, an address, a label or a number")
    if text in RESERVED:
        return lambda peer: peer.identity == RESERVED[text]
    if text.isdecimal():
        return lambda peer: peer.identity == int(text)
    if "=" in text:
        return _label_match(text)
    if (block := _block_match(text)) is not None:
        return block
    return _name_match(text)


def _label_match(text: str) -> PeerMatch:
    wanted = text if ":" in text.partition("=")[0] else f"k8s:{text}"
    if wanted.endswith("="):  # Cilium spells an empty value without "="
        wanted = wanted.removesuffix("=")
    return lambda peer: wanted in peer.labels


def _block_match(text: str) -> PeerMatch | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    return lambda peer: peer.address in network


def _name_match(text: str) -> PeerMatch:
    parts = text.split("/")
    # Namespaces are lower case, kinds are not: "Deployment/web" is no namespace.
    if len(parts) == 2 and parts[0][:1].isupper():
        parts.insert(0, "")
    match parts:
        case [name]:
            namespace, kind = "", ""
        case [namespace, name]:
            kind = ""
        case [namespace, kind, name]:
            pass
        case _:
            raise FilterError(f"{text!r}: not a name; give namespace/pod or namespace/Kind/name")
    stem = name.removesuffix("*")
    domain = plain_name(name) if "." in name and not namespace else ""

    def match_name(peer: Peer) -> bool:
        if domain and any(matches(domain, one) for one in peer.names):
            return True
        if not peer.pod or (namespace and peer.namespace != namespace):
            return False
        if kind:
            return peer.workload == f"{kind}/{name}"
        if stem != name or not name:
            return peer.pod.startswith(stem)
        return (
            peer.pod == name
            or peer.pod.startswith(f"{name}-")
            or peer.workload.partition("/")[2] == name
        )

    return match_name


def parse_time_ns(text: str, now_ns: int) -> int:
    """A moment: RFC 3339, or how long ago ("90s", "5m", "1h30m"). Raises FilterError."""
    if (ago_s := duration_s(text)) is not None:
        return now_ns - int(ago_s * 1e9)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FilterError(f"{text!r}: not a time; give 5m, 1h30m or an RFC 3339 time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = int(moment.timestamp() // 1) * 10**9
    return whole + moment.microsecond * 1000


def duration_s(text: str) -> float | None:
    """Seconds in "1h30m"; None when the text is no duration."""
    total, number, rest = 0.0, "", text.removeprefix("-")
    if not rest:
        return None
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyz"))]
        rest = rest[len(unit) :]
        try:
            total += float(number) * SECONDS[unit]
        except (KeyError, ValueError):
            return None
    return total


def _values(params: Params, name: str) -> list[str]:
    given = params.get(name, ())
    texts = (given,) if isinstance(given, str) else given
    return [part for text in texts for part in text.split(",") if part]


def _bound(name: str, params: Params, now_ns: int) -> int | None:
    texts = _values(params, name)
    return parse_time_ns(texts[-1], now_ns) if texts else None


def _ports(flow: Flow) -> tuple[int, ...]:
    return (flow.destination.port, flow.source.port, flow.service_port)


def _namespaces(flow: Flow) -> tuple[str, ...]:
    service = flow.service.partition("/")[0]
    return tuple(n for n in (flow.source.namespace, flow.destination.namespace, service) if n)


def _verdict(text: str) -> Verdict:
    try:
        return Verdict[text.upper()]
    except KeyError:
        known = ", ".join(verdict.name for verdict in Verdict)
        raise FilterError(f"verdict {text!r}: unknown; one of {known}") from None


def _reason(text: str) -> DropReason:
    name = text.upper().replace("-", "_").replace(" ", "_")
    try:
        return DropReason(int(text)) if text.isdecimal() else DropReason[name]
    except (KeyError, ValueError):
        known = ", ".join(reason.name.lower() for reason in DropReason if reason)
        raise FilterError(f"drop reason {text!r}: unknown; one of {known}") from None


def _direction(text: str) -> str:
    if text.lower() not in ("ingress", "egress"):
        raise FilterError(f"traffic direction {text!r}: ingress or egress")
    return text.lower()


def _stale(text: str) -> str:
    word = text.lower().replace("-", "_")
    if word not in STALE:
        raise FilterError(f"stale {text!r}: unknown; one of {', '.join(STALE)}")
    return word


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise FilterError(f"port {text!r}: not a port; give 1 to 65535")
    return int(text)


def _protocol(text: str) -> frozenset[int]:
    if (known := PROTOCOLS.get(text.lower())) is not None:
        return known
    if text.isdecimal() and int(text) <= 255:
        return frozenset({int(text)})
    raise FilterError(f"protocol {text!r}: unknown; one of {', '.join(PROTOCOLS)}, or a number")
