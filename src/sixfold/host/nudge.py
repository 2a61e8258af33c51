"""Clients outside whose backend has vanished are made to ask, so that the kernel can tell them.

A reset must fit the client's window, and nobody here knows it. So the client is sent an empty
segment that cannot be right; it answers at once with one that says where it stands (RFC 9293
3.10.7.4), and the program on the uplink turns that into the reset (``bpf/uplink.bpf.c``).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

from sixfold.host.announce import checksum
from sixfold.host.layout import TCP, Connection
from sixfold.model.datapath import IPAddress

ACK = 0x10


def nudge(connections: Iterable[Connection]) -> None:
    """Those that are no TCP from outside are left alone; what cannot be sent is not waited for."""
    for one in connections:
        dialled = one.service_address
        if dialled is None or one.protocol != TCP:
            continue
        family = socket.AF_INET if dialled.version == 4 else socket.AF_INET6
        with suppress(OSError), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            packet = segment(dialled, one.service_port, one.source, one.source_port)
            sock.sendto(packet, (str(one.source), 0))


def segment(source: IPAddress, port: int, destination: IPAddress, to: int) -> bytes:
    """An empty acknowledgement of nothing, with its network header."""
    tcp = struct.pack("!HHIIBBHHH", port, to, 1, 1, 5 << 4, ACK, 0, 0, 0)
    pseudo = source.packed + destination.packed + struct.pack("!II", len(tcp), TCP)
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if source.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(tcp), TCP, 64)
    else:  # the kernel fills in id and checksum
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, TCP, 0)
    return header + source.packed + destination.packed + tcp
