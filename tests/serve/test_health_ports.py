"""What an external load balancer is told at a healthCheckNodePort."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request

import pytest

from sixfold.model.health_port import HealthPort
from sixfold.serve.dns import listen
from sixfold.serve.health_ports import HealthPorts


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number = sock.getsockname()[1]
    return number


def ask(url: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def served(*ports: HealthPort, asked: list[tuple[str, str]]) -> list:
    """Answers to these questions (URL, method) while the ports are served."""

    async def session() -> list:
        server = HealthPorts(listen)
        await server.serve(ports)
        assert server.problem == ""
        try:
            return [await asyncio.to_thread(ask, *one) for one in asked]
        finally:
            server.close()

    return asyncio.run(session())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_node_with_endpoints_is_to_be_used(port: int, host: str):
    (found,) = served(
        HealthPort(port, "shop", "web", 2), asked=[(f"http://{host}:{port}/healthz", "GET")]
    )
    status, headers, body = found
    assert (status, headers["X-Load-Balancing-Endpoint-Weight"]) == (200, "2")
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": True,
    }


def test_a_node_without_endpoints_is_not(port: int):
    url = f"http://127.0.0.1:{port}/"
    got, head = served(HealthPort(port, "shop", "web", 0), asked=[(url, "GET"), (url, "HEAD")])
    assert (got[0], json.loads(got[2])["localEndpoints"]) == (503, 0)
    assert (head[0], head[2]) == (503, b"")


def test_a_port_that_somebody_else_has_is_said_and_taken_when_it_is_free(port: int):
    async def session() -> tuple[str, str, int]:
        server = HealthPorts(listen)
        wanted = (HealthPort(port, "shop", "web", 1),)
        with socket.socket() as other:
            other.bind(("0.0.0.0", port))
            other.listen()
            await server.serve(wanted)
            before = server.problem
        await server.serve(wanted)
        status, _, _ = await asyncio.to_thread(ask, f"http://127.0.0.1:{port}/")
        after = server.problem
        server.close()
        return before, after, status

    taken = f"healthCheckNodePort {port} of shop/web: Address already in use"
    assert asyncio.run(session()) == (taken, "", 200)
