"""Services as the world outside reaches them, in front of backends that are no pods: endpoints
that somebody wrote, elsewhere in the world or on the host itself.

pods ─ host 192.0.2.1 ──(up0)── 192.0.2.2 router 198.51.100.1 ── .2 far

The client is the router or far, the backend is far: it sees the host.
"""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest

from sixfold.host.datapath import KernelDatapath

from .places import FAMILIES, WAIT_S, Place, manifest, received, service
from .test_outside import DGRAM, KINDS, NODE, PORTS, Coast, coast, whole

__all__ = ["coast"]
pytestmark = pytest.mark.root

PORT = {"port": "8080", "protocol": "ANY"}
FAR = {4: "198.51.100.2", 6: "2001:db8:2::2"}
REFUSING = {  # by who says it: where nobody listens, and where nobody is
    "backend": {4: "198.51.100.1", 6: "2001:db8:2::1"},
    "router": {4: "198.51.100.9", 6: "2001:db8:2::9"},
}


def written(name: str, version: int, *addresses: str, port: int = 8080) -> dict:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{version}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": f"IPv{version}",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [
            {"name": "tcp", "port": port},
            {"name": "udp", "port": port, "protocol": "UDP"},
        ],
    }


def balancer(name: str, **spec: object) -> dict:
    return {
        **(made := service(name, type="LoadBalancer", ports=PORTS, **spec)),
        "spec": {key: value for key, value in made["spec"].items() if key != "selector"},
    }


def taking_turns(made: dict) -> dict:
    made["metadata"]["annotations"] = {"sixfold.dev/lb-algorithm": "round-robin"}
    return made


@pytest.fixture(scope="module", autouse=True)
def elsewhere(coast: Coast) -> None:
    """Services of written endpoints: all are at far, but that of ``own``, which is the host's."""
    coast.system.apply(
        manifest(
            balancer("abroad"),
            balancer("nearby", externalTrafficPolicy="Local"),
            balancer("lost"),
            balancer("own"),
            *(written(name, 4, FAR[4]) for name in ("abroad", "nearby")),
            *(written(name, 6, FAR[6]) for name in ("abroad", "nearby")),
            written("lost", 4, FAR[4], port=8099),
            written("own", 4, NODE[4]),
            *(taking_turns(balancer(name)) for name in REFUSING),
            *(
                written(name, version, FAR[version], address)
                for name, places in REFUSING.items()
                for version, address in places.items()
            ),
        )
    )
    for family, address in REFUSING["router"].items():
        coast.router.run("ip", f"-{family}", "route", "add", "unreachable", address)
    items = coast.system.json("get", "svc")["items"]
    coast.services.update({item["metadata"]["name"]: item for item in items})


def exchange(client: Place, server: socket.socket, address: str, port: int) -> str:
    """Ask and hear the answer, from the service; returns whom the server saw."""
    with client.dial(address, port, kind=server.type) as sock:
        assert sock.getpeername()[:2] == (address, port)
        sock.send(b"ask")
        if server.type == DGRAM:
            asked, seen = server.recvfrom(64)
            server.sendto(b"answer", seen)
        else:
            connection, seen = server.accept()
            with connection:
                asked = whole(connection, 3)
                connection.sendall(b"answer")
        assert (asked, whole(sock, 6)) == (b"ask", b"answer")
        return str(seen[0])


@FAMILIES
@KINDS
@pytest.mark.parametrize("client", ["router", "far"])
def test_every_way_reaches_a_backend_elsewhere_which_sees_the_host(
    coast: Coast, version: int, kind: int, client: str
):
    ways = [
        (coast.address("abroad", version), 80),
        (NODE[version], coast.node_port("abroad")),
    ]
    with coast.far.listen(version=version, kind=kind) as server:
        for way in ways:
            assert exchange(getattr(coast, client), server, *way) == NODE[version]


@FAMILIES
def test_datagrams_longer_than_the_link_reach_it_and_come_back(coast: Coast, version: int):
    address = coast.address("abroad", version)
    with (
        coast.far.listen(version=version, kind=DGRAM) as server,
        coast.router.dial(address, 80, kind=DGRAM) as client,
    ):
        client.send(bytes(4000))
        asked, seen = server.recvfrom(65536)
        server.sendto(bytes(5000), seen)
        assert (len(asked), len(client.recv(65536))) == (4000, 5000)


@FAMILIES
def test_where_nobody_listens_the_client_is_told(coast: Coast, version: int):
    address = coast.address("abroad", version)
    assert coast.router.answer(address, 80) == "ECONNREFUSED"
    with coast.router.dial(address, 80, kind=DGRAM) as client:
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@FAMILIES
@pytest.mark.parametrize("client", ["far", "host"])
def test_one_client_is_refused_elsewhere_and_the_next_ones_pass_it_over(
    coast: Coast, version: int, client: str
):
    """By a reset. They take turns: every second dial would be refused."""
    with coast.far.listen(version=version):
        dials = dialled(coast, getattr(coast, client), coast.address("backend", version))
    assert sorted(dials) == ["ECONNREFUSED", *["open"] * 7]


@FAMILIES
def test_what_a_router_says_to_one_client_outside_the_next_ones_need_not_hear(
    coast: Coast, version: int
):
    """By ICMP. What the first client makes of it is its kernel's affair: while it is still within
    connect(), it waits."""
    with coast.far.listen(version=version):
        dials = dialled(coast, coast.far, coast.address("router", version))
    assert dials.count("open") == 7


def dialled(coast: Coast, client: Place, address: str) -> list[str]:
    """Eight dials one after the other, of which the kernel knows nothing beforehand."""
    deaf = KernelDatapath.view(coast.system.paths.instance).maps["deaf"]
    deaf.delete([key for key, _ in deaf.items()])
    return [client.attempt(address, 80) for _ in range(8)]


@FAMILIES
def test_the_path_mtu_is_found_both_ways(coast: Coast, version: int):
    """The router's link to far, where client and backend are, takes less: it tells both."""
    address = coast.address("abroad", version)
    coast.router.run("ip", "link", "set", "far0", "mtu", "1300")
    try:
        with (
            coast.far.listen(version=version) as server,
            coast.far.dial(address, 80) as client,
            server.accept()[0] as connection,
        ):
            connection.settimeout(WAIT_S)
            for sender, receiver in ((client, connection), (connection, client)):
                sender.sendall(bytes(60_000))
                assert len(whole(receiver, 60_000)) == 60_000
    finally:
        coast.router.run("ip", "link", "set", "far0", "mtu", "1500")


def test_live_connections_to_a_backend_elsewhere_are_exact(coast: Coast):
    address, key = coast.address("abroad"), "EndpointSlice/abroad-4"

    def settles(count: int) -> None:
        coast.system.eventually(lambda: coast.live("abroad") == {key: count})

    reset = struct.pack("ii", 1, 0)
    with coast.far.listen() as server:
        pairs = []
        for _ in range(6):
            client = coast.router.dial(address, 80)
            pairs.append((client, server.accept()[0]))
            client.sendall(b"x")
        settles(6)
        pairs[0][0].close()
        pairs[1][1].close()
        for sock in (pairs[2][0], pairs[3][1]):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            sock.close()
        settles(2)
        for pair in pairs:
            for sock in pair:
                sock.close()
        settles(0)


def test_a_flow_to_a_backend_elsewhere_names_the_service(coast: Coast):
    with coast.far.listen() as server:
        exchange(coast.router, server, coast.address("abroad"), 80)

    def seen() -> bool:
        flows = coast.system.flows("--from", "192.0.2.2", "--last", "50")
        return any(
            flow.get("destination_service", {}).get("name") == "abroad"
            and flow["verdict"] == "FORWARDED"
            and flow["IP"]["destination"] == FAR[4]
            for flow in flows
        )

    coast.system.eventually(seen)


@KINDS
def test_with_local_traffic_only_nobody_elsewhere_is_used(coast: Coast, kind: int):
    with coast.far.listen(kind=kind):
        expected = "ECONNREFUSED" if kind == socket.SOCK_STREAM else "open"
        assert coast.router.attempt(coast.address("nearby"), 80, kind=kind) == expected
        assert coast.system.json("lb", "list", "nearby")["frontends"][0]["backends"]
        assert [
            one["backends"]
            for one in coast.system.json("lb", "list", "nearby")["frontends"]
            if one["type"] != "ClusterIP"
        ] == [[]] * 8


def test_who_is_connected_to_a_backend_that_was_taken_out_is_reset(coast: Coast):
    with coast.far.listen(8099) as server:
        with coast.router.dial(coast.address("lost"), 80) as client:
            connection, _ = server.accept()
            client.sendall(b"x")
            assert connection.recv(1) == b"x"
            coast.system.sixfold("delete", "endpointslice", "lost-4")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            connection.close()
        assert coast.router.answer(coast.address("lost"), 80) == "ECONNREFUSED"
    coast.system.apply(manifest(written("lost", 4, FAR[4], port=8099)))


def test_a_backend_on_the_host_sees_its_client_and_is_under_the_hosts_policy(coast: Coast):
    address, system = coast.address("own"), coast.system
    closed = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {
            "nodeSelector": {},
            "ingress": [{"fromEntities": ["all"]}],
            "ingressDeny": [{"fromCIDR": ["198.51.100.2/32"], "toPorts": [{"ports": [PORT]}]}],
        },
    }
    with coast.host.listen() as server, coast.host.listen(kind=DGRAM) as datagrams:
        for each in (server, datagrams):
            assert exchange(coast.far, each, address, 80) == FAR[4]
        with coast.far.dial(address, 80) as client, server.accept()[0]:
            system.apply(manifest(closed))
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        for each in (server, datagrams):
            assert exchange(coast.router, each, address, 80) == "192.0.2.2"
        assert coast.far.attempt(address, 80) == "timeout"
        with coast.far.dial(address, 80, kind=DGRAM) as client:
            for _ in range(3):
                client.send(b"x")
        assert received(datagrams) is None
        system.sixfold("delete", "ciliumclusterwidenetworkpolicy", "closed")
        for each in (server, datagrams):
            each.settimeout(WAIT_S)
            assert exchange(coast.far, each, address, 80) == FAR[4]


def test_backends_elsewhere_are_reached_without_an_agent(coast: Coast):
    system, address = coast.system, coast.address("abroad")
    with (
        coast.far.listen() as server,
        coast.router.dial(address, 80) as client,
        server.accept()[0] as connection,
    ):
        os.kill(system.agent_pid(), signal.SIGKILL)
        client.sendall(b"x")
        assert connection.recv(1) == b"x"
        exchange(coast.router, server, address, 80)
        system.up()
        client.sendall(b"y")
        assert connection.recv(1) == b"y"
