"""What the kernel should hold: the desired state that planners build and ``host`` applies.

Plain values, no kernel types: ``host/datapath.py`` packs them into maps and diffs them against
what is loaded. Byte order and struct layout live there and in ``bpf/sixfold.h`` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

import msgspec

from sixfold.model.algorithm import Algorithm
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import Identity
from sixfold.model.mesh import PortMode, RoutedBy, Speakers
from sixfold.model.place import pack_place, unpack_address, unpack_port

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
RoutedPorts = Mapping[tuple[IPAddress, int], RoutedBy]  # by a service's address and port

INGRESS, EGRESS = 0, 1
ANY_PROTOCOL = 0  # in a policy entry: every protocol, and then every port
ALLOW, PASS, DENY = 1, 2, 3  # verdicts, weakest first; PASS: the tiers after Admin decide
PROTOCOL_NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """What the kernel knows of a pod: by interface (source check) and by address (delivery)."""

    ifindex: int
    id: EndpointId
    identity: Identity
    ipv4: IPv4Address | None
    ipv6: IPv6Address | None
    # local CIDR identity of each address when a policy's ipBlock covers it; 0 = none
    cidr4: Identity = Identity(0)
    cidr6: Identity = Identity(0)
    netns_cookie: int = 0
    accelerated: bool = False  # TCP with others of the kind goes from socket to socket


@dataclass(frozen=True, slots=True)
class IpcacheEntry:
    """Who is behind a remote address; the longest prefix decides.

    cidr    local CIDR identity as well, when a policy's ipBlock covers the prefix; 0 = none
    domain  identity of the domain patterns that the address was learned for; of WORLD only
    """

    identity: Identity
    cidr: Identity = Identity(0)
    domain: Identity = Identity(0)


class PolicyEntry(NamedTuple):
    """One line of a policy table: for each name that a peer has, the longest match is read.

    peer       identity, ANY_POD, local CIDR identity (+ OUTSIDE), identity of domain patterns,
               or 0 for any peer
    protocol   IP protocol number, or ANY_PROTOCOL
    port       first port of an aligned block of 2**(16-port_bits) ports; the type for ICMP
    port_bits  0 = all ports, 16 = this one (a range is several entries)
    verdict    ALLOW, PASS or DENY
    precedence of several entries that are read the highest decides; below 2**30
    admin      asked first, apart from the others
    """

    direction: int
    peer: Identity
    protocol: int
    port: int
    port_bits: int
    verdict: int
    rule: int  # rule number
    precedence: int = 0
    admin: bool = False

    @property
    def strength(self) -> tuple[int, int]:
        """What decides between two entries that both match."""
        return self.precedence, self.verdict


class PortRule(NamedTuple):
    """What is said of some ports of a peer: a ``PolicyEntry`` that does not name the peer.

    A tuple, shared by all peers of which the same is said.
    """

    protocol: int
    port: int
    port_bits: int
    verdict: int
    rule: int
    precedence: int

    @property
    def strength(self) -> tuple[int, int]:
        return self.precedence, self.verdict

    @property
    def breadth(self) -> tuple[bool, int]:
        """Sorts wider blocks first."""
        return self.protocol != ANY_PROTOCOL, self.port_bits


PortRules = tuple[PortRule, ...]  # of one peer, the narrowest first: the first match is read


class Section:
    """What one direction of a table says, in one tier: immutable, hashed once, shared by tables.

    peers  the name of a peer to the rules for it
    """

    __slots__ = ("_hash", "peers")

    def __init__(self, peers: Mapping[Identity, PortRules]) -> None:
        self.peers = peers
        self._hash = 0

    def __bool__(self) -> bool:
        return bool(self.peers)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Section) and hash(self) == hash(other) and self.peers == other.peers
        )

    def __hash__(self) -> int:
        if not self._hash:
            self._hash = hash(frozenset(self.peers.items())) or 1
        return self._hash

    def __repr__(self) -> str:
        return f"Section({self.peers!r})"


NOTHING = Section({})
Sections = tuple[Section, Section]  # by direction


class PolicyTable(msgspec.Struct, frozen=True, cache_hash=True):
    """Everything that decides about one kind of workload; immutable, shared, content-addressed.

    No entry matches: dropped, and the default rule of the direction is the reason given.

    main   by direction: all tiers but Admin
    admin  by direction: asked first
    audit  what would be in force, were nothing in audit: what this table allows and that one
           denies passes, and is told with that one's rule
    """

    main: Sections
    admin: Sections
    ingress_default: int  # rule number
    egress_default: int
    audit: PolicyTable | None = None

    @classmethod
    def of(
        cls,
        entries: Iterable[PolicyEntry],
        ingress_default: int,
        egress_default: int,
        audit: PolicyTable | None = None,
    ) -> PolicyTable:
        """The table of these entries, in any order."""
        found: dict[tuple[bool, int], dict[Identity, list[PortRule]]] = {}
        for direction, peer, *rule, admin in entries:
            peers = found.setdefault((admin, direction), {})
            peers.setdefault(peer, []).append(PortRule(*rule))
        main, admins = (
            tuple(section_of(found.get((admin, direction), {})) for direction in (INGRESS, EGRESS))
            for admin in (False, True)
        )
        return cls(
            (main[0], main[1]), (admins[0], admins[1]), ingress_default, egress_default, audit
        )

    @property
    def sections(self) -> tuple[Section, Section, Section, Section]:
        """In the kernel's order: the direction, plus 2 for Admin."""
        return (*self.main, *self.admin)

    @property
    def entries(self) -> frozenset[PolicyEntry]:
        """All of it, spelled out."""
        return frozenset(
            PolicyEntry(at & 1, peer, *rule, admin=at > 1)
            for at, section in enumerate(self.sections)
            for peer, rules in section.peers.items()
            for rule in rules
        )


def section_of(peers: Mapping[Identity, Iterable[PortRule]]) -> Section:
    """A section of rules in any order."""
    return Section({peer: narrowest_first(rules) for peer, rules in peers.items()})


def narrowest_first(rules: Iterable[PortRule]) -> PortRules:
    """In the order in which they are asked."""
    found = tuple(rules)
    if len(found) < 2:
        return found
    return tuple(sorted(found, key=lambda rule: (rule.breadth, rule), reverse=True))


class Backend(msgspec.Struct, frozen=True, order=True, cache_hash=True, gc=False):
    """One place that serves a service port; a weight of 0 is none, and not listed.

    packed  address and port, see ``model/place``
    """

    packed: bytes
    weight: int = 1

    @classmethod
    def at(cls, address: IPAddress, port: int, weight: int = 1) -> Backend:
        return cls(pack_place(address, port), weight)

    @property
    def address(self) -> IPAddress:
        return unpack_address(self.packed[:16])

    @property
    def port(self) -> int:
        return unpack_port(self.packed[16:])

    def __repr__(self) -> str:
        return f"Backend.at({self.address!r}, {self.port}, {self.weight})"


class Frontend(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """Where clients knock: a service address and port. Protocol is an IP protocol number.

    packed  address and port, see ``model/place``, one byte of protocol, five of zeros: so the
            kernel looks it up
    """

    packed: bytes

    @classmethod
    def at(cls, address: IPAddress, port: int, protocol: int) -> Frontend:
        return cls(b"%b%c\0\0\0\0\0" % (pack_place(address, port), protocol))

    @property
    def address(self) -> IPAddress:
        return unpack_address(self.packed[:16])

    @property
    def port(self) -> int:
        return unpack_port(self.packed[16:18])

    @property
    def protocol(self) -> int:
        return self.packed[18]

    def __repr__(self) -> str:
        return f"Frontend.at({self.address!r}, {self.port}, {self.protocol})"


class FrontendFlag(IntFlag):
    """Who may dial a frontend besides this host and its pods; ``bpf/sixfold.h`` has the same."""

    OUTSIDE = 1  # whoever reaches an uplink
    RANGES = 2  # of them, only who is in the service's source ranges
    ANNOUNCED = 4  # neighbours that ask for the address are answered


class SourceRange(NamedTuple):
    """Who outside may dial a service; ``service`` is its number."""

    service: int
    network: IPNetwork


class FrontendEntry(msgspec.Struct, frozen=True, gc=False):
    """What answers there; no backends means that connects are refused at once.

    table       the slots to choose from, packed 16-bit indices of backends; empty: each once, in
                order
    affinity_s  a client keeps its backend until it has dialled nothing for so long; 0 = not
    standby     places, in order, for a proxy that finds backends ill; the kernel has them not
    """

    service: int  # service number, for flows
    backends: tuple[Backend, ...]
    algorithm: Algorithm = Algorithm.RANDOM
    table: bytes = b""
    affinity_s: int = 0
    flags: FrontendFlag = FrontendFlag(0)
    standby: tuple[tuple[Backend, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Datapath:
    """The whole desired state of the kernel maps, for one instance on one host.

    service_networks  where nobody but services has addresses: what no frontend has is refused
    """

    endpoints: Mapping[int, EndpointEntry] = field(default_factory=dict)  # by ifindex
    ipcache: Mapping[IPNetwork, IpcacheEntry] = field(default_factory=dict)
    policies: Mapping[EndpointId, PolicyTable] = field(default_factory=dict)
    frontends: Mapping[Frontend, FrontendEntry] = field(default_factory=dict)
    service_networks: frozenset[IPNetwork] = frozenset()  # one of each family at most
    source_ranges: frozenset[SourceRange] = frozenset()
    modes: frozenset[PortMode] = frozenset()
    speakers: frozenset[Speakers] = frozenset()
    host_netns_cookie: int = 0
