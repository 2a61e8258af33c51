"""An address and a port as bytes, as they go over the wire: what is many is kept so.

Pure. Sixteen bytes of address, IPv4 as ``::ffff:a.b.c.d``, then two of port. Bytes are hashed
once and compared at once, which ``ipaddress`` objects are not; and the kernel takes them as is.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

MAPPED = bytes(10) + b"\xff\xff"
MAPPED_NUMBER = 0xFFFF << 32


def pack_address(address: IPv4Address | IPv6Address) -> bytes:
    return MAPPED + address.packed if type(address) is IPv4Address else address.packed


def pack_place(address: IPv4Address | IPv6Address, port: int) -> bytes:
    """Both, one behind the other; at once, for there are many."""
    number = int(address)
    if type(address) is IPv4Address:
        number |= MAPPED_NUMBER
    return (number << 16 | port).to_bytes(18, "big")


def address_text(address: IPv4Address | IPv6Address) -> str:
    """``str(address)``, for there are many."""
    if type(address) is not IPv4Address:
        return str(address)
    number = int(address)
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def unpack_address(packed: bytes) -> IPv4Address | IPv6Address:
    """The address as its family writes it: a mapped one is IPv4."""
    if packed.startswith(MAPPED):
        return IPv4Address(packed[12:])
    return IPv6Address(packed)


def pack_port(port: int) -> bytes:
    return port.to_bytes(2, "big")


def unpack_port(packed: bytes) -> int:
    return int.from_bytes(packed, "big")


def place_text(address: IPv4Address | IPv6Address, port: int | str) -> str:
    """``10.0.0.1:80``, ``[2001:db8::1]:80``."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def read_place(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """What ``place_text`` wrote; ValueError says what is wrong."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{text!r}: give ADDRESS:PORT, an IPv6 address in brackets")
    return ip_address(host[1:-1] if host.startswith("[") else host), int(port)
