"""Names by policy, on real traffic: a pod is told of what it may reach, and of nothing else.

Zero-trust posture. ``client`` may reach ``web`` and ``db``, each by one port, and the addresses of
``crowd``, which is outside and too many for a packet; ``stranger`` may reach nobody. The pod of
``db`` is also one of ``both``, with that of ``web``, which may reach nobody but itself.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread

import dns.message
import dns.query
import dns.rcode
import dns.reversename
import pytest

from sixfold.host import bpf

from .conftest import System
from .places import Place, block, labelled, manifest, places_of, pod, policy, service

pytestmark = pytest.mark.root

RESOLVERS = ("169.254.20.10", "fd00:5f::10")
DOMAIN = "default.svc.cluster.local"
HTTP = {"name": "http", "port": 80, "targetPort": 8080}
CROWD = [f"192.0.2.{number}" for number in range(1, 101)]
TO_WEB = {"to": [labelled(app="web")], "ports": [{"port": 8080}]}
TO_DB = {"to": [labelled(app="db")], "ports": [{"port": 5432}]}
CLIENT = policy(
    "client",
    {"app": "client"},
    policyTypes=["Egress"],
    egress=[TO_WEB, TO_DB, {"to": [block("192.0.2.0/24")]}],
)
WEB = policy("web", {"app": "web"}, ingress=[{"from": [labelled(app="client")]}])
DB = policy("db", {"app": "db"}, ingress=[{"from": [labelled(app="client")]}])
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "crowd",
        "namespace": "default",
        "labels": {"kubernetes.io/service-name": "crowd"},
    },
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 80}],
    "endpoints": [{"addresses": [address]} for address in CROWD],
}


@dataclass(frozen=True)
class Town:
    system: System
    client: Place
    stranger: Place
    web: Place
    db: Place

    @property
    def reverse(self) -> str:
        """The name of the address that is of two services."""
        return dns.reversename.from_address(self.db.ipv4).to_text()

    @property
    def other_name(self) -> str:
        """Of that pod, in its second service."""
        return f"{self.db.ipv4.replace('.', '-')}.both.{DOMAIN}."

    def vips(self, name: str) -> list[str]:
        return self.system.json("get", "svc", name)["spec"]["clusterIPs"]


@pytest.fixture(scope="module")
def town(module_system: System) -> Town:
    crowd = service("crowd", clusterIP="None", ports=[HTTP])
    del crowd["spec"]["selector"]
    member = {"hostname": "db-0", "subdomain": "db", "labels": {"app": "db", "kind": "both"}}
    module_system.up(
        *("--dns-pods", "verified"),
        manifest=manifest(
            *(pod(name) for name in ("client", "stranger")),
            pod("web", labels={"kind": "both"}),
            service("both", clusterIP="None", ports=[HTTP], selector={"kind": "both"}),
            *(pod("db-0", **member), NAMESPACE, CLIENT, WEB, DB, crowd, SLICE),
            service("web", ports=[HTTP]),
            service("db", clusterIP="None", ports=[{"name": "sql", "port": 5432}]),
        ),
    )
    return Town(module_system, *places_of(module_system, "client", "stranger", "web", "db-0"))


def ask(
    place: Place, name: str, type_: str = "A", *, resolver: str = RESOLVERS[0], tcp: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, type_)
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with place.dial(resolver, 53, kind=kind) as sock:
        if tcp:
            return dns.query.tcp(query, resolver, timeout=5, sock=sock)
        sock.setblocking(False)
        return dns.query.udp(query, resolver, timeout=5, sock=sock)


def found(place: Place, name: str, type_: str = "A", **options: object) -> set[str]:
    """The records, none where the name does not exist."""
    reply = ask(place, name, type_, **options)  # type: ignore[arg-type]
    records = {record.to_text() for rrset in reply.answer for record in rrset}
    assert records or reply.rcode() in (dns.rcode.NXDOMAIN, dns.rcode.NOERROR)
    return records


def is_hidden(place: Place, name: str, type_: str = "A", **options: object) -> bool:
    return ask(place, name, type_, **options).rcode() == dns.rcode.NXDOMAIN  # type: ignore[arg-type]


WAYS = [
    pytest.param({"resolver": resolver, "tcp": tcp}, id=f"{'tcp' if tcp else 'udp'}-{resolver}")
    for resolver in RESOLVERS
    for tcp in (False, True)
]


@pytest.mark.parametrize("way", WAYS)
def test_every_record_of_a_service_is_told_to_who_may_reach_it_only(town: Town, way: dict) -> None:
    """Over UDP the kernel answers, over TCP the resolver's process."""
    ipv4, ipv6 = town.vips("web")
    names = [
        (f"web.{DOMAIN}", "A", {ipv4}),
        (f"web.{DOMAIN}", "AAAA", {ipv6}),
        (f"_http._tcp.web.{DOMAIN}", "SRV", {f"0 100 80 web.{DOMAIN}."}),
        (dns.reversename.from_address(ipv4).to_text(), "PTR", {f"web.{DOMAIN}."}),
        (dns.reversename.from_address(ipv6).to_text(), "PTR", {f"web.{DOMAIN}."}),
        (f"db.{DOMAIN}", "A", {town.db.ipv4}),
        (f"db-0.db.{DOMAIN}", "AAAA", {town.db.ipv6}),
        (f"_sql._tcp.db.{DOMAIN}", "SRV", {f"0 100 5432 db-0.db.{DOMAIN}."}),
        (town.reverse, "PTR", {f"db-0.db.{DOMAIN}.", town.other_name}),
        (f"{town.web.ipv4.replace('.', '-')}.default.pod.cluster.local", "A", {town.web.ipv4}),
    ]
    for name, type_, records in names:
        assert found(town.client, name, type_, **way) == records, name
        assert is_hidden(town.stranger, name, type_, **way), name
        assert is_hidden(town.stranger, name, "MX", **way), name
    assert is_hidden(town.stranger, f"_tcp.web.{DOMAIN}", **way)


@pytest.mark.parametrize("way", WAYS)
def test_an_address_is_called_by_the_services_that_the_pod_sees(town: Town, way: dict) -> None:
    assert found(town.web, town.reverse, "PTR", **way) == {town.other_name}
    assert is_hidden(town.web, f"db.{DOMAIN}", **way)


def test_what_is_no_service_s_is_told_to_everybody(town: Town) -> None:
    for name in ("cluster.local", DOMAIN, "svc.cluster.local", "ns.dns.cluster.local"):
        assert not is_hidden(town.stranger, name)
    assert found(town.stranger, "dns-version.cluster.local", "TXT") == {'"1.1.0"'}


def test_a_set_too_long_for_a_packet_is_hidden_likewise(town: Town) -> None:
    name = f"crowd.{DOMAIN}"
    assert found(town.client, name, tcp=True) == set(CROWD)
    assert ask(town.client, name).flags & dns.flags.TC
    assert is_hidden(town.stranger, name, tcp=True)
    assert is_hidden(town.stranger, name)


def test_programs_find_what_they_may_reach(town: Town) -> None:
    """glibc in the pods: resolv.conf, search path and all."""
    ipv4 = town.vips("web")[0]
    names = ("web", "web.default", f"web.{DOMAIN}")
    asked = "; ".join(f"getent hosts {name} || echo $?" for name in names)
    output = town.system.sixfold("exec", "stranger", "--", "sh", "-c", asked).stdout
    assert output.split() == ["2"] * len(names)
    asked = "; ".join(f"getent ahostsv4 {name} | sed -n 1p" for name in names)
    output = town.system.sixfold("exec", "client", "--", "sh", "-c", asked).stdout
    assert [line.split()[0] for line in output.splitlines()] == [ipv4] * len(names)
    dug = town.client.run("dig", "+short", f"@{RESOLVERS[0]}", f"web.{DOMAIN}")
    assert dug.split() == [ipv4]


def test_the_host_is_told_everything(town: Town) -> None:
    host = Place(town.system.host, "10.244.0.1", "fd00:5f:244::1")
    for tcp in (False, True):
        assert found(host, f"web.{DOMAIN}", tcp=tcp) == {town.vips("web")[0]}


def test_a_hidden_name_is_told_in_the_flow_log(town: Town) -> None:
    assert is_hidden(town.stranger, f"web.{DOMAIN}")
    query = ("--from", "default/stranger", "--verdict", "DROPPED", "--last", "1")
    (flow,) = town.system.flows(*query)
    assert flow["sixfold"]["drop_reason"] == "NAME_HIDDEN"
    assert flow["sixfold"]["dns"] == "hidden by policy, answered in the kernel: NXDOMAIN"
    assert flow["destination_service"] == {"name": "web", "namespace": "default"}
    assert "egress_denied_by" not in flow
    text = town.system.sixfold("flows", *query).stdout
    assert "drop:name-hidden DROPPED (UDP) service default/web\n" in text
    counted = {row["counter"]: row["count"] for row in town.system.json("bpf", "metrics", "list")}
    assert counted["drop_name_hidden"] > 0


def test_explain_and_resolve_say_why_a_name_is_hidden(town: Town) -> None:
    lines = town.system.sixfold("explain", "stranger", "web", check=False).stdout.splitlines()
    (line,) = (one for one in lines if one.startswith("discovery"))
    assert line.split()[1] == "hidden"
    for said in (
        "egress of default/stranger denied by default-deny (zero-trust)",
        "ingress of default/web denied by default-deny (default/web)",
    ):
        assert said in line
    told = town.system.json("resolve", "web", "--as", "client")["steps"]
    assert [one["records"] for one in told] == [town.vips("web")[:1]]
    asked = town.system.sixfold("resolve", "web", "--as", "stranger", "-o", "json", check=False)
    assert asked.returncode == 1
    assert f'"name": "web.{DOMAIN}"' in asked.stdout
    assert "hidden: default/web: policy lets default/stranger reach no port of it" in asked.stdout
    everything = town.system.json("resolve", "web")["steps"]
    assert everything[0]["records"] == town.vips("web")[:1]


def test_the_kernels_views_can_be_listed(town: Town) -> None:
    views = {row["pod"]: row for row in town.system.json("bpf", "view", "list")}
    assert views["default/stranger"]["services"] == ["pod default/stranger"]
    told = {"default/web", "default/db", "default/crowd"}
    assert told <= set(views["default/client"]["services"])
    rows = {(row["name"], row["type"]): row for row in town.system.json("bpf", "dns", "list")}
    number = views["default/client"]["view"]
    assert number in rows[f"web.{DOMAIN}", "A"]["views"]
    assert views["default/stranger"]["view"] not in rows[f"web.{DOMAIN}", "A"]["views"]
    assert rows[DOMAIN, "(exists)"]["views"] == ["all"]


def test_a_rule_shows_a_name_at_once_and_its_end_hides_it(town: Town) -> None:
    """What the last command put in force, the first question after it meets."""
    name, vip = f"web.{DOMAIN}", {town.vips("web")[0]}
    out = policy("out", {"app": "stranger"}, policyTypes=["Egress"], egress=[TO_WEB])
    into = policy("into", {"app": "web"}, ingress=[{"from": [labelled(app="stranger")]}])
    for tcp in (False, True):
        town.system.apply(manifest(out))
        assert is_hidden(town.stranger, name, tcp=tcp), "the other side has no rule yet"
        town.system.apply(manifest(into))
        assert found(town.stranger, name, tcp=tcp) == vip
        assert is_hidden(town.stranger, f"db.{DOMAIN}", tcp=tcp)
        town.system.sixfold("delete", "networkpolicy", "out", "into")
        assert is_hidden(town.stranger, name, tcp=tcp)
    assert found(town.client, name) == vip


def test_what_is_in_audit_is_told(town: Town) -> None:
    audited = policy("out", {"app": "stranger"}, policyTypes=["Egress"], egress=[])
    audited["metadata"]["annotations"] = {"sixfold.dev/enforcement": "audit"}
    into = policy("into", {"app": "web"}, ingress=[{"from": [labelled(app="stranger")]}])
    town.system.apply(manifest(audited, into))
    assert found(town.stranger, f"web.{DOMAIN}")
    assert is_hidden(town.stranger, f"db.{DOMAIN}")
    town.system.sixfold("delete", "networkpolicy", "out", "into")
    assert is_hidden(town.stranger, f"web.{DOMAIN}")


def test_a_namespace_may_tell_its_names_to_everybody(town: Town) -> None:
    opened = {**NAMESPACE["metadata"], "annotations": {"sixfold.dev/discovery": "open"}}
    town.system.apply(manifest({**NAMESPACE, "metadata": opened}))
    for name in ("web", "db", "crowd"):
        assert found(town.stranger, f"{name}.{DOMAIN}", tcp=True)
    assert town.stranger.attempt(town.web.ipv4) == "timeout", "told, not let in"
    town.system.apply(manifest(NAMESPACE))
    assert is_hidden(town.stranger, f"web.{DOMAIN}")


def test_a_new_pod_is_found_at_once_and_is_forgotten_before_it_is_cut(town: Town) -> None:
    """Nobody keeps an old answer: who is cut and asks again is not sent there once more."""
    name, member = f"db-1.db.{DOMAIN}", {"hostname": "db-1", "subdomain": "db"}
    for tcp in (False, True):
        assert is_hidden(town.client, name, tcp=tcp), "not there yet"
    made = manifest(pod("db-1", labels={"app": "db"}, **member))
    town.system.sixfold("apply", "-f", "-", "--wait", stdin=made)
    (place,) = places_of(town.system, "db-1")
    for tcp in (False, True):
        assert found(town.client, name, tcp=tcp) == {place.ipv4}
    with place.listen(5432) as server, town.client.dial(place.ipv4, 5432) as dialled:
        accepted, _ = server.accept()
        with accepted:
            dialled.settimeout(town.system.wait_s)
            asked = Thread(target=town.system.sixfold, args=("delete", "pod", "db-1", "--now"))
            asked.start()
            with suppress(ConnectionError):
                assert dialled.recv(1) == b""
            for tcp in (False, True):
                assert is_hidden(town.client, name, tcp=tcp)
                assert place.ipv4 not in found(town.client, f"db.{DOMAIN}", tcp=tcp)
            asked.join()


def test_a_change_of_the_kernels_views_is_put_back(town: Town) -> None:
    views = bpf.Map(bpf.get(town.system.paths.bpffs / "maps" / "view_of"), "view_of")
    number = next(
        row["id"]
        for row in town.system.json("bpf", "view", "list")
        if row["pod"] == "default/stranger"
    )
    views.update([(number.to_bytes(4, "little"), (1).to_bytes(4, "little"))])
    views.close()
    town.system.eventually(lambda: is_hidden(town.stranger, f"web.{DOMAIN}"), "hidden again")


def test_views_outlive_the_agent_and_the_resolver(town: Town) -> None:
    vip, name = {town.vips("web")[0]}, f"web.{DOMAIN}"
    os.kill(town.system.agent_pid(), signal.SIGKILL)
    assert found(town.client, name, tcp=True) == vip
    assert is_hidden(town.stranger, name, tcp=True)
    os.kill(int((town.system.paths.run / "dns.pid").read_text()), signal.SIGKILL)
    assert found(town.client, name) == vip
    assert found(town.web, town.reverse, "PTR") == {town.other_name}
    assert is_hidden(town.stranger, name)
    town.system.up()
    for tcp in (False, True):
        assert found(town.client, name, tcp=tcp) == vip
        assert is_hidden(town.stranger, name, tcp=tcp)
