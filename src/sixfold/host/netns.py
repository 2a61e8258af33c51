"""Network namespaces with a name: made, found, entered, removed.

A name is a bind mount under /run/netns, as iproute2 does it, so that ``ip netns`` shows pods
and the namespace outlives the agent. Only the calling thread ever changes namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sixfold.errors import HostError

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED, MNT_DETACH = 4096, 16384, 1 << 20, 2
SO_NETNS_COOKIE = 71
NSFS_MAGIC = 0x6E736673

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        hint = "; needs root" if code == errno.EPERM else ""
        raise HostError(f"{what}: {errno.errorcode.get(code, code)}{hint}")


def create(path: Path, prepare: Callable[[], T]) -> T:
    """Make a namespace named by ``path``; ``prepare`` runs inside, before anyone else can.

    Its result is returned. Whatever fails, no namespace is left.
    """
    _share(path.parent)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError:
        raise HostError(f"network namespace {path.name}: exists; remove it first") from None

    def make() -> T:
        leave()
        _mount("/proc/thread-self/ns/net", str(path), MS_BIND)
        return prepare()

    try:
        return in_thread(make)
    except BaseException:
        delete(path)
        raise


def delete(path: Path) -> None:
    """Remove the name; the namespace goes when its last process does. Absent is fine."""
    if _libc.umount2(os.fsencode(path), MNT_DETACH) < 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):  # not a mount: a half-made one
            _check(-1, f"umount {path}")
    path.unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Whether the name stands for a namespace, not for a leftover file."""
    try:
        return bool(os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev)
    except FileNotFoundError:
        return False


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Run the body in the namespace, on this thread: no ``await`` in the body."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(path)
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "setns back to the host's namespace")
    finally:
        os.close(home)


def enter(path: Path) -> None:
    """Move the calling thread into the namespace, for good."""
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostError(f"network namespace {path}: does not exist") from None
    try:
        _check(_libc.setns(target, CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(target)


def leave() -> None:
    """Move the calling thread into a new namespace without a name, for good."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare network namespace")


def run_inside(path: Path, work: Callable[[], T]) -> T:
    """Run ``work`` in the namespace on a thread of its own; its result or its exception."""

    def entered() -> T:
        enter(path)
        return work()

    return in_thread(entered)


def cookie() -> int:
    """Number of the calling thread's namespace, unique since boot; what BPF programs see."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        packed = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return int(struct.unpack("=Q", packed)[0])


def cookies(paths: Iterable[Path]) -> dict[Path, int]:
    """Cookies of many namespaces, on one thread."""

    def visit() -> dict[Path, int]:
        found = {}
        for path in paths:
            enter(path)
            found[path] = cookie()
        return found

    return in_thread(visit)


def in_thread(work: Callable[[], T]) -> T:
    """Run on a fresh thread, which takes its namespace with it when it ends."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


_shared: set[Path] = set()


def _share(directory: Path) -> None:
    """Make /run/netns a shared mount, so that names reach every mount namespace.

    ``Path.is_mount`` compares devices, and a bind mount onto itself keeps its device. Mounting
    again is no small fault: shared mounts propagate, so each time doubles their number.
    """
    if directory in _shared:
        return
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # iproute2 takes the same lock
        if not _is_mount_point(directory):
            _mount(str(directory), str(directory), MS_BIND | MS_REC)
            _mount("none", str(directory), MS_SHARED | MS_REC)
        _shared.add(directory)
    finally:
        os.close(descriptor)


def _is_mount_point(directory: Path) -> bool:
    lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    return any(line.split(" ", 5)[4] == str(directory) for line in lines)


def _mount(source: str, target: str, flags: int) -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), b"none", flags, None)
    _check(result, f"mount {source} on {target}")
