"""Connections that go through a tunnel: captured, told whom they wanted, judged and cut."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.conftest import started
from tests.host.lab import A_TO_B, CLOSED, DROP, SERVICE4, SERVICE6, TCP, VERDICT, A, B, Lab
from tests.host.test_datapath import families

from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import MTLS, TUNNEL
from sixfold.host.paths import cgroup_root
from sixfold.host.sockets import close_sockets
from sixfold.model.datapath import Backend, Frontend, FrontendEntry
from sixfold.model.mesh import OUTBOUND_PORT, TUNNEL_PORT, Mode, Owner, Speakers
from sixfold.model.reason import DropReason

pytestmark = pytest.mark.root

STANDIN = Path(__file__).with_name("standin.py")


class Proxy:
    """The stand-in in a control group of its own; its lines come out of ``lines``."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.cgroup = cgroup_root() / f"{lab.instance}-proxy"
        self.cgroup.mkdir()
        lab.datapath.keep_proxy(self.cgroup)
        self.start()

    def start(self) -> None:
        pods = [
            (f"/run/netns/{self._lab.instance}-{pod.name}", [str(pod.ipv4), str(pod.ipv6)])
            for pod in (A, B)
        ]
        self._process = subprocess.Popen(
            [sys.executable, str(STANDIN), str(self.cgroup), json.dumps(pods)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def stop(self) -> None:
        if self._process.returncode is None:
            self.kill()
        self.cgroup.rmdir()


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with started() as made:
        yield made


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """The module's, without what an earlier test left."""
    yield shared
    shared.forget()


@pytest.fixture
def proxy(lab: Lab) -> Iterator[Proxy]:
    made = Proxy(lab)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def sniffing(lab: Lab) -> Iterator[list[bytes]]:
    """Everything that crosses the host's side of a's link meanwhile."""
    (device,) = (name for _, name in socket.if_nameindex() if name == "lxa")
    with lab.inside("host"):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        tap.bind((device, 0))
    tap.settimeout(0.2)
    seen: list[bytes] = []
    try:
        yield seen
        while True:
            seen.append(tap.recv(65536))
    except TimeoutError:
        pass
    finally:
        tap.close()


def talk(client: socket.socket, server: socket.socket) -> tuple[str, int]:
    """A few bytes there and back; returns whom the server takes its client for."""
    accepted, peer = server.accept()
    with accepted:
        accepted.settimeout(5)
        client.settimeout(5)
        client.sendall(b"a question in plain words")
        assert accepted.recv(100) == b"a question in plain words"
        accepted.sendall(b"an answer")
        assert client.recv(100) == b"an answer"
    return peer[0], peer[1]


@families
def test_a_connection_to_a_strict_port_goes_through_the_tunnel(
    lab: Lab, proxy: Proxy, a: object, b: object
) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    lab.events()
    server = lab.listen("b", b)
    with sniffing(lab) as packets:
        client = lab.connect("a", b)
        assert proxy.line() == f"outbound {b} 80"
        assert talk(client, server)[0] == str(a), "the client's own address"
    assert packets
    assert not any(b"plain words" in packet for packet in packets)
    assert client.getpeername()[:2] == (str(b), 80)
    assert client.getsockname()[0] == str(a)
    (event,) = lab.tcp_events()
    assert (event.type, event.rule, event.transport) == (VERDICT, (22, 21), MTLS)
    assert (event.source, event.destination, event.destination_port) == (a, b, 80)
    assert event.source_port == client.getsockname()[1]
    assert (event.source_identity, event.destination_identity) == (A.identity, B.identity)


SERVICE = {
    Frontend.at(address, 443, TCP): FrontendEntry(7, (Backend.at(backend, 8080),))
    for address, backend in ((SERVICE4, B.ipv4), (SERVICE6, B.ipv6))
}


@pytest.mark.parametrize(
    ("dialled", "b"),
    [
        pytest.param(SERVICE4, B.ipv4, id="IPv4"),
        pytest.param(SERVICE6, B.ipv6, id="IPv6"),
        pytest.param(f"::ffff:{SERVICE4}", B.ipv4, id="IPv4 by an IPv6 socket"),
    ],
)
def test_a_service_is_what_the_client_sees_and_its_load_is_counted(
    lab: Lab, proxy: Proxy, dialled: object, b: object
) -> None:
    lab.datapath.apply(lab.desired(frontends=SERVICE, modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", b, 8080)
    lab.events()
    client = lab.connect("a", dialled, 443)
    assert proxy.line() == f"outbound {b} 8080"
    assert active(lab) == 1
    talk(client, server)
    assert client.getpeername()[:2] == (str(dialled), 443)
    (event,) = lab.tcp_events()
    assert (event.service, event.service_port) == (7, 443)
    assert (event.destination, event.destination_port) == (b, 8080)
    client.close()
    assert active(lab) == 0


def active(lab: Lab) -> int:
    return sum(load.active for load in lab.datapath.loads().values())


@families
def test_policy_denies_as_without_a_mesh(lab: Lab, proxy: Proxy, a: object, b: object) -> None:
    policies = {**A_TO_B, B.id: CLOSED}
    lab.datapath.apply(lab.desired(policies, modes=lab.modes(Mode.STRICT)))
    lab.listen("b", b)
    assert lab.hears_nothing("a", b)
    assert set(lab.drops()) == {(DropReason.POLICY_DENIED, 10)}


def syn(a: object, b: object, source: int, destination: int) -> bytes:
    """Of a raw socket: its checksum too, which the receiver looks at."""
    segment = struct.pack("!HHIIBBHHH", source, destination, 1, 0, 0x50, 2, 64240, 0, 0)
    pseudo = socket.inet_aton(str(a)) + socket.inet_aton(str(b)) + struct.pack("!HH", 6, 20)
    total = sum(struct.unpack("!16H", pseudo + segment))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~(total + (total >> 16)) & 0xFFFF
    return segment[:16] + struct.pack("!H", check) + segment[18:]


def send_raw(lab: Lab, segment: bytes) -> None:
    """As root in a's namespace may, past every hook of sockets."""
    with lab.inside("a"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw:
        raw.sendto(segment, (str(B.ipv4), 0))


def test_no_packet_of_root_gets_past_a_strict_port(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", B.ipv4)
    client = lab.connect("a", B.ipv4)
    talk(client, server)
    lab.events()
    port = client.getsockname()[1]
    for segment in (
        syn(A.ipv4, B.ipv4, 999, 80),
        syn(A.ipv4, B.ipv4, port, 80),  # in the clothes of what is in the tunnel
        syn(A.ipv4, B.ipv4, port, 80)[:13] + b"\x18" + bytes(6) + b"plain words",
    ):
        send_raw(lab, segment)
        assert lab.drops() == [(DropReason.MTLS_REQUIRED, 22)]
    send_raw(lab, syn(A.ipv4, B.ipv4, 999, TUNNEL_PORT))
    assert lab.drops() == [(DropReason.TUNNEL_PORT, 22)]
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.accept()
    client.close()
    lab.events()
    send_raw(lab, syn(A.ipv4, B.ipv4, port, 80))
    assert lab.drops() == [(DropReason.MTLS_REQUIRED, 22)], "nor when it is just over"


@families
def test_nobody_but_the_proxy_dials_a_tunnel_port(
    lab: Lab, proxy: Proxy, a: object, b: object
) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.DISABLED)))
    lab.events()
    assert lab.hears_nothing("a", b, TUNNEL_PORT)
    assert set(lab.drops()) == {(DropReason.TUNNEL_PORT, 22)}
    assert lab.hears_nothing("host", b, TUNNEL_PORT)


def test_who_dials_the_proxy_itself_gets_nowhere(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    client = lab.connect("a", "127.0.0.1", OUTBOUND_PORT)
    assert proxy.line().startswith("outbound -")
    client.settimeout(5)
    assert client.recv(1) == b""


def outside_the_mesh(lab: Lab, mode: Mode, **ports: Mode) -> None:
    """Only b is in the mesh: a, whose pod is of another, sends as it does."""
    modes = frozenset(one for one in lab.modes(mode, **ports) if one.endpoint == B.id)
    lab.datapath.apply(lab.desired(modes=modes))
    lab.events()


@families
@pytest.mark.parametrize("mode", Mode)
def test_plaintext_passes_where_the_mode_says_so(
    lab: Lab, proxy: Proxy, a: object, b: object, mode: Mode
) -> None:
    outside_the_mesh(lab, mode)
    server = lab.listen("b", b)
    if mode == Mode.STRICT:
        assert lab.hears_nothing("a", b)
        assert set(lab.drops()) == {(DropReason.MTLS_REQUIRED, 22)}
    else:
        talk(lab.connect("a", b), server)
        (event,) = lab.tcp_events()
        assert (event.type, event.transport) == (VERDICT, 0)
    counted = {(one.client, one.server, one.port): n for one, n, _ in lab.datapath.plaintexts()}
    assert counted == ({(A.id, B.id, 80): 1} if mode == Mode.PERMISSIVE else {})


def test_a_port_may_have_a_mode_of_its_own(lab: Lab, proxy: Proxy) -> None:
    outside_the_mesh(lab, Mode.STRICT, p81=Mode.DISABLED)
    server = lab.listen("b", B.ipv4, 81)
    talk(lab.connect("a", B.ipv4, 81), server)
    lab.hang_up()  # while it may: its server would say again and again that it has ended
    outside_the_mesh(lab, Mode.DISABLED, p81=Mode.STRICT)
    assert lab.hears_nothing("a", B.ipv4, 81)
    server = lab.listen("b", B.ipv4)
    talk(lab.connect("a", B.ipv4), server)


def test_the_mode_is_the_servers(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.PERMISSIVE, p81=Mode.DISABLED)))
    for port, line in ((80, f"outbound {B.ipv4} 80"), (81, "")):
        server = lab.listen("b", B.ipv4, port)
        lab.events()
        client = lab.connect("a", B.ipv4, port)
        if line:
            assert proxy.line() == line
        talk(client, server)
        if line:
            assert proxy.line() == f"inbound {B.ipv4} 80"
        events = lab.tcp_events()
        assert [event.transport for event in events] == [MTLS if line else 0], events
    assert list(lab.datapath.plaintexts()) == []


def test_datagrams_pass_as_they_are(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.datagram("b", B.ipv4, 53)
    client = lab.datagram("a", A.ipv4)
    client.sendto(b"question", (str(B.ipv4), 53))
    assert server.recvfrom(100)[0] == b"question"


@families
def test_a_change_of_policy_cuts_what_is_in_the_tunnel(
    lab: Lab, proxy: Proxy, a: object, b: object
) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", b)
    client = lab.connect("a", b)
    accepted, _ = server.accept()
    lab.sockets.append(accepted)
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    assert lab.datapath.sweep() == {}
    lab.events()
    lab.datapath.apply(lab.desired({**A_TO_B, B.id: CLOSED}, modes=lab.modes(Mode.STRICT)))
    cut = lab.datapath.sweep()
    ((one),) = cut.values()
    assert (one.source, one.destination, one.transport) == (a, b, MTLS)
    (event,) = lab.tcp_events()
    assert (event.type, event.reason, event.transport) == (4, DropReason.POLICY_DENIED, MTLS)
    assert close_sockets(cut.values(), lab.namespaces()) == 1
    lab.datapath.forget(cut)
    with pytest.raises(ConnectionAbortedError):
        client.recv(1)
    accepted.settimeout(5)
    assert accepted.recv(1) == b"", "the server learns of it, too"
    assert lab.datapath.sweep() == {}


def test_a_port_that_becomes_strict_cuts_what_came_in_plaintext(lab: Lab, proxy: Proxy) -> None:
    outside_the_mesh(lab, Mode.PERMISSIVE)
    server = lab.listen("b", B.ipv4)
    other = lab.connect("a", B.ipv4)
    accepted, _ = server.accept()
    lab.sockets.append(accepted)
    outside_the_mesh(lab, Mode.STRICT)
    cut = [one for one in lab.datapath.sweep().values() if one.source_port == port_of(other)]
    assert len(cut) == 1
    (event,) = lab.tcp_events()
    assert (event.type, event.reason) == (4, DropReason.MTLS_REQUIRED)
    other.sendall(b"x")
    accepted.settimeout(0.2)
    with pytest.raises(TimeoutError):
        accepted.recv(1)


def port_of(made: socket.socket) -> int:
    return int(made.getsockname()[1])


@families
def test_without_its_proxy_a_pod_is_refused_at_once_and_told(
    lab: Lab, proxy: Proxy, a: object, b: object
) -> None:
    modes = lab.modes(Mode.STRICT, p81=Mode.DISABLED)
    lab.datapath.apply(lab.desired(modes=modes))
    server, open_server = lab.listen("b", b), lab.listen("b", b, 81)
    proxy.kill()
    lab.events()
    client = lab.socket("a", server.family)
    client.settimeout(5)
    with sniffing(lab) as packets, pytest.raises(ConnectionRefusedError):
        client.connect((str(b), 80))
    assert not any(struct.pack("!H", 80) in packet[34:60] for packet in packets)
    (event,) = [one for one in lab.events() if one.destination_port == 80]
    assert (event.type, event.reason, event.rule) == (DROP, DropReason.PROXY_AWAY, (22, 21))
    assert (event.source, event.destination, event.destination_port) == (a, b, 80)
    assert event.source_port
    talk(lab.connect("a", b, 81), open_server)
    proxy.start()
    talk(lab.connect("a", b), server)


OWN, OTHER = os.geteuid(), 12345


@pytest.mark.parametrize(
    "owners",
    [(), ((OTHER, None),), ((OWN, OTHER),), ((None, OTHER), (OTHER, OWN))],
    ids=["nobody", "another user", "another group", "each by half"],
)
@families
def test_whom_the_pods_identity_is_not_for_is_refused_its_proxy_and_told(
    lab: Lab, proxy: Proxy, a: object, b: object, owners: tuple[Owner, ...]
) -> None:
    modes, speakers = lab.modes(Mode.STRICT, p81=Mode.DISABLED), frozenset({Speakers(A.id, owners)})
    lab.datapath.apply(replace(lab.desired(modes=modes), speakers=speakers))
    lab.listen("b", b)
    open_server = lab.listen("b", b, 81)
    lab.events()
    with pytest.raises(PermissionError):
        lab.connect("a", b)
    (event,) = [one for one in lab.events() if one.destination_port == 80]
    assert (event.type, event.reason) == (DROP, DropReason.NOT_ATTESTED)
    assert (event.source, event.destination) == (a, b)
    talk(lab.connect("a", b, 81), open_server)  # shows nobody's certificate
    assert lab.datapath.repair(replace(lab.desired(modes=modes), speakers=speakers)) == []


@pytest.mark.parametrize(
    "owners", [((OWN, None),), ((None, OWN),), ((OTHER, None), (OWN, OWN))], ids=str
)
def test_whom_it_is_for_is_taken_through_the_tunnel(
    lab: Lab, proxy: Proxy, owners: tuple[Owner, ...]
) -> None:
    speakers = frozenset({Speakers(A.id, owners)})
    lab.datapath.apply(replace(lab.desired(modes=lab.modes(Mode.STRICT)), speakers=speakers))
    server = lab.listen("b", B.ipv4)
    talk(lab.connect("a", B.ipv4), server)
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    assert lab.datapath.maps["speakers"].is_empty()


def test_conntrack_knows_what_was_said_and_that_it_is_over(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", B.ipv4)
    client = lab.connect("a", B.ipv4)
    assert proxy.line() == f"outbound {B.ipv4} 80"
    assert [it.is_open for it in lab.datapath.conntrack() if it.transport == MTLS] == [True]
    assert len(lab.datapath.connections_to({B.ipv4})) == 2, "and the tunnel"
    talk(client, server)
    client.close()

    def ended() -> list[tuple[int, int]]:
        mine = [it for it in lab.datapath.conntrack() if it.transport == MTLS]
        return [it.bytes for it in mine if not it.is_open]

    lab.eventually(lambda: ended() == [(25, 9 + 1)])  # the kernel counts a FIN that came


def counted(lab: Lab, name: str) -> int:
    return lab.datapath.statistics().get(name, 0)


def test_tunnels_are_counted_and_no_flows(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", B.ipv4)
    lab.events()
    tunnels, captured = counted(lab, "tunnels"), counted(lab, "connections_through_mtls")
    client = lab.connect("a", B.ipv4)
    accepted, _ = server.accept()
    lab.sockets.append(accepted)
    assert [event.destination_port for event in lab.tcp_events()] == [80]
    assert counted(lab, "tunnels") == tunnels + 1
    assert counted(lab, "connections_through_mtls") == captured + 1
    assert [it.destination_port for it in lab.datapath.conntrack() if it.transport == TUNNEL] == [
        TUNNEL_PORT
    ]
    lab.datapath.apply(lab.desired({**A_TO_B, A.id: CLOSED}, modes=lab.modes(Mode.STRICT)))
    assert [it.transport for it in lab.datapath.sweep().values()] == [MTLS], "not the tunnel"
    proxy.kill()
    lab.eventually(lambda: not list(lab.datapath.maps["tunnels"].items()))
    client.settimeout(5)
    with suppress(ConnectionResetError):
        assert client.recv(1) == b""


def test_what_is_captured_outlives_the_agent(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", B.ipv4)
    client = lab.connect("a", B.ipv4)
    lab.datapath.close()
    talk(client, server)
    talk(lab.connect("a", B.ipv4), server)
    lab.datapath = KernelDatapath.open(lab.instance)
    assert lab.datapath.keep_proxy(proxy.cgroup) == []
    lab.datapath.apply(lab.desired({**A_TO_B, B.id: CLOSED}, modes=lab.modes(Mode.STRICT)))
    assert {it.transport for it in lab.datapath.sweep().values()} == {MTLS}


def test_a_client_that_is_bound_to_its_address_is_captured(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", B.ipv4)
    client = lab.socket("a", socket.AF_INET)
    client.bind((str(A.ipv4), 0))
    client.connect((str(B.ipv4), 80))
    assert proxy.line() == f"outbound {B.ipv4} 80"
    talk(client, server)


def test_a_pod_reaches_itself_without_the_proxy(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", B.ipv4)
    talk(lab.connect("b", B.ipv4), server)
    assert not list(lab.datapath.maps["captured"].items())


def test_a_client_of_mptcp_goes_the_same_way(lab: Lab, proxy: Proxy) -> None:
    lab.datapath.apply(lab.desired(modes=lab.modes(Mode.STRICT)))
    server = lab.listen("b", B.ipv4)
    with lab.inside("a"):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    lab.sockets.append(client)
    client.settimeout(2)
    client.connect((str(B.ipv4), 80))
    assert proxy.line() == f"outbound {B.ipv4} 80"
    assert talk(client, server)[0] == str(A.ipv4)
