"""A stand-in for the proxy, small enough to see through: what it carries is XORed, not TLS.

    standin.py CGROUP PODS        PODS as JSON: [[namespace, [address, ...]], ...]

In each pod's namespace it listens where the proxy does: on the loopback for what is captured, and
at the pod's addresses for tunnels. A tunnel begins with the address that its client wanted. It
says "ready" when all listen, and a line for each connection that it takes.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys
import threading
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

OUTBOUND_PORT, TUNNEL_PORT, MARK = 15001, 15008, 0x5F
SO_ORIGINAL_DST, SOL_IPV6, SO_MARK, IP_TRANSPARENT, IPV6_TRANSPARENT = 80, 41, 36, 19, 75
HEADER = struct.Struct("!16sH")
SECRET = 0x55


def enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) == 0
    os.close(descriptor)


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def disguised(data: bytes) -> bytes:
    return bytes(byte ^ SECRET for byte in data)


def pump(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            to.sendall(disguised(data))
        to.shutdown(socket.SHUT_WR)
        return
    for each in (source, to):  # broken: the other side is told
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def join(a: socket.socket, b: socket.socket) -> None:
    back = threading.Thread(target=pump, args=(b, a))
    back.start()
    pump(a, b)
    back.join()
    a.close()
    b.close()


def wanted(client: socket.socket) -> tuple[str, int]:
    if client.family == socket.AF_INET:
        raw = client.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 128)
        assert len(raw) == 16
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
    raw = client.getsockopt(SOL_IPV6, SO_ORIGINAL_DST, 128)
    assert len(raw) == 28
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big")


def outbound(namespace: str, client: socket.socket) -> None:
    enter(namespace)
    try:
        address, port = wanted(client)
        tunnel = socket.create_connection((address, TUNNEL_PORT), 2)
    except OSError as error:
        print("outbound", "-", error, flush=True)
        client.close()
        return
    tunnel.settimeout(None)
    print("outbound", address, port, flush=True)
    tunnel.sendall(disguised(HEADER.pack(ip_address(address).packed.ljust(16, b"\0"), port)))
    join(client, tunnel)


def inbound(namespace: str, tunnel: socket.socket) -> None:
    enter(namespace)
    header = disguised(tunnel.recv(HEADER.size, socket.MSG_WAITALL))
    if len(header) < HEADER.size:
        tunnel.close()
        return
    packed, port = HEADER.unpack(header)
    v4 = tunnel.family == socket.AF_INET
    own = str(ip_address(packed[:4] if v4 else packed))
    application = socket.socket(tunnel.family)
    application.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
    if v4:
        application.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    else:
        application.setsockopt(SOL_IPV6, IPV6_TRANSPARENT, 1)
    application.bind((tunnel.getpeername()[0], 0))
    try:
        application.connect((own, port))
    except OSError as error:
        print("inbound", "-", error, flush=True)
        tunnel.close()
        return
    print("inbound", own, port, flush=True)
    join(tunnel, application)


def serve(namespace: str, server: socket.socket, carry: object) -> None:
    while True:
        accepted, _ = server.accept()
        threading.Thread(target=carry, args=(namespace, accepted), daemon=True).start()


def main() -> None:
    cgroup, pods = Path(sys.argv[1]), json.loads(sys.argv[2])
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    threads = []
    for namespace, addresses in pods:
        enter(namespace)
        places = [(address, OUTBOUND_PORT, outbound) for address in ("127.0.0.1", "::1")]
        places += [(address, TUNNEL_PORT, inbound) for address in addresses]
        for address, port, carry in places:
            family = family_of(address)
            server = socket.create_server((address, port), family=family, backlog=1024)
            threads.append(threading.Thread(target=serve, args=(namespace, server, carry)))
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
