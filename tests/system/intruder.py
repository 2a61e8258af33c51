"""Root in a pod, who tries what the threat model names: one JSON object, attack by attack.

Run in the pod by ``sixfold exec``. An outcome is "denied: …" by the kernel's word, "nothing" when
no answer came, or what was got. Nothing here is meant to do harm when it succeeds.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
WAIT_S = 0.4
RATION_S = 1.1  # of refusals of one kind eight are told in a second
NOBODY = 65534
HOST_MAC, POD_MAC = bytes.fromhex("025f00000001"), bytes.fromhex("025f00000002")
ASKED = json.loads(sys.argv[1])
OWN4, OWN6, VICTIM4, VICTIM6 = (ASKED[name] for name in ("own4", "own6", "victim4", "victim6"))
CLIENT4, CLIENT6, PORT = ASKED["client4"], ASKED["client6"], ASKED["port"]
NAMES = {"agent": "sixfold.cli", "proxy": "envoy", "victim": "mesh_web.py\0victim"}
BPF, IO_URING_SETUP, IO_URING_ENTER = 321, 425, 426
CLONE, SWAPON, REBOOT, OPEN_BY_HANDLE_AT, PIDFD_GETFD = 56, 167, 169, 304, 438
CTRL_ALT_DEL_OFF = (0xFEE1DEAD, 672274793, 0, 0)
BPF_OBJ_GET, BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID = 7, 12, 14
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
NEWNET, NEWNS, NEWUSER = 0x40000000, 0x00020000, 0x10000000


def called(result: int) -> str:
    """Of a system call."""
    if result >= 0:
        return f"done: {result}"
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read(path: str) -> str:
    with open(path, "rb") as file:
        return f"read: {file.read(64)!r}"


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
    return "connected"


def child(work: Callable[[], str]) -> str:
    """In a process of its own, for what changes the process."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, attempt(work).encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 4096).decode()
    os.waitpid(pid, 0)
    return said


def attempt(work: Callable[[], str]) -> str:
    try:
        return work()
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return f"denied: {errno.errorcode.get(error.errno or 0, str(error))}"


# --- the host ---------------------------------------------------------------------------------


def by_proc(path: str) -> str:
    """Through the root of every process that one can see."""
    time.sleep(RATION_S)
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            return f"by {entry}: {read(f'/proc/{entry}/root{path}')}"
        except OSError:
            continue
    raise PermissionError(errno.EACCES, "by none")


def as_another_user(path: str) -> str:
    """As a daemon of the host without capabilities, in whose clothes its root is looked into."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    seen = {os.stat(f"/proc/{one}").st_uid for one in os.listdir("/proc") if one.isdecimal()}
    for uid in {NOBODY, *seen} - {0}:

        def looked(uid: int = uid) -> str:
            libc.prctl(8, 1, 0, 0, 0)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            data[0] = data[1]  # effective = permitted
            libc.capset(header, data)
            return by_proc(path)

        if not (said := child(looked)).startswith("denied"):
            return said
    raise PermissionError(errno.EACCES, "as nobody")


def traced(pid: int) -> str:
    said = called(libc.ptrace(PTRACE_ATTACH, pid, 0, 0))
    libc.ptrace(PTRACE_DETACH, pid, 0, 0)
    return said


def pid_of(who: str) -> int:
    """As it is seen here; else its number on the host, which is nobody's here."""
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdecimal() and NAMES[who] in Path(f"/proc/{entry}/cmdline").read_text():
                return int(entry)
    return int(ASKED["pids"][who])


def signalled(who: str) -> str:
    os.kill(pid_of(who), 0)
    return "may kill it"


def bpf(command: int, attributes: bytes) -> str:
    buffer = ctypes.create_string_buffer(attributes.ljust(144, b"\0"))
    return called(libc.syscall(BPF, command, buffer, 144))


def pinned(path: str) -> str:
    name = ctypes.create_string_buffer(path.encode())
    return bpf(BPF_OBJ_GET, struct.pack("Q", ctypes.addressof(name)))


def netlink(kind: int, body: bytes) -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(WAIT_S)
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, 0x405, 1, 0) + body)
        answer = sock.recv(4096)
    code = struct.unpack_from("=i", answer, 16)[0]
    if code:
        raise OSError(-code, os.strerror(-code))
    return "done"


def in_a_users_namespace() -> str:
    called(libc.unshare(NEWUSER | NEWNS))
    for target in ASKED["hidden"]:
        libc.umount2(target.encode(), 2)
    return read(ASKED["authority"])


def device() -> str:
    """The first that there is something on."""
    for name in sorted(os.listdir("/sys/class/block")):
        if Path(f"/sys/class/block/{name}/size").read_text().strip() != "0":
            return read(f"/dev/{name}")
    raise FileNotFoundError(errno.ENOENT, "no disk")


def written(path: str) -> str:
    with open(path, "ab"):
        return "may write"


def born_elsewhere() -> str:
    pid = libc.syscall(CLONE, NEWNET | signal.SIGCHLD, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return called(pid)


# --- packets ----------------------------------------------------------------------------------


def summed(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(source: str, destination: str, port: int, from_port: int) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    segment = struct.pack("!HHIIBBHHH", from_port, port, 1, 0, 0x50, 2, 64240, 0, 0)
    return segment[:16] + struct.pack("!H", summed(ends + b"\0\x06\0\x14" + segment)) + segment[18:]


def ipv4(source: str, destination: str, payload: bytes) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, 6, 0) + ends
    return head[:10] + struct.pack("!H", summed(head)) + head[12:] + payload


def answered(sock: socket.socket, port: int, from_port: int) -> str:
    """Whether any TCP comes back to where it was sent from."""
    sock.settimeout(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if struct.pack("!HH", port, from_port) in sock.recv(256):
            return "answered"
    raise TimeoutError


def raw_syn(source: str = OWN4, destination: str = VICTIM4, port: int = PORT) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        packet = ipv4(source, destination, syn(source, destination, port, 4444))
        sock.sendto(packet, (destination, 0))
        return answered(sock, port, 4444)


def raw_syn6() -> str:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.sendto(syn(OWN6, VICTIM6, PORT, 4446), (VICTIM6, 0))
        return answered(sock, PORT, 4446)


def framed(frame: bytes) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.bind(("eth0", 0))
        sock.send(frame)
        return answered(sock, PORT, 4445)


def packet_syn(source_mac: bytes = POD_MAC, source: str = OWN4) -> str:
    packet = ipv4(source, VICTIM4, syn(source, VICTIM4, PORT, 4445))
    return framed(HOST_MAC + source_mac + b"\x08\0" + packet)


def arp() -> str:
    """That the victim's and the gateway's address is ours, to whoever listens."""
    for address in (VICTIM4, "169.254.1.1"):
        body = struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + POD_MAC + socket.inet_aton(address)
        frame = b"\xff" * 6 + POD_MAC + b"\x08\x06" + body + b"\xff" * 6 + socket.inet_aton(VICTIM4)
        said = attempt(lambda frame=frame: framed(frame))
    return said


def neighbour() -> str:
    """An unasked neighbour advertisement for the victim's address (RFC 4861)."""
    target = socket.inet_pton(socket.AF_INET6, VICTIM6)
    all_nodes = socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = b"\x88\0\0\0\x20\0\0\0" + target + b"\x02\x01" + POD_MAC
    pseudo = target + all_nodes + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", summed(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + target + all_nodes
    return framed(bytes.fromhex("333300000001") + POD_MAC + b"\x86\xdd" + head + body)


# --- dials ------------------------------------------------------------------------------------


def dialled(address: str, port: int, data: bytes = GET) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(2 * WAIT_S)
        sock.connect((address, port))
        sock.sendall(data)
        return f"got: {sock.recv(200)!r}"


def fast_open() -> str:
    with socket.socket() as sock:
        sock.settimeout(2 * WAIT_S)
        sock.sendto(GET, socket.MSG_FASTOPEN, (VICTIM4, PORT))
        return f"got: {sock.recv(200)!r}"


def by_ring() -> str:
    """connect() by io_uring: no system call of that name."""
    import mmap

    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(IO_URING_SETUP, 4, parameters)
    called(ring)
    sq_entries, cq_entries, *_ = struct.unpack_from("=10I", parameters)
    sq = struct.unpack_from("=10I", parameters, 40)
    cq = struct.unpack_from("=10I", parameters, 80)
    submissions = mmap.mmap(ring, sq[6] + sq_entries * 4, offset=0)
    entries = mmap.mmap(ring, sq_entries * 64, offset=0x10000000)
    completions = mmap.mmap(ring, cq[5] + cq_entries * 16, offset=0x8000000)
    with socket.socket() as sock:
        sock.settimeout(None)
        address = ctypes.create_string_buffer(
            struct.pack("=H", socket.AF_INET) + struct.pack("!H", PORT) + socket.inet_aton(VICTIM4),
            16,
        )
        entries[:64] = struct.pack(
            "=BBHiQQIIQ24x", 16, 0, 0, sock.fileno(), 16, ctypes.addressof(address), 0, 0, 7
        )
        struct.pack_into("=I", submissions, sq[6], 0)
        struct.pack_into("=I", submissions, sq[1], 1)
        called(libc.syscall(IO_URING_ENTER, ring, 1, 0, 0, 0, 0))
        deadline = time.monotonic() + WAIT_S
        while struct.unpack_from("=I", completions, cq[1])[0] == 0:
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.01)
        code = struct.unpack_from("=i", completions, cq[5] + 8)[0]
        if code:
            raise OSError(-code, os.strerror(-code))
        sock.settimeout(2 * WAIT_S)
        sock.sendall(GET)
        return f"got: {sock.recv(200)!r}"


# What they are after is not there in a pod, where decoys are, or is there to read only.
OUT_OF_SIGHT: dict[str, Callable[[], str]] = {
    "read the authority": lambda: read(ASKED["authority"]),
    "read the authority by /proc": lambda: child(lambda: by_proc(ASKED["authority"])),
    "read the authority as another user": lambda: as_another_user(ASKED["authority"]),
    "read the authority in a user namespace": lambda: child(in_a_users_namespace),
    "open the API": lambda: unix(ASKED["api"]),
    "open the proxy's admin": lambda: unix(ASKED["run"] + "/proxy.sock"),
    "open the proxy's configuration": lambda: unix(ASKED["run"] + "/xds.sock"),
    "kill the agent": lambda: signalled("agent"),
    "kill the proxy": lambda: signalled("proxy"),
    "trace another pod": lambda: child(lambda: traced(pid_of("victim"))),
    "enter another pod's network": lambda: called(
        libc.setns(os.open(ASKED["victim_netns"], os.O_RDONLY), NEWNET)
    ),
    "leave the control group": lambda: written(ASKED["proxy_group"] + "/cgroup.procs"),
    "read a disk": device,
    "open a pinned map": lambda: pinned(ASKED["pin"]),
    "write a program of the host": lambda: written(ASKED["program"]),
}
# What they are after the kernel has, and gives to those with a capability.
REFUSED: dict[str, Callable[[], str]] = {
    "mount": lambda: called(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "unmount": lambda: called(libc.umount2(b"/run", 2)),
    "make a namespace": lambda: called(libc.unshare(NEWNS)),
    "be born in a namespace": born_elsewhere,
    "enter a namespace": lambda: called(
        libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), NEWNET)
    ),
    "trace init": lambda: traced(1),
    "read init's memory": lambda: read("/proc/1/mem"),
    "take init's files": lambda: called(libc.syscall(PIDFD_GETFD, os.pidfd_open(1), 0, 0)),
    "make a device": lambda: called(libc.mknod(b"/tmp/disk", 0o60600, 0x100)),
    "open by a handle": lambda: called(
        libc.syscall(OPEN_BY_HANDLE_AT, os.open("/", 0), struct.pack("=Ii8x", 8, 1), 0)
    ),
    "forbid Ctrl-Alt-Del": lambda: called(libc.syscall(REBOOT, *CTRL_ALT_DEL_OFF)),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()) or "set",
    "rename the host": lambda: socket.sethostname(socket.gethostname()) or "named",
    "swap": lambda: called(libc.syscall(SWAPON, b"/tmp/none", 0)),
    "list maps": lambda: bpf(BPF_MAP_GET_NEXT_ID, b""),
    "open a map by number": lambda: bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("=I", ASKED["map"])),
    "add an address": lambda: netlink(
        20,
        struct.pack("=BBBBI", 2, 32, 0, 0, 2)
        + struct.pack("=HH", 8, 2)
        + socket.inet_aton(VICTIM4),
    ),
    "take the link down": lambda: netlink(16, struct.pack("=BBHiII", 0, 0, 0, 2, 0, 1)),
}
ON_THE_NETWORK: dict[str, Callable[[], str]] = {
    "spoof an address": lambda: raw_syn(source=CLIENT4),
    "spoof an Ethernet address": lambda: packet_syn(source_mac=b"\x02\0\0\0\0\x07"),
    "poison ARP": arp,
    "poison neighbours": neighbour,
    "a raw socket's SYN": raw_syn,
    "a raw socket's SYN over IPv6": raw_syn6,
    "a packet socket's SYN": packet_syn,
    "a raw SYN to the tunnel": lambda: raw_syn(port=15008),
    "dial": lambda: dialled(VICTIM4, PORT),
    "dial over IPv6": lambda: dialled(VICTIM6, PORT),
    "dial a mapped address": lambda: dialled(f"::ffff:{VICTIM4}", PORT),
    "dial by MSG_FASTOPEN": fast_open,
    "dial by io_uring": by_ring,
    "dial the tunnel": lambda: dialled(VICTIM4, 15008),
    "dial the own tunnel": lambda: dialled(OWN4, 15008),
    "dial the own proxy": lambda: dialled("127.0.0.1", 15001),
    "dial the own proxy for requests": lambda: dialled(
        "127.0.0.1",
        15002,
        f"GET / HTTP/1.1\r\nHost: x\r\nx-sixfold-destination: {VICTIM4}:{PORT}\r\n"
        f"x-sixfold-pod: pod|{VICTIM4}\r\nConnection: close\r\n\r\n".encode(),
    ),
    "dial another pod's proxy": lambda: dialled(VICTIM4, 15001),
    "dial the host": lambda: dialled(ASKED["node"], 22),
    "dial the resolver elsewhere": lambda: dialled("169.254.20.10", 80),
}
ATTACKS = OUT_OF_SIGHT | REFUSED | ON_THE_NETWORK


def main() -> None:
    signal.alarm(50)
    only = ASKED.get("only")
    found: dict[str, Any] = {
        name: attempt(work) for name, work in ATTACKS.items() if not only or name in only
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
