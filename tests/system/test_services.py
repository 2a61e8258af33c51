"""Services on real sockets: whom a connect reaches, what the socket is told, when it is refused."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sixfold.model.config import Config

from .conftest import System
from .places import (
    FAMILIES,
    OPEN,
    WAIT_S,
    Place,
    manifest,
    places_of,
    pod,
    policy,
    service,
)

pytestmark = pytest.mark.root

DGRAM = socket.SOCK_DGRAM
HTTP = {"web-1": 8081, "web-2": 8082}  # one name, two numbers
TIME, METRICS = 8123, 8090
ACCEPT = (
    "import socket\n"
    "server = socket.create_server(('', 8080), backlog=128)\n"
    "while True: server.accept()[0].close()\n"
)


@dataclass
class Shop:
    system: System
    client: Place
    host: Place
    web: dict[str, Place]
    ready: Path  # holds one file per ready pod
    vips: dict[str, dict[int, str]] = field(default_factory=dict)  # by service and family

    def vip(self, name: str, version: int = 4) -> str:
        if name not in self.vips:
            spec = self.system.json("get", "svc", name)["spec"]
            self.vips[name] = {6 if ":" in it else 4: it for it in spec["clusterIPs"]}
        return self.vips[name][version]

    @contextmanager
    def serving(self, version: int = 4, kind: int = socket.SOCK_STREAM) -> Iterator[Servers]:
        """Servers behind the service's ports in both pods."""
        with ExitStack() as stack:
            ports = {name: [HTTP[name], METRICS] for name in self.web}
            if kind == DGRAM:
                ports = {name: [TIME] for name in self.web}
            sockets = {
                (name, port): stack.enter_context(place.listen(port, version=version, kind=kind))
                for name, place in self.web.items()
                for port in ports[name]
            }
            yield Servers(sockets)

    def mark(self, name: str, *, ready: bool) -> None:
        """Let a pod pass or fail its readiness probe, and wait until the service has seen it."""
        path = self.ready / name
        path.touch() if ready else path.unlink()
        self.system.eventually(
            lambda: self.system.endpoint(f"default/{name}")["ready"] is ready, f"{name}: {ready}"
        )


@dataclass
class Servers:
    """Who answers? Sockets by pod and port."""

    sockets: dict[tuple[str, int], socket.socket]

    def accepted(self) -> tuple[str, int, socket.socket, str]:
        """The next connection: pod, port, socket, and the caller's address."""
        ((name, port), server) = self._readable()
        connection, (source, *_) = server.accept()
        connection.settimeout(WAIT_S)
        return name, port, connection, source

    def answer(self) -> str:
        """Send the next datagram back, with the pod's name; which is returned."""
        ((name, _), server) = self._readable()
        message, sender = server.recvfrom(2048)
        server.sendto(name.encode() + b" heard " + message, sender)
        return name

    def _readable(self) -> tuple[tuple[str, int], socket.socket]:
        with selectors.DefaultSelector() as selector:
            for key, server in self.sockets.items():
                selector.register(server, selectors.EVENT_READ, key)
            found = selector.select(WAIT_S)
        assert found, "nobody is called"
        key = found[0][0]
        return key.data, key.fileobj  # type: ignore[return-value]


def web_pod(name: str, ready: Path) -> dict:
    probe = {"exec": {"command": ["test", "-e", str(ready / name)]}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": HTTP[name]}]
    container = {"readinessProbe": {**probe, "failureThreshold": 1}, "ports": ports}
    return pod(name, labels={"app": "web"}, container=container)


@pytest.fixture(scope="module")
def shop(module_system: System, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    ready = tmp_path_factory.mktemp("ready")
    for name in HTTP:
        (ready / name).touch()
    module_system.up(
        manifest=manifest(
            pod("client"),
            *(web_pod(name, ready) for name in HTTP),
            service(
                "web",
                ports=[
                    {"name": "http", "port": 80, "targetPort": "http"},
                    {"name": "metrics", "port": 90, "targetPort": METRICS},
                    {"name": "time", "port": 123, "targetPort": TIME, "protocol": "UDP"},
                ],
            ),
            service(
                "nobody",
                ports=[
                    {"name": "http", "port": 80},
                    {"name": "time", "port": 123, "protocol": "UDP"},
                ],
            ),
            policy("open", None, **OPEN),
        )
    )
    host = Place(module_system.host, "10.244.0.1", "fd00:5f:244::1")
    client, *web = places_of(module_system, "client", *HTTP)
    return Shop(module_system, client, host, dict(zip(HTTP, web, strict=True)), ready)


@FAMILIES
def test_a_connect_reaches_a_backend_and_believes_to_talk_to_the_service(shop: Shop, version: int):
    vip = shop.vip("web", version)
    with shop.serving(version) as servers, shop.client.dial(vip, 80) as client:
        name, port, connection, source = servers.accepted()
        with connection:
            assert client.getpeername()[:2] == (vip, 80)
            assert source == shop.client.address(version)
            assert port == HTTP[name]
            connection.sendall(b"hello")
            assert client.recv(100) == b"hello"


def test_an_ipv6_socket_reaches_an_ipv4_service(shop: Shop):
    """As every dual-stack program does it: ::ffff:a.b.c.d."""
    mapped = f"::ffff:{shop.vip('web')}"
    with shop.serving() as servers, shop.client.dial(mapped, 80, family=socket.AF_INET6) as client:
        _, _, connection, _ = servers.accepted()
        connection.close()
        assert client.getpeername()[:2] == (mapped, 80)


@FAMILIES
def test_connected_udp_hears_the_service_only(shop: Shop, version: int):
    vip = shop.vip("web", version)
    with shop.serving(version, DGRAM) as servers, shop.client.dial(vip, 123, kind=DGRAM) as client:
        client.send(b"?")
        name = servers.answer()
        message, source = client.recvfrom(100)
        assert message == name.encode() + b" heard ?"
        assert source[:2] == client.getpeername()[:2] == (vip, 123)


@pytest.mark.parametrize("version", [4, 6, 46], ids=["ipv4", "ipv6", "ipv4-mapped"])
def test_unconnected_udp_hears_the_service(shop: Shop, version: int):
    vip = shop.vip("web", 6 if version == 6 else 4)
    address = f"::ffff:{vip}" if version == 46 else vip
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with (
        shop.serving(6 if version == 6 else 4, DGRAM) as servers,
        shop.client.make_socket(family, DGRAM) as client,
    ):
        for _ in range(3):  # one socket, one backend
            client.sendto(b"?", (address, 123))
            servers.answer()
            _, source = client.recvfrom(100)
            assert source[:2] == (address, 123)


@FAMILIES
def test_every_port_of_a_service_is_its_own(shop: Shop, version: int):
    vip = shop.vip("web", version)
    with shop.serving(version) as servers:
        for port, wanted in ((80, set(HTTP.values())), (90, {METRICS})):
            with shop.client.dial(vip, port):
                _, reached, connection, _ = servers.accepted()
                connection.close()
            assert reached in wanted


@FAMILIES
def test_a_service_without_endpoints_and_an_unknown_port_refuse_at_once(shop: Shop, version: int):
    for name, port in (("nobody", 80), ("web", 81)):
        assert shop.client.answer(shop.vip(name, version), port) == "ECONNREFUSED"
    for name, port in (("nobody", 123), ("web", 80)):  # 80 is there, but for TCP only
        vip = shop.vip(name, version)
        assert shop.client.answer(vip, port, kind=DGRAM) == "ECONNREFUSED"
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        client = shop.client.make_socket(family, DGRAM)
        with client, pytest.raises(ConnectionRefusedError):
            client.sendto(b"?", (vip, port))


@FAMILIES
def test_an_address_that_no_service_has_refuses_at_once(shop: Shop, version: int):
    address = next(str(it[500]) for it in Config().service_networks if it.version == version)
    for place in (shop.client, shop.host):
        assert place.answer(address, 80) == "ECONNREFUSED"
        assert place.answer(address, 80, kind=DGRAM) == "ECONNREFUSED"
    explained = shop.system.sixfold("explain", "client", address, "80", check=False)
    assert "and nobody has it" in explained.stdout


def test_connects_are_spread_over_the_backends(shop: Shop):
    assert min(spread(shop, 200).values()) > 60  # of 100; five standard deviations


@FAMILIES
def test_the_host_itself_reaches_services(shop: Shop, version: int):
    vip = shop.vip("web", version)
    with shop.serving(version) as servers, shop.host.dial(vip, 90) as client:
        _, _, connection, source = servers.accepted()
        connection.close()
        assert source == shop.host.address(version)
        assert client.getpeername()[:2] == (vip, 90)
    with shop.serving(version, DGRAM) as servers, shop.host.dial(vip, 123, kind=DGRAM) as client:
        client.send(b"?")
        servers.answer()
        assert client.recvfrom(100)[1][:2] == (vip, 123)


def test_a_pod_reaches_itself_through_its_own_service(shop: Shop):
    """The backend may be the caller: no packet leaves the pod then."""
    caller = shop.web["web-1"]
    with shop.serving() as servers:
        for _ in range(30):  # all drawn elsewhere: once in a billion runs
            with caller.dial(shop.vip("web"), 90):
                name, _, connection, source = servers.accepted()
                connection.close()
            assert source == caller.ipv4
            if name == "web-1":
                return
    raise AssertionError("never drawn itself")


def test_a_nonblocking_connect_reaches_a_backend(shop: Shop):
    vip = shop.vip("web")
    with shop.serving() as servers, shop.client.make_socket(socket.AF_INET, 1) as client:
        client.setblocking(False)
        first = client.connect_ex((vip, 80))
        assert first in (0, errno.EINPROGRESS)
        _, _, connection, _ = servers.accepted()
        connection.close()
        second = client.connect_ex((vip, 80))
        assert second in (0, errno.EISCONN)
        assert client.getpeername() == (vip, 80)


def test_a_socket_that_was_refused_may_dial_again(shop: Shop):
    with shop.serving() as servers, shop.client.make_socket(socket.AF_INET, 1) as client:
        assert client.connect_ex((shop.vip("nobody"), 80)) == errno.ECONNREFUSED
        assert client.connect_ex((shop.vip("web"), 80)) == 0
        servers.accepted()[2].close()
        assert client.getpeername() == (shop.vip("web"), 80)


@FAMILIES
def test_a_socket_that_dials_a_pod_after_a_service_talks_to_the_pod(shop: Shop, version: int):
    """The same backend, even: connect() of UDP may be repeated."""
    vip = shop.vip("web", version)
    with shop.serving(version, DGRAM) as servers, shop.client.dial(vip, 123, kind=DGRAM) as client:
        client.send(b"?")
        address = shop.web[servers.answer()].address(version)
        client.recv(100)
        client.connect((address, TIME))
        assert client.getpeername()[:2] == (address, TIME)
        client.send(b"?")
        servers.answer()
        assert client.recvfrom(100)[1][:2] == (address, TIME)


def test_endpoints_follow_readiness_and_open_connections_live_on(shop: Shop):
    with ExitStack() as stack:
        servers = stack.enter_context(shop.serving())
        pairs = []
        for _ in range(10):
            client = stack.enter_context(shop.client.dial(shop.vip("web"), 80))
            pairs.append((client, stack.enter_context(servers.accepted()[2])))
        shop.mark("web-2", ready=False)
        assert set(spread(shop, 20, servers)) == {"web-1"}
        assert slice_addresses(shop, ready=True) == {shop.web["web-1"].ipv4}
        for client, server in pairs:
            client.sendall(b"still there?")
            assert server.recv(100) == b"still there?"
        shop.mark("web-2", ready=True)
        assert set(spread(shop, 40, servers)) == {"web-1", "web-2"}
        assert slice_addresses(shop, ready=True) == {place.ipv4 for place in shop.web.values()}


def test_nobody_is_sent_to_a_pod_that_is_being_stopped(shop: Shop):
    """Its server is gone as soon as it is told; by then the service has forgotten it."""
    names = [f"short-{number}" for number in range(4)]
    container = {
        "command": ["python3", "-c", ACCEPT],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    servers = [pod(name, labels={"app": "short"}, container=container) for name in names]
    ports = [{"port": 80, "targetPort": 8080}]
    shop.system.apply(manifest(*servers, service("short", ports=ports)), "--wait")
    vip = shop.vip("short")
    stop = threading.Event()
    outcomes: Counter[str] = Counter()

    def dial() -> None:
        while not stop.is_set():
            outcomes[shop.client.answer(vip, 80)] += 1

    dialling = threading.Thread(target=dial)
    dialling.start()
    for name in names[1:]:
        shop.system.sixfold("delete", "pod", name)
    stop.set()
    dialling.join()
    assert set(outcomes) == {"open"}
    shop.system.sixfold("delete", "pod", names[0])


def test_a_thousand_services_at_once(shop: Shop):
    """All or nothing, one generation; the first and the last are in force when apply returns."""
    before = shop.system.status()["agent"]["generation"]
    names = [f"many-{number}" for number in range(1000)]
    ports = [{"port": 80, "targetPort": METRICS}]
    wanted = [
        service(name, selector={"app": "web"}, ports=ports, ipFamilyPolicy="SingleStack")
        for name in names
    ]
    shop.system.apply(manifest(*wanted))
    assert shop.system.status()["agent"]["applied"] == before + 1
    with shop.serving() as servers:
        for name in (names[0], names[-1]):
            with shop.client.dial(shop.vip(name), 80):
                servers.accepted()[2].close()
    vip = shop.vip(names[0])
    shop.system.sixfold("delete", "svc", *names)
    with shop.serving():
        assert shop.client.answer(vip, 80) == "ECONNREFUSED"


def spread(shop: Shop, count: int, servers: Servers | None = None) -> Counter[str]:
    """Connections by the pod that they reach."""
    with ExitStack() as stack:
        if servers is None:
            servers = stack.enter_context(shop.serving())
        found: Counter[str] = Counter()
        for _ in range(count):
            with shop.client.dial(shop.vip("web"), 80):
                name, _, connection, _ = servers.accepted()
                connection.close()
            found[name] += 1
    return found


def slice_addresses(shop: Shop, *, ready: bool) -> set[str]:
    """IPv4 addresses that the EndpointSlices of the service show."""
    return {
        address
        for item in shop.system.json("get", "endpointslices")["items"]
        if item["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
        if item["addressType"] == "IPv4"
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"] is ready
        for address in endpoint["addresses"]
    }
