"""What runs through the mesh: every way in which programs use TCP, and nothing in plaintext."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.trust.before import old_file

from sixfold.host import cgroup
from sixfold.model.spiffe import SpiffeId
from sixfold.trust.authority import create, issue, pem
from sixfold.trust.keyring_text import decode

from .conftest import SIXFOLD, System
from .mesh_load import MARK, Load, Wire
from .places import FAMILIES, Place, labelled, manifest, places_of, pod, policy

pytestmark = pytest.mark.root

SERVER = Path(__file__).parent / "mesh_server.py"
TTL_S = 10  # of SVIDs: they are renewed every five seconds
ID = "spiffe://cluster.local/ns/default/sa/default"


@pytest.fixture(scope="module")
def mesh(module_system: System) -> System:
    server = pod(
        "server",
        container={
            "command": [sys.executable, str(SERVER)],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        },
    )
    ports = [{"port": port} for port in (2222, 3333, 4444, 5555, 7777, 8080, 9)]
    policies = [
        policy(
            "server",
            {"app": "server"},
            ingress=[{"from": [labelled(app="client")], "ports": ports}],
        ),
        policy("client", {"app": "client"}, policyTypes=["Egress"], egress=[{}]),
        policy("stranger", {"app": "stranger"}, policyTypes=["Egress"], egress=[{}]),
    ]
    before, _ = old_file("cluster.local", datetime.now(UTC))
    module_system.paths.state.mkdir(mode=0o700)
    (module_system.paths.state / "authority.pem").write_bytes(before)
    module_system.up(
        "--mtls",
        "strict",
        "--svid-ttl",
        str(TTL_S),
        manifest=manifest(server, pod("client"), pod("stranger"), *policies),
    )
    return module_system


@pytest.fixture(scope="module")
def ends(mesh: System) -> list[Place]:
    """Client, server, stranger."""
    return places_of(mesh, "client", "server", "stranger")


def dial(ends: list[Place], port: int, version: int = 4) -> socket.socket:
    client, server, _ = ends
    return client.inside(lambda: socket.create_connection((server.address(version), port), 10))


def read_all(sock: socket.socket) -> bytes:
    found = bytearray()
    while block := sock.recv(1 << 16):
        found += block
    return bytes(found)


def proxy(system: System) -> int:
    """The one that takes new connections; others may drain."""
    return int((system.paths.run / "proxy.pid").read_text())


@FAMILIES
def test_what_a_client_says_is_on_no_wire(ends: list[Place], version: int) -> None:
    with closing(Wire(ends[0])) as wire, dial(ends, 4444, version) as sock:
        sock.sendall(MARK)
        assert sock.recv(100) == MARK
    assert wire.frames
    assert not wire.seen(MARK)


@FAMILIES
def test_a_server_that_speaks_first_is_heard_at_once(ends: list[Place], version: int) -> None:
    with dial(ends, 2222, version) as sock:
        assert sock.recv(100) == b"SSH-2.0-test\r\n"
        sock.sendall(b"you\n")
        assert sock.recv(100) == b"heard you\n"


def test_a_client_that_has_said_all_is_still_answered(ends: list[Place]) -> None:
    said = os.urandom(3_000_000)
    with dial(ends, 3333) as sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).decode() == hashlib.sha256(said).hexdigest()


def test_a_large_transfer_is_whole_and_past_packets(mesh: System, ends: list[Place]) -> None:
    size = 256 << 20
    block = bytes(range(256)) * 256
    wanted, found = hashlib.sha256(), hashlib.sha256()
    for _ in range(size // len(block)):
        wanted.update(block)
    with dial(ends, 5555) as sock:
        sock.sendall(b"%d\n" % size)
        while part := sock.recv(1 << 18):
            found.update(part)
    assert found.digest() == wanted.digest()
    rows = [row for row in mesh.json("bpf", "ct", "list") if row.get("mesh") == "tunnel"]
    (carried,) = (row for row in rows if int(row["bytes"].split("/")[1]) > size)
    assert carried["accelerated"] == "both ways"


def test_who_does_not_read_holds_up_nobody_else(ends: list[Place]) -> None:
    stalled = [dial(ends, 5555) for _ in range(8)]
    for sock in stalled:
        sock.sendall(b"%d\n" % (32 << 20))
        sock.shutdown(socket.SHUT_WR)
    for sock in stalled:
        sock.recv(1, socket.MSG_PEEK)
    for _ in range(20):
        with dial(ends, 4444) as sock:
            sock.sendall(b"xyz")
            assert sock.recv(3) == b"xyz"
    for sock in stalled:
        with sock:
            assert len(read_all(sock)) == 32 << 20


def test_http_requests_share_a_connection(ends: list[Place]) -> None:
    connection = http.client.HTTPConnection(ends[1].ipv4, 8080)
    connection.sock = dial(ends, 8080)
    answers = []
    for _ in range(3):
        connection.request("GET", "/")
        answers.append(connection.getresponse().read().decode())
    connection.close()
    assert answers == [f"request {number} of this connection" for number in (1, 2, 3)]


def test_a_websocket_is_opened_and_used(ends: list[Place]) -> None:
    with dial(ends, 8080) as sock:
        key = base64.b64encode(b"0123456789abcdef").decode()
        sock.sendall(
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        reader = sock.makefile("rb")
        assert b"101" in reader.readline()
        while reader.readline().strip():
            pass
        sock.sendall(bytes((0x81, 0x85, 0, 0, 0, 0)) + b"hello")
        assert reader.read(7) == bytes((0x81, 5)) + b"hello"


GRPC = """
import sys, grpc
with grpc.insecure_channel(f"{sys.argv[1]}:7777") as channel:
    print(channel.unary_unary("/Echo/Unary")(b"one", timeout=20).decode())
    print(*(x.decode() for x in channel.unary_stream("/Echo/Stream")(b"s", timeout=20)))
"""


def test_grpc_calls_and_streams(mesh: System, ends: list[Place]) -> None:
    done = mesh.run_in_pod("default/client", sys.executable, "-c", GRPC, ends[1].ipv4)
    assert done.stdout.split() == ["one", "s0", "s1", "s2"], done.stderr


def test_a_thousand_idle_connections_are_all_there_afterwards(ends: list[Place]) -> None:
    idle = [dial(ends, 4444) for _ in range(1000)]
    for sock in idle:
        sock.sendall(b"still here")
    assert all(sock.recv(100) == b"still here" for sock in idle)
    for sock in idle:
        sock.close()


def test_connections_that_are_broken_off_leave_others_of_the_two_pods_alone(
    ends: list[Place],
) -> None:
    """Each is a stream of one tunnel that is reset; the codec's bound is for strangers."""
    with dial(ends, 4444) as stays:
        for _ in range(1300):
            with dial(ends, 4444) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stays.sendall(b"still here")
        assert stays.recv(100) == b"still here"


def test_the_server_sees_the_clients_own_address(mesh: System, ends: list[Place]) -> None:
    client, server, _ = ends
    with dial(ends, 4444) as sock:
        sock.sendall(b"x")
        sock.recv(1)
        peers = server.run("ss", "-Htn", "state", "established", "sport", "=", ":4444")
    assert any(client.ipv4 in line.split()[3] for line in peers.splitlines())


def test_a_connection_is_one_flow_with_rules_identities_and_what_it_carried(
    mesh: System, ends: list[Place]
) -> None:
    since = datetime.now(UTC).isoformat()

    def told(**wanted: str) -> Any:
        all_ = mesh.flows("--port", "4444", "--since", since)
        mine = [one for one in all_ if one["l4"]["TCP"]["source_port"] == port]
        return mine if mine and wanted.items() <= mine[-1]["sixfold"].items() else []

    with dial(ends, 4444) as sock:
        port = sock.getsockname()[1]
        sock.sendall(b"xyz")
        sock.recv(3)
        (flow,) = mesh.eventually(
            lambda: told(source_id=ID, state="open", bytes_sent="3", bytes_received="3")
        )
    ours = flow["sixfold"]
    assert ours["destination_id"] == ID
    assert ours["ingress_rule"]["text"] == "default/server ingress[0]"
    assert flow["verdict"] == "FORWARDED"
    (over,) = mesh.eventually(
        lambda: [one for one in told(bytes_received="3") if "state" not in one["sixfold"]]
    )
    assert over["sixfold"]["bytes_sent"] == "3"


def test_the_end_of_each_of_many_short_connections_is_told(mesh: System, ends: list[Place]) -> None:
    """It is told within the same fifth of a second as the beginning, and after it."""
    since, ports = datetime.now(UTC).isoformat(), set()
    for _ in range(200):
        with dial(ends, 4444) as sock:
            sock.sendall(b"xyz")
            sock.recv(3)
            ports.add(sock.getsockname()[1])

    def told() -> bool:
        flows = mesh.flows("--port", "4444", "--since", since)
        mine = {one["l4"]["TCP"]["source_port"]: one["sixfold"] for one in flows}
        return all(mine.get(port, {}).get("bytes_received") == "3" for port in ports)

    mesh.eventually(told)


@FAMILIES
def test_a_port_without_a_listener_is_closed_and_told(
    mesh: System, ends: list[Place], version: int
) -> None:
    with dial(ends, 9, version) as sock:
        sock.settimeout(5)  # a refusal that got lost would take ten
        with suppress(ConnectionError):
            assert read_all(sock) == b""

    def told() -> bool:
        return any(
            "was not reached" in flow["sixfold"].get("mesh", "")
            and flow["IP"]["ipVersion"] == f"IPv{version}"
            for flow in mesh.flows("--port", "9")
        )

    assert mesh.eventually(told)


# --- who proves nothing ---------------------------------------------------------------------------


def tunnel_handshake(server: Place, context: ssl.SSLContext) -> str:
    """What TLS says to who dials the tunnel's port from within: there packets are not judged."""

    def work() -> str:
        with socket.create_connection((server.ipv4, 15008), 5) as raw:
            try:
                with context.wrap_socket(raw) as tls:
                    tls.recv(100)
                    tls.recv(100)
                    return "taken"
            except (ssl.SSLError, ConnectionError) as error:
                return str(error)

    return server.inside(work)


def context_with(svid: Any, directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if svid is not None:
        path = directory / "svid.pem"
        path.write_bytes(svid.key_pem + svid.chain_pem)
        context.load_cert_chain(path)
    return context


def handshake_failures(system: System) -> list[str]:
    flows = system.flows("--port", "15008")
    return [text for flow in flows if (text := flow["sixfold"].get("mesh", ""))]


@pytest.mark.parametrize("what", ["expired", "foreign", "none"])
def test_who_proves_nothing_is_refused_and_told(
    mesh: System, ends: list[Place], what: str, tmp_path: Path
) -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    ours = decode((mesh.paths.state / "authority.json").read_bytes()).authority
    me = SpiffeId("cluster.local", "/ns/default/sa/default")
    svid = {
        "expired": issue(ours, me, now - 2 * hour, hour),
        "foreign": issue(create("cluster.local", now), me, now, hour),
        "none": None,
    }[what]
    before = len(handshake_failures(mesh))
    assert tunnel_handshake(ends[1], context_with(svid, tmp_path)) != "taken"
    assert mesh.eventually(lambda: len(handshake_failures(mesh)) > before)


def test_plaintext_to_the_tunnel_port_is_refused_and_told(mesh: System, ends: list[Place]) -> None:
    before = len(handshake_failures(mesh))

    def work() -> None:
        with socket.create_connection((ends[1].ipv4, 15008), 5) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionError):
                assert not read_all(raw).startswith(b"HTTP")

    ends[1].inside(work)
    assert mesh.eventually(lambda: len(handshake_failures(mesh)) > before)


# --- under load -----------------------------------------------------------------------------------


@contextmanager
def load(ends: list[Place]) -> Iterator[Load]:
    running = Load(lambda: dial(ends, 4444))
    try:
        yield running
    finally:
        running.stop()


def serials(system: System) -> set[str]:
    lines = system.sixfold("proxy", "config", "secrets").stdout.splitlines()
    return {line.split()[2] for line in lines if line.startswith(ID)}


def served_again(system: System, one: Load) -> None:
    served = one.served
    system.eventually(lambda: one.served > served + 20)


WATCH = """
from datetime import UTC, datetime
from spiffe import X509Source
told = []
with X509Source() as source:
    source.subscribe_for_updates(lambda: told.append(1))
    seen = []
    while len(seen) < 4:
        (bundle,) = source.bundles
        roots = sorted(format(one.serial_number, "x") for one in bundle.x509_authorities)
        state = (roots, len(source.svid.cert_chain))
        if not seen or seen[-1] != state:
            seen.append(state)
            print(len(roots), state[1], flush=True)
        import time; time.sleep(0.02)
"""


def authorities(system: System) -> list[dict[str, Any]]:
    found = system.json("ca", "show")["authorities"]
    return [one for one in found if one["kind"] == "x509"]


def test_a_new_root_and_every_new_svid_fail_nothing(mesh: System, ends: list[Place]) -> None:
    """From the root of the version before, which signs itself, to one with an intermediate."""
    (old,) = authorities(mesh)
    assert old["signs_directly"]
    command = (*SIXFOLD, "exec", "client", "--", sys.executable, "-c", WATCH)
    watching = subprocess.Popen(
        ["nsenter", f"--net={mesh.host}", *command],
        env=mesh.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    with watching.stdout as told, load(ends) as one:
        assert told.readline() == "1 1\n"
        seen = serials(mesh)
        mesh.sixfold("ca", "rotate", "--overlap", "2")
        assert [each["status"] for each in authorities(mesh)] == ["active", "prepared"]
        assert told.readline() == "2 1\n"  # roots that are trusted, certificates that are shown
        assert told.readline() == "2 2\n"
        mesh.eventually(lambda: serials(mesh) - seen)
        served_again(mesh, one)
        assert one.failed == []
        mesh.sixfold("ca", "taint")
        assert one.failed == []
        with load(ends) as other:
            served_again(mesh, other)
            assert one.failed == []
            mesh.sixfold("ca", "revoke")
            mesh.eventually(lambda: len(one.failed) >= 2)
            assert told.readline() == "1 2\n"
            served_again(mesh, one)
            served_again(mesh, other)
        assert other.failed == [], "it rests on the new root"
        assert len(one.failed) == 2, "connections that have stayed from before"
    assert watching.wait(10) == 0
    (new,) = authorities(mesh)
    assert new["id"] != old["id"]
    (cut, *_) = mesh.flows("--port", "15008", "--verdict", "DROPPED")
    assert cut["sixfold"]["mesh"] == f"cut: authority {old['id']} is trusted no more"
    assert cut["sixfold"]["source_id"] == ID


def test_a_root_whose_key_is_elsewhere_renews_with_it_only(
    mesh: System, ends: list[Place], tmp_path: Path
) -> None:
    key, file = tmp_path / "root.key", mesh.paths.state / "authority.json"
    mesh.sixfold("ca", "take-root", str(key))
    assert key.stat().st_mode & 0o777 == file.stat().st_mode & 0o777 == 0o600
    assert decode(file.read_bytes()).authority.root_key is None
    done = mesh.sixfold("ca", "renew", check=False)
    assert "the key of root" in done.stderr
    with load(ends) as one:
        before = decode(file.read_bytes()).authority
        mesh.sixfold("ca", "renew", "--root-key", str(key))
        (root, csr, signed) = (tmp_path / name for name in ("root.pem", "csr", "signed"))
        root.write_text(authorities(mesh)[0]["root"])
        csr.write_text(mesh.sixfold("ca", "csr").stdout)
        arguments = ("ca", "sign", str(csr), "--root", str(root), "--root-key", str(key))
        signed.write_text(mesh.sixfold(*arguments).stdout)
        mesh.sixfold("ca", "import", str(signed))
        served_again(mesh, one)
    assert one.failed == []
    after = decode(file.read_bytes()).authority
    assert (after.root, after.root_key) == (before.root, None)
    assert pem(after.certificate).decode() == signed.read_text()


def start_anew(system: System, ttl_s: int) -> None:
    os.kill(system.agent_pid(), signal.SIGKILL)
    system.up("--mtls", "strict", "--svid-ttl", str(ttl_s))


def renew_for_long(mesh: System) -> None:
    """While there is no agent nothing is renewed: certificates that outlast its absence."""
    brief = serials(mesh)
    start_anew(mesh, ttl_s=3600)
    mesh.eventually(lambda: not serials(mesh) & brief)


def test_a_killed_agent_fails_nothing(mesh: System, ends: list[Place]) -> None:
    renew_for_long(mesh)
    before = serials(mesh)
    with load(ends) as one:
        served_again(mesh, one)
        start_anew(mesh, ttl_s=3600)
        assert mesh.eventually(lambda: serials(mesh) - before)
        served_again(mesh, one)
    assert one.failed == []


def test_a_proxy_is_replaced_without_a_failure_and_open_connections_stay(
    mesh: System, ends: list[Place]
) -> None:
    renew_for_long(mesh)
    before = proxy(mesh)
    with load(ends) as one, dial(ends, 4444) as stays:
        served_again(mesh, one)
        said = mesh.sixfold("proxy", "restart").stdout
        after = int(said.split()[1])
        served_again(mesh, one)
        assert before != after
        assert set(cgroup.processes(mesh.paths.cgroup / "proxy")) == {before, after}
        stays.sendall(MARK)
        assert stays.recv(100) == MARK
        start_anew(mesh, ttl_s=3600)  # the next agent tells one from the other
        served_again(mesh, one)
        assert proxy(mesh) == after
        stays.sendall(MARK)
        assert stays.recv(100) == MARK
    assert one.failed == []


def test_a_killed_proxy_is_an_outage_that_ends_and_says_nothing_in_plaintext(
    mesh: System, ends: list[Place]
) -> None:
    with closing(Wire(ends[0])) as wire, load(ends) as one:
        served_again(mesh, one)
        os.kill(proxy(mesh), signal.SIGKILL)
        mesh.eventually(lambda: one.failed)
        served_again(mesh, one)
        healed = len(one.failed)
        served_again(mesh, one)
    assert len(one.failed) == healed
    assert not wire.seen(MARK)


def test_a_connection_does_not_outlive_its_certificates_by_more_than_the_grace(
    mesh: System, ends: list[Place]
) -> None:
    os.kill(mesh.agent_pid(), signal.SIGKILL)
    mesh.up("--mtls", "strict", "--svid-ttl", str(TTL_S), "--connection-grace", "0")
    with dial(ends, 4444) as sock:
        sock.settimeout(20)
        with suppress(ConnectionError):
            assert sock.recv(1) == b""

    def told() -> list[dict[str, Any]]:
        flows = mesh.flows("--port", "15008", "--verdict", "DROPPED")
        return [one for one in flows if "outlived" in one["sixfold"].get("mesh", "")]

    assert mesh.eventually(told)


def test_who_held_a_tunnel_to_a_pod_that_is_gone_is_told(mesh: System, ends: list[Place]) -> None:
    """The client's end stays open as long as somebody holds its namespace: here the test."""
    with dial(ends, 4444) as sock:
        sock.sendall(MARK)
        assert sock.recv(100) == MARK
        mesh.sixfold("delete", "pod", "client", "--now")

        def told() -> list[dict[str, Any]]:
            flows = mesh.flows("--port", "15008", "--verdict", "DROPPED")
            why = "cut: default/client is gone, and its identity"
            return [one for one in flows if one["sixfold"].get("mesh") == why]

        cut = mesh.eventually(told)[0]
        assert (cut["sixfold"]["source_id"], cut["sixfold"]["destination_id"]) == (ID, ID)
        assert mesh.eventually(lambda: "4444" not in established(ends[1]))


def established(place: Place) -> str:
    """Connections that a pod's processes have open."""
    return place.run("ss", "-Htn", "state", "established", "sport", "=", ":4444")
