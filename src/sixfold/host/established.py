"""What is open at the uplinks already when the host gets its first policy: netfilter's list.

Until then the programs there keep no track. So, once, what netfilter knows is written into
conntrack: the host's own connections, to be judged like any that is open at a change; and what
the host forwards under its address, so that the answers are not taken for the host's.

Who opened a TCP connection the listening sockets know better: of one that is older than
netfilter's tracking, netfilter saw but the middle. Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address
from struct import Struct
from typing import Literal, NamedTuple

from sixfold.errors import HostError
from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.netlink import DUMP, NETLINK_NETFILTER, Netlink, Request, attributes
from sixfold.host.sockets import listening_ports
from sixfold.model.datapath import PROTOCOL_NUMBERS, Datapath, IPAddress
from sixfold.model.identity import HOST, RESOLVER, WORLD

CT_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
NFGENMSG = bytes((socket.AF_UNSPEC, 0, 0, 0))
TUPLE_ORIGINAL, TUPLE_REPLY, PROTOINFO = 1, 2, 4
TUPLE_IP, TUPLE_PROTO = 1, 2
SYN_ACK = 0x12
# Entries of ``runtime``: the revision of policy, and whether uplinks keep track.
REVISION, TRACKING = map(layout.U32.pack, (0, 2))
NOT_TRACKING, IS_TRACKING = map(layout.U32.pack, (0, 1))
# Of an entry, as far as it is more than zeros here.
BEGINNING = Struct("<I2II2I2IIBB2sI2sB")
UPLINK = 14  # of the fields of an entry
LONG_AGO = 0xFFFFFFFF  # a revision that is none of today, where there was none yet
TIME_WAIT = 7  # this state of TCP and those behind it: over
TCP, ICMP, ICMPV6 = (PROTOCOL_NUMBERS[name] for name in ("TCP", "ICMP", "ICMPv6"))

log = logging.getLogger(__name__)


class Way(NamedTuple):
    """One direction of a connection. ICMP: the identifier is both ports."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int

    @property
    def back(self) -> Way:
        return Way(self.destination, self.destination_port, self.source, self.source_port)


class Tracked(NamedTuple):
    """One connection as netfilter has it: what was sent, and what the answers look like."""

    protocol: int
    sent: Way
    answer: Way
    icmp_request: int = 0


class Open(NamedTuple):
    """One connection as the uplinks see it, in the direction in which it was opened."""

    protocol: int
    way: Way
    icmp_request: int
    whose: Literal["opened by the host", "dialled at the host", "forwarded"]


def begin_tracking(maps: Mapping[str, Map], desired: Datapath) -> None:
    """Before the host's first policy: see what opens from now on, and know what is open."""
    if maps["runtime"].lookup(TRACKING) == IS_TRACKING:
        return
    connections = maps["conntrack"]
    known = connections.items()
    kept = (0, layout.UPLINK_RELAYED)  # pods' own, and what the uplinks follow in any case
    connections.delete(
        [key for key, entry in known if layout.CONNTRACK.unpack(entry)[UPLINK] not in kept]
    )
    maps["runtime"].update([(TRACKING, IS_TRACKING)])
    try:
        tracked, listening = read()
    except HostError as error:  # they are judged as they go on, not at once
        log.warning("what is open at the uplinks: %s", error)
        return
    hosts = {
        network.network_address
        for network, entry in desired.ipcache.items()
        if entry.identity in (HOST, RESOLVER) and network.prefixlen == network.max_prefixlen
    }
    pods = {at for it in desired.endpoints.values() for at in (it.ipv4, it.ipv6) if at}
    (revision,) = layout.U32.unpack(maps["runtime"].lookup(REVISION) or bytes(4))
    now_ns = time.monotonic_ns()
    entries = [
        packed(one, revision or LONG_AGO, now_ns)
        for one in at_uplinks(tracked, hosts, pods, listening)
    ]
    connections.update([one for one in entries if connections.lookup(one[0]) is None])


def end_tracking(maps: Mapping[str, Map]) -> None:
    """No policy selects the host any more."""
    if maps["runtime"].lookup(TRACKING) == IS_TRACKING:
        maps["runtime"].update([(TRACKING, NOT_TRACKING)])


def read() -> tuple[list[Tracked], set[int]]:
    """Everything in the thread's namespace, and its listening TCP ports."""
    with Netlink(NETLINK_NETFILTER) as link:
        answers = link.dump(Request(CT_GET, DUMP, NFGENMSG, "conntrack -L"))
    return [found for _, body in answers if (found := _tracked(body))], listening_ports()


def at_uplinks(
    tracked: Iterable[Tracked],
    hosts: Collection[IPAddress],
    pods: Collection[IPAddress],
    listening: Collection[int],
) -> Iterator[Open]:
    """Those that concern the host: its own, and what it forwards under its address.

    What is between the host and itself, or its pods, is not seen at an uplink.
    """
    for protocol, sent, answer, request in tracked:
        dialled = sent.destination in hosts
        way = sent if dialled else answer.back
        local, remote = way.destination, way.source
        if not dialled:
            local, remote = remote, local
        if local not in hosts or remote in hosts or remote in pods:
            continue
        if dialled:
            yield Open(protocol, way, request, "dialled at the host")
        elif sent.source not in hosts:
            yield Open(protocol, way, request, "forwarded")
        elif protocol == TCP and way.source_port in listening:
            yield Open(protocol, way.back, request, "dialled at the host")
        else:
            yield Open(protocol, way, request, "opened by the host")


def packed(one: Open, revision: int, now_ns: int) -> tuple[bytes, bytes]:
    """Key and entry of conntrack; ``revision``: of a policy before the one to come."""
    way = one.way
    key, swapped = layout.pack_sides(
        (way.source, way.source_port),
        (way.destination, way.destination_port),
        one.protocol,
        one.icmp_request,
    )
    host_is_second = swapped if one.whose != "dialled at the host" else not swapped
    uplink = layout.UPLINK_HOST + host_is_second
    identities = (WORLD, HOST) if host_is_second else (HOST, WORLD)
    if one.whose == "forwarded":
        uplink = layout.UPLINK_FORWARDED
    flags = SYN_ACK if one.protocol == TCP else 0
    entry = BEGINNING.pack(
        *(revision, 0, 0, now_ns >> 30, *identities, 0, 0, 0),
        *(swapped, flags, bytes(2), 0, bytes(2), uplink),
    ).ljust(layout.CONNTRACK.size, b"\0")
    return key, entry


def _tracked(body: bytes) -> Tracked | None:
    """None: it is over, or of a protocol without ports."""
    given = attributes(body, len(NFGENMSG))
    sent, answer = _way(given.get(TUPLE_ORIGINAL, b"")), _way(given.get(TUPLE_REPLY, b""))
    if sent is None or answer is None:
        return None
    protocol = attributes(attributes(given[TUPLE_ORIGINAL])[TUPLE_PROTO])
    number = protocol[1][0]
    if number == TCP:
        info = attributes(attributes(given.get(PROTOINFO, b"")).get(1, b""))
        if info.get(1, b"\0")[0] >= TIME_WAIT:
            return None
    request = protocol.get(5, protocol.get(8, b"\0"))[0] if number in (ICMP, ICMPV6) else 0
    return Tracked(number, sent, answer, request)


def _way(nested: bytes) -> Way | None:
    parts = attributes(nested)
    address, protocol = (
        attributes(parts.get(TUPLE_IP, b"")),
        attributes(parts.get(TUPLE_PROTO, b"")),
    )
    source, destination = address.get(1, address.get(3)), address.get(2, address.get(4))
    if source is None or destination is None:
        return None
    identifier = protocol.get(4, protocol.get(7))
    ports = (identifier, identifier) if identifier else (protocol.get(2), protocol.get(3))
    if ports[0] is None or ports[1] is None:
        return None
    return Way(
        ip_address(source),
        int.from_bytes(ports[0], "big"),
        ip_address(destination),
        int.from_bytes(ports[1], "big"),
    )
