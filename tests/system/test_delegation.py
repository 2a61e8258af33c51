"""A zone delegated to the edge: resolvers outside find services that have an address there, and
nothing else. Real ones: unbound, BIND, Knot Resolver.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import SIXFOLD, System
from .places import manifest, pod, service

pytestmark = pytest.mark.root

ZONE, EDGE, OUTSIDE = "k8s.example.org", "192.0.2.1", "192.0.2.2"
NAME, CHOSEN, INNER = f"web.shop.{ZONE}", f"www.{ZONE}", f"inner.shop.{ZONE}"
POOL = "192.0.2.64/28"


@dataclass
class Coast:
    """The host, and a machine outside."""

    system: System
    outside: Path
    address: str  # of the service, outside

    def ask(self, name: str, type_: str = "A", *, tcp: bool = False, server: str = EDGE):
        query = dns.message.make_query(name, type_, flags=0)
        send = dns.query.tcp if tcp else dns.query.udp
        return netns.run_inside(self.outside, lambda: send(query, server, timeout=10))

    def dig(self, name: str, type_: str = "A") -> list[str]:
        """What the resolver outside answers."""
        done = self.system.run_in(
            *(self.outside, "dig", "+short", "+tries=1", "+timeout=10"),
            *("-p", "5300", f"@{OUTSIDE}", name, type_),
        )
        return done.stdout.split()

    @contextmanager
    def running(self, *argv: str) -> Iterator[None]:
        """A server outside, until it answers and afterwards no more."""
        with subprocess.Popen(
            ["nsenter", f"--net={self.outside}", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as server:
            try:
                self.system.eventually(
                    lambda: server.poll() is not None or self.dig(NAME) == [self.address],
                    f"{argv[0]} resolves {NAME}",
                )
                assert server.poll() is None, server.stdout.read()
                yield
            finally:
                server.kill()


@pytest.fixture(scope="module")
def coast(module_system: System) -> Coast:
    system = module_system
    outside = NETNS_ROOT / f"{system.paths.instance}-outside"
    netns.create(outside, lambda: None)
    system.extra.append(outside)
    system.on_host("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1")
    system.on_host("ip", "link", "set", "e1", "netns", str(outside))
    for where, device, address in ((system.host, "e0", EDGE), (outside, "e1", OUTSIDE)):
        system.run_in(where, "ip", "addr", "add", f"{address}/24", "dev", device)
        system.run_in(where, "ip", "link", "set", device, "up")
        system.run_in(where, "ip", "link", "set", "lo", "up")
    web = service(
        "web", namespace="shop", type="LoadBalancer", ports=[{"name": "http", "port": 80}]
    )
    web["metadata"]["annotations"] = {"external-dns.alpha.kubernetes.io/hostname": CHOSEN}
    web["spec"]["ipFamilyPolicy"] = "SingleStack"
    system.up(
        *("--dns-edge", f"{EDGE}:53", "--dns-edge-zone", ZONE, "--dns-edge-zone", "cluster.local"),
        manifest=manifest(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumLoadBalancerIPPool",
                "metadata": {"name": "pool"},
                "spec": {"blocks": [{"cidr": POOL}]},
            },
            pod("web", namespace="shop"),
            web,
            service("inner", namespace="shop", ports=[{"name": "http", "port": 80}]),
        ),
    )
    found = system.json("get", "svc", "web", "-n", "shop")
    (ingress,) = found["status"]["loadBalancer"]["ingress"]
    return Coast(system, outside, ingress["ip"])


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("name", [NAME, CHOSEN, NAME.upper(), "web.shop.svc.cluster.local"])
def test_a_service_with_an_address_outside_is_told_with_authority(
    coast: Coast, name: str, tcp: bool
):
    answer = coast.ask(name, tcp=tcp)
    assert [rdata.to_text() for rdata in answer.answer[0]] == [coast.address]
    assert answer.flags & dns.flags.AA
    assert not answer.flags & dns.flags.RA


def test_a_named_port_leads_there_with_its_address(coast: Coast):
    answer = coast.ask(f"_http._tcp.{NAME}", "SRV")
    assert [rdata.to_text() for rdata in answer.answer[0]] == [f"0 100 80 {NAME}."]
    assert [rdata.to_text() for rdata in answer.additional[0]] == [coast.address]


@pytest.mark.parametrize(
    ("name", "type_", "rcode"),
    [
        pytest.param(INNER, "A", dns.rcode.NXDOMAIN, id="a service without an address outside"),
        pytest.param(f"10-244-0-2.shop.pod.{ZONE}", "A", dns.rcode.NXDOMAIN, id="a pod"),
        pytest.param(NAME, "AAAA", dns.rcode.NOERROR, id="another type"),
        pytest.param(f"shop.{ZONE}", "A", dns.rcode.NOERROR, id="a namespace that has one"),
        pytest.param(f"vault.{ZONE}", "A", dns.rcode.NXDOMAIN, id="a namespace that has none"),
    ],
)
def test_nothing_else_is_there_and_the_zone_says_so(coast: Coast, name, type_, rcode):
    answer = coast.ask(name, type_)
    assert (answer.rcode(), answer.answer) == (rcode, [])
    (soa,) = answer.authority
    assert soa.to_text().split()[3:5] == ["SOA", f"ns.dns.{ZONE}."]


@pytest.mark.parametrize(
    ("name", "type_"),
    [("example.org", "A"), ("elsewhere.example.net", "A"), (ZONE, "AXFR"), (".", "NS")],
)
def test_what_is_not_of_the_zone_is_refused(coast: Coast, name: str, type_: str):
    query = dns.message.make_query(name, type_, flags=dns.flags.RD)
    answer = netns.run_inside(coast.outside, lambda: dns.query.udp(query, EDGE, timeout=10))
    assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])


def test_the_zone_names_its_server_and_its_address(coast: Coast):
    answer = coast.ask(ZONE, "NS")
    assert [rdata.to_text() for rdata in answer.answer[0]] == [f"ns.dns.{ZONE}."]
    assert [rdata.to_text() for rdata in answer.additional[0]] == [EDGE]


def test_the_serial_grows_with_a_change_and_the_name_goes_with_its_address(coast: Coast):
    def serial() -> int:
        return coast.ask(ZONE, "SOA").answer[0][0].serial

    before = serial()
    extra = service("more", namespace="shop", ports=[{"port": 80}])
    coast.system.apply(json.dumps({**extra, "spec": {**extra["spec"], "externalIPs": [EDGE]}}))
    assert coast.ask(f"more.shop.{ZONE}").answer[0][0].address == EDGE
    assert serial() > before
    coast.system.apply(json.dumps(extra))
    assert coast.ask(f"more.shop.{ZONE}").rcode() == dns.rcode.NXDOMAIN
    coast.system.sixfold("delete", "svc", "more", "-n", "shop")


def written(coast: Coast, server: str) -> str:
    return coast.system.sixfold("dns", "delegation", server).stdout


UNBOUND = f"""
server:
  interface: {OUTSIDE}
  port: 5300
  access-control: 192.0.2.0/24 allow
  username: ""
  chroot: ""
  do-daemonize: no
  use-syslog: no
  pidfile: ""
  module-config: "iterator"
  do-not-query-localhost: no
remote-control:
  control-enable: no
"""


def unbound(coast: Coast, folder: Path) -> list[str]:
    file = folder / "unbound.conf"
    file.write_text(UNBOUND + written(coast, "unbound"))
    return ["unbound", "-d", "-c", str(file)]


BIND = f"""
options {{
  directory "DIR"; pid-file none; session-keyfile none; recursion yes; dnssec-validation no;
  listen-on port 5300 {{ {OUTSIDE}; }}; listen-on-v6 {{ none; }}; allow-recursion {{ any; }};
}};
controls {{ }};
"""


def bind(coast: Coast, folder: Path) -> list[str]:
    file = folder / "named.conf"
    file.write_text(BIND.replace("DIR", str(folder)) + written(coast, "bind"))
    return ["named", "-f", "-g", "-c", str(file)]


def knot_resolver(coast: Coast, folder: Path) -> list[str]:
    file = folder / "kresd.conf"
    start = f"net.listen('{OUTSIDE}', 5300)\ncache.size = 10 * MB\ntrust_anchors.remove('.')\n"
    file.write_text(start + written(coast, "knot-resolver"))
    return ["kresd", "-n", "-c", str(file), str(folder)]


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(unbound, id="unbound"),
        pytest.param(bind, id="named"),
        pytest.param(knot_resolver, id="kresd"),
    ],
)
def test_a_resolver_outside_finds_them_by_what_is_printed(
    coast: Coast, tmp_path: Path, prepare: Callable[[Coast, Path], list[str]]
):
    argv = prepare(coast, tmp_path)
    if shutil.which(argv[0]) is None:
        pytest.skip(f"needs {argv[0]}")
    tmp_path.chmod(0o777)
    with coast.running(*argv):
        assert coast.dig(CHOSEN) == [coast.address]
        assert coast.dig(f"_http._tcp.{NAME}", "SRV") == ["0", "100", "80", f"{NAME}."]
        assert coast.dig(INNER) == []
        assert coast.dig("web.shop.svc.cluster.local") == [coast.address]


def test_a_parent_zone_delegates_by_ns_and_glue(coast: Coast, tmp_path: Path):
    """The parent is BIND's; unbound asks it, and follows its referral to us."""
    if shutil.which("named") is None or shutil.which("unbound") is None:
        pytest.skip("needs named and unbound")
    lines = written(coast, "zone").splitlines()
    zone = [line for line in lines if ZONE in line and not line.startswith(";")]
    soa = "@ IN SOA ns.example.org. root.example.org. 1 60 60 60 60"
    parent = ["$TTL 60", soa, "@ IN NS ns", f"ns IN A {OUTSIDE}", *zone]
    (tmp_path / "db").write_text("\n".join(parent) + "\n")
    named, asking = tmp_path / "named.conf", tmp_path / "unbound.conf"
    authority = BIND.replace("DIR", str(tmp_path)).replace("recursion yes", "recursion no")
    authority = authority.replace("port 5300", "port 53")
    named.write_text(f'{authority} zone "example.org" {{ type primary; file "db"; }};')
    stub = f'stub-zone:\n  name: "example.org"\n  stub-addr: {OUTSIDE}@53\n'
    insecure = 'server:\n  domain-insecure: "example.org"\n'
    asking.write_text(UNBOUND + insecure + stub)
    tmp_path.chmod(0o777)
    argv = ["nsenter", f"--net={coast.outside}", "named", "-f", "-g", "-c", str(named)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            with coast.running("unbound", "-d", "-c", str(asking)):
                assert coast.dig(CHOSEN) == [coast.address]
                assert coast.dig(INNER) == []
        finally:
            server.kill()


def test_a_zone_without_an_edge_is_refused(coast: Coast):
    done = coast.system.on_host(
        *SIXFOLD, "up", "--detach", "--dns-edge", "none", "--dns-edge-zone", ZONE
    )
    assert done.returncode != 0
    assert "--dns-edge ADDRESS:PORT" in done.stderr
