"""Names, as programs in pods ask for them: by UDP and TCP, over IPv4 and IPv6, dead or alive."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest

from sixfold.discovery.pod_files import resolv_conf
from sixfold.host import bpf
from sixfold.model.config import Config

from .conftest import System
from .places import SILENCE_S, Place, manifest, places_of, pod, service

pytestmark = pytest.mark.root

RESOLVERS = ("169.254.20.10", "fd00:5f::10")
SOA = dns.rdatatype.SOA
UPSTREAM = "192.0.2.53"
DOMAIN = "default.svc.cluster.local"
HTTP = {"name": "http", "port": 80, "targetPort": 8080}


# No policy lets the client reach anybody: it is told of all the same.
OPEN = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "default", "annotations": {"sixfold.dev/discovery": "open"}},
}


@dataclass(frozen=True)
class Town:
    system: System
    client: Place
    host: Place
    db: dict[str, Place]
    ready: Path

    def ask(
        self, name: str, type_: str = "A", *, resolver: str = RESOLVERS[0], tcp: bool = False
    ) -> dns.message.Message:
        query = dns.message.make_query(name, type_)
        if tcp:
            with self.client.dial(resolver, 53) as sock:
                return dns.query.tcp(query, resolver, timeout=5, sock=sock)
        with self.client.dial(resolver, 53, kind=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            return dns.query.udp(query, resolver, timeout=5, sock=sock)

    def records(self, name: str, type_: str = "A", **options: object) -> set[str]:
        answer = self.ask(name, type_, **options).answer  # type: ignore[arg-type]
        return {record.to_text() for rrset in answer for record in rrset}

    def vips(self, name: str) -> list[str]:
        return self.system.json("get", "svc", name)["spec"]["clusterIPs"]

    def in_pod(self, *argv: str) -> str:
        return self.system.sixfold("exec", "client", "--", *argv).stdout


@pytest.fixture(scope="module")
def upstream(module_system: System) -> Iterator[None]:
    """A resolver on the host that knows everything under ``example``; long answers by TCP.

    At port 5353 one that knows everything under ``test``, and nothing else.
    """
    host = Place(module_system.host, UPSTREAM, "::1")
    host.run("ip", "addr", "add", f"{UPSTREAM}/32", "dev", "lo")
    udp, private = (host.make_socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    tcp = host.make_socket(socket.AF_INET, socket.SOCK_STREAM)
    for sock, port in ((udp, 53), (tcp, 53), (private, 5353)):
        sock.bind((UPSTREAM, port))
    tcp.listen()
    stop = threading.Event()
    zones = {udp: "example", private: "test"}
    thread = threading.Thread(target=serve_upstream, args=(zones, tcp, stop))
    thread.start()
    yield
    stop.set()
    thread.join()
    for sock in (udp, private, tcp):
        sock.close()


def serve_upstream(
    zones: dict[socket.socket, str], tcp: socket.socket, stop: threading.Event
) -> None:
    with selectors.DefaultSelector() as selector:
        for sock in (*zones, tcp):
            selector.register(sock, selectors.EVENT_READ)
        while not stop.is_set():
            for key, _ in selector.select(0.05):
                if (udp := key.fileobj) is not tcp:
                    packet, sender = udp.recvfrom(4096)
                    udp.sendto(upstream_answer(packet, zone=zones[udp]), sender)
                else:
                    connection, _ = tcp.accept()
                    with connection:
                        packet = connection.recv(4096)[2:]
                        answer = upstream_answer(packet, whole=True)
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)


def upstream_answer(packet: bytes, *, zone: str = "example", whole: bool = False) -> bytes:
    query = dns.message.from_wire(packet)
    name = query.question[0].name
    reply = dns.message.make_response(query)
    labels = name.to_text().lower().rstrip(".").split(".")
    if labels[-1] != zone:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif labels[0] == "long" and not whole:
        reply.flags |= dns.flags.TC
    elif query.question[0].rdtype == dns.rdatatype.A:
        addresses = [f"203.0.113.{i + 1}" for i in range(200 if labels[0] == "long" else 1)]
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *addresses))
    return reply.to_wire(max_size=65535)


@pytest.fixture(scope="module")
def town(module_system: System, upstream: None, tmp_path_factory: pytest.TempPathFactory) -> Town:
    ready = tmp_path_factory.mktemp("ready")
    members = ("db-0", "db-1")
    for name in members:
        (ready / name).touch()
    module_system.up(
        *("--dns-upstream", UPSTREAM, "--dns-pods", "verified"),
        *("--dns-stub-domain", f"corp.test={UPSTREAM}:5353"),
        manifest=manifest(
            OPEN,
            pod("client"),
            *(member(name, ready) for name in members),
            service("web", ports=[HTTP, {"name": "time", "port": 123, "protocol": "UDP"}]),
            service("db", clusterIP="None", ports=[HTTP]),
        ),
    )
    host = Place(module_system.host, "10.244.0.1", "fd00:5f:244::1")
    client, *db = places_of(module_system, "client", *members)
    return Town(module_system, client, host, dict(zip(members, db, strict=True)), ready)


def member(name: str, ready: Path) -> dict:
    probe = {"exec": {"command": ["test", "-e", str(ready / name)]}, "periodSeconds": 1}
    container = {"readinessProbe": {**probe, "failureThreshold": 1}}
    return pod(name, labels={"app": "db"}, container=container, hostname=name, subdomain="db")


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_service_has_its_addresses(town: Town, resolver: str, tcp: bool):
    ipv4, ipv6 = town.vips("web")
    for type_, address in (("A", ipv4), ("AAAA", ipv6)):
        found = town.records(f"web.{DOMAIN}", type_, resolver=resolver, tcp=tcp)
        assert found == {address}


def test_a_service_has_its_ports_and_its_name_back(town: Town):
    name = f"web.{DOMAIN}"
    assert town.records(f"_http._tcp.{name}", "SRV") == {f"0 100 80 {name}."}
    assert town.records(f"_time._udp.{name}", "SRV") == {f"0 100 123 {name}."}
    for address in town.vips("web"):
        reverse = dns.reversename.from_address(address).to_text()
        assert town.records(reverse, "PTR") == {f"{name}."}
    assert town.records("dns-version.cluster.local", "TXT") == {'"1.1.0"'}


def test_a_headless_service_is_its_pods(town: Town):
    places = town.db.values()
    assert town.records(f"db.{DOMAIN}") == {place.ipv4 for place in places}
    assert town.records(f"db.{DOMAIN}", "AAAA") == {place.ipv6 for place in places}
    wanted = {f"0 50 8080 {name}.db.{DOMAIN}." for name in town.db}
    assert town.records(f"_http._tcp.db.{DOMAIN}", "SRV") == wanted
    for name, place in town.db.items():
        assert town.records(f"{name}.db.{DOMAIN}") == {place.ipv4}
        reverse = dns.reversename.from_address(place.ipv4).to_text()
        assert town.records(reverse, "PTR") == {f"{name}.db.{DOMAIN}."}


def test_programs_find_a_service_by_any_of_its_names(town: Town):
    """glibc in the pod: its resolv.conf, its search path."""
    names = ["web", "web.default", "web.default.svc", f"web.{DOMAIN}"]
    asked = " && ".join(f"getent ahostsv4 {it} && getent ahostsv6 {it}" for it in names)
    found = [line.split()[0] for line in town.in_pod("sh", "-c", asked).splitlines()]
    ipv4, ipv6 = town.vips("web")
    per_socket_type = 3
    assert found == ([ipv4] * per_socket_type + [ipv6] * per_socket_type) * len(names)
    assert town.in_pod("getent", "hosts", ipv4).split()[1] == f"web.{DOMAIN}"


def test_other_names_are_asked_upstream(town: Town):
    assert town.records("www.example") == {"203.0.113.1"}
    assert len(town.records("long.example", tcp=True)) == 200
    assert town.ask("long.example").flags & dns.flags.TC


def test_names_of_a_stub_domain_are_asked_of_its_servers_and_no_others(town: Town):
    assert town.records("db.corp.test") == {"203.0.113.1"}
    assert town.records("corp.test", tcp=True) == {"203.0.113.1"}
    for other in ("www.test", "notcorp.test"):  # of the upstream, which denies them
        assert town.ask(other).rcode() == dns.rcode.NXDOMAIN
    (step,) = town.system.json("resolve", "db.corp.test.")["steps"]
    assert (step["by"], step["why"]) == ("upstream", f"stub domain corp.test: {UPSTREAM}:5353")


def test_what_is_not_there_is_denied_in_the_right_way(town: Town):
    nothing = town.ask(f"nobody.{DOMAIN}")
    assert nothing.rcode() == dns.rcode.NXDOMAIN
    other = town.ask(f"web.{DOMAIN}", "MX")
    assert (other.rcode(), other.answer) == (dns.rcode.NOERROR, [])
    for reply in (nothing, other):
        assert [rrset.rdtype for rrset in reply.authority] == [dns.rdatatype.SOA]
    assert town.ask("www.test").rcode() == dns.rcode.NXDOMAIN


def test_kernel_and_process_say_one_serial(town: Town):
    """The kernel's by UDP, in a denial; the process' by TCP, and as the zone's own."""

    def serial(reply: dns.message.Message) -> int:
        (soa,) = (one for one in (*reply.answer, *reply.authority) if one.rdtype == SOA)
        return soa[0].serial

    nobody = f"nosuch.{DOMAIN}"
    before = serial(town.ask(nobody))
    assert before == serial(town.ask(nobody, tcp=True)) == serial(town.ask("cluster.local", "SOA"))
    town.system.apply(manifest(service("short", ports=[HTTP])))
    town.system.sixfold("delete", "svc", "short")
    after = serial(town.ask(nobody))
    assert before < after == serial(town.ask(nobody, tcp=True))


def test_the_resolver_answers_every_pod_and_serves_nothing_else(town: Town):
    """No policy names this pod: the way to the resolver is a rule that is built in."""
    assert town.client.attempt(RESOLVERS[0], 22) == "timeout"
    flow = town.system.flows("--from", "default/client", "--last", "1")[0]
    assert flow["verdict"] == "DROPPED"
    town.ask(f"web.{DOMAIN}")
    allowed = town.system.flows(
        *("--from", "default/client", "--port", "53", "--verdict", "FORWARDED", "--last", "1")
    )[0]
    assert "resolver" in allowed["egress_allowed_by"][0]["name"]
    assert allowed["sixfold"]["dns"] == "answered in the kernel: NOERROR"


def test_resolve_says_who_answers_and_why(town: Town):
    found = town.system.json("resolve", "web", "--as", "default/client")
    (step,) = found["steps"]
    assert (step["name"], step["rcode"], step["by"]) == (f"web.{DOMAIN}", "NOERROR", "kernel")
    assert (step["records"], step["ttl_s"]) == (town.vips("web")[:1], 5)
    text = town.system.sixfold("resolve", town.vips("web")[0], "--type", "PTR").stdout
    assert text.splitlines()[1].strip() == f"web.{DOMAIN}."
    steps = town.system.json("resolve", "www.example")["steps"]
    assert [one["by"] for one in steps] == ["kernel"] * 3 + ["upstream"]
    denied = town.system.sixfold("resolve", "nobody", check=False)
    assert denied.returncode == 1
    assert "NXDOMAIN by the kernel" in denied.stdout
    soa = town.system.json("resolve", "cluster.local.", "--type", "SOA")["steps"]
    assert [one["by"] for one in soa] == ["resolver"]


def test_a_pod_that_is_there_is_called_by_its_address(town: Town):
    """CoreDNS ``pods verified``; a pod without a service, too."""
    label = town.client.ipv4.replace(".", "-")
    assert town.records(f"{label}.default.pod.cluster.local") == {town.client.ipv4}
    for name in (f"{label}.kube-system.pod", "192-0-2-1.default.pod"):
        assert town.ask(f"{name}.cluster.local").rcode() == dns.rcode.NXDOMAIN
    assert town.ask("default.pod.cluster.local").rcode() == dns.rcode.NOERROR


def test_the_kernels_names_can_be_listed(town: Town):
    rows = {(row["name"], row["type"]): row for row in town.system.json("bpf", "dns", "list")}
    assert rows[f"web.{DOMAIN}", "A"]["answer"] == town.vips("web")[:1]
    assert rows[f"_http._tcp.web.{DOMAIN}", "SRV"]["answer"] == [f"0 100 80 web.{DOMAIN}."]
    assert (f"web.{DOMAIN}", "(exists)") in rows


def test_a_lost_answer_is_put_back(town: Town):
    names = bpf.Map(bpf.get(town.system.paths.bpffs / "maps" / "names"), "names")
    lost = [key for key, _ in names.items() if b"\x03web" in key]
    names.delete(lost)
    town.system.eventually(lambda: all(map(names.lookup, lost)), "repaired")
    names.close()


def test_answers_follow_readiness(town: Town):
    both, one = {place.ipv4 for place in town.db.values()}, {town.db["db-0"].ipv4}
    (town.ready / "db-1").unlink()
    town.system.eventually(lambda: town.records(f"db.{DOMAIN}") == one, "db-1 out")
    assert town.ask(f"db-1.db.{DOMAIN}").rcode() == dns.rcode.NXDOMAIN
    (town.ready / "db-1").touch()
    town.system.eventually(lambda: town.records(f"db.{DOMAIN}") == both, "db-1 back")


def test_a_killed_resolver_is_replaced(town: Town):
    before = resolver_pid(town)
    os.kill(before, signal.SIGKILL)
    town.system.eventually(lambda: resolver_pid(town) != before, "another resolver")
    town.system.eventually(lambda: answers(town, "www.example"), "an answer")


def test_cluster_names_outlive_the_agent_and_the_resolver(town: Town):
    """Both dead by -9: the kernel answers. Other names wait for the next agent."""
    ipv4, ipv6 = town.vips("web")
    os.kill(town.system.agent_pid(), signal.SIGKILL)
    assert town.records("www.example") == {"203.0.113.1"}
    os.kill(resolver_pid(town), signal.SIGKILL)
    town.system.eventually(lambda: not answers(town, "www.example"), "silence")
    for resolver in RESOLVERS:
        assert town.records(f"web.{DOMAIN}", resolver=resolver) == {ipv4}
        assert town.records(f"web.{DOMAIN}", "AAAA", resolver=resolver) == {ipv6}
        found = town.client.run("dig", "+short", f"@{resolver}", f"_http._tcp.web.{DOMAIN}", "SRV")
        assert found.split() == ["0", "100", "80", f"web.{DOMAIN}."]
        assert town.ask(f"nobody.{DOMAIN}", resolver=resolver).rcode() == dns.rcode.NXDOMAIN
    assert town.records(f"db.{DOMAIN}") == {place.ipv4 for place in town.db.values()}
    conf = town.system.paths.run / "resolv.conf"
    conf.write_text(resolv_conf(Config(), "default"))
    bound = f"mount --bind {conf} /etc/resolv.conf && getent ahostsv4 web && getent ahostsv6 web"
    found = town.client.run("unshare", "-m", "sh", "-c", bound)
    assert {line.split()[0] for line in found.splitlines()} == {ipv4, ipv6}
    conf.unlink()
    town.system.up()
    assert answers(town, "www.example")


def answers(town: Town, name: str = f"web.{DOMAIN}") -> bool:
    with suppress(OSError, dns.exception.DNSException):
        query = dns.message.make_query(name, "A")
        with town.client.dial(RESOLVERS[0], 53, kind=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            return bool(dns.query.udp(query, RESOLVERS[0], timeout=SILENCE_S, sock=sock).answer)
    return False


def resolver_pid(town: Town) -> int:
    return int((town.system.paths.run / "dns.pid").read_text())
