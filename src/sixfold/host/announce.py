"""Addresses that no interface has, made known to the neighbours on the uplinks.

Who asks for one is answered by the kernel (``bpf/lib/vicinity.h``), with or without an agent. Here
is said unasked that an address is here now (RFC 5227, RFC 4861 section 7.2.6), so that nobody
keeps sending to where it was; and devices are told which multicast frames carry questions.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path

from sixfold.host.netlink_route import Link
from sixfold.model.datapath import IPAddress

BROADCAST, ALL_NODES = b"\xff" * 6, IPv6Address("ff02::1")
ARP, IPV6 = 0x0806, 0x86DD
ICMPV6, ADVERT, OVERRIDE, TARGET_LINK = 58, 136, 0x20, 2
ADD_MULTICAST, DELETE_MULTICAST = 0x8931, 0x8932  # SIOCADDMULTI, SIOCDELMULTI

Listening = dict[str, list[str]]  # multicast MACs by device


class Announcer:
    """Effects on the network namespace of the calling thread.

    record  remembers what devices were asked to listen to, for whoever ends the instance
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._told: set[tuple[IPAddress, int]] = set()

    def announce(self, addresses: Iterable[IPAddress], uplinks: Iterable[Link]) -> None:
        """Tell what was not told yet; forget what is not there any more."""
        links = [link for link in uplinks if link.ethernet and link.up]
        wanted = {(address, link.index) for address in addresses for link in links}
        self._listen({a for a, _ in wanted if isinstance(a, IPv6Address)}, links)
        for link in links:
            fresh = [address for address, index in wanted - self._told if index == link.index]
            if fresh:
                mac = _mac(link.mac)
                _send(link, [announcement(address, mac) for address in sorted(fresh, key=str)])
        self._told = wanted

    def stop(self) -> None:
        """Undo what devices were asked for, by whichever agent."""
        _change(_read(self._record), {})
        self._record.unlink(missing_ok=True)

    def _listen(self, addresses: Iterable[IPv6Address], links: Iterable[Link]) -> None:
        macs = sorted({solicited_mac(address).hex(":") for address in addresses})
        before = _read(self._record)
        after: Listening = {link.name: macs for link in links} if macs else {}
        if before == after:
            return
        draft = self._record.with_suffix(".new")
        draft.write_text(json.dumps(after))
        draft.replace(self._record)
        _change(before, after)


def announcement(address: IPAddress, mac: bytes) -> bytes:
    """The frame that says where an address is."""
    if isinstance(address, IPv6Address):
        return _advert(address, mac)
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    frame = BROADCAST + mac + struct.pack("!H", ARP)
    return frame + head + mac + address.packed + bytes(6) + address.packed


def solicited_mac(address: IPv6Address) -> bytes:
    """Where questions for the address are sent on Ethernet (RFC 4291 2.7.1, RFC 2464)."""
    return b"\x33\x33\xff" + address.packed[-3:]


def _advert(address: IPv6Address, mac: bytes) -> bytes:
    body = struct.pack("!BBHB3x", ADVERT, 0, 0, OVERRIDE) + address.packed
    body += struct.pack("!BB", TARGET_LINK, 1) + mac
    pseudo = address.packed + ALL_NODES.packed + struct.pack("!II", len(body), ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, 255)
    ethernet = b"\x33\x33\0\0\0\x01" + mac + struct.pack("!H", IPV6)
    return ethernet + header + address.packed + ALL_NODES.packed + body


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = content + b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _send(link: Link, frames: Iterable[bytes]) -> None:
    with suppress(OSError), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((link.name, 0))  # a device that has just gone is no error
        for frame in frames:
            sock.send(frame)


def _change(before: Listening, after: Listening) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for device in before.keys() | after.keys():
            old, new = set(before.get(device, ())), set(after.get(device, ()))
            for code, macs in ((ADD_MULTICAST, new - old), (DELETE_MULTICAST, old - new)):
                for mac in macs:
                    request = struct.pack("16sH14s", device.encode(), 0, _mac(mac))
                    with suppress(OSError):
                        fcntl.ioctl(sock, code, request.ljust(40, b"\0"))


def _read(record: Path) -> Listening:
    try:
        found: Listening = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
