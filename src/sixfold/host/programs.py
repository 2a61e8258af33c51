"""Programs and maps of one instance: adopted from bpffs when they are ours, else loaded.

    /sys/fs/bpf/<instance>/maps/<map>
                           programs/<hash of the objects>/<program>
                           links/<hook>

Whoever finds the directory of its own hash complete needs no load. A new version loads beside
the old, switches every link, and removes the old: no packet goes without a program. Those of
uplinks are more than half of all that the verifier reads, and many a host has none: each is
loaded when it is first asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host import bpf
from sixfold.host.loader import BpfObject
from sixfold.host.paths import BPFFS_ROOT

OBJECTS = Path(__file__).parent / "objects"
UPLINK_OBJECT = "uplink.bpf.o"
OBJECT_NAMES = (
    "endpoint.bpf.o",
    "socket.bpf.o",
    "capture.bpf.o",
    "sweep.bpf.o",
    UPLINK_OBJECT,
    "accelerate.bpf.o",
    "tunnel.bpf.o",
    "count.bpf.o",
    "refusal.bpf.o",
)
PACKET_PROGRAMS = ("from_endpoint", "to_endpoint")
UPLINK_PROGRAMS = ("from_uplink", "to_uplink")
BARE_UPLINK_PROGRAMS = ("from_bare_uplink", "to_bare_uplink")  # without an Ethernet header
TCX = {
    "from_endpoint": bpf.TCX_INGRESS,
    "to_endpoint": bpf.TCX_EGRESS,
    "from_uplink": bpf.TCX_INGRESS,
    "to_uplink": bpf.TCX_EGRESS,
    "from_bare_uplink": bpf.TCX_INGRESS,
    "to_bare_uplink": bpf.TCX_EGRESS,
}
# enum bpf_attach_type; all at the root of cgroup v2, but for the tracepoint, which has no place
TRACEPOINT = 23
SOCKET_PROGRAMS = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
    "getsockname4": 31,
    "getsockname6": 32,
    "sock_release": 34,
    "socket_state": TRACEPOINT,
}
REFUSED = "refused"  # where the kernel has the tracepoint of capability checks, since 6.14
MET_NOTHING = "met_nothing"  # while every system call is traced
VMLINUX = Path("/sys/kernel/btf/vmlinux")
CHECKS = b"\0btf_trace_cap_capable\0"
TRACEPOINTS = ("socket_state", REFUSED, MET_NOTHING)
JOIN, SOCK_OPS = "join", 3  # at the root of cgroup v2, while a pod asks for acceleration
REACHED = "reached"  # at the root of cgroup v2, while a pod is in the mesh
PROXY_PROGRAMS = {"tunnel": SOCK_OPS, "original_destination": 21}  # at the proxy's cgroup
COUPLE = "couple"  # at the proxy's cgroup: its tunnels within the host
SK_MSG_VERDICT = 7
CARRIERS = {"carry": "accelerated", "carry_tunnel": "tunnel_sockets"}  # on a write, by map
ACCELERATION_FLOOR = (6, 13)  # before, nobody counts what an accelerated socket has yet to read
COUNT_MAPS = "count_maps"  # read as a file: see fill.py
COUNTING = ("sockets", "backends", "loads", "arrivals", "arrived")
ON_DEMAND = (*UPLINK_PROGRAMS, *BARE_UPLINK_PROGRAMS)  # all of one object
ALWAYS = (
    *PACKET_PROGRAMS,
    *SOCKET_PROGRAMS,
    "sweep",
    "sweep_captured",
    COUNT_MAPS,
    "reap",
    "release",
    JOIN,
    REACHED,
    *PROXY_PROGRAMS,
    COUPLE,
    *CARRIERS,
)
PROGRAMS = (*ALWAYS, *ON_DEMAND, REFUSED, MET_NOTHING)
RCU_EXPEDITED = Path("/sys/kernel/rcu_expedited")
RCU_BEFORE = Path("/run/sixfold-rcu-expedited")  # there while one of us has turned it: what it was


def mount_bpffs() -> None:
    """Mount the BPF file system where everybody looks for it, once."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if target == str(BPFFS_ROOT) and kind == "bpf":
            return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", str(BPFFS_ROOT).encode(), b"bpf", 0, b"mode=0700") != 0:
        error = bpf.symbol(OSError(ctypes.get_errno(), ""))
        raise HostError(
            f"mount {BPFFS_ROOT}: {error}: the datapath is kept there; "
            f"as root: mount -t bpf bpf {BPFFS_ROOT}"
        )


@contextlib.contextmanager
def expedited_rcu() -> Iterator[None]:
    """Attach and detach wait for RCU twice, 25 ms; with this knob, under 1 ms.

    It is the whole host's: locked, so that two of us cannot leave it turned on; and what it was is
    written down, so that whoever comes after one that was killed puts it back.
    """
    try:
        knob = os.open(RCU_EXPEDITED, os.O_RDWR)
    except OSError:  # not ours to turn: slower, not wrong
        yield
        return
    try:
        fcntl.flock(knob, fcntl.LOCK_EX)
        before = _written_down(os.pread(knob, 16, 0))
        os.pwrite(knob, b"1", 0)
        try:
            yield
        finally:
            os.pwrite(knob, before, 0)
            RCU_BEFORE.unlink(missing_ok=True)
    finally:
        os.close(knob)


def _written_down(now: bytes) -> bytes:
    """What the knob was before any of us turned it."""
    with contextlib.suppress(FileNotFoundError):
        if before := RCU_BEFORE.read_bytes():
            return before
    with contextlib.suppress(OSError):  # no /run to write to: put back, unless we are killed
        RCU_BEFORE.write_bytes(now)
    return now


def kernel_version() -> tuple[int, int]:
    """The running kernel's, as far as features depend on it."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


@cache
def tells_refusals() -> bool:
    """Whether this kernel says which capability it refused to whom."""
    try:
        return CHECKS in VMLINUX.read_bytes()
    except FileNotFoundError:
        return False


def _always() -> tuple[str, ...]:
    return (*ALWAYS, REFUSED, MET_NOTHING) if tells_refusals() else ALWAYS


def objects_hash() -> str:
    """Names the version of the compiled programs."""
    digest = hashlib.sha256()
    for name in OBJECT_NAMES:
        try:
            digest.update((OBJECTS / name).read_bytes())
        except FileNotFoundError:
            raise HostError(
                f"{OBJECTS / name}: missing: the datapath is not built; run python hatch_build.py"
            ) from None
    return digest.hexdigest()[:16]


class _Descriptors(dict[str, int]):
    """Programs by name; one of those on demand is loaded and pinned when it is asked for."""

    def __init__(self, maps: Path, pins: Path) -> None:
        super().__init__()
        self._maps = maps
        self._pins = pins

    def __missing__(self, name: str) -> int:
        if name not in ON_DEMAND:
            raise KeyError(name)
        others = [other for other in ON_DEMAND if other != name]
        with BpfObject(OBJECTS / UPLINK_OBJECT) as candidate:
            self.update(candidate.load(self._maps, without=others))
        bpf.pin(self[name], self._pins / name)
        return self[name]


class Programs:
    """Open programs and maps of one instance."""

    def __init__(self, root: Path, fds: _Descriptors, *, adopted: bool) -> None:
        self.root = root
        self.fds = fds
        self.adopted = adopted  # nothing was loaded
        self.maps = open_maps(root)

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        for each in self.maps.values():
            each.close()


def open_maps(root: Path) -> dict[str, bpf.Map]:
    """All pinned maps of an instance, by name."""
    if not (root / "maps").is_dir():
        raise HostError(f"{root}: no datapath is loaded; start the agent (sixfold up)")
    return {path.name: bpf.Map(bpf.get(path), path.name) for path in (root / "maps").iterdir()}


def open_programs(root: Path) -> Programs:
    """Adopt what is pinned if it is of our version and whole, else load."""
    mount_bpffs()
    for directory in (root, root / "maps", root / "programs", root / "links"):
        directory.mkdir(mode=0o700, exist_ok=True)
    ours = root / "programs" / objects_hash()
    fds = _adopt(root, ours)
    if fds is not None:
        return Programs(root, fds, adopted=True)
    programs = Programs(root, _load(root, ours), adopted=False)
    for other in (root / "programs").iterdir():
        if other != ours:
            shutil.rmtree(other)
    return programs


def _adopt(root: Path, ours: Path) -> _Descriptors | None:
    there = {path.name for path in ours.iterdir()} if ours.is_dir() else set()
    if not there.issuperset(_always()):
        return None
    for name in OBJECT_NAMES:
        with BpfObject(OBJECTS / name) as candidate:
            if any(not (root / "maps" / each).exists() for each in candidate.definitions()):
                return None  # the programs hold a map that nobody can reach any more
    fds = _Descriptors(root / "maps", ours)
    fds.update({name: bpf.get(ours / name) for name in there})
    return fds


def _load(root: Path, ours: Path) -> _Descriptors:
    """Load all objects, switch the links that exist, pin the programs."""
    fds = _Descriptors(root / "maps", ours)
    known: dict[str, bpf.MapDefinition] = {}
    for name in OBJECT_NAMES:
        with BpfObject(OBJECTS / name) as candidate:
            known |= (wanted := candidate.definitions())
        if "accelerated" in wanted:
            _refuse_to_lose(root, wanted)
    _drop_unlike(root, known)  # before any is loaded: they share their maps
    for name in OBJECT_NAMES:
        with BpfObject(OBJECTS / name) as candidate:
            left_out = [one for one in PROGRAMS if one not in _always()]
            fds.update(candidate.load(root / "maps", without=left_out))
    for program, sockets in CARRIERS.items():
        _attach_to_map(fds[program], root / "maps" / sockets)
    shutil.rmtree(ours, ignore_errors=True)
    ours.mkdir(mode=0o700)
    for link in (root / "links").iterdir():
        switch_link(link, fds)
    for path in (root / "maps").iterdir():
        if path.name not in known:
            path.unlink()  # of an older version
    for name in _always():
        bpf.pin(fds[name], ours / name)
    return fds


def _refuse_to_lose(root: Path, wanted: Mapping[str, bpf.MapDefinition]) -> None:
    """HostError when maps that open accelerated connections hang on would be replaced.

    What nobody has read yet goes with ``accelerated``; and sockets in it keep the program that
    judges their writes, which would ask maps that nobody writes any more.
    """
    unlike = [name for name, one in wanted.items() if _is_unlike(root / "maps" / name, one)]
    path = root / "maps" / "accelerated"
    if not unlike or not path.exists():
        return
    sockets = bpf.Map(bpf.get(path), path.name)
    try:
        if not sockets.is_empty():
            raise HostError(
                f"{path}: accelerated connections are open, and would lose data: this version has "
                f"another layout of {', '.join(unlike)}; delete their pods with the version before "
                "(sixfold bpf ct list shows them), or sixfold down"
            )
    finally:
        sockets.close()


def _drop_unlike(root: Path, definitions: Mapping[str, bpf.MapDefinition]) -> None:
    """Unpin maps of another shape: a newer version brings its own, filled by the next apply.

    Sockets, backends and loads stay or go together: a connection that nobody knows any more must
    not be counted for ever.
    """
    counting = {root / "maps" / name: definitions[name] for name in COUNTING if name in definitions}
    if any(not path.exists() or _is_unlike(path, wanted) for path, wanted in counting.items()):
        for path in counting:
            path.unlink(missing_ok=True)
    for name, wanted in definitions.items():
        if _is_unlike(root / "maps" / name, wanted):
            (root / "maps" / name).unlink()


def _is_unlike(path: Path, wanted: bpf.MapDefinition) -> bool:
    """Whether a map of another shape is pinned there."""
    if not path.exists():
        return False
    pinned = bpf.Map(bpf.get(path), path.name)
    try:
        return pinned.definition != wanted
    finally:
        pinned.close()


def _attach_to_map(program: int, path: Path) -> None:
    """Sockets that join from now on have this program; others keep theirs."""
    sockets = bpf.get(path)
    try:
        bpf.attach_to_map(program, sockets, SK_MSG_VERDICT)
    finally:
        os.close(sockets)


def switch_link(path: Path, fds: Mapping[str, int]) -> None:
    """Let a pinned link run the program of its name: ``from_endpoint_7``, ``connect4``."""
    program = next((name for name in PROGRAMS if path.name.startswith(name)), None)
    if program is None:
        return
    link = bpf.get(path)
    try:
        bpf.link_update(link, fds[program])
    except OSError:
        path.unlink()  # its interface is gone
    finally:
        os.close(link)
