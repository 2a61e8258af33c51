"""Policies for the host itself, on real traffic.

pod ─ host 192.0.2.1 ── 192.0.2.2 world

Each test says what is in force; the agent, the pods and the world are shared.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import SIXFOLD, System
from .places import (
    FAMILIES,
    OPEN,
    WAIT_S,
    Place,
    manifest,
    places_of,
    pod,
    policy,
    received,
)
from .test_network_world import ping

pytestmark = pytest.mark.root

LINKS = """
link add up0 type veth peer name up1
link set up1 netns {world}
addr add 192.0.2.1/24 dev up0
addr add 2001:db8:1::1/64 dev up0 nodad
link set up0 up
route add default via 192.0.2.2
route add default via 2001:db8:1::2
"""
WORLD_LINKS = """
link set lo up
addr add 192.0.2.2/24 dev up1
addr add 2001:db8:1::2/64 dev up1 nodad
link set up1 up
"""
SERVER = (
    "import socket, time\n"
    "server = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "while True: server.accept()[0].close()\n"
)
MANIFEST = manifest(
    pod("free"),
    pod("held"),
    pod(
        "probed",
        container={
            "command": [sys.executable, "-c", SERVER],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        },
    ),
    policy("free", {"app": "free"}, **OPEN),
)
TO_WORLD = [{"toEntities": ["world"]}]
FROM_WORLD = [{"fromEntities": ["world"]}]
NOTHING = [{}]


def tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"ports": [{"port": str(port), "protocol": "TCP"} for port in ports]}]


def host_policy(name: str = "lockdown", audit: bool = False, **spec: Any) -> dict[str, Any]:
    annotations = {"annotations": {"sixfold.dev/enforcement": "audit"}} if audit else {}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name, **annotations},
        "spec": {"nodeSelector": {"matchLabels": {"kubernetes.io/os": "linux"}}, **spec},
    }


@dataclass(frozen=True)
class Map:
    system: System
    host: Place
    world: Place
    free: Place  # may talk with everybody
    held: Place  # no policy names it
    probed: Place

    def enforce(self, **spec: Any) -> None:
        self.system.apply(manifest(host_policy(**spec)))

    def last_drop(self, *arguments: str) -> dict[str, Any]:
        return self.system.flows("--verdict", "DROPPED", "--last", "1", *arguments)[0]


@pytest.fixture(scope="module")
def stack(module_system: System) -> Map:
    system = module_system
    path = NETNS_ROOT / f"{system.paths.instance}-world"
    netns.create(path, lambda: None)
    system.extra.append(path)
    host = Place(system.host, "192.0.2.1", "2001:db8:1::1")
    world = Place(path, "192.0.2.2", "2001:db8:1::2")
    for place, lines in ((host, LINKS), (world, WORLD_LINKS)):
        for line in lines.format(world=path.name).strip().splitlines():
            place.run("ip", *(["-6"] if "route" in line and "::" in line else []), *line.split())
    system.up(manifest=MANIFEST)
    return Map(system, host, world, *places_of(system, "free", "held", "probed"))


@pytest.fixture
def map_(stack: Map) -> Iterator[Map]:
    """With no policy for the host before, and none after."""
    yield stack
    keys = [f"ciliumclusterwidenetworkpolicy/{name}" for name in ("lockdown", "more")]
    stack.system.sixfold("delete", *keys, "--ignore-not-found")


def both(one: Place, other: Place, version: int, port: int) -> tuple[socket.socket, socket.socket]:
    """A connection, from its two ends."""
    with one.listen(port, version=version) as listener:
        client = other.dial(one.address(version), port)
        server, _ = listener.accept()
    server.settimeout(WAIT_S)
    return client, server


def fate(sock: socket.socket) -> str:
    try:
        sock.recv(1)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "open"


@FAMILIES
def test_a_host_that_no_policy_selects_is_open(map_: Map, version: int):
    with map_.host.listen(version=version), map_.world.listen(version=version):
        assert map_.world.answer(map_.host.address(version)) == "open"
        assert map_.host.answer(map_.world.address(version)) == "open"
    answer = map_.system.sixfold("explain", "world", "host:8080").stdout
    assert "no policy selects the host: its ingress is open" in answer


def test_a_policy_for_another_node_selects_nobody(map_: Map):
    other = host_policy(ingress=NOTHING)
    other["spec"]["nodeSelector"] = {"matchLabels": {"kubernetes.io/hostname": "elsewhere"}}
    map_.system.apply(manifest(other))
    with map_.host.listen():
        assert map_.world.answer("192.0.2.1") == "open"


@FAMILIES
def test_a_selected_host_lets_in_what_a_rule_allows_and_names_both(map_: Map, version: int):
    map_.enforce(ingress=[{"fromEntities": ["world"], "toPorts": tcp(8080)}])
    address = map_.host.address(version)
    with map_.host.listen(8080, version=version), map_.host.listen(8081, version=version):
        assert map_.world.answer(address, 8080) == "open"
        assert map_.world.attempt(address, 8081) == "timeout"
    flow = map_.last_drop("--from", "world", "--to", "host")
    assert (flow["IP"]["destination"], flow["traffic_direction"]) == (address, "INGRESS")
    assert flow["source"]["labels"] == ["reserved:world"]
    assert flow["destination"]["labels"] == ["reserved:host"]
    assert flow["ingress_denied_by"][0]["name"] == "default-deny"
    assert "lockdown" in json.dumps(flow["ingress_denied_by"])
    (flow,) = map_.system.flows("--verdict", "FORWARDED", "--to", "host", "--last", "1")
    assert flow["ingress_allowed_by"][0]["name"] == "lockdown"
    # The other direction has no rules, so it is as before.
    with map_.world.listen(version=version):
        assert map_.host.answer(map_.world.address(version)) == "open"


@FAMILIES
def test_egress_of_the_host_is_judged_and_its_pods_are_not(map_: Map, version: int):
    """They leave under its address, and under their own policy: neither borrows the other's."""
    map_.enforce(ingress=NOTHING, egress=[{"toEntities": ["world"], "toPorts": tcp(9000)}])
    address = map_.world.address(version)
    with map_.world.listen(8080, version=version), map_.world.listen(9000, version=version):
        assert map_.host.answer(address, 9000) == "open"
        assert map_.host.attempt(address, 8080) == "timeout"
        assert map_.free.answer(address, 8080) == "open"
        assert map_.held.attempt(address, 9000) == "timeout"
    with map_.world.listen(7000, version=version, kind=socket.SOCK_DGRAM) as server:
        with map_.free.dial(address, 7000, kind=socket.SOCK_DGRAM) as client:
            client.send(bytes(4000))  # in fragments
            message, sender = server.recvfrom(9000)
            assert (len(message), sender[0]) == (4000, map_.host.address(version))
            server.sendto(bytes(4000), sender)
            assert received(client, WAIT_S) == bytes(4000)
        # Nothing but the answer comes in by the way that the pod's packet went out.
        with map_.host.listen(sender[1], version=version, kind=socket.SOCK_DGRAM) as local:
            address = map_.host.address(version)
            with map_.world.dial(address, sender[1], kind=socket.SOCK_DGRAM) as stranger:
                stranger.send(b"?")
                assert received(local) is None


def test_what_pods_have_open_goes_on_when_the_host_is_closed(map_: Map):
    """A download: the pod has nothing to say, so only what is known beforehand lets it go on."""
    client, server = both(map_.world, map_.free, 4, 8080)
    queries = map_.world.listen(7001, kind=socket.SOCK_DGRAM)
    with client, server, queries, map_.free.dial("192.0.2.2", 7001, kind=socket.SOCK_DGRAM) as pod:
        pod.send(b"?")
        _, sender = queries.recvfrom(10)
        map_.enforce(ingress=NOTHING, egress=NOTHING)
        server.sendall(b"x" * 100_000)
        got = 0
        while got < 100_000:
            got += len(client.recv(1 << 16))
        queries.sendto(b"!", sender)
        assert received(pod, WAIT_S) == b"!"


@FAMILIES
def test_a_change_cuts_what_it_no_longer_allows_and_nothing_else(map_: Map, version: int):
    """Opened before the host had any policy: who dialled whom is known all the same."""
    stays, server = both(map_.host, map_.world, version, 8080)
    ends, other = both(map_.host, map_.world, version, 8081)
    out, far = both(map_.world, map_.host, version, 8082)
    with stays, server, ends, other, out, far:
        map_.enforce(ingress=[{"fromEntities": ["world"], "toPorts": tcp(8080)}], egress=NOTHING)
        for end in (ends, other, out, far):
            assert fate(end) in ("ECONNRESET", "ECONNABORTED")
        server.sendall(b"server first")
        assert stays.recv(100) == b"server first"
    cut = map_.system.flows("--verdict", "DROPPED", "--port", "8081", "--last", "1")[0]
    assert cut["destination"]["labels"] == ["reserved:host"]


def test_a_policy_that_is_gone_leaves_the_host_open(map_: Map):
    map_.enforce(ingress=NOTHING)
    with map_.host.listen():
        assert map_.world.attempt("192.0.2.1") == "timeout"
        map_.system.sixfold("delete", "ciliumclusterwidenetworkpolicy/lockdown")
        assert map_.world.answer("192.0.2.1") == "open"


def test_default_deny_may_be_left_out_and_denied_is_denied(map_: Map):
    map_.enforce(
        ingressDeny=[{"fromCIDR": ["192.0.2.2/32"], "toPorts": tcp(8081)}],
        enableDefaultDeny={"ingress": False, "egress": False},
    )
    with map_.host.listen(8080), map_.host.listen(8081):
        assert map_.world.answer("192.0.2.1", 8080) == "open"
        assert map_.world.attempt("192.0.2.1", 8081) == "timeout"
    assert map_.last_drop("--to", "host")["drop_reason_desc"] == "POLICY_DENY"


def test_in_audit_it_is_told_and_passes(map_: Map):
    map_.enforce(ingress=NOTHING, egress=NOTHING, audit=True)
    with map_.host.listen():
        assert map_.world.answer("192.0.2.1") == "open"
    flow = map_.system.flows("--verdict", "AUDIT", "--to", "host", "--last", "1")[0]
    assert flow["IP"]["source"] == "192.0.2.2"
    assert "in audit: " in map_.system.sixfold("status").stdout


@FAMILIES
def test_pods_and_the_host_need_both_sides(map_: Map, version: int):
    address, host = map_.free.address(version), {4: "10.244.0.1", 6: "fd00:5f:244::1"}[version]
    with map_.free.listen(9090, version=version), map_.host.listen(9090, version=version):
        assert map_.host.answer(address, 9090) == "open"
        assert map_.free.answer(host, 9090) == "open"
        map_.enforce(ingress=FROM_WORLD, egress=TO_WORLD)
        assert map_.host.attempt(address, 9090) == "timeout"
        assert map_.free.attempt(host, 9090) == "timeout"
        flow = map_.last_drop("--from", "default/free", "--to", "host")
        assert flow["traffic_direction"] == "INGRESS"
        peer = {"matchLabels": {"io.kubernetes.pod.namespace": "default", "app": "free"}}
        map_.enforce(ingress=[{"fromEndpoints": [peer]}], egress=[{"toEndpoints": [peer]}])
        assert map_.host.answer(address, 9090) == "open"
        assert map_.free.answer(host, 9090) == "open"


def test_probes_and_loopback_and_names_go_on(map_: Map):
    map_.enforce(ingress=NOTHING, egress=NOTHING)
    with map_.host.listen():
        for address in ("127.0.0.1", "192.0.2.1", "10.244.0.1"):
            assert map_.host.answer(address) == "open"
    assert map_.host.answer(map_.probed.ipv4, 8080) == "open"
    assert map_.host.attempt(map_.probed.ipv4, 8081) == "timeout"
    with map_.free.dial("169.254.20.10", 53) as dns:  # TCP: the process, not the kernel
        question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07cluster\x05local\0\0\x01\0\x01"
        dns.sendall(len(question).to_bytes(2, "big") + question)
        assert dns.recv(100)
    assert map_.system.status()["pods"]["ready"] == 3


@FAMILIES
def test_ping_needs_its_rule_and_errors_belong_to_a_connection(map_: Map, version: int):
    kind, echo = {4: ("IPv4", 8), 6: ("IPv6", 128)}[version]
    address = map_.host.address(version)
    map_.enforce(ingress=[{"fromEntities": ["world"], "toPorts": tcp(1)}])
    assert not ping(map_.world, address, version)
    icmp = [{"fields": [{"type": echo, "family": kind}]}]
    map_.enforce(ingress=[{"fromEntities": ["world"], "icmps": icmp}], egress=TO_WORLD)
    assert ping(map_.world, address, version, WAIT_S)
    with map_.host.dial(map_.world.address(version), 9, kind=socket.SOCK_DGRAM) as sock:
        sock.send(b"?")
        assert fate(sock) == "ECONNREFUSED"


def test_neighbours_are_found_while_everything_is_denied(map_: Map):
    """ARP and neighbour discovery, both ways."""
    map_.enforce(ingress=[{"fromEntities": ["world"], "toPorts": tcp(8080)}], egress=NOTHING)
    for place, device in ((map_.host, "up0"), (map_.world, "up1")):
        place.run("ip", "neigh", "flush", "dev", device)
        place.run("ip", "-6", "neigh", "flush", "dev", device)
    for version in (4, 6):
        with map_.host.listen(8080, version=version):
            address = map_.host.address(version)
            assert map_.world.answer(address, 8080) == "open"


def test_the_hosts_policy_outlives_the_agent(map_: Map):
    map_.enforce(ingress=[{"fromEntities": ["world"], "toPorts": tcp(8080)}])
    with map_.host.listen(8080), map_.host.listen(8081):
        os.kill(map_.system.agent_pid(), signal.SIGKILL)
        assert map_.world.answer("192.0.2.1", 8080) == "open"
        assert map_.world.attempt("192.0.2.1", 8081) == "timeout"
        links = map_.system.paths.bpffs / "links"
        before = {path.name: path.stat().st_ino for path in links.glob("*_uplink_*")}
        map_.system.up()
        assert {path.name: path.stat().st_ino for path in links.glob("*_uplink_*")} == before
        assert len(before) == 2
        assert map_.world.answer("192.0.2.1", 8080) == "open"
        assert map_.world.attempt("192.0.2.1", 8081) == "timeout"


def test_the_tools_know_the_host(map_: Map, tmp_path: Any):
    map_.enforce(ingress=[{"fromEntities": ["world"], "toPorts": tcp(8080)}], egress=NOTHING)
    answer = map_.system.sixfold("explain", "world", "host:8081", check=False)
    assert answer.returncode == 1
    assert "ingress of host denied by default-deny" in answer.stdout
    assert "allows TCP/8080, not TCP/8081" in answer.stdout
    probe = {"from": "192.0.2.2", "to": "host", "protocol": "TCP", "port": 8080}
    done = map_.system.sixfold("reach", "--probes", "-", stdin=json.dumps(probe))
    assert json.loads(done.stdout)["ingress"]["policy"] == "lockdown"
    rows = map_.system.json("reach")
    assert "host" in json.dumps(rows)
    found = map_.system.sixfold("lint", check=False).stdout
    assert "host-lockout" in found
    assertions = tmp_path / "assert.yaml"
    assertions.write_text(
        "apiVersion: sixfold.dev/v1\nkind: Assertions\nmetadata: {name: host}\nassertions:\n"
        "- only: {from: [{world: true}], to: [{host: true}], ports: [{port: 8080}]}\n"
        "- deny: {from: [{host: true}], to: [{world: true}]}\n"
    )
    done = map_.system.sixfold("verify", "--assert", str(assertions))
    assert done.returncode == 0


def test_apply_refuses_to_end_the_session_that_it_is_typed_in(map_: Map):
    environment = {**map_.system.environment, "SSH_CONNECTION": "192.0.2.2 40000 192.0.2.1 22"}

    def apply(*options: str, **spec: Any) -> subprocess.CompletedProcess[str]:
        argv = ["nsenter", f"--net={map_.host.path}", *SIXFOLD, "apply", "-f", "-", *options]
        text = manifest(host_policy(**spec))
        return subprocess.run(argv, input=text, capture_output=True, text=True, env=environment)

    refused = apply(ingress=NOTHING)
    assert refused.returncode != 0
    assert "would end your own SSH session from 192.0.2.2" in refused.stderr
    assert "audit" in refused.stderr
    with map_.host.listen():
        assert map_.world.answer("192.0.2.1") == "open"
    assert apply(ingress=[{"fromEntities": ["world"], "toPorts": tcp(22)}]).returncode == 0
    assert apply("--end-my-session", ingress=NOTHING).returncode == 0
