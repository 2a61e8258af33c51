"""A zone: records, and what a DNS question about them is answered.

Pure: no wire format, no sockets, no clock. Source: RFC 1034 §4.3.2, RFC 2308 (negative answers),
RFC 6604 (of a chain of aliases the last name decides), RFC 8020 (a name above another name
exists), RFC 8482 (ANY), and CoreDNS's ``kubernetes`` plugin.

Names are lower case and without the final dot; the root is "". Rdata is text in presentation
format, so that a zone can be read, compared and kept in a file. The type "" marks a name that
exists and has no records.

Whose a name is, the name says (``owner_of``). Who may not know of its owner is answered as if the
name, and all below it, did not exist; an address is called by the names only that one may know.
Which owners those are is not discovery's to say: see ``policy/views.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from sixfold.balancing.changes import changes

EXISTS = ""  # record type of a name without records
CHAIN_MAX = 8  # aliases one after the other
SOA_REFRESH_S, SOA_RETRY_S, SOA_EXPIRE_S = 7200, 1800, 86400

IPAddress = IPv4Address | IPv6Address
Rdata = tuple[str, ...]
Owner = str  # "namespace/service", or the address of a pod
Sees = Callable[[Owner], bool]


class RecordKey(NamedTuple):
    """Owner name and type of one record set."""

    name: str
    type: str


Zone = Mapping[RecordKey, Rdata]


class Rcode(IntEnum):
    """Response codes of RFC 1035 and RFC 6891, as far as we send them."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class RRset(NamedTuple):
    """One record set of an answer."""

    name: str
    type: str
    ttl_s: int
    rdata: Rdata


class Answer(NamedTuple):
    """What a question is answered; ``authority`` holds the SOA of a negative answer.

    beyond  the aliases end at this name, which is in no zone of ours: upstream has the rest
    """

    rcode: Rcode
    answers: tuple[RRset, ...] = ()
    authority: tuple[RRset, ...] = ()
    additional: tuple[RRset, ...] = ()
    beyond: str = ""


@dataclass(frozen=True, slots=True)
class ZoneDelta:
    """What turns one set of records into the next."""

    set: Zone = field(default_factory=dict)
    delete: frozenset[RecordKey] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.set or self.delete)


@dataclass(frozen=True, slots=True)
class ZoneSettings:
    """What a zone is, apart from its records."""

    origins: tuple[str, ...]  # names we are the authority for; the first is the cluster domain
    ttl_s: int = 5
    pods_insecure: bool = False  # 192-0-2-1.ns.pod answers itself, whether it exists or not


def difference(old: Zone, new: Zone) -> ZoneDelta:
    """What turns one zone into another."""
    gone, changed = changes(old, new)
    return ZoneDelta(
        {key: new[key] for key in changed if old.get(key) != new[key]}, frozenset(gone)
    )


class ZoneTree:
    """Records with the tree of names above them; changes cost what they change."""

    def __init__(self, settings: ZoneSettings, records: Zone | None = None) -> None:
        self.settings = settings
        self.serial = 1
        self._records: dict[RecordKey, Rdata] = {}
        self._names: dict[str, int] = {}  # records at or below each name
        self._origins = frozenset(settings.origins)
        self.update(ZoneDelta(records or {}))

    @property
    def records(self) -> Zone:
        return self._records

    def update(self, delta: ZoneDelta) -> None:
        """Take a change; deleting what is not there is no error."""
        for key in delta.delete:
            if self._records.pop(key, None) is not None:
                self._count(key.name, -1)
        for key, rdata in delta.set.items():
            if key not in self._records:
                self._count(key.name, 1)
            self._records[key] = rdata
        self.serial += 1

    def origin_of(self, name: str) -> str | None:
        """The zone of ours that a name lies in; None when it is not ours to answer."""
        for ancestor in ancestors(name):
            if ancestor in self._origins:
                return ancestor
        return None

    def exists(self, name: str) -> bool:
        return name in self._names or name in self._origins

    def get(self, name: str, type_: str) -> Rdata:
        return self._records.get(RecordKey(name, type_), ())

    def types_at(self, name: str) -> list[str]:
        return [
            type_
            for type_ in ("A", "AAAA", "SRV", "PTR", "TXT", "NS", "CNAME")
            if self.get(name, type_)
        ]

    def soa(self, origin: str) -> RRset:
        domain = self.settings.origins[0]
        ttl_s = self.settings.ttl_s
        timers = f"{SOA_REFRESH_S} {SOA_RETRY_S} {SOA_EXPIRE_S} {ttl_s}"
        rdata = f"ns.dns.{domain}. hostmaster.{domain}. {self.serial} {timers}"
        return RRset(origin, "SOA", ttl_s, (rdata,))

    def _count(self, name: str, by: int) -> None:
        for ancestor in ancestors(name):
            if ancestor in self._origins:
                break
            count = self._names.get(ancestor, 0) + by
            if count:
                self._names[ancestor] = count
            else:
                del self._names[ancestor]


def ancestors(name: str) -> Iterable[str]:
    """The name itself, then each name above it, the root left out."""
    while name:
        yield name
        name = name.partition(".")[2]


def lookup(zone: ZoneTree, qname: str, qtype: str, sees: Sees | None = None) -> Answer | None:
    """Answer one question; None when the name lies in no zone of ours.

    qname  lower case, without final dot
    sees   whether the asker may know of an owner; None: of all
    """
    chain: list[RRset] = []
    while qtype not in ("CNAME", "ANY") and (target := zone.get(qname, "CNAME")):
        if sees is not None and hidden_owners(zone, qname, sees):
            break
        if len(chain) == CHAIN_MAX:
            return Answer(Rcode.SERVFAIL)
        chain.append(RRset(qname, "CNAME", zone.settings.ttl_s, target))
        qname = target[0].rstrip(".")
    found = _lookup(zone, qname, qtype, sees)
    if not chain:
        return found
    if found is None:
        return Answer(Rcode.NOERROR, tuple(chain), beyond=qname)
    return found._replace(answers=(*chain, *found.answers))


def _lookup(zone: ZoneTree, qname: str, qtype: str, sees: Sees | None) -> Answer | None:
    """The same for a name that is no alias."""
    origin = zone.origin_of(qname)
    if origin is None:
        return None
    if sees is not None and hidden_owners(zone, qname, sees):
        return Answer(Rcode.NXDOMAIN, (), (zone.soa(origin),))
    rdata = _records_at(zone, origin, qname, qtype)
    if rdata:
        ttl_s = zone.settings.ttl_s
        if qtype == "ANY":
            qtype = rdata[0]
            rdata = zone.get(qname, qtype)
        if qtype == "PTR" and sees is not None:
            rdata = tuple(text for text in rdata if _is_seen(zone, text, sees))
        found = RRset(qname, qtype, ttl_s, rdata)
        return Answer(Rcode.NOERROR, (found,), (), _additional(zone, found))
    if qtype in ("SOA", "ANY") and qname == origin:
        return Answer(Rcode.NOERROR, (zone.soa(origin),))
    exists = zone.exists(qname) or bool(_echo(zone, qname))
    return Answer(Rcode.NOERROR if exists else Rcode.NXDOMAIN, (), (zone.soa(origin),))


def owner_of(name: str, origins: Iterable[str]) -> Owner | None:
    """Whose name it is; None when it is nobody's, or names no single service or pod.

    An instance of DNS-SD is called by its service: ``shop/web._http._tcp``.
    """
    name = name.rstrip(".")
    instance, slash, rest = name.partition(".")[0].partition("/")
    if slash:
        return f"{instance}/{rest.partition('/')[0]}"
    for origin in origins:
        if not name.endswith(f".{origin}"):
            continue
        *labels, kind = name.removesuffix(f".{origin}").split(".")
        if len(labels) < 2 or kind not in ("svc", "pod"):
            return None
        if kind == "svc":
            return f"{labels[-1]}/{labels[-2]}"
        address = undashed(labels[-2])
        return None if address is None else str(address)
    return None


def owners_at(zone: ZoneTree, name: str) -> frozenset[Owner]:
    """Those of whom one must know at least one to be told of a name; none: it is public."""
    origins = zone.settings.origins
    if pointers := zone.get(name, "PTR"):
        owners = [owner_of(text, origins) for text in pointers]
        return frozenset() if None in owners else frozenset(filter(None, owners))
    owner = owner_of(name, origins) if zone.exists(name) else None
    return frozenset() if owner is None else frozenset({owner})


def hidden_owners(zone: ZoneTree, name: str, sees: Sees) -> frozenset[Owner]:
    """Whose name it is, if who asks must not know of it."""
    owners = owners_at(zone, name)
    return frozenset() if any(map(sees, owners)) else owners


def _is_seen(zone: ZoneTree, pointer: str, sees: Sees) -> bool:
    owner = owner_of(pointer, zone.settings.origins)
    return owner is None or sees(owner)


def _records_at(zone: ZoneTree, origin: str, qname: str, qtype: str) -> Rdata:
    """Records of the type; for ANY, the types that there are (RFC 8482: one of them will do)."""
    if qtype == "ANY":
        return tuple(zone.types_at(qname))
    if qtype in ("A", "AAAA") and (address := _echo(zone, qname)):
        return (str(address),) if qtype == ("A" if address.version == 4 else "AAAA") else ()
    return zone.get(qname, qtype)


def _echo(zone: ZoneTree, qname: str) -> IPAddress | None:
    """The address that an ``insecure`` pod name spells, in a namespace that exists."""
    if not zone.settings.pods_insecure:
        return None
    label, _, rest = qname.partition(".")
    domain = zone.settings.origins[0]
    if not rest.endswith(f".pod.{domain}"):
        return None
    namespace = rest.removesuffix(f".pod.{domain}")
    if not zone.exists(f"{namespace}.svc.{domain}"):
        return None
    return undashed(label)


def _additional(zone: ZoneTree, found: RRset) -> tuple[RRset, ...]:
    """Addresses of the targets, so that an SRV answer needs no second question."""
    if found.type not in ("SRV", "NS"):
        return ()
    targets = dict.fromkeys(text.split()[-1].rstrip(".") for text in found.rdata)
    return tuple(
        RRset(target, type_, found.ttl_s, rdata)
        for target in targets
        for type_ in ("A", "AAAA")
        if (rdata := zone.get(target, type_))
    )


def dashed(address: IPAddress) -> str:
    """An address as one label: ``192-0-2-1``, ``2001-db8--1``."""
    return str(address).replace(".", "-").replace(":", "-")


def undashed(label: str) -> IPAddress | None:
    """The address that a label spells, if any."""
    for separator in (".", ":"):
        try:
            return ip_address(label.replace("-", separator))
        except ValueError:
            continue
    return None


def reverse_name(address: IPAddress) -> str:
    """``1.2.0.192.in-addr.arpa``, or the nibbles of ``ip6.arpa``."""
    return address.reverse_pointer


def reverse_origins(network: IPv4Network | IPv6Network) -> tuple[str, ...]:
    """The reverse zones that make up a network: several when it ends within a label."""
    step, suffix = (8, "in-addr.arpa") if network.version == 4 else (4, "ip6.arpa")
    labels = max(1, -(-network.prefixlen // step))
    origins = []
    for subnet in network.subnets(new_prefix=labels * step):
        pointer = subnet.network_address.reverse_pointer.removesuffix(f".{suffix}").split(".")
        origins.append(".".join([*pointer[-labels:], suffix]))
    return tuple(origins)
