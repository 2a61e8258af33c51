"""mTLS between pods, by the real proxy: what goes over the wire, and what does not get past it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from sixfold.host import cgroup

from .conftest import System
from .mesh_load import Wire
from .places import (
    FAMILIES,
    OPEN,
    SILENCE_S,
    WAIT_S,
    Place,
    manifest,
    place_of,
    places_of,
    pod,
    policy,
    service,
)

pytestmark = pytest.mark.root

PLAIN = b"a question in plain words"
MODES = ("strict", "permissive", "disabled")


def authentication(name: str, mode: str, **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"mtls": {"mode": mode}, **spec},
    }


def labelled(name: str) -> dict[str, object]:
    return {"selector": {"matchLabels": {"app": name}}}


@pytest.fixture(scope="module")
def mesh(module_system: System) -> System:
    """A server for each mode, and one whose port 8081 has another; anybody may go anywhere."""
    module_system.up(
        *("--mtls", "strict"),
        manifest=manifest(
            pod("client"),
            *(pod(mode) for mode in MODES),
            pod("ports"),
            service("strict", ports=[{"port": 80, "targetPort": 8080}]),
            policy("open", None, **OPEN),
            authentication("permissive", "PERMISSIVE", **labelled("permissive")),
            authentication("disabled", "DISABLE", **labelled("disabled")),
            authentication(
                "ports", "STRICT", **labelled("ports"), portLevelMtls={"8081": {"mode": "DISABLE"}}
            ),
        ),
    )
    return module_system


@contextmanager
def wire(system: System, name: str) -> Iterator[list[bytes]]:
    """What crosses the host's side of a pod's link meanwhile."""
    device = next(
        line.split()[1].rstrip(":").partition("@")[0]
        for line in system.on_host("ip", "-o", "link").stdout.splitlines()
        if f"alias default/{name} " in line.replace("\\", " ")
    )
    host = Place(system.host, "", "")
    tap = host.make_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    host.inside(lambda: tap.bind((device, 0)))
    tap.settimeout(0.3)
    seen: list[bytes] = []
    try:
        yield seen
        while True:
            seen.append(tap.recv(1 << 16))
    except TimeoutError:
        pass
    finally:
        tap.close()


def talk(client: socket.socket, server: socket.socket) -> str:
    """There and back; returns whom the server takes its client for."""
    server.settimeout(WAIT_S)
    accepted, peer = server.accept()
    with accepted:
        accepted.settimeout(WAIT_S)
        client.sendall(PLAIN)
        assert accepted.recv(100) == PLAIN
        accepted.sendall(b"an answer")
        assert client.recv(100) == b"an answer"
    return str(peer[0])


def handshakes(packets: list[bytes]) -> list[int]:
    """The version that each server's handshake chose (RFC 8446: in supported_versions)."""
    chosen = []
    for packet in packets:
        at = packet.find(b"\x16\x03\x03")
        if at > 0 and packet[at + 5 : at + 6] == b"\x02":  # ServerHello
            version = packet.find(b"\x00\x2b\x00\x02", at)
            chosen.append(struct.unpack_from("!H", packet, version + 4)[0])
    return chosen


@FAMILIES
@pytest.mark.parametrize("to", MODES)
def test_the_wire_shows_tls_where_the_mode_asks_for_it(mesh: System, to: str, version: int) -> None:
    client, server = places_of(mesh, "client", to)
    with (
        server.listen(version=version) as listening,
        wire(mesh, "client") as packets,
        client.dial(server.address(version)) as dialled,
    ):
        assert dialled.getpeername()[:2] == (server.address(version), 8080)
        assert talk(dialled, listening) == client.address(version)
    assert any(PLAIN in packet for packet in packets) == (to == "disabled")
    assert packets


def test_the_handshake_is_of_tls_1_3(mesh: System) -> None:
    mesh.apply(manifest(pod("fresh")), "--wait")  # whom nobody has a tunnel to
    client, server = places_of(mesh, "client", "fresh")
    with (
        server.listen() as listening,
        wire(mesh, "fresh") as packets,
        client.dial(server.ipv4) as dialled,
    ):
        talk(dialled, listening)
    assert set(handshakes(packets)) == {0x0304}


def test_a_port_of_its_own_mode(mesh: System) -> None:
    client, server = places_of(mesh, "client", "ports")
    for port, plain in ((8080, False), (8081, True)):
        with (
            server.listen(port) as listening,
            wire(mesh, "client") as packets,
            client.dial(server.ipv4, port) as dialled,
        ):
            talk(dialled, listening)
        assert any(PLAIN in packet for packet in packets) == plain, port


def through_the_mesh(system: System, to: str) -> list[dict[str, Any]]:
    return [
        one
        for one in system.flows()
        if "mtls" in one["sixfold"] and one["destination"]["pod_name"] == to
    ]


def test_services_and_mapped_sockets_go_the_same_way(mesh: System) -> None:
    client, server = places_of(mesh, "client", "strict")
    (at,) = (
        item["spec"]["clusterIP"]
        for item in mesh.json("get", "services")["items"]
        if item["metadata"]["name"] == "strict"
    )
    with server.listen() as listening, wire(mesh, "client") as packets:
        for dialled in (at, f"::ffff:{at}"):
            with client.dial(dialled, 80) as connection:
                assert connection.getpeername()[:2] == (dialled, 80)
                talk(connection, listening)
    assert not any(PLAIN in packet for packet in packets)
    told = mesh.eventually(lambda: through_the_mesh(mesh, "strict"))
    assert {one["destination_service"]["name"] for one in told if "destination_service" in one} == {
        "strict"
    }


def syn(source: str, destination: str, port: int) -> bytes:
    segment = struct.pack("!HHIIBBHHH", 4321, port, 1, 0, 0x50, 2, 64240, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", 6, 20)
    total = sum(struct.unpack("!16H", pseudo + segment))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~(total + (total >> 16)) & 0xFFFF
    return segment[:16] + struct.pack("!H", check) + segment[18:]


def test_root_in_a_pod_gets_nothing_past_the_proxy(mesh: System) -> None:
    client, server = places_of(mesh, "client", "strict")
    packets = [syn(client.ipv4, server.ipv4, port) for port in (8080, 15008, 15001)]
    raw = client.make_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw, closing(Wire(server)) as inside:
        for packet in packets:
            raw.sendto(packet, (server.ipv4, 0))
        time.sleep(SILENCE_S)
    assert not any(inside.seen(packet) for packet in packets)
    assert client.attempt(server.ipv4, 15008) == "timeout"
    with client.dial("127.0.0.1", 15001) as direct:
        direct.settimeout(WAIT_S)
        assert direct.recv(1) == b"", "who was not captured wants nothing"
    told = {one["sixfold"]["drop_reason"] for one in mesh.flows("--verdict", "DROPPED")}
    assert {"MTLS_REQUIRED", "TUNNEL_PORT"} <= told


def test_plaintext_arrives_where_its_mode_lets_it_and_is_counted_by_name(
    mesh: System,
) -> None:
    lets_in = {
        ("strict", 8080): False,
        ("permissive", 8080): True,
        ("disabled", 8080): True,
        ("ports", 8080): False,
        ("ports", 8081): True,
    }
    client = place_of(mesh, "client")
    arrived = {}
    with client.make_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for name, port in lets_in:
            server = place_of(mesh, name)
            packet = syn(client.ipv4, server.ipv4, port)
            with closing(Wire(server)) as inside:
                raw.sendto(packet, (server.ipv4, 0))
                time.sleep(SILENCE_S)
            arrived[name, port] = inside.seen(packet)
    assert arrived == lets_in
    rows = mesh.json("bpf", "mesh", "list")
    told = {row["pod"]: row.get("plaintext_from") for row in rows if row["port"] == "8080"}
    assert told == {"default/permissive": "default/client (1)"}
    modes = {row["pod"]: row["mode"] for row in rows if row["port"] == "all others"}
    assert modes["default/disabled"] == "disabled"
    assert modes["default/client"] == "strict"


def test_datagrams_pass_as_before(mesh: System) -> None:
    client, server = places_of(mesh, "client", "strict")
    with server.listen(5353, kind=socket.SOCK_DGRAM) as listening:
        with client.dial(server.ipv4, 5353, kind=socket.SOCK_DGRAM) as dialled:
            dialled.send(b"question")
        listening.settimeout(WAIT_S)
        assert listening.recv(100) == b"question"


def test_explain_names_the_mode_and_what_says_so(mesh: System) -> None:
    said = mesh.sixfold("explain", "client", "strict:80").stdout
    assert "mTLS" in said
    assert "strict by --mtls strict" in said
    said = mesh.sixfold("explain", "client", "ports:8081").stdout
    assert "disabled by PeerAuthentication default/ports, port 8081" in said


def test_a_change_of_policy_cuts_what_is_in_the_tunnel(mesh: System) -> None:
    mesh.apply(manifest(pod("cut")))
    client, server = places_of(mesh, "client", "cut")
    with server.listen() as listening, client.dial(server.ipv4) as dialled:
        listening.settimeout(WAIT_S)
        accepted, _ = listening.accept()
        with accepted:
            denial = policy("cut", {"app": "cut"}, policyTypes=["Ingress"], ingress=[])
            mesh.apply(manifest(denial))
            mesh.sixfold("delete", "networkpolicy", "open")
            with pytest.raises(ConnectionError):
                dialled.recv(1)
            accepted.settimeout(WAIT_S)
            with suppress(ConnectionResetError):
                assert accepted.recv(1) == b""
    mesh.apply(manifest(policy("open", None, **OPEN)))
    mesh.sixfold("delete", "networkpolicy", "cut")


def test_without_the_proxy_nothing_goes_in_plaintext(mesh: System) -> None:
    client, server, open_server = places_of(mesh, "client", "strict", "disabled")
    (pid,) = cgroup.processes(mesh.paths.cgroup / "proxy")
    os.kill(pid, signal.SIGSTOP)  # so that nobody starts another one
    os.kill(pid, signal.SIGKILL)
    with open_server.listen() as listening, client.dial(open_server.ipv4) as dialled:
        talk(dialled, listening)
    with server.listen() as listening:
        with wire(mesh, "client") as packets:
            client.answer(server.ipv4)

        def through() -> bool:
            try:
                with client.dial(server.ipv4) as dialled:
                    return talk(dialled, listening) == client.ipv4
            except OSError:
                return False

        assert mesh.eventually(through)
    assert not any(struct.pack("!H", 8080) == packet[36:38] for packet in packets)


def test_a_peer_authentication_alone_begins_the_mesh(system: System) -> None:
    objects = [pod("client"), pod("server"), policy("open", None, **OPEN)]
    system.up(manifest=manifest(*objects))
    assert not cgroup.processes(system.paths.cgroup / "proxy")
    client, server = places_of(system, "client", "server")
    with server.listen() as listening, client.dial(server.ipv4) as plain:
        talk(plain, listening)
        plain.close()
        system.apply(manifest(authentication("server", "STRICT", **labelled("server"))))

        def through() -> bool:
            try:
                with client.dial(server.ipv4) as dialled:
                    return talk(dialled, listening) == client.ipv4
            except OSError:
                return False

        with wire(system, "client") as packets:
            assert system.eventually(through)
    assert not any(PLAIN in packet for packet in packets)
    assert cgroup.processes(system.paths.cgroup / "proxy")
