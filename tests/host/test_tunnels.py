"""Tunnels between two pods of this host: from socket to socket, and everything TCP promises."""

from __future__ import annotations

import hashlib
import os
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import BY_SOCKETS, TUNNEL
from sixfold.host.paths import cgroup_root
from sixfold.model.mesh import TUNNEL_PORT, Mode

from .conftest import started
from .lab import B, Lab

pytestmark = pytest.mark.root

MB = 1 << 20
UNREAD_MAX = 4 * MB  # of bpf/lib/pairs.h
Ends = tuple[socket.socket, socket.socket]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with started() as made:
        yield made


@pytest.fixture(scope="module")
def group(lab: Lab) -> Iterator[Path]:
    made = cgroup_root() / f"{lab.instance}-proxy"
    made.mkdir()
    yield made
    lab.hang_up()
    made.rmdir()


@pytest.fixture
def proxy(lab: Lab, group: Path) -> Path:
    """Its control group: what is dialled and listened on from there is the proxy's."""
    lab.forget()
    lab.datapath.keep_proxy(group)
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    return group


@contextmanager
def of(group: Path) -> Iterator[None]:
    """What this process opens meanwhile belongs to that control group."""
    line = Path("/proc/self/cgroup").read_text().splitlines()[-1]
    home = cgroup_root() / line.removeprefix("0::/")
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))


def tunnel(lab: Lab, proxy: Path) -> Ends:
    """Both have said something already, as in a handshake: that goes by packets."""
    with of(proxy):
        server = lab.listen("b", B.ipv4, TUNNEL_PORT)
        one = lab.connect("a", B.ipv4, TUNNEL_PORT)
        other = server.accept()[0]
    server.close()
    other.settimeout(5)
    lab.sockets.append(other)
    for writer, reader in ((one, other), (other, one)):
        writer.sendall(b"hello")
        assert reader.recv(10) == b"hello"
    assert seen(lab).carried == (0, 0)
    return one, other


def seen(lab: Lab):  # type: ignore[no-untyped-def]
    """By conntrack."""
    (found,) = (one for one in lab.datapath.conntrack() if one.transport == TUNNEL)
    return found


def exactly(one: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = one.recv(min(size - len(found), 1 << 16))
        assert part, f"ended with {size - len(found)} bytes missing"
        found += part
    return bytes(found)


def fill(one: socket.socket, content: bytes) -> int:
    """As much as is taken while nobody reads."""
    one.setblocking(False)
    done = 0
    try:
        while True:
            done += one.send(content[done:][:100_000])
    except BlockingIOError:
        one.settimeout(5)
    return done


def test_it_is_carried_from_socket_to_socket_and_counted(lab: Lab, proxy: Path) -> None:
    one, other = tunnel(lab, proxy)
    before = seen(lab).bytes
    for writer, reader in ((one, other), (other, one)):
        writer.sendall(bytes(1000))
        assert exactly(reader, 1000) == bytes(1000)
    found = seen(lab)
    assert found.carried == (BY_SOCKETS, BY_SOCKETS)
    assert [now - was for now, was in zip(found.bytes, before, strict=True)] == [1000, 1000]


def test_a_reader_that_lags_makes_the_writer_wait_and_loses_nothing(lab: Lab, proxy: Path) -> None:
    """Sockets, then packets, then sockets again: in order, whenever the reader reads."""
    one, other = tunnel(lab, proxy)
    content = random.Random(1).randbytes(32 * MB)
    done = fill(one, content)
    assert UNREAD_MAX // 2 < done < 24 * MB  # and as much as buffers of packets take
    chance, digest = random.Random(2), hashlib.sha256()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(one.sendall, content[done:])
        left = len(content)
        while left:
            part = exactly(other, min(left, chance.choice([1, 1000, 300_000])))
            digest.update(part)
            left -= len(part)
        writing.result()
    assert digest.digest() == hashlib.sha256(content).digest()
    before = max(seen(lab).bytes)
    one.sendall(bytes(1000))
    assert exactly(other, 1000) == bytes(1000)
    assert max(seen(lab).bytes) - before == 1000, "by sockets again: packets count their headers"


def test_what_was_written_before_the_end_is_read_before_it(lab: Lab, proxy: Path) -> None:
    one, other = tunnel(lab, proxy)
    one.sendall(bytes(MB))
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        one.send(b"more")
    assert exactly(other, MB) == bytes(MB)
    assert other.recv(1) == b""
    other.sendall(b"answer")
    other.close()
    assert exactly(one, 6) == b"answer"
    assert one.recv(1) == b""


def test_a_socket_that_is_not_the_proxys_is_carried_nothing(lab: Lab, proxy: Path) -> None:
    server = lab.listen("b", B.ipv4, TUNNEL_PORT)
    with of(proxy):
        one = lab.connect("a", B.ipv4, TUNNEL_PORT)
    other = server.accept()[0]
    lab.sockets.append(other)
    for writer, reader in ((one, other), (other, one)) * 2:
        writer.sendall(b"x")
        assert reader.recv(1) == b"x"
    assert seen(lab).carried == (0, 0)


def test_a_version_with_another_layout_leaves_open_ones_as_they_are(
    lab: Lab, proxy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlike accelerated connections of pods, it need not wait for their end: nothing is lost."""
    one, other = tunnel(lab, proxy)
    content = random.Random(3).randbytes(MB)
    one.sendall(content)  # not read yet
    lab.datapath.close()
    unlike = ("tunnel_sockets", "ends", "pairs")
    with monkeypatch.context() as patch:
        patch.setattr("sixfold.host.programs.objects_hash", lambda: "other")
        patch.setattr(
            "sixfold.host.programs._is_unlike",
            lambda path, _: path.exists() and path.name in unlike,
        )
        lab.datapath = KernelDatapath.open(lab.instance)
        lab.datapath.keep_proxy(proxy)
    assert exactly(other, MB) == content
    for writer, reader in ((one, other), (other, one)):
        writer.sendall(content)
        assert exactly(reader, MB) == content
