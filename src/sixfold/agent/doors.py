"""Sockets that others connect to, and the servers behind them.

Three unix sockets, mode 0600: the API's, the catalogue's, and that of metrics. The catalogue may be
told over TCP, too, when ``catalog_listen`` says so: on loopback, or towards the pods; metrics on
loopback, at ``metrics_address``. Whoever comes over TCP is nobody in particular; no header of
theirs (X-Forwarded-For) is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette

from sixfold.errors import HostError
from sixfold.host.paths import Paths
from sixfold.model.config import Config
from sixfold.serve import api, catalogue, metrics
from sixfold.serve.callers import Door

NODE = "node"  # instead of an address: the node as pods see it
BACKLOG = 128
OPTIONS = {
    "catalog": "catalog-listen",
    "metrics": "metrics-address",
    "trust bundle": "bundle-endpoint",
}  # of ``sixfold up``


class Doors:
    """All servers of an agent, each with its sockets."""

    def __init__(self) -> None:
        self._servers: list[tuple[_Server, list[socket.socket]]] = []

    def add(
        self,
        application: Starlette,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if sockets:
            self._servers.append((_server(application, tls), sockets))

    async def serve(self) -> None:
        """Until ``close``; afterwards nobody listens any more."""
        await asyncio.gather(*(server.serve(sockets=socks) for server, socks in self._servers))

    def close(self) -> None:
        for server, _ in self._servers:
            server.should_exit = True


@contextlib.contextmanager
def open_doors(
    paths: Paths,
    config: Config,
    handlers: api.Handlers,
    told: catalogue.Handlers,
    measured: metrics.Handlers,
    told_trust: tuple[Starlette, ssl.SSLContext] | None,
) -> Iterator[Doors]:
    """Listen; HostError when somebody else does already."""
    with contextlib.ExitStack() as opened:
        doors = Doors()
        doors.add(
            api.application(handlers), [opened.enter_context(unix_listener(paths.api_socket))]
        )
        local = catalogue.application(told, Door(operator=True))
        doors.add(local, [opened.enter_context(unix_listener(paths.catalog_socket))])
        scraped = [opened.enter_context(unix_listener(paths.metrics_socket))]
        if config.metrics_address:
            place = metrics_place(config.metrics_address)
            scraped.append(opened.enter_context(_tcp(*place, "metrics")))
        doors.add(metrics.application(measured), scraped)
        outer = [opened.enter_context(_tcp(*place)) for place in listening_places(config)]
        if outer:
            door = Door(operator=False, token=_token(paths.state / "catalog.token"))
            doors.add(catalogue.application(told, door), outer)
        if told_trust is not None:
            place = endpoint_place(config.bundle_endpoint)
            application, tls = told_trust
            doors.add(application, [opened.enter_context(_tcp(*place, "trust bundle"))], tls)
        yield doors


def listening_places(config: Config) -> list[tuple[IPv4Address | IPv6Address, int]]:
    """Addresses and ports of ``catalog_listen``; ValueError when one is open to the world."""
    places: list[tuple[IPv4Address | IPv6Address, int]] = []
    for text in config.catalog_listen:
        host, port = _host_and_port(text)
        if host == NODE:
            places += [(config.host_ipv4, port), (config.host_ipv6, port)]
            continue
        address = ip_address(host)
        if not address.is_loopback:
            raise ValueError(f"{text!r}: give an address of loopback, or node:PORT for pods")
        places.append((address, port))
    return places


def endpoint_place(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Of ``bundle_endpoint``, anywhere; ValueError when it is no address and port."""
    host, port = _host_and_port(text)
    return ip_address(host), port


def metrics_place(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Of ``metrics_address``; ValueError when it is open to others than this host."""
    host, port = _host_and_port(text)
    address = ip_address(host)
    if not address.is_loopback:
        raise ValueError(f"{text!r}: give an address of loopback, as 127.0.0.1:9153")
    return address, port


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: give ADDRESS:PORT, as 127.0.0.1:8500")
    return host.strip("[]"), int(port)


class _Server(uvicorn.Server):
    """Signals are the agent's, not uvicorn's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(application: Starlette, tls: ssl.SSLContext | None = None) -> _Server:
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        access_log=False,
        http="h11",
        ws="none",
        proxy_headers=False,  # who calls is who connected
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    config.load()
    config.ssl = tls  # a context whose certificate is renewed, which no file names
    return _Server(config)


def _token(path: Path) -> str:
    """What makes a caller over TCP the operator; made once, readable by root."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{uuid4()}\n")
    token = path.read_text().strip()
    if not token:
        raise HostError(f"{path}: is empty; remove it, the next start makes another")
    return token


@contextlib.contextmanager
def workload_door(path: Path) -> Iterator[socket.socket]:
    """Where every process may ask who it is: whoever it is, the kernel says."""
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o755)
    with unix_listener(path, mode=0o666) as listener:
        yield listener


@contextlib.contextmanager
def unix_listener(path: Path, *, mode: int = 0o600) -> Iterator[socket.socket]:
    """A socket of this mode from its first moment; gone afterwards."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _tcp(
    address: IPv4Address | IPv6Address, port: int, what: str = "catalog"
) -> Iterator[socket.socket]:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((str(address), port))
        except OSError as error:
            raise HostError(
                f"{what} {address} port {port}: {error.strerror}; "
                f"give another place: up --{OPTIONS[what]}"
            ) from None
        listener.listen(BACKLOG)
        yield listener
    finally:
        listener.close()
