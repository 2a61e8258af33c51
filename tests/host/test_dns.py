"""The cluster resolver, as its own process in a network namespace, asked by real clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from sixfold.discovery.pod_files import resolv_conf
from sixfold.discovery.zone import RecordKey
from sixfold.host import netns
from sixfold.host.paths import Paths
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6, Config
from sixfold.serve.dns_client import ResolverClient

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig: apt install bind9-dnsutils"),
]

V4, V6 = str(RESOLVER_IPV4), str(RESOLVER_IPV6)
UPSTREAMS = ("127.0.0.52", "127.0.0.53")  # the first one is of little help
WEB = "web.shop.svc.cluster.local"
ZONE = {
    RecordKey("svc.cluster.local", ""): (),
    RecordKey("shop.svc.cluster.local", ""): (),
    RecordKey(WEB, "A"): ("10.96.0.1",),
    RecordKey(WEB, "AAAA"): ("fd00:5f:96::1",),
    RecordKey(f"_http._tcp.{WEB}", "SRV"): (f"0 100 80 {WEB}.",),
    RecordKey("1.0.96.10.in-addr.arpa", "PTR"): (f"{WEB}.",),
    RecordKey("dns-version.cluster.local", "TXT"): ('"1.1.0"',),
    RecordKey("many.shop.svc.cluster.local", "A"): tuple(f"10.244.1.{i}" for i in range(1, 101)),
    RecordKey("few.shop.svc.cluster.local", "A"): ("10.244.2.1", "10.244.2.2", "10.244.2.3"),
}


class Upstream:
    """A fake resolver for names under ``example``; it counts what it is asked."""

    def __init__(self):
        self.asked = []

    async def serve(self, stop):
        loop = asyncio.get_running_loop()
        listeners = []
        for address in UPSTREAMS:
            transport, _ = await loop.create_datagram_endpoint(
                lambda address=address: UpstreamProtocol(self, address), (address, 53)
            )
            listeners += [transport, await asyncio.start_server(self.tcp, address, 53)]
        await loop.run_in_executor(None, stop.wait)
        for listener in listeners:
            listener.close()
        await asyncio.sleep(0.01)

    async def tcp(self, reader, writer):
        length = int.from_bytes(await reader.readexactly(2), "big")
        answer = self.answer(await reader.readexactly(length), UPSTREAMS[1], tcp=True)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    def answer(self, packet, address, *, tcp=False):
        query = dns.message.from_wire(packet)
        name = query.question[0].name
        self.asked.append((str(name).lower(), address, tcp))
        if address == UPSTREAMS[0] and str(name).lower().startswith("silent"):
            return None
        reply = dns.message.make_response(query)
        if address == UPSTREAMS[0]:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif str(name).lower().startswith("nx"):
            reply.set_rcode(dns.rcode.NXDOMAIN)
            soa = "ns.example. x.example. 1 2 3 4 5"
            reply.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", soa))
        elif str(name).lower().startswith("dead"):
            return None
        elif str(name).lower().startswith("big") and not tcp:
            reply.flags |= dns.flags.TC
        else:
            count = 60 if str(name).lower().startswith("big") else 1
            texts = [f"192.0.2.{i + 1}" for i in range(count)]
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *texts))
        return reply.to_wire(max_size=65535)


class UpstreamProtocol(asyncio.DatagramProtocol):
    def __init__(self, upstream, address):
        self.upstream, self.address = upstream, address

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, packet, client):
        if (answer := self.upstream.answer(packet, self.address)) is not None:
            self.transport.sendto(answer, client)


class Rig:
    """A network namespace with the resolver's addresses, and a resolver in it."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.paths = Paths(f"sfdns{os.getpid()}")
        self.netns = Path(f"/run/netns/{self.paths.instance}")
        self.config = Config(instance=self.paths.instance, dns_upstreams=UPSTREAMS)
        self.upstream = Upstream()
        self._stop = threading.Event()

    def start(self):
        netns.create(self.netns, self._addresses)
        self._thread = threading.Thread(target=self._serve_upstream)
        self._thread.start()

    def close(self):
        self.client(lambda client: client.stop())
        self._stop.set()
        self._thread.join()
        netns.delete(self.netns)

    def client(self, work):
        """Run ``work(client)`` in a loop of its own, as an agent would, then leave."""

        async def session():
            client = ResolverClient(self.paths, self.config)
            try:
                return await work(client)
            finally:
                await client.close()

        return netns.run_inside(self.netns, lambda: asyncio.run(session()))

    def load(self, zone=ZONE):
        return self.client(lambda client: client.push(zone))

    def run(self, *command):
        work = lambda: subprocess.run(command, capture_output=True, text=True, timeout=20)  # noqa: E731
        return netns.run_inside(self.netns, work)

    def dig(self, *arguments, server=V4):
        found = self.run("dig", f"@{server}", "+short", "+tries=1", "+time=6", *arguments)
        return found.stdout.split("\n")[:-1]

    def ask(self, name, type_="A", *, server=V4, tcp=False, **more):
        query = dns.message.make_query(name, type_, **more)
        send = dns.query.tcp if tcp else dns.query.udp
        return netns.run_inside(self.netns, lambda: send(query, server, timeout=8))

    @staticmethod
    def _addresses():
        for command in (
            "link set lo up",
            f"addr add {V4}/32 dev lo",
            f"-6 addr add {V6}/128 dev lo nodad",
            "addr add 10.244.0.9/32 dev lo",  # a pod's
            "addr add 192.0.2.9/32 dev lo",  # a stranger's
        ):
            subprocess.run(["ip", *command.split()], check=True)

    def _serve_upstream(self):
        netns.run_inside(self.netns, lambda: asyncio.run(self.upstream.serve(self._stop)))


@pytest.fixture(scope="module")
def rig():
    directory = tempfile.mkdtemp(prefix="sfdns-")  # short: socket paths have 107 bytes
    before = {name: os.environ.get(name) for name in ("SIXFOLD_RUN_DIR", "SIXFOLD_STATE_DIR")}
    os.environ["SIXFOLD_RUN_DIR"] = f"{directory}/run"
    os.environ["SIXFOLD_STATE_DIR"] = f"{directory}/state"
    rig = Rig(directory)
    rig.start()
    try:
        rig.load()
        yield rig
    finally:
        rig.close()
        shutil.rmtree(directory)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_dig_finds_a_service_over_both_families_and_protocols(rig):
    assert rig.dig(WEB) == ["10.96.0.1"]
    assert rig.dig(WEB, "AAAA", server=V6) == ["fd00:5f:96::1"]
    assert rig.dig("+tcp", WEB) == ["10.96.0.1"]
    assert rig.dig("+tcp", WEB, server=V6) == ["10.96.0.1"]
    assert rig.dig("-x", "10.96.0.1") == [f"{WEB}."]
    assert rig.dig(f"_http._tcp.{WEB}", "SRV") == [f"0 100 80 {WEB}."]
    assert rig.dig("dns-version.cluster.local", "TXT") == ['"1.1.0"']


def test_a_name_is_answered_in_the_case_in_which_it_was_asked(rig):
    name = "wEb.ShOp.SVC.cluster.LOCAL."
    reply = rig.ask(name)
    assert str(reply.question[0].name) == name
    assert str(reply.answer[0].name) == name
    assert reply.answer[0][0].address == "10.96.0.1"


def test_answers_are_authoritative_and_live_for_the_ttl(rig):
    reply = rig.ask(WEB)
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RA
    assert reply.answer[0].ttl == rig.config.dns_ttl_s


def test_a_name_without_that_type_is_nodata_and_an_unknown_one_nxdomain(rig):
    nodata = rig.ask("many.shop.svc.cluster.local", "AAAA")
    nxdomain = rig.ask("nobody.shop.svc.cluster.local")
    assert (nodata.rcode(), nxdomain.rcode()) == (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    for reply in (nodata, nxdomain):
        assert not reply.answer
        assert str(reply.authority[0].name) == "cluster.local."
        assert reply.authority[0][0].minimum == rig.config.dns_ttl_s


def test_an_srv_answer_carries_the_addresses_of_its_target(rig):
    reply = rig.ask(f"_http._tcp.{WEB}", "SRV")
    assert sorted(r.to_text().split()[-1] for r in reply.additional) == [
        "10.96.0.1",
        "fd00:5f:96::1",
    ]


def test_answers_rotate(rig):
    firsts = {rig.ask("few.shop.svc.cluster.local").answer[0][0].address for _ in range(40)}
    assert firsts == {"10.244.2.1", "10.244.2.2", "10.244.2.3"}


@pytest.mark.parametrize("payload", [512, 1232, 4096])
def test_an_answer_too_long_for_udp_is_truncated_and_whole_over_tcp(rig, payload):
    name = "many.shop.svc.cluster.local"
    short = rig.ask(name, payload=payload, use_edns=0)
    assert short.flags & dns.flags.TC
    assert not short.answer
    assert len(rig.ask(name, tcp=True).answer[0]) == 100
    assert len(rig.dig(name)) == 100  # dig falls back by itself


def test_edns_is_answered_with_edns_and_only_then(rig):
    assert rig.ask(WEB, use_edns=0).edns == 0
    assert rig.ask(WEB, use_edns=False).edns == -1
    assert rig.ask(WEB, use_edns=1).rcode() == dns.rcode.BADVERS


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        pytest.param(lambda q: q.set_opcode(4), dns.rcode.NOTIMP, id="notify"),
        pytest.param(lambda q: setattr(q.question[0], "rdclass", 3), dns.rcode.REFUSED, id="chaos"),
        pytest.param(lambda q: setattr(q.question[0], "rdtype", 252), dns.rcode.REFUSED, id="axfr"),
    ],
)
def test_what_is_not_served_is_refused(rig, change, rcode):
    query = dns.message.make_query(WEB, "A")
    change(query)
    reply = netns.run_inside(
        rig.netns, lambda: dns.query.udp(query, V4, timeout=5, ignore_errors=False)
    )
    assert reply.rcode() == rcode


def test_malformed_packets_are_formerr_or_dropped_and_do_no_harm(rig):
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((V4, 53))
            header = bytes.fromhex("5f5f010000010000 00000000")
            sock.send(b"short")
            sock.send(header[:2] + b"\x81" + header[3:] + b"\0\0\1\0\1")  # a response
            sock.send(header + b"\xc0\x0c\0\1\0\1")  # its name points at itself
            return sock.recv(512)

    answer = netns.run_inside(rig.netns, send)
    assert answer[3] & 0xF == dns.rcode.FORMERR
    assert rig.dig(WEB) == ["10.96.0.1"]


def test_names_of_others_are_forwarded_past_an_upstream_that_fails(rig):
    assert rig.dig("plain.example") == ["192.0.2.1"]
    assert rig.dig("silent.example") == ["192.0.2.1"]


def test_an_upstream_that_was_silent_is_asked_last_for_a_while(rig):
    rig.dig("silent-again.example")  # its silence of before may be forgotten by now
    assert rig.dig("after-silence.example") == ["192.0.2.1"]
    assert ("after-silence.example.", UPSTREAMS[0], False) not in rig.upstream.asked


def test_a_forwarded_answer_is_kept_for_its_ttl(rig):
    first = rig.ask("Kept.example")
    asked = len(rig.upstream.asked)
    second = rig.ask("kept.EXAMPLE")
    assert len(rig.upstream.asked) == asked
    assert second.answer[0].to_rdataset() == first.answer[0].to_rdataset()
    assert second.answer[0].ttl <= 60


def test_a_forwarded_nxdomain_stays_one(rig):
    assert rig.ask("nx.example").rcode() == dns.rcode.NXDOMAIN


def test_a_long_forwarded_answer_is_fetched_over_tcp_and_truncated_for_udp_clients(rig):
    assert rig.ask("big.example", use_edns=False).flags & dns.flags.TC
    assert len(rig.ask("big.example", tcp=True).answer[0]) == 60
    assert ("big.example.", UPSTREAMS[1], True) in rig.upstream.asked


def test_a_dead_upstream_is_servfail_in_bounded_time(rig):
    assert rig.ask("dead.example").rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("name", ["web", "web.cluster.local", "1.0.244.10.in-addr.arpa"])
def test_single_labels_and_names_of_ours_are_never_forwarded(rig, name):
    assert rig.ask(name).rcode() == dns.rcode.NXDOMAIN
    assert name + "." not in [asked for asked, _, _ in rig.upstream.asked]


def test_other_reverse_names_are_forwarded(rig):
    rig.ask("1.2.0.192.in-addr.arpa", "PTR")
    assert "1.2.0.192.in-addr.arpa." in [asked for asked, _, _ in rig.upstream.asked]


@pytest.mark.parametrize("name", ["web", "web.shop", "web.shop.svc", WEB])
def test_glibc_finds_short_names_by_the_search_path(rig, name):
    file = rig.directory / "resolv.conf"
    file.write_text(resolv_conf(rig.config, "shop"))
    script = "import socket,sys; print(*{a[4][0] for a in socket.getaddrinfo(sys.argv[1], 80)})"
    mount = f"mount --bind {file} /etc/resolv.conf && exec {sys.executable} -c '{script}' {name}"
    found = rig.run("unshare", "-m", "sh", "-c", mount)
    assert set(found.stdout.split()) == {"10.96.0.1", "fd00:5f:96::1"}, found.stderr


def test_an_answer_follows_a_push(rig):
    name = "fresh.shop.svc.cluster.local"
    assert rig.ask(name).rcode() == dns.rcode.NXDOMAIN

    async def session(client):
        await client.push(ZONE)
        for last in range(1, 6):
            await client.push({**ZONE, RecordKey(name, "A"): (f"10.244.3.{last}",)})
            query = dns.message.make_query(name, "A")
            reply = dns.query.udp(query, V4, timeout=5)
            assert reply.answer[0][0].address == f"10.244.3.{last}"
        await client.push(ZONE)

    rig.client(session)
    assert rig.ask(name).rcode() == dns.rcode.NXDOMAIN


def test_the_resolver_outlives_its_agent_and_is_adopted(rig):
    async def pid(client):
        await client.start_or_adopt()
        return (await client.stats()).pid

    first = rig.client(pid)
    assert rig.dig(WEB) == ["10.96.0.1"]  # no agent now
    assert rig.client(pid) == first


def test_a_killed_resolver_comes_back_by_itself_and_serves(rig):
    async def session(client):
        await client.start_or_adopt()  # nothing pushed: what it serves is from its file
        before = client.pid
        await asyncio.sleep(0.5)  # the file is written a moment after a change
        os.kill(before, signal.SIGKILL)
        await asyncio.sleep(0.01)
        began_s = time.monotonic()
        while client.pid == before or client.state != "ok":
            assert time.monotonic() - began_s < 60
            await asyncio.sleep(0.02)
        return client.pid != before

    assert rig.client(session)
    assert rig.dig(WEB) == ["10.96.0.1"]


def test_statistics_count_by_rcode(rig):
    async def counts(client):
        return (await client.stats()).statistics

    before = rig.client(counts)
    rig.ask("nobody.shop.svc.cluster.local")
    rig.ask(WEB)
    after = rig.client(counts)
    assert after["NXDOMAIN"] == before.get("NXDOMAIN", 0) + 1
    assert after["NOERROR"] == before.get("NOERROR", 0) + 1


def test_without_a_zone_every_question_is_servfail(rig):
    rig.client(lambda client: client.stop())
    file = rig.paths.run / "dns-zone.msgpack"
    kept = file.read_bytes()
    file.unlink()
    rig.client(lambda client: client.start_or_adopt())
    assert rig.ask(WEB).rcode() == dns.rcode.SERVFAIL
    file.write_bytes(kept)
    rig.load()
    assert rig.dig(WEB) == ["10.96.0.1"]


def test_the_control_socket_is_for_root_alone(rig):
    assert (rig.paths.run / "dns.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("over", ["+notcp", "+tcp"])
def test_pods_and_the_host_are_served_and_strangers_are_not(rig, over):
    assert rig.dig(over, "-b", "10.244.0.9", WEB) == ["10.96.0.1"]
    assert rig.dig(over, "-b", "127.0.0.1", WEB) == ["10.96.0.1"]
    assert "10.96.0.1" not in rig.dig(over, "-b", "192.0.2.9", "+time=1", WEB)


def test_a_resolver_that_speaks_another_language_is_replaced(rig):
    rig.client(lambda client: client.stop())
    socket_path = rig.paths.run / "dns.sock"
    script = (
        "import socket,sys,time\ns = socket.socket(1)\ns.bind(sys.argv[1])\ns.listen()\n"
        "print(flush=True)\nc, _ = s.accept()\nc.recv(99)\nc.send(b'\\0\\0\\0\\1?')\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(socket_path)], stdout=subprocess.PIPE
    ) as stranger:
        stranger.stdout.readline()
        rig.load()
        assert stranger.wait(10) == -signal.SIGKILL
    assert rig.dig(WEB) == ["10.96.0.1"]
