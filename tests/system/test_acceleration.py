"""Acceleration: TCP between two pods from socket to socket, and everything that TCP promises."""

from __future__ import annotations

import hashlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli.client import Client
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import BY_SOCKETS, Connection, pack_sides

from .conftest import System
from .places import (
    FAMILIES,
    OPEN,
    SILENCE_S,
    WAIT_S,
    Place,
    manifest,
    places_of,
    pod,
    policy,
    service,
)

pytestmark = pytest.mark.root

MB = 1 << 20
SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "fast", "annotations": {"sixfold.dev/acceleration": "sockmap"}},
}


def without_acceleration(made: dict[str, Any]) -> dict[str, Any]:
    return {**made, "metadata": {"name": made["metadata"]["name"]}}


def annotated(made: dict[str, Any], value: str) -> dict[str, Any]:
    made["metadata"]["annotations"] = {"sixfold.dev/acceleration": value}
    return made


@dataclass
class Town:
    system: System
    client: Place  # both ask for acceleration
    server: Place
    plain: Place  # this one does not
    vip: str

    def connection(self, one: socket.socket) -> Connection:
        """A client's, as conntrack has it; another may have had its port, to elsewhere."""
        dialled, port = one.getpeername()[:2]
        view = KernelDatapath.view(self.system.paths.instance)
        try:
            return next(
                found
                for found in view.conntrack()
                if (str(found.source), found.source_port) == one.getsockname()[:2]
                if dialled == self.vip or found.destination_port == port
            )
        finally:
            view.close()

    def live(self) -> int:
        """Connections to the service, as the kernel counts them."""
        api = Client(self.system.paths.api_socket)
        found = api.get("/v1/balancing", {"namespace": "fast", "service": "server"})
        return sum(one["connections"] for one in found["frontends"][0]["backends"])

    def carried(self, one: socket.socket) -> tuple[bool, bool]:
        """Whether what client and server send goes from socket to socket."""
        client, server = self.connection(one).carried
        return client == BY_SOCKETS, server == BY_SOCKETS

    def is_held(self, one: socket.socket, which: int) -> bool:
        """Whether client (0) or server (1) is still where data gets from socket to socket."""
        (source, port), (target, dialled) = one.getsockname()[:2], one.getpeername()[:2]
        places = (ip_address(source), port), (ip_address(target), dialled)
        key, client = pack_sides(*places, socket.IPPROTO_TCP)
        view = KernelDatapath.view(self.system.paths.instance)
        try:
            side = struct.pack("<I4x", client ^ which)
            return view.maps["accelerated"].lookup(key + side) is not None
        finally:
            view.close()

    @contextmanager
    def connected(
        self, client: Place | None = None, port: int = 8080
    ) -> Iterator[tuple[socket.socket, socket.socket]]:
        with self.server.listen(port) as listener:
            one = (client or self.client).dial(self.server.ipv4, port)
            other = listener.accept()[0]
            other.settimeout(WAIT_S)
            with one, other:
                yield one, other


def text(name: tuple[str, int]) -> str:
    return f"{name[0]}:{name[1]}"


@pytest.fixture(scope="module")
def town(module_system: System) -> Town:
    module_system.up(
        manifest=manifest(
            NAMESPACE,
            pod("client", namespace="fast"),
            pod("server", namespace="fast"),
            annotated(pod("plain", namespace="fast"), "none"),
            service("server", namespace="fast", ports=[{"port": 80, "targetPort": 8080}]),
            policy("open", None, namespace="fast", **OPEN),
        )
    )
    places = places_of(module_system, "fast/client", "fast/server", "fast/plain")
    vip = module_system.json("get", "svc", "server", "-n", "fast")["spec"]["clusterIP"]
    return Town(module_system, *places, vip)


def everything(one: socket.socket) -> bytes:
    """Until the other side ends."""
    parts = []
    while part := one.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def exactly(one: socket.socket, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = one.recv(min(left, 1 << 16))
        assert part, f"ended with {left} of {size} bytes missing"
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def write(one: socket.socket, content: bytes, seed: int) -> None:
    """In pieces of any size."""
    sizes, at = random.Random(seed), 0
    while at < len(content):
        size = sizes.choice([1, 100, 4_000, 70_000, 300_000])
        one.sendall(content[at : at + size])
        at += size


@FAMILIES
def test_transfers_of_any_size_arrive_whole_and_are_counted(town: Town, version: int):
    """Both directions at once, on many connections. Counted is what was written; what packets
    carry comes with their headers: those of the handshake are 200 bytes or so."""
    chance = random.Random(version)
    count = 12
    with ExitStack() as stack, ThreadPoolExecutor(4 * count) as pool:
        listener = stack.enter_context(town.server.listen(8080, version=version))
        address = town.server.address(version)
        ones = [stack.enter_context(town.client.dial(address, 8080)) for _ in range(count)]
        accepted = [stack.enter_context(listener.accept()[0]) for _ in range(count)]
        others = {other.getpeername()[1]: other for other in accepted}
        work = []
        for number, one in enumerate(ones):
            other = others[one.getsockname()[1]]
            there, back = (chance.randbytes(chance.randint(1, 2 * MB)) for _ in range(2))
            for sock in (one, other):
                sock.settimeout(30)
            writing = [
                pool.submit(write, one, there, number),
                pool.submit(write, other, back, -number),
            ]
            reading = [
                pool.submit(exactly, other, len(there)),
                pool.submit(exactly, one, len(back)),
            ]
            work.append((one, there, back, writing, reading))
        for _, there, back, writing, reading in work:
            for each in writing:
                each.result()
            for content, each in zip((there, back), reading, strict=True):
                assert hashlib.sha256(each.result()).digest() == hashlib.sha256(content).digest()
        for one, there, back, *_ in work:
            assert town.carried(one) == (True, True)
            counted = town.connection(one).bytes
            extra = [n - len(part) for n, part in zip(counted, (there, back), strict=True)]
            assert all(0 < each < 400 for each in extra), extra


def test_both_ends_must_ask(town: Town):
    """A pod's own word counts, whatever its namespace says."""
    with town.connected() as (one, other):
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        assert town.carried(one) == (True, False)
        other.sendall(b"!")
        assert exactly(one, 1) == b"!"
        rows = town.system.json("bpf", "ct", "list")
        (row,) = [row for row in rows if row["source"] == text(one.getsockname())]
        assert row["accelerated"] == "both ways"
    with town.connected(client=town.plain) as (one, other):
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        assert town.carried(one) == (False, False)
    explained = town.system.sixfold("explain", "fast/client", "fast/server:80").stdout
    assert "accelerated: once open, data goes from socket to socket" in explained
    explained = town.system.sixfold("explain", "fast/plain", "fast/server:80").stdout
    assert "not accelerated: fast/plain does not ask for it" in explained


def test_through_a_service_too(town: Town):
    with (
        town.server.listen(8080) as listener,
        town.client.dial(town.vip, 80) as one,
        listener.accept()[0] as other,
    ):
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        assert town.carried(one) == (True, False)
        assert one.getpeername() == (town.vip, 80)
        assert town.live() == 1
    town.system.eventually(lambda: town.live() == 0)


def test_what_is_not_read_yet_outlives_the_end_of_both_sides(town: Town):
    """Kernels before 6.0 dropped the queue of a socket that reached CLOSED."""
    content = random.Random(1).randbytes(MB)
    with town.connected() as (one, other):
        one.sendall(b"give")
        assert exactly(other, 4) == b"give"
        other.sendall(content)  # not read yet
        assert town.carried(one) == (True, True)
        one.shutdown(socket.SHUT_WR)
        assert other.recv(1) == b""
        other.close()
        time.sleep(0.5)
        assert everything(one) == content


def test_an_answer_after_the_half_close_arrives_whole(town: Town):
    content = random.Random(2).randbytes(MB)
    with town.connected() as (one, other):
        one.sendall(b"give")
        one.shutdown(socket.SHUT_WR)
        assert everything(other) == b"give"
        other.sendall(content)
        other.close()
        time.sleep(0.3)
        assert everything(one) == content


def test_a_reset_after_the_end_costs_nothing_that_was_sent(town: Town):
    """The client has closed; what the server writes is refused; what it was sent it still reads."""
    content = random.Random(3).randbytes(MB)
    with town.connected() as (one, other):
        one.sendall(content)
        one.close()
        time.sleep(0.2)
        other.sendall(b"thanks")
        time.sleep(0.2)
        assert exactly(other, MB) == content


def test_a_reset_is_a_reset(town: Town):
    with town.connected() as (one, other):
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)


def test_a_reader_that_lags_makes_the_writer_wait(town: Town):
    """No window bounds what goes from socket to socket: packets go on where it would, for good."""
    town.client.run("sysctl", "-qw", f"net.ipv4.tcp_rmem=4096 131072 {8 * MB}")
    block, total = random.Random(4).randbytes(MB), 48 * MB
    with town.connected() as (one, other):
        one.setblocking(False)
        digest, done = hashlib.sha256(), 0
        try:
            while done < total:
                size = one.send(block)
                digest.update(block[:size])
                done += size
        except BlockingIOError:
            pass
        assert 4 * MB <= done < 24 * MB
        town.system.eventually(lambda: not town.is_held(one, 0), "the writer is let go")
        assert town.is_held(one, 1), "what is not read yet is not lost"
        one.setblocking(True)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(one.sendall, block)
            got = exactly(other, done + MB)
            writing.result()
        digest.update(block)
        assert hashlib.sha256(got).digest() == digest.digest()
        assert town.carried(one) == (False, False)
        town.system.eventually(lambda: not town.is_held(one, 1), "the reader is let go")
        for writer, reader in ((one, other), (other, one)):
            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(writer.sendall, block)
                assert exactly(reader, len(block)) == block
                writing.result()


def test_a_rule_that_goes_cuts_at_once(town: Town):
    """Who waits just then is told EAGAIN, though his socket blocks: the kernel's sockmap has it so;
    asked again, or asked later, it is what all are told."""
    with town.connected() as (one, other), ThreadPoolExecutor(1) as pool:
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        assert town.carried(one)
        one.settimeout(None)
        thread = pool.submit(threading.get_native_id).result()
        waiting = pool.submit(one.recv, 1)
        town.system.eventually(lambda: calls(thread) == RECVFROM, "he waits")
        town.system.apply(
            manifest(policy("open", None, namespace="fast", policyTypes=["Ingress", "Egress"]))
        )
        try:
            assert isinstance(waiting.exception(WAIT_S), BlockingIOError)
            for end in (one, other):
                with pytest.raises((ConnectionAbortedError, ConnectionResetError)):
                    end.recv(1)
        finally:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # who still waits need not
            town.system.apply(manifest(policy("open", None, namespace="fast", **OPEN)))


RECVFROM = 45  # x86-64


def calls(thread: int) -> int:
    """Which system call a thread of ours sleeps in; 0: it runs."""
    said = Path(f"/proc/self/task/{thread}/syscall").read_text().split()[0]
    return int(said) if said.isdigit() else 0


def test_what_only_packets_can_do_takes_them(town: Town):
    """Sends without a copy, and readers that want to be woken late; nothing comes out of order."""
    with town.connected() as (one, other):
        one.sendall(b"first ")
        one.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        one.send(b"second", MSG_ZEROCOPY)
        assert exactly(other, 12) == b"first second"
        assert town.carried(one) == (False, False)
        watch = select.poll()
        watch.register(one, select.POLLERR)
        assert watch.poll(WAIT_S * 1000)  # told that its pages are its own again
    with town.connected() as (one, other):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
        one.sendall(b"some ")
        assert select.select([other], [], [], SILENCE_S)[0] == []
        one.sendall(b"and more")
        assert exactly(other, 13) == b"some and more"


def test_files_and_pipes_are_sent_from_socket_to_socket(town: Town, tmp_path: Path):
    content = random.Random(5).randbytes(3 * MB + 17)
    (tmp_path / "file").write_bytes(content)
    with town.connected() as (one, other), (tmp_path / "file").open("rb") as file:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(one.sendfile, file)
            assert exactly(other, len(content)) == content
            sending.result()
        read, write = os.pipe()
        os.write(write, b"piped")
        assert os.splice(read, one.fileno(), 5) == 5
        assert exactly(other, 5) == b"piped"
        assert town.carried(one) == (True, False)
        os.close(read)
        os.close(write)


def test_what_the_documentation_says_is_different(town: Town):
    """docs/patterns/load-balancing.md lists it, so that nobody asks who depends on it."""
    with town.connected() as (one, other):
        one.sendall(b"abc")
        assert other.recv(8, socket.MSG_WAITALL) == b"abc"
        one.send(b"!", socket.MSG_OOB)
        assert exactly(other, 1) == b"!"  # among the rest
        one.sendall(b"abc")
        other.setblocking(False)
        read, write = os.pipe()
        with pytest.raises(BlockingIOError):
            os.splice(other.fileno(), write, 100)
        os.close(read)
        os.close(write)
        assert other.recv(8) == b"abc"


TALK = """
import socket, sys, time
held = [socket.create_connection((sys.argv[1], 8080)) for _ in range(int(sys.argv[2]))]
for one in held: one.sendall(b"last words")
print("said", flush=True)
time.sleep(60)
"""


def test_a_killed_client_is_heard_out_then_over(town: Town):
    with town.server.listen(8080) as listener:
        argv = [sys.executable, "-c", TALK, town.server.ipv4, "50"]
        talker = subprocess.Popen(
            ["nsenter", f"--net={town.client.path}", *argv], stdout=subprocess.PIPE, text=True
        )
        assert talker.stdout
        others = [listener.accept()[0] for _ in range(50)]
        assert talker.stdout.readline() == "said\n"
        talker.kill()
        talker.wait()
        talker.stdout.close()
        for other in others:
            other.settimeout(WAIT_S)
            assert everything(other) == b"last words"
            other.close()


def test_a_killed_server_ends_what_its_client_waits_for(town: Town):
    with town.connected() as (one, other):
        child = os.fork()
        if not child:  # holds the server's end
            time.sleep(60)
            os._exit(0)
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        other.sendall(b"!")
        other.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert everything(one) == b"!"


def test_the_death_of_the_agent_changes_nothing(town: Town):
    with town.connected() as (one, other):
        one.sendall(b"before")
        assert exactly(other, 6) == b"before"
        os.kill(town.system.agent_pid(), signal.SIGKILL)
        with town.connected(port=8081) as (late, its):
            late.sendall(b"meanwhile")
            assert exactly(its, 9) == b"meanwhile"
        town.system.up()
        one.sendall(b"after")
        assert exactly(other, 5) == b"after"
        assert town.carried(one) == (True, False)
        assert 11 < town.connection(one).bytes[0] < 500


def test_a_change_of_policy_judges_again_and_goes_on(town: Town):
    """What is still allowed stays accelerated, under its new rule."""
    with town.connected() as (one, other):
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        for name in ("another", "third"):
            town.system.apply(manifest(policy(name, None, namespace="fast", **OPEN)))
            one.sendall(b"?")
            assert exactly(other, 1) == b"?"
            assert town.carried(one) == (True, False)
        town.system.sixfold("delete", "networkpolicy", "another", "third", "-n", "fast")
        one.sendall(b"?")
        assert exactly(other, 1) == b"?"
        assert town.carried(one) == (True, False)


def test_who_no_longer_asks_makes_no_new_ones(town: Town):
    """Those that are open go on: to take them apart could lose what is not read yet."""
    path = town.system.paths.bpffs / "links/join"
    assert path.exists()
    with town.connected() as (one, other):
        one.sendall(b"?")
        town.system.apply(manifest(without_acceleration(NAMESPACE)))
        try:
            assert not path.exists()  # nobody's sockets pay for it
            one.sendall(b"?")
            assert exactly(other, 2) == b"??"
            assert town.carried(one) == (True, False)
            with town.connected(port=8081) as (late, its):
                late.sendall(b"?")
                assert exactly(its, 1) == b"?"
                assert town.carried(late) == (False, False)
        finally:
            town.system.apply(manifest(NAMESPACE))
        assert path.exists()


def test_many_small_writes_to_nobody_are_bounded_by_the_memory_they_take(town: Town):
    """The kernel keeps each write apart, in a kilobyte of its own."""
    town.client.run("sysctl", "-qw", f"net.ipv4.tcp_rmem=4096 131072 {8 * MB}")
    with town.connected() as (one, other):
        for _ in range(3000):
            one.send(b"a")
        assert town.carried(one) == (True, False)
        assert len(exactly(other, 3000)) == 3000
        for _ in range(3000):  # what was read counts no more
            one.send(b"b")
        assert town.carried(one) == (True, False)
        for _ in range(3000):
            one.send(b"c")
        assert town.carried(one) == (False, False)
        assert exactly(other, 6000) == b"b" * 3000 + b"c" * 3000
