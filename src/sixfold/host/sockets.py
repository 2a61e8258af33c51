"""Sockets of connections that policy no longer allows: found, and closed from outside.

Both ends learn of it at once: TCP sends a reset, and the owner's next call fails with
ECONNABORTED. Source: linux/inet_diag.h, SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY). Nobody waits
for a peer: without this a cut connection would hang until its timeouts.

Looked up first, then destroyed by its cookie: the kernel answers with the *listener* when the
connection is gone, and with the server's one socket for a datagram; neither may ever be closed.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host import netns
from sixfold.host.layout import GIVEN, MTLS, Connection
from sixfold.host.netlink import ACK, DUMP, Netlink, NetlinkError, Request, attributes
from sixfold.model.datapath import PROTOCOL_NUMBERS, IPAddress
from sixfold.model.mesh import HTTP_PORT, OUTBOUND_PORT, OUTWARD_PORT

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
TCP, UDP = PROTOCOL_NUMBERS["TCP"], PROTOCOL_NUMBERS["UDP"]
ESTABLISHED, SYN_SENT, TIME_WAIT, CLOSE, LISTEN = 1, 2, 6, 7, 10
REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2
ANSWER = struct.Struct("=BBBB48s")  # the start of struct inet_diag_msg
SOCKET_ID = struct.Struct("!HH16s16s")  # struct inet_diag_sockid, before interface and cookie
NO_COOKIE = b"\xff" * 8
INFO, DIAG_SIZE = 2, 72  # INET_DIAG_INFO; size of struct inet_diag_msg
TCP_INFO = struct.Struct("=120xQQ")  # of struct tcp_info: bytes_acked, bytes_received

log = logging.getLogger(__name__)

End = tuple[int, IPAddress, int, IPAddress, int]  # protocol, local, its port, remote, its port


def close_sockets(
    connections: Iterable[Connection],
    namespaces: Mapping[int, Path],
    abroad: Set[IPAddress] = frozenset(),
) -> int:
    """Close both ends, as far as they are on this host; returns how many sockets were closed.

    namespaces  by interface; the caller's own is the host's (interface 0)
    abroad      of pods by which connections leave for other trust domains
    """
    ends: dict[Path | None, list[End]] = defaultdict(list)
    for one in connections:
        source = (one.source, one.source_port)
        destination = (one.destination, one.destination_port)
        if one.protocol not in (TCP, UDP):
            continue
        if one.transport in (MTLS, GIVEN):
            if one.source_ifindex in namespaces:
                port = HTTP_PORT if one.destination in abroad else OUTBOUND_PORT
                port = OUTWARD_PORT if one.transport == GIVEN else port
                ends[namespaces[one.source_ifindex]] += captured(one, port)
            continue
        for interface, local, remote in (
            (one.source_ifindex, source, destination),
            (one.destination_ifindex, destination, source),
        ):
            if not interface or interface in namespaces:
                namespace = namespaces[interface] if interface else None
                ends[namespace].append((one.protocol, *local, *remote))
    closed = 0
    for namespace, those in ends.items():
        try:
            work = partial(_close, those)
            closed += work() if namespace is None else netns.run_inside(namespace, work)
        except HostError as error:  # the pod is gone, or this kernel cannot
            log.warning("close sockets of %s: %s", namespace or "the host", error)
    return closed


def captured(one: Connection, port: int = OUTBOUND_PORT) -> list[End]:
    """The client's socket of a connection in a tunnel: the proxy then ends the tunnel's part, and
    the server learns of it. ``port``: which of its listeners has it."""
    return captured_at(one.source, one.source_port, port)


def captured_at(source: IPAddress, port: int, listener: int = OUTBOUND_PORT) -> list[End]:
    """A client's socket towards its proxy, wherever it was bound."""
    loopback = ip_address("127.0.0.1" if source.version == 4 else "::1")
    return [(TCP, local, port, loopback, listener) for local in (loopback, source)]


def carried(ends: Iterable[End], namespace: Path) -> dict[End, tuple[int, int]]:
    """What TCP sockets of a namespace have sent and received; of those that are there.

    Bytes that the other side has acknowledged: a FIN is one of them.
    """
    try:
        return netns.run_inside(namespace, partial(_carried, list(ends)))
    except HostError as error:  # the pod is gone
        log.warning("sockets of %s: %s", namespace, error)
        return {}


def _carried(ends: Iterable[End]) -> dict[End, tuple[int, int]]:
    found = {}
    with Netlink(NETLINK_SOCK_DIAG) as link:
        for end in ends:
            _, local, local_port, remote, remote_port = end
            own = SOCKET_ID.pack(local_port, remote_port, _padded(local), _padded(remote))
            family = socket.AF_INET if local.version == 4 else socket.AF_INET6
            asked = REQUEST.pack(
                family, TCP, 1 << (INFO - 1), 0xFFFFFFFF, own + bytes(4) + NO_COOKIE
            )
            what = f"socket {local}:{local_port} → {remote}:{remote_port}"
            request = Request(SOCK_DIAG_BY_FAMILY, 0, asked, what, (errno.ENOENT,))
            for _, answer in link.dump(request):
                _, state, _, _, _ = ANSWER.unpack_from(answer)
                info = attributes(answer, DIAG_SIZE).get(INFO, b"")
                if state != LISTEN and len(info) >= TCP_INFO.size:
                    found[end] = TCP_INFO.unpack_from(info)
    return found


def close_ends(ends: Iterable[End], namespace: Path) -> int:
    """Close these sockets of a namespace; returns how many were there."""
    try:
        return netns.run_inside(namespace, partial(_close, list(ends)))
    except HostError as error:  # the pod is gone, and its sockets with it
        log.warning("close sockets of %s: %s", namespace, error)
        return 0


def close_towards(places: Iterable[tuple[IPAddress, int, int]]) -> int:
    """Close the host's own sockets that are connected to these (address, port, protocol)."""
    wanted = set(places)
    closed = 0
    with Netlink(NETLINK_SOCK_DIAG) as link:
        for protocol, family in {
            (protocol, socket.AF_INET if address.version == 4 else socket.AF_INET6)
            for address, _, protocol in wanted
            if protocol in (TCP, UDP)
        }:
            everything = _question(family, protocol, bytes(48))
            what = "sockets of the host"
            for _, answer in link.dump(Request(SOCK_DIAG_BY_FAMILY, DUMP, everything, what)):
                end = _end_of(protocol, answer)
                if end is not None and (end[3], end[4], protocol) in wanted:
                    closed += _close_one(link, end)
    return closed


def _end_of(protocol: int, answer: bytes) -> End | None:
    """Whose socket an answer is about."""
    family, _, _, _, found = ANSWER.unpack_from(answer)
    local_port, remote_port, local, remote = SOCKET_ID.unpack_from(found)
    size = 4 if family == socket.AF_INET else 16
    ends = ip_address(local[:size]), ip_address(remote[:size])
    return protocol, ends[0], local_port, ends[1], remote_port


def listening_ports() -> set[int]:
    """TCP ports with a listening socket, on any address, in the thread's namespace."""
    found = set()
    with Netlink(NETLINK_SOCK_DIAG) as link:
        for family in (socket.AF_INET, socket.AF_INET6):
            question = REQUEST.pack(family, TCP, 0, 1 << LISTEN, bytes(48))
            answers = link.dump(Request(SOCK_DIAG_BY_FAMILY, DUMP, question, "ss -tln"))
            found |= {ANSWER.unpack_from(body)[4][:2] for _, body in answers}
    return {int.from_bytes(port, "big") for port in found}


def _close(ends: Iterable[End]) -> int:
    with Netlink(NETLINK_SOCK_DIAG) as link:
        return sum(_close_one(link, end) for end in ends)


def _close_one(link: Netlink, end: End) -> bool:
    """Whether there was a connected socket, and it is closed now."""
    protocol, local, local_port, remote, remote_port = end
    own = SOCKET_ID.pack(local_port, remote_port, _padded(local), _padded(remote))
    swapped = SOCKET_ID.pack(remote_port, local_port, _padded(remote), _padded(local))
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    what = f"socket {local}:{local_port} → {remote}:{remote_port}"
    # The kernel reads the sides of a datagram's question the other way round.
    asked = (own if protocol == TCP else swapped) + bytes(4) + NO_COOKIE
    try:
        answers = link.dump(
            Request(
                SOCK_DIAG_BY_FAMILY, 0, _question(family, protocol, asked), what, (errno.ENOENT,)
            )
        )
        if not answers:
            return False
        _, state, _, _, found = ANSWER.unpack_from(answers[0][1])
        if state in (LISTEN, TIME_WAIT) or found[2:4] == b"\0\0":  # without a remote port
            return False
        wanted = _question(family, protocol, own + found[36:48])
        link.batch([Request(SOCK_DESTROY, ACK, wanted, f"destroy {what}")])
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ESTALE):  # gone by itself
            raise
        return False
    return True


def _question(family: int, protocol: int, id_: bytes) -> bytes:
    """In any state."""
    return REQUEST.pack(family, protocol, 0, 0xFFFFFFFF, id_)


def _padded(address: IPAddress) -> bytes:
    return address.packed.ljust(16, b"\0")
