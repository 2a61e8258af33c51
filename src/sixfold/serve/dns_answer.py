"""The resolver's answers from its own zones.

No sockets here: packet in, packet out, or the query when it has to be forwarded. A cache makes it
fast: it knows whole packets (all but the id), as most clients ask the same bytes again and again,
for each view. Any change of the zone or the views empties it, so an answer is never older than
they are. Answers with several records are kept in several rotations, and one is drawn at random.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from sixfold.discovery.wire import IN, TYPE_NAMES, encode_all
from sixfold.discovery.zone import Answer, Rcode, ZoneTree, lookup
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.serve.dns_alias import Alias
from sixfold.serve.dns_limits import Asking, Limit, Limits, Telling
from sixfold.serve.dns_views import Views
from sixfold.serve.dns_wire import (
    AA,
    OPCODE,
    QR,
    Malformed,
    Query,
    compose,
    parse_query,
    refuse,
)

CACHED_PACKETS_MAX = 16_384
CACHED_CLIENTS_MAX = 16_384
ROTATIONS_MAX = 8
TCP_MAX = 65_535


class Clients:
    """Who may ask: pods and this host, so that nobody on the uplink finds an open resolver."""

    KNOWN_MAX = 16_384

    def __init__(self, networks: Sequence[str] = ()) -> None:
        own = (f"{RESOLVER_IPV4}/32", f"{RESOLVER_IPV6}/128", "127.0.0.0/8", "::1/128")
        self._networks = [ip_network(text) for text in (*networks, *own)] if networks else []
        self._known: dict[str, bool] = {}

    def admit(self, address: str) -> bool:
        if not self._networks:
            return True
        admitted = self._known.get(address)
        if admitted is None:
            if len(self._known) >= self.KNOWN_MAX:
                self._known.clear()
            parsed = ip_address(address.partition("%")[0])
            admitted = any(parsed in network for network in self._networks)
            self._known[address] = admitted
        return admitted


@dataclass(frozen=True, slots=True)
class Known:
    """An answer that may be given again: all but the id, in its rotations."""

    rcode: str
    tails: Sequence[bytes]


class Responder:
    """Answers packets; ``zone`` is None until one was loaded or received."""

    def __init__(self) -> None:
        self.zone: ZoneTree | None = None
        self.views = Views()
        self.limits = Limits()
        self.statistics: Counter[str] = Counter()
        self.telling = Telling(self.statistics)
        self._cache: defaultdict[int, dict[bytes, Known]] = defaultdict(dict)  # by view
        self._clients: dict[bytes, dict[bytes, Known]] = {}  # by packed address
        self._cached = 0

    def zone_changed(self) -> None:
        """To be called after every change of the zone, the views, or who may ask."""
        self._cache.clear()
        self._clients.clear()
        self._cached = 0

    def recall(self, packet: bytes, address: bytes) -> bytes | None:
        """What somebody was answered to the same from this address or view; None: not known."""
        answers = self._clients.get(address)
        if answers is None or (known := answers.get(packet[2:])) is None:
            return None
        self.statistics[known.rcode] += 1
        return packet[:2] + _drawn(known.tails)

    def know(self, address: bytes, client: str) -> None:
        """From now on ``recall`` for who asks from there: he may, whatever it is."""
        if self.limits.of(client) is not None:
            return
        if len(self._clients) >= CACHED_CLIENTS_MAX:
            self._clients.clear()
        self._clients[address] = self._cache[self.views.of(client)]

    def respond(
        self, packet: bytes, client: str = "127.0.0.1", port: int = 0, *, tcp: bool = False
    ) -> bytes | Query | Alias | None:
        """The answer; what is to be asked upstream; None when it deserves no answer."""
        view, limited = self.views.of(client), self.limits.of(client)
        if not tcp and limited is None and (known := self._cache[view].get(packet[2:])) is not None:
            self.statistics[known.rcode] += 1
            return packet[:2] + _drawn(known.tails)
        try:
            query = parse_query(packet)
        except Malformed:
            return self._refuse(packet, Rcode.FORMERR)
        if query.flags & QR:
            return self._refuse(packet, Rcode.FORMERR)
        limit = TCP_MAX if tcp else query.udp_limit
        if (reason := self._unwanted(query)) is not None:
            return self.refuse(query, reason, limit)
        assert self.zone is not None, "an unsynced zone is SERVFAIL"
        type_ = TYPE_NAMES.get(query.type, f"TYPE{query.type}")
        answer = lookup(self.zone, query.name, type_, self.views.sees(view))
        if limited is not None and not limited.names.of(query.name):
            who = Asking(client, port, "TCP" if tcp else "UDP")
            if self._refused(limited, who, query.name, type_, answer):
                return self.refuse(query, Rcode.REFUSED, limit)
        if answer is None:
            # A single label was never meant for the world; libc asks it last.
            if query.name and "." not in query.name:
                return self.refuse(query, Rcode.NXDOMAIN, limit)
            return query
        if answer.beyond:
            return Alias.of(query, answer)
        self.statistics[answer.rcode.name] += 1
        variants = _render(query, answer, limit)
        if not tcp and limited is None:
            if self._cached >= CACHED_PACKETS_MAX:
                self.zone_changed()
            tails = [variant[2:] for variant in variants]
            self._cache[view][packet[2:]] = Known(answer.rcode.name, tails)
            self._cached += 1
        return _drawn(variants)

    def _refused(
        self, limit: Limit, who: Asking, name: str, type_: str, answer: Answer | None
    ) -> bool:
        """Whether a name that a client must not ask for is refused, and not told only."""
        if answer is not None and answer.rcode is Rcode.NXDOMAIN:
            return False
        self.telling.tell(who, name, type_, time.monotonic(), audit=limit.audit)
        return not limit.audit

    def refuse(self, query: Query, rcode: Rcode, limit: int) -> bytes:
        """An answer without records."""
        self.statistics[rcode.name] += 1
        return compose(query, rcode, limit=limit)

    def _refuse(self, packet: bytes, rcode: Rcode) -> bytes | None:
        answer = refuse(packet, rcode)
        self.statistics[rcode.name if answer is not None else "dropped"] += 1
        return answer

    def _unwanted(self, query: Query) -> Rcode | None:
        """Why a well-formed query is not even looked up."""
        if query.flags & OPCODE:
            return Rcode.NOTIMP
        if query.edns is not None and query.edns.version:
            return Rcode.BADVERS
        if query.class_ != IN or TYPE_NAMES.get(query.type) in ("AXFR", "IXFR"):
            return Rcode.REFUSED
        return Rcode.SERVFAIL if self.zone is None else None


def _drawn(variants: Sequence[bytes]) -> bytes:
    """One of them, all alike."""
    return variants[0] if len(variants) == 1 else variants[int(random.random() * len(variants))]


def _render(query: Query, answer: Answer, limit: int) -> list[bytes]:
    """Whole messages, one for each rotation of the answers that is kept."""
    answers = encode_all(answer.answers, query.name)
    rest = (encode_all(answer.authority, query.name), encode_all(answer.additional, query.name))
    return [
        compose(
            query,
            answer.rcode,
            (answers[start:] + answers[:start], *rest),
            limit=limit,
            flags=AA,
        )
        for start in _rotations(answer) or (0,)
    ]


def _rotations(answer: Answer) -> Sequence[int]:
    """Where the answers may begin: a chain of aliases has an order."""
    if any(rrset.type == "CNAME" for rrset in answer.answers):
        return (0,)
    count = sum(len(rrset.rdata) for rrset in answer.answers)
    return range(count) if count <= ROTATIONS_MAX else random.sample(range(count), ROTATIONS_MAX)
