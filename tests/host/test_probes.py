"""Probes against real servers on loopback; exec probes against a real container."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address

import grpc
import msgspec
import pytest

from sixfold.host import cgroup, grpc_health, probes
from sixfold.host.enter import Target
from sixfold.model.workload import HTTPGetAction, HTTPHeader, Probe

NOBODY = Target(pid=0, cgroup="")
LOOPBACK = ip_address("127.0.0.1")


def probe(**fields: object) -> Probe:
    """Patient, where it is not about patience: the default of a second is short when busy."""
    return msgspec.convert({"timeoutSeconds": 30, **fields}, Probe)


def ask(action: Probe, *, address=LOOPBACK, ports=None, target=NOBODY) -> probes.ProbeResult:
    return asyncio.run(probes.run(action, probes.Probed(address, ports or {}, target)))


@asynccontextmanager
async def answering(answer: bytes, *, host="127.0.0.1", stay_open=False, tls=None, heard=None):
    """A server that answers every request with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if heard is not None:
                heard.append(request)
            writer.write(answer)
            if stay_open:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def http(answer: bytes, heard=None, **fields: object) -> probes.ProbeResult:
    async def main():
        async with answering(answer, heard=heard) as port:
            action = probe(httpGet={"port": port, **fields})
            return await probes.run(action, probes.Probed(LOOPBACK, {}, NOBODY))

    return asyncio.run(main())


@pytest.mark.parametrize("status", [200, 204, 301, 399])
def test_http_200_to_399_is_well(status):
    assert http(b"HTTP/1.1 %d Fine\r\ncontent-length: 0\r\n\r\n" % status).ok


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_http_400_and_above_is_not(status):
    result = http(b"HTTP/1.0 %d No\r\n\r\nbody" % status, path="/healthz")
    assert not result.ok
    assert result.message.endswith(f"/healthz: status {status}")


def test_http_interim_answers_are_skipped():
    assert http(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").ok


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", "not HTTP: b'SSH-2.0-OpenSSH", id="ssh"),
        pytest.param(b"", "closed before an answer", id="nothing"),
        pytest.param(b"x" * 200_000, "not HTTP: no end of line", id="endless line"),
        pytest.param(b"HTTP/1.1 2\xff0 OK\r\n\r\n", "not HTTP", id="no number"),
    ],
)
def test_what_is_not_http_is_not_well(answer, why):
    result = http(answer)
    assert not result.ok
    assert why in result.message


def test_http_sends_path_host_and_headers():
    heard: list[bytes] = []
    http(
        b"HTTP/1.1 200 OK\r\n\r\n",
        heard,
        path="/ready?full=1",
        httpHeaders=[{"name": "X-Check", "value": "1"}, {"name": "Host", "value": "shop.test"}],
    )
    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /ready?full=1 HTTP/1.1"
    assert "X-Check: 1" in lines
    assert [line for line in lines if line.lower().startswith("host:")] == ["Host: shop.test"]


def test_headers_cannot_smuggle_a_second_request():
    action = HTTPGetAction(port=1, http_headers=[HTTPHeader(name="a", value="b\r\n\r\nGET /")])
    with pytest.raises(ValueError, match="line breaks"):
        probes.http_request(action, "x")


def test_a_server_that_does_not_close_costs_no_timeout():
    async def main():
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
        async with answering(answer, stay_open=True) as port:
            action = probe(httpGet={"port": port})
            return await probes.run(action, probes.Probed(LOOPBACK, {}, NOBODY))

    assert asyncio.run(main()).ok


def test_silence_is_not_well_after_the_timeout():
    result = http_silent()
    assert not result.ok
    assert result.message.endswith("no answer in 1 s")


def http_silent() -> probes.ProbeResult:
    async def main():
        async with answering(b"", stay_open=True) as port:
            action = probe(httpGet={"port": port}, timeoutSeconds=1)
            return await probes.run(action, probes.Probed(LOOPBACK, {}, NOBODY))

    return asyncio.run(main())


def test_https_asks_for_no_valid_certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            *["-nodes", "-subj", "/CN=somebody", "-keyout", str(key), "-out", str(certificate)],
        ],
        check=True,
        capture_output=True,
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    async def main():
        async with answering(b"HTTP/1.1 200 OK\r\n\r\n", tls=tls) as port:
            action = probe(httpGet={"port": port, "scheme": "HTTPS"})
            return await probes.run(action, probes.Probed(LOOPBACK, {}, NOBODY))

    assert asyncio.run(main()).ok


def test_https_to_a_plain_server_is_not_well():
    result = http(b"HTTP/1.1 200 OK\r\n\r\n", scheme="HTTPS")
    assert not result.ok


def test_tcp_is_well_when_something_listens_and_a_port_may_have_a_name():
    async def main():
        async with answering(b"") as port:
            action = probe(tcpSocket={"port": "store"})
            return await probes.run(action, probes.Probed(LOOPBACK, {"store": port}, NOBODY))

    result = asyncio.run(main())
    assert result == probes.ProbeResult(True, "tcp 127.0.0.1:store: connected")


def test_tcp_to_a_closed_port_is_refused():
    result = ask(probe(tcpSocket={"port": 1}))
    assert result == probes.ProbeResult(False, "tcp 127.0.0.1:1: ECONNREFUSED")


def test_a_port_name_that_nobody_has_is_not_well():
    assert not ask(probe(tcpSocket={"port": "admin"})).ok


def test_ipv6_addresses_are_dialled_and_bracketed():
    async def main():
        heard: list[bytes] = []
        async with answering(b"HTTP/1.1 200 OK\r\n\r\n", host="::1", heard=heard) as port:
            action = probe(httpGet={"port": port})
            result = await probes.run(action, probes.Probed(ip_address("::1"), {}, NOBODY))
            return result, heard[0], port

    result, request, port = asyncio.run(main())
    assert result.message == f"GET http://[::1]:{port}/: status 200"
    assert f"host: [::1]:{port}".encode() in request


@pytest.fixture
def grpc_port():
    """A real gRPC server: healthy for "", unhealthy for "sick", unknown for others."""

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        answers = {b"": b"\x08\x01", b"\x0a\x04sick": b"\x08\x02", b"\x0a\x04slow": b"\x08\x01"}
        if request == b"\x0a\x04slow":
            time.sleep(2)
        if request not in answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answers[request]

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("service", "ok", "why"),
    [
        pytest.param("", True, "SERVING", id="serving"),
        pytest.param("sick", False, "NOT_SERVING", id="not serving"),
        pytest.param("x" * 300, False, "the service is not known", id="unknown, long name"),
        pytest.param("slow", False, "no answer in 1 s", id="slow"),
    ],
)
def test_grpc_health_of_a_real_server(grpc_port, service, ok, why):
    patience = 1 if service == "slow" else 30
    asked = probe(grpc={"port": grpc_port, "service": service}, timeoutSeconds=patience)
    result = ask(asked)
    assert result.ok is ok
    assert result.message == f"grpc 127.0.0.1:{grpc_port}: {why}" or result.message.endswith(why)


def test_a_grpc_server_without_health_service_is_not_well():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    result = ask(probe(grpc={"port": port}))
    server.stop(None).wait()
    assert not result.ok
    assert "grpc.health.v1" in result.message


def test_a_grpc_probe_of_an_http1_server_is_not_well():
    async def main():
        async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            action = probe(grpc={"port": port})
            return await probes.run(action, probes.Probed(LOOPBACK, {}, NOBODY))

    result = asyncio.run(main())
    assert not result.ok
    assert "no answer in" not in result.message


def test_a_padded_data_frame_is_read():
    async def main():
        reader = asyncio.StreamReader()
        message = b"\0\0\0\0\x02\x08\x01"
        payload = b"\x03" + message + b"\0\0\0"
        reader.feed_data(grpc_health.frame(grpc_health.DATA, grpc_health.PADDED, 1, payload))
        return await grpc_health.serving_status(reader, None)

    assert asyncio.run(main()) == "SERVING"


def in_container(containers, make_spec, action: Probe, script="sleep 300", **fields: object):
    async def main():
        container = await containers.start(make_spec("sh", "-c", script, **fields))
        target = Target.of(container)
        result = await probes.run(action, probes.Probed(LOOPBACK, {}, target))
        await containers.kill(container)
        return result

    return asyncio.run(main())


@pytest.mark.root
def test_exec_runs_in_the_container_as_its_user(containers, make_spec):
    script = "id -u; hostname; pwd; echo $COLOUR; ls /sys/class/net; grep ^0:: /proc/self/cgroup"
    env = {"PATH": "/usr/bin:/bin", "COLOUR": "blue"}
    result = in_container(
        containers,
        make_spec,
        probe(exec={"command": ["sh", "-c", f"({script}) | tr '\\n' ' '; exit 3"]}),
        uid=1234,
        gid=1234,
        env=env,
        hostname="web-0",
        workdir="/usr",
    )
    assert not result.ok
    assert "exit code 3: 1234 web-0 /usr blue lo 0::/" in result.message
    assert result.message.endswith("/pods/5f9a/app")


@pytest.mark.root
def test_exec_that_exits_with_0_is_well(containers, make_spec):
    assert in_container(containers, make_spec, probe(exec={"command": ["true"]})).ok


@pytest.mark.root
def test_exec_that_hangs_is_killed_after_the_timeout(containers, make_spec):
    async def main():
        container = await containers.start(make_spec("sleep", "300"))
        action = probe(exec={"command": ["sh", "-c", "sleep 200 & sleep 200"]}, timeoutSeconds=1)
        asked = probes.Probed(LOOPBACK, {}, Target.of(container))
        result = await probes.run(action, asked)
        for _ in range(100):  # the shell is reaped, its child may still be dying
            if cgroup.processes(container.cgroup) == [container.process.pid]:
                break
            await asyncio.sleep(0.01)
        left = cgroup.processes(container.cgroup)
        await containers.kill(container)
        return result, left == [container.process.pid]

    result, alone = asyncio.run(main())
    assert not result.ok
    assert result.message.endswith("no answer in 1 s")
    assert alone


@pytest.mark.root
def test_exec_in_a_container_that_ended_is_not_well(containers, make_spec):
    async def main():
        container = await containers.start(make_spec("true"))
        await containers.wait(container)
        asked = probes.Probed(LOOPBACK, {}, Target.of(container))
        return await probes.run(probe(exec={"command": ["true"]}), asked)

    result = asyncio.run(main())
    assert not result.ok
    assert "it is gone" in result.message


@pytest.mark.root
def test_exec_output_is_taken_whole_and_kept_in_part(containers, make_spec):
    command = ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"]
    result = in_container(containers, make_spec, probe(exec={"command": command}))
    assert result.ok
    assert len(result.message) == probes.MESSAGE_CHARS


def test_exec_on_the_host_has_the_backend_in_its_environment():
    program = "echo $BACKEND_ADDRESS $BACKEND_PORT; exit 3"
    asked = probes.Probed(ip_address("192.0.2.7"), {}, None, 5432)
    answer = asyncio.run(probes.run(probe(exec={"command": ["sh", "-c", program]}), asked))
    assert not answer.ok
    assert "exit code 3: 192.0.2.7 5432" in answer.message


def test_a_program_that_is_not_there_is_not_well():
    asked = probes.Probed(LOOPBACK, {}, None, 1)
    answer = asyncio.run(probes.run(probe(exec={"command": ["/no/such"]}), asked))
    assert not answer.ok
    assert "ENOENT" in answer.message
