"""nf_tables over netlink: tables, chains, sets and rules as requests of one transaction.

Only what ``nat`` needs, in the words of ``nft``. All numbers are big-endian here, unlike in
rtnetlink. Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from sixfold.host.netlink import (
    ACK,
    APPEND,
    CREATE,
    DUMP,
    Netlink,
    Request,
    attribute,
    attribute_text,
    attributes,
    nested,
)

INET, IPV4, IPV6 = 1, 2, 10  # NFPROTO_*
PREROUTING, FORWARD, POSTROUTING = 0, 2, 4
PRIORITY_RAW, PRIORITY_FILTER, PRIORITY_SRCNAT = -300, 0, 100
ACCEPT, DROP = 1, 0
EQUAL, NOT_EQUAL = 0, 1
META_IIFNAME, META_OIFNAME, META_NFPROTO, META_IIFGROUP, META_OIFGROUP = 6, 7, 15, 21, 22
META_MARK = 3
CT_STATUS, SOURCE_NATTED = 2, 1 << 4
PORTS_GIVEN = 1 << 1  # NF_NAT_RANGE_PROTO_SPECIFIED
TYPE_IFNAME, IFNAME_SIZE = 41, 16

_SUBSYSTEM = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN = 0, 2, 3, 4
_NEWRULE, _GETRULE, _NEWSET, _NEWSETELEM = 6, 7, 9, 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_REGISTER, _SECOND_REGISTER, _VERDICT = 1, 2, 0


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _request(kind: int, flags: int, body: bytes, what: str, *tolerate: int) -> Request:
    head = struct.pack(">BBH", INET, 0, 0)
    return Request(_SUBSYSTEM << 8 | kind, flags, head + body, what, tolerate)


def transaction(netlink: Netlink, requests: Iterable[Request]) -> None:
    """All or nothing."""
    head = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
    begin = Request(_BATCH_BEGIN, 0, head, "nft transaction")
    end = Request(_BATCH_END, 0, head, "nft transaction")
    netlink.transaction([begin, *requests, end])


def add_table(table: str) -> Request:
    body = attribute_text(1, table)
    return _request(_NEWTABLE, ACK | CREATE, body, f"nft add table inet {table}")


def delete_table(table: str) -> Request:
    """With everything in it; absent is an error, unless it was added in the same transaction."""
    body = attribute_text(1, table)
    return _request(_DELTABLE, ACK, body, f"nft delete table inet {table}")


def add_chain(
    table: str, name: str, kind: str, hook: int, priority: int, *, policy: int = ACCEPT
) -> Request:
    """A base chain; the policy is for what no rule decides."""
    body = (
        attribute_text(1, table)
        + attribute_text(3, name)
        + nested(4, _u32(1, hook), _u32(2, priority))
        + _u32(5, policy)
        + attribute_text(7, kind)
    )
    return _request(_NEWCHAIN, ACK | CREATE, body, f"nft add chain inet {table} {name}")


def add_device_set(table: str, name: str, devices: Iterable[str]) -> list[Request]:
    """A set of interface names."""
    elements = [
        nested(1, nested(1, attribute(1, device.encode().ljust(IFNAME_SIZE, b"\0"))))
        for device in devices
    ]
    head = attribute_text(1, table) + attribute_text(2, name)
    body = head + _u32(3, 0) + _u32(4, TYPE_IFNAME) + _u32(5, IFNAME_SIZE) + _u32(10, 1)
    what = f"nft add set inet {table} {name}"
    requests = [_request(_NEWSET, ACK | CREATE, body, what)]
    if elements:
        body = head + nested(3, *elements)
        requests.append(_request(_NEWSETELEM, ACK | CREATE, body, f"nft add element {name}"))
    return requests


def add_rule(table: str, chain: str, comment: str, *expressions: bytes) -> Request:
    """At the chain's end; the comment is what ``nft list`` shows and ``comments`` reads."""
    text = comment.encode() + b"\0"
    body = (
        attribute_text(1, table)
        + attribute_text(2, chain)
        + nested(4, *expressions)
        + attribute(7, bytes([0, len(text)]) + text)  # userdata: type 0 is a comment
    )
    what = f"nft add rule inet {table} {chain}"
    return _request(_NEWRULE, ACK | CREATE | APPEND, body, what)


def comments(netlink: Netlink, table: str) -> list[tuple[str, str]]:
    """(chain, comment) of every rule of the table, in order; empty without the table."""
    request = _request(_GETRULE, DUMP, attribute_text(1, table), "nft list table", errno.ENOENT)
    found = []
    for _, body in netlink.dump(request):
        given = attributes(body, 4)
        if _text(given[1]) == table:
            found.append((_text(given[2]), _text(given.get(7, b"")[2:])))
    return found


def dropping_forward_chains(netlink: Netlink) -> list[tuple[str, str, str]]:
    """(family, table, chain) of everyone's base chains on forward whose policy is drop."""
    request = Request(_SUBSYSTEM << 8 | _GETCHAIN, DUMP, struct.pack(">BBH", 0, 0, 0), "nft list")
    found = []
    for _, body in netlink.dump(request):
        given = attributes(body, 4)
        hook = attributes(given.get(4, b""))
        if hook.get(1) == struct.pack(">I", FORWARD) and given.get(5) == struct.pack(">I", DROP):
            family = {INET: "inet", IPV4: "ip", IPV6: "ip6"}.get(body[0])
            if family:
                found.append((family, _text(given[1]), _text(given[3])))
    return found


def meta_is(key: int, value: bytes, operator: int = EQUAL) -> bytes:
    """Meta data of the packet equals (or not) a value in the kernel's own representation."""
    return _meta(key) + _compare(operator, value)


def family_is(version: int) -> bytes:
    return meta_is(META_NFPROTO, bytes([IPV4 if version == 4 else IPV6]))


def device_group(key: int, group: int, operator: int = EQUAL) -> bytes:
    return meta_is(key, struct.pack("=I", group), operator)


def device_is(key: int, name: str, operator: int = EQUAL) -> bytes:
    return meta_is(key, name.encode().ljust(IFNAME_SIZE, b"\0"), operator)


def device_in_set(key: int, name: str) -> bytes:
    return _meta(key) + _expression("lookup", attribute_text(1, name), _u32(2, _REGISTER))


def source_in(network: IPv4Network | IPv6Network) -> bytes:
    return _address(network, 12 if network.version == 4 else 8, EQUAL)


def destination_not_in(network: IPv4Network | IPv6Network) -> bytes:
    return _address(network, 16 if network.version == 4 else 24, NOT_EQUAL)


def marked(bits: int, operator: int = NOT_EQUAL) -> bytes:
    """The packet's mark has one of these bits, or (``EQUAL``) none."""
    word = struct.pack("=I", bits)
    return _meta(META_MARK) + _and(word) + _compare(operator, bytes(4))


def not_source_natted() -> bytes:
    """Of no connection whose source was translated, in either direction."""
    load = _expression("ct", _u32(1, _REGISTER), _u32(2, CT_STATUS))
    return load + _and(struct.pack("=I", SOURCE_NATTED)) + _compare(EQUAL, bytes(4))


def masquerade(ports: range | None = None) -> bytes:
    if ports is None:
        return _expression("masq")
    return (
        _immediate(_REGISTER, ports[0])
        + _immediate(_SECOND_REGISTER, ports[-1])
        + _expression("masq", _u32(1, PORTS_GIVEN), _u32(2, _REGISTER), _u32(3, _SECOND_REGISTER))
    )


def _immediate(register: int, port: int) -> bytes:
    value = nested(2, attribute(1, struct.pack(">H", port)))
    return _expression("immediate", _u32(1, register), value)


def drop() -> bytes:
    verdict = nested(2, nested(2, _u32(1, DROP)))
    return _expression("immediate", _u32(1, _VERDICT), verdict)


def _address(network: IPv4Network | IPv6Network, offset: int, operator: int) -> bytes:
    size = network.max_prefixlen // 8
    load = _expression("payload", _u32(1, _REGISTER), _u32(2, 1), _u32(3, offset), _u32(4, size))
    mask = _and(network.netmask.packed)
    return load + mask + _compare(operator, network.network_address.packed)


def _and(mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        _u32(1, _REGISTER),
        _u32(2, _REGISTER),
        _u32(3, len(mask)),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, bytes(len(mask)))),
    )


def _meta(key: int) -> bytes:
    return _expression("meta", _u32(1, _REGISTER), _u32(2, key))


def _compare(operator: int, value: bytes) -> bytes:
    return _expression("cmp", _u32(1, _REGISTER), _u32(2, operator), nested(3, attribute(1, value)))


def _expression(name: str, *given: bytes) -> bytes:
    return nested(1, attribute_text(1, name), nested(2, *given))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
