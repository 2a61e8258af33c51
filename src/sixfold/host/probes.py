"""Probes: is a container well? exec, httpGet, tcpSocket and grpc, as kubelet asks.

Source: core/v1 Probe. Dialled from the node's namespace to the pod's address. One attempt, one
answer: when to ask and what failures add up to is ``workloads/probing.py``. An unwell container
is a result, never an exception. Differences from kubelet: redirects are not followed (a 3xx
is well, as is kubelet's redirect to another host); HTTP is 1.1 only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from sixfold.errors import SixfoldError
from sixfold.host import enter, grpc_health
from sixfold.model.workload import ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction

BODY_BYTES = 10 * 1024  # read, so that a server need not see its answer cut off
SKIP_S = 0.2
MESSAGE_CHARS = 1024


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One answer; ``message`` says why not, or what was seen."""

    ok: bool
    message: str = ""
    code: int = 0  # of an HTTP answer


@dataclass(frozen=True, slots=True)
class Probed:
    """Whom a probe asks."""

    address: IPv4Address | IPv6Address
    ports: Mapping[str, int]  # named ports of the container
    target: enter.Target | None  # for exec; None: on the host, with the backend in its environment
    port: int = 0  # of a backend that is no container


async def run(probe: Probe, probed: Probed) -> ProbeResult:
    """Ask once, for at most ``probe.timeout_seconds``."""
    where = _describe(probe, probed)
    timeout_s = max(1, probe.timeout_seconds)
    try:
        if probe.exec is not None:
            result = await _exec(probe.exec, probed, timeout_s)
        else:
            async with asyncio.timeout(timeout_s):
                result = await _dial(probe, probed)
    except TimeoutError:
        result = ProbeResult(False, f"no answer in {timeout_s} s")
    except ssl.SSLError as error:
        result = ProbeResult(False, f"TLS: {error.reason or error}")
    except OSError as error:
        result = ProbeResult(False, errno.errorcode.get(error.errno or 0, str(error)))
    except asyncio.IncompleteReadError:
        result = ProbeResult(False, "the connection was closed before an answer")
    except (grpc_health.ProtocolError, SixfoldError, ValueError) as error:
        result = ProbeResult(False, str(error))
    message = f"{where}: {result.message}"[:MESSAGE_CHARS]
    return ProbeResult(result.ok, message, result.code)


async def _dial(probe: Probe, probed: Probed) -> ProbeResult:
    if probe.http_get is not None:
        return await _http_get(probe.http_get, probed)
    if probe.tcp_socket is not None:
        host, port = _destination(probe.tcp_socket, probed)
        _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
        return ProbeResult(True, "connected")
    assert probe.grpc is not None, "a probe has exactly one action"
    return await _grpc(probe.grpc, probed)


async def _exec(action: ExecAction, probed: Probed, timeout_s: float) -> ProbeResult:
    if probed.target is not None:
        finished = await enter.run(probed.target, action.command, timeout_s=timeout_s)
    else:
        backend = {"BACKEND_ADDRESS": str(probed.address), "BACKEND_PORT": str(probed.port)}
        finished = await enter.run_on_host(action.command, backend, timeout_s=timeout_s)
    output = finished.output.strip()
    return ProbeResult(
        finished.code == 0, f"exit code {finished.code}" + (f": {output}" if output else "")
    )


async def _http_get(action: HTTPGetAction, probed: Probed) -> ProbeResult:
    host, port = _destination(action, probed)
    tls = _any_certificate() if action.scheme == "HTTPS" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(http_request(action, _authority(host, port)))
        status = http_status(await reader.readuntil(b"\r\n"))
        while status < 200:  # 100 Continue, 103 Early Hints
            await reader.readuntil(b"\r\n\r\n")
            status = http_status(await reader.readuntil(b"\r\n"))
        await _skip_answer(reader)
    except asyncio.LimitOverrunError as error:
        raise ValueError("not HTTP: no end of line") from error
    finally:
        writer.transport.abort()
    return ProbeResult(200 <= status < 400, f"status {status}", status)


async def _skip_answer(reader: asyncio.StreamReader) -> None:
    """Read an answer, so that its server sees it taken; the status has decided already.

    At most BODY_BYTES and SKIP_S: not all servers close when asked to.
    """
    remaining = BODY_BYTES
    while (line := await reader.readline()).strip():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            remaining = min(remaining, int(value))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SKIP_S):
            while remaining > 0 and (chunk := await reader.read(remaining)):
                remaining -= len(chunk)


def http_request(action: HTTPGetAction, authority: str) -> bytes:
    """The request; headers of the manifest win over ours, by name."""
    headers = {"host": authority, "user-agent": "sixfold-probe/1", "accept": "*/*"}
    lines = [f"GET {action.path if action.path.startswith('/') else '/' + action.path} HTTP/1.1"]
    for header in action.http_headers:
        headers.pop(header.name.lower(), None)
        lines.append(f"{header.name}: {header.value}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append("connection: close")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("path and headers must not hold line breaks")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def http_status(line: bytes) -> int:
    """The code of a status line."""
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit():
        raise ValueError(f"not HTTP: {line[:40]!r}")
    return int(code)


async def _grpc(action: GRPCAction, probed: Probed) -> ProbeResult:
    host = str(probed.address)
    reader, writer = await asyncio.open_connection(host, action.port)
    try:
        writer.write(grpc_health.request(_authority(host, action.port), action.service))
        status = await grpc_health.serving_status(reader, writer)
    finally:
        writer.transport.abort()
    return ProbeResult(status == "SERVING", status)


def _destination(action: HTTPGetAction | TCPSocketAction, probed: Probed) -> tuple[str, int]:
    return action.host or str(probed.address), _port(action.port, probed)


def _port(port: int | str, probed: Probed) -> int:
    if isinstance(port, int):
        return port
    if port.isdecimal():
        return int(port)
    if port not in probed.ports:
        raise ValueError(f"no containerPort is named {port!r}")
    return probed.ports[port]


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _describe(probe: Probe, probed: Probed) -> str:
    """What is asked, as the start of a message."""
    if probe.exec is not None:
        return f"exec {' '.join(probe.exec.command)}"
    action = probe.http_get or probe.tcp_socket or probe.grpc
    assert action is not None, "a probe has exactly one action"
    host = getattr(action, "host", "") or str(probed.address)
    where = f"[{host}]:{action.port}" if ":" in host else f"{host}:{action.port}"
    if probe.http_get is not None:
        return f"GET {probe.http_get.scheme.lower()}://{where}{probe.http_get.path}"
    return f"{'tcp' if probe.tcp_socket else 'grpc'} {where}"


@cache
def _any_certificate() -> ssl.SSLContext:
    """Kubelet's choice: a probe asks whether a server answers, not who it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
