"""rtnetlink: the requests of ``ip link|address|route|neigh`` that pods need, and their dumps.

Builders return ``Request``s for a batch; nothing is sent here except by the ``dump_*``
functions. Source: include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from sixfold.host.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REPLACE,
    U32,
    Netlink,
    Request,
    attribute,
    attribute_address,
    attribute_text,
    attribute_u32,
    attributes,
    nested,
)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

PROTOCOL = 95  # "proto" of every route of ours; not taken in rt_protos
GROUP = 0x5F  # "group" of every link of ours: one request deletes all
DYING_GROUP = 0x5E  # of links that are given up: deleted together, in the background

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE = 32

IFF_UP, IFF_NOARP = 0x1, 0x80
CHANGES = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_: link, neighbour, addresses, routes
ADDRESS_CHANGES = 0x10 | 0x100
TABLE_MAIN, TABLE_LOCAL = 254, 255
TABLE = 95  # in pods: what is sent under others' addresses
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
UNICAST, LOCAL, UNREACHABLE = 1, 2, 7
ONLINK = 4
OPER_UP = 6
NUD_PERMANENT = 0x80
NODAD = 0x02
ADDR_GEN_NONE = 1

_LINK = struct.Struct("=BxHiII")  # ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_RULE = struct.Struct("=BBBBBxxBI")  # fib_rule_hdr

ROUTE_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole",
               7: "unreachable", 8: "prohibit", 9: "throw"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    alias: str
    kind: str  # "veth"; "" for physical ones
    mac: str
    mtu: int
    up: bool
    running: bool  # up, and the other side too
    group: int
    ethernet: bool = True  # frames begin with an Ethernet header


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table."""

    destination: IPNetwork
    kind: str  # "unicast", "unreachable"
    ifindex: int
    gateway: IPAddress | None
    source: IPAddress | None
    scope: int
    protocol: int


def _family(address: IPAddress | IPNetwork) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def veth_add(
    device: str, mac: str, peer: str, peer_mac: str, *, mtu: int, peer_netns: int | None = None
) -> Request:
    """A veth pair, both sides down; the peer in the namespace of an open descriptor."""
    peer_attributes = [
        attribute_text(3, peer),  # IFLA_IFNAME
        attribute(1, _mac(peer_mac)),  # IFLA_ADDRESS
        attribute_u32(4, mtu),
    ]
    if peer_netns is None:
        peer_attributes.append(attribute_u32(27, GROUP))  # IFLA_GROUP
    else:
        peer_attributes.append(attribute_u32(28, peer_netns))  # IFLA_NET_NS_FD
    body = b"".join(
        (
            _LINK.pack(0, 0, 0, 0, 0),
            attribute_text(3, device),
            attribute(1, _mac(mac)),
            attribute_u32(4, mtu),
            attribute_u32(27, GROUP),  # IFLA_GROUP
            nested(
                18,  # IFLA_LINKINFO
                attribute_text(1, "veth"),
                nested(2, nested(1, _LINK.pack(0, 0, 0, 0, 0), *peer_attributes)),
            ),
        )
    )
    return Request(NEWLINK, ACK | CREATE | EXCLUSIVE, body, f"link add {device} type veth")


def link_up(ifindex: int, *, alias: str = "", noarp: bool = False) -> Request:
    """Up, without addresses of its own making; an alias names the owner in ``ip link``."""
    flags = IFF_UP | (IFF_NOARP if noarp else 0)
    body = _LINK.pack(0, 0, ifindex, flags, flags)
    body += nested(26, nested(socket.AF_INET6, attribute(8, bytes([ADDR_GEN_NONE]))))
    if alias:
        body += attribute_text(20, alias)
    return Request(NEWLINK, ACK, body, f"link set dev {ifindex} up")


def link_give_up(link: Link) -> Request:
    """Mark for deletion: nobody's any more, but its name is taken until it is deleted."""
    body = _LINK.pack(0, 0, link.index, 0, 0)
    body += attribute_u32(27, DYING_GROUP) + attribute(20, b"")
    return Request(NEWLINK, ACK, body, f"link set {link.name} group", (errno.ENODEV,))


def link_delete_group(group: int) -> Request:
    """Delete every link of a group in this namespace at once."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute_u32(27, group)
    return Request(DELLINK, ACK, body, f"link delete group {group}", (errno.ENODEV,))


def address_add(ifindex: int, address: IPAddress) -> Request:
    """A host address (/32 or /128), usable at once: no duplicate address detection."""
    v6 = address.version == 6
    body = (
        _ADDRESS.pack(_family(address), address.max_prefixlen, NODAD if v6 else 0, 0, ifindex)
        + attribute_address(1, address)
        + attribute_address(2, address)
    )
    what = f"address add {address} dev {ifindex}"
    return Request(NEWADDR, ACK | CREATE | REPLACE, body, what, (errno.EEXIST,))


def route_replace(
    destination: IPNetwork,
    *,
    ifindex: int = 0,
    gateway: IPAddress | None = None,
    source: IPAddress | None = None,
) -> Request:
    """A route of ours in the main table; without interface it is ``unreachable``."""
    body = _route_body(destination, ifindex, gateway, source)
    via = f" via {gateway}" if gateway else ""
    what = f"route replace {destination}{via} dev {ifindex}"
    return Request(NEWROUTE, ACK | CREATE | REPLACE, body, what)


def local_route(everything: IPNetwork, loopback: int) -> Request:
    """In a table of ours every address is the namespace's own."""
    body = _ROUTE.pack(_family(everything), 0, 0, 0, TABLE, PROTOCOL, SCOPE_HOST, LOCAL, 0)
    what = f"route replace local {everything} dev lo table {TABLE}"
    return Request(NEWROUTE, ACK | CREATE | REPLACE, body + attribute_u32(4, loopback), what)


def mark_rule(everything: IPNetwork, mark: int) -> Request:
    """What has the mark is looked up there."""
    body = (
        _RULE.pack(_family(everything), 0, 0, 0, TABLE, UNICAST, 0)  # FR_ACT_TO_TBL is 1, too
        + attribute_u32(6, TABLE)  # FRA_PRIORITY
        + attribute_u32(10, mark)
    )
    what = f"rule add fwmark {mark:#x} lookup {TABLE}"
    return Request(NEWRULE, ACK | CREATE | EXCLUSIVE, body, what, (errno.EEXIST,))


def route_delete(destination: IPNetwork, ifindex: int = 0) -> Request:
    """Delete a route of ours; without interface the ``unreachable`` one."""
    body = _route_body(destination, ifindex, None, None)
    gone = (errno.ESRCH, errno.ENODEV)
    return Request(DELROUTE, ACK, body, f"route delete {destination}", gone)


def _route_body(
    destination: IPNetwork, ifindex: int, gateway: IPAddress | None, source: IPAddress | None
) -> bytes:
    v4 = destination.version == 4
    scope = SCOPE_LINK if v4 and ifindex and not gateway else SCOPE_UNIVERSE
    kind = UNICAST if ifindex else UNREACHABLE
    flags = ONLINK if gateway else 0
    family, length = _family(destination), destination.prefixlen
    parts = [_ROUTE.pack(family, length, 0, 0, TABLE_MAIN, PROTOCOL, scope, kind, flags)]
    if length:
        parts.append(attribute_address(1, destination.network_address))
    if ifindex:
        parts.append(attribute_u32(4, ifindex))
    if gateway:
        parts.append(attribute_address(5, gateway))
    if source:
        parts.append(attribute_address(7, source))
    return b"".join(parts)


def neighbour_replace(ifindex: int, address: IPAddress, mac: str) -> Request:
    """A permanent neighbour: nobody has to ask, nobody can answer falsely."""
    body = (
        _NEIGHBOUR.pack(_family(address), ifindex, NUD_PERMANENT, 0, 0)
        + attribute_address(1, address)
        + attribute(2, _mac(mac))
    )
    what = f"neigh replace {address} lladdr {mac} dev {ifindex}"
    return Request(NEWNEIGH, ACK | CREATE | REPLACE, body, what)


def get_link(netlink: Netlink, *, name: str = "", ifindex: int = 0) -> Link | None:
    """One link, or None. Also makes a carrier that just came take effect (linkwatch)."""
    body = _LINK.pack(0, 0, ifindex, 0, 0) + (attribute_text(3, name) if name else b"")
    what = f"link show {name or ifindex}"
    answers = netlink.dump(Request(GETLINK, 0, body, what, (errno.ENODEV,)))
    return _link(answers[0][1]) if answers else None


def dump_links(netlink: Netlink) -> list[Link]:
    # Without counters, which are most of an answer: RTEXT_FILTER_SKIP_STATS.
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute_u32(29, 8)
    answers = netlink.dump(Request(GETLINK, DUMP, body, "link show"))
    return [_link(body) for _, body in answers]


def is_local(netlink: Netlink, address: IPAddress) -> bool:
    """Whether packets to the address are taken in. For IPv6 that is so only a moment after the
    address was added, also without duplicate address detection: a work queue sees to it."""
    body = _ROUTE.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += attribute_address(1, address)
    request = Request(GETROUTE, 0, body, f"route get {address}", (errno.ENETUNREACH,))
    answers = netlink.dump(request)
    return bool(answers) and _ROUTE.unpack_from(answers[0][1])[7] == LOCAL


def dump_routes(netlink: Netlink, *, protocol: int = 0) -> list[Route]:
    """Routes of the main table, both families; of one protocol when given."""
    routes = []
    for family in (socket.AF_INET, socket.AF_INET6):
        head = _ROUTE.pack(family, 0, 0, 0, TABLE_MAIN, protocol, 0, 0, 0)
        request = Request(GETROUTE, DUMP, head, "route show", (errno.ENOENT,))
        routes += [_route(body) for _, body in netlink.dump(request)]
    return [route for route in routes if protocol in (0, route.protocol)]


def dump_addresses(netlink: Netlink) -> list[tuple[int, IPAddress, int]]:
    """(ifindex, address, prefix length) of every address in this namespace."""
    request = Request(GETADDR, DUMP, _ADDRESS.pack(0, 0, 0, 0, 0), "address show")
    found = []
    for _, body in netlink.dump(request):
        _, length, _, _, ifindex = _ADDRESS.unpack_from(body)
        given = attributes(body, _ADDRESS.size)
        found.append((ifindex, ip_address(given.get(2) or given[1]), length))
    return found


def dump_neighbours(netlink: Netlink) -> list[tuple[int, IPAddress, str, int]]:
    """(ifindex, address, MAC, state) of every neighbour, both families."""
    found = []
    request = Request(GETNEIGH, DUMP, _NEIGHBOUR.pack(0, 0, 0, 0, 0), "neigh show")
    for _, body in netlink.dump(request):
        family, ifindex, state, _, _ = _NEIGHBOUR.unpack_from(body)
        given = attributes(body, _NEIGHBOUR.size)
        if family in (socket.AF_INET, socket.AF_INET6) and 2 in given:
            found.append((ifindex, ip_address(given[1]), given[2].hex(":"), state))
    return found


def _link(body: bytes) -> Link:
    _, hardware, index, flags, _ = _LINK.unpack_from(body)
    given = attributes(body, _LINK.size)
    detail = attributes(given.get(18, b""))
    return Link(
        index=index,
        name=_text(given.get(3, b"")),
        alias=_text(given.get(20, b"")),
        kind=_text(detail.get(1, b"")),
        mac=given.get(1, b"").hex(":"),
        mtu=U32.unpack(given[4])[0] if 4 in given else 0,
        up=bool(flags & IFF_UP),
        running=given.get(16) == bytes([OPER_UP]),
        group=U32.unpack(given[27])[0] if 27 in given else 0,
        ethernet=hardware in (1, 772),  # ARPHRD_ETHER, ARPHRD_LOOPBACK
    )


def _route(body: bytes) -> Route:
    family, length, _, _, _, protocol, scope, kind, _ = _ROUTE.unpack_from(body)
    given = attributes(body, _ROUTE.size)
    zero = bytes(4 if family == socket.AF_INET else 16)
    return Route(
        destination=ip_network((given.get(1, zero), length)),
        kind=ROUTE_TYPES.get(kind, str(kind)),
        ifindex=U32.unpack(given[4])[0] if 4 in given else 0,
        gateway=ip_address(given[5]) if 5 in given else None,
        source=ip_address(given[7]) if 7 in given else None,
        scope=scope,
        protocol=protocol,
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
