"""Rules about domain names, on real traffic: a name server, servers and clients in namespaces.

Each test asks for names of its own, so that one does not live on what another learned.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from .conftest import System
from .places import FAMILIES, WAIT_S, Place, manifest, places_of, pod
from .upstream import Upstream, outside

pytestmark = pytest.mark.root

RESOLVER = "169.254.20.10"
MIN_TTL_S = 3  # within which a name that has no TTL is used
# Names that it asks for, and the address that it reached each time.
ASKER = """
import socket, sys
for number in range(int(sys.argv[2])):
    name = sys.argv[1].replace("N", str(number))
    answers = socket.getaddrinfo(name, 8080, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, where in answers:
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(2)
            try:
                sock.connect(where)
                print("open", where[0])
            except OSError as error:
                print("closed", where[0], error)
"""


def cnp(name: str, app: str, *names: dict[str, str], port: int = 8080, **more: Any) -> Any:
    """A CiliumNetworkPolicy that opens names to the pod ``app``, on one TCP port."""
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}]}]
    egress = [{"toFQDNs": list(names), "toPorts": ports}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, "egress": egress, **more},
    }


MANIFEST = manifest(
    pod("caller"),
    pod("other"),
    pod("hermit"),
    cnp(
        "caller",
        "caller",
        {"matchName": "API.example.org."},
        {"matchPattern": "*.fresh.example.org"},
        {"matchPattern": "**.deep.example.org"},
        {"matchPattern": "a*c.example.org"},
    ),
    cnp("other", "other", {"matchPattern": "*.elsewhere.example.org"}),
)


@dataclass(frozen=True)
class Scene:
    system: System
    upstream: Upstream
    caller: Place
    other: Place
    hermit: Place

    def ask(self, place: Place, name: str, type_: str = "A", *, tcp: bool = False) -> list[str]:
        """The addresses that the resolver gives to a pod."""
        query = dns.message.make_query(name, type_)
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with place.make_socket(socket.AF_INET, kind) as sock:
            if tcp:
                sock.connect((RESOLVER, 53))
                sock.setblocking(False)
                reply = dns.query.tcp(query, RESOLVER, timeout=WAIT_S, sock=sock)
            else:
                sock.setblocking(False)
                reply = dns.query.udp(query, RESOLVER, timeout=WAIT_S, sock=sock)
        found = [one for rrset in reply.answer for one in rrset if rrset.rdtype in (1, 28)]
        return [one.address for one in found]

    def cache(self) -> dict[str, list[dict[str, Any]]]:
        entries = self.system.json("fqdn", "cache", "list")["entries"]
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            found.setdefault(entry["name"], []).append(entry)
        return found

    def closes(self, place: Place, address: str) -> None:
        """Wait until an address is closed to a pod."""
        self.system.eventually(
            lambda: place.attempt(address) == "timeout", f"{address} is still open"
        )


@pytest.fixture(scope="module")
def scene(module_system: System) -> Iterator[Scene]:
    system, stop = module_system, threading.Event()
    with outside(system) as (world, upstream):
        servers = [world.listen(version=version) for version in (4, 6)]
        threads = [threading.Thread(target=take, args=(server, stop)) for server in servers]
        for thread in threads:
            thread.start()
        try:
            system.up(
                *("--dns-upstream", "192.0.2.2", "--fqdn-min-ttl", str(MIN_TTL_S)),
                manifest=MANIFEST,
            )
            yield Scene(system, upstream, *places_of(system, "caller", "other", "hermit"))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            for server in servers:
                server.close()


def take(server: socket.socket, stop: threading.Event) -> None:
    """Accept, echo what comes, until told to stop."""
    server.settimeout(0.05)
    held: list[socket.socket] = []
    while not stop.is_set():
        with suppress(TimeoutError):
            held.append(server.accept()[0])
        for one in list(held):
            one.setblocking(False)
            with suppress(BlockingIOError):
                try:
                    data = one.recv(4096)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    data = b""
                if data:
                    one.sendall(data)
                else:
                    held.remove(one)
                    one.close()
    for one in held:
        one.close()


def test_the_first_connection_after_an_answer_works_two_hundred_times(scene: Scene):
    names = ("exec", "caller", "--", sys.executable, "-c", ASKER, "nN.fresh.example.org", "100")
    lines = scene.system.sixfold(*names).stdout.splitlines()
    assert len(lines) == 200  # a hundred names, both families
    assert [line for line in lines if not line.startswith("open")] == []


@FAMILIES
def test_a_name_opens_its_addresses_to_whom_policy_names_it_only(scene: Scene, version: int):
    address = scene.upstream.new("api.example.org")[version == 6]
    assert scene.caller.attempt(address) == "timeout"
    scene.upstream.records.pop(("api.example.org", "CNAME"), None)
    type_ = "A" if version == 4 else "AAAA"
    assert address in scene.ask(scene.caller, "Api.Example.ORG", type_)
    assert scene.caller.answer(address) == "open"
    assert scene.caller.attempt(address, 8081) == "timeout"
    for stranger in (scene.other, scene.hermit):
        assert stranger.attempt(address) == "timeout"


def test_over_tcp_and_by_long_answers_it_is_the_same(scene: Scene):
    first = scene.upstream.new("x1.fresh.example.org")[0]
    assert scene.ask(scene.caller, "x1.fresh.example.org", tcp=True) == [first]
    assert scene.caller.answer(first) == "open"
    second = scene.upstream.new("x2.fresh.example.org")[0]
    scene.upstream.long.add("x2.fresh.example.org")  # upstream sends it over TCP only
    assert scene.ask(scene.caller, "x2.fresh.example.org") == [second]
    assert scene.caller.answer(second) == "open"


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        pytest.param("one.deep.example.org", "open", id="one label"),
        pytest.param("one.two.deep.example.org", "open", id="two labels"),
        pytest.param("deep.example.org", "timeout", id="no label"),
        pytest.param("abbc.example.org", "open", id="inside a label"),
        pytest.param("ac.example.org", "open", id="nothing"),
        pytest.param("a.c.example.org", "timeout", id="across a dot"),
        pytest.param("abcd.example.org", "timeout", id="more behind"),
        pytest.param("api.example.org.evil.test", "timeout", id="longer name"),
    ],
)
def test_patterns_mean_labels(scene: Scene, name: str, verdict: str):
    address = scene.upstream.new(name)[0]
    assert scene.ask(scene.caller, name) == [address]
    assert scene.caller.attempt(address) == verdict


def test_the_name_that_was_asked_counts_whatever_its_aliases(scene: Scene):
    address = scene.upstream.new("edge.cdn.test")[0]
    scene.upstream.alias("cdn.test", "edge.cdn.test")
    scene.upstream.alias("www.fresh.example.org", "cdn.test")
    scene.upstream.alias("www.cdn.test", "www.fresh.example.org")  # the other way round
    assert scene.ask(scene.caller, "www.cdn.test") == [address]
    assert scene.caller.attempt(address) == "timeout"
    assert scene.ask(scene.caller, "www.fresh.example.org") == [address]
    assert scene.caller.answer(address) == "open"


def test_an_answer_cannot_make_a_pod_or_the_host_part_of_the_world(scene: Scene):
    """DNS rebinding: the name is the caller's, and what it resolves to is not the world's."""
    scene.system.apply(manifest(pod("victim")))
    victim = places_of(scene.system, "victim")[0]
    targets = (victim.ipv4, "10.244.0.1", "192.0.2.1", RESOLVER, "127.0.0.1")
    scene.upstream.set("bad.fresh.example.org", *targets)
    with closing(victim.listen()):
        assert set(scene.ask(scene.caller, "bad.fresh.example.org")) == set(targets)
        assert "bad.fresh.example.org" not in scene.cache()
        for target in targets[:3]:
            assert scene.caller.attempt(target) == "timeout"
    assert "not opened: an address of the cluster" in scene.system.agent_log()


def test_it_closes_when_its_time_is_over_but_not_under_an_open_connection(scene: Scene):
    name = "short.fresh.example.org"
    held, idle = scene.upstream.new(name, ttl_s=0)[0], scene.upstream.new("idle.test")[0]
    scene.upstream.set(name, held, idle, ttl_s=0)
    assert set(scene.ask(scene.caller, name)) == {held, idle}
    assert scene.caller.answer(idle) == "open"
    with scene.caller.dial(held) as connection:
        scene.closes(scene.caller, idle)
        entries = {one["address"]: one for one in scene.cache()[name]}
        assert entries.keys() == {held}
        scene.system.eventually(
            lambda: [one["held"] for one in scene.cache().get(name, ())] == [True], "not held"
        )
        connection.sendall(b"still there")
        assert connection.recv(64) == b"still there"
        assert scene.caller.answer(held) == "open"  # as in Cilium: the address is still known
    scene.closes(scene.caller, held)
    assert name not in scene.cache()
    drop = scene.system.flows("--verdict", "DROPPED", "--to", name, "--last", "1")[0]
    assert drop["destination_names"] == [name]
    assert "default-deny" in drop["sixfold"]["rule"]


def test_of_too_many_addresses_the_first_are_open_and_the_rest_is_said(scene: Scene):
    addresses = [f"100.64.{number >> 8}.{number & 255}" for number in range(1, 1201)]
    scene.upstream.set("many.fresh.example.org", *addresses)
    scene.upstream.long.add("many.fresh.example.org")
    found = scene.ask(scene.caller, "many.fresh.example.org", tcp=True)
    assert sorted(found) == sorted(addresses)
    assert len(scene.cache()["many.fresh.example.org"]) == 1000
    assert "many.fresh.example.org has 1000 addresses already" in scene.system.agent_log()
    assert scene.system.status()["fqdn"]["refused"] >= 200
    again = scene.upstream.new("after-many.fresh.example.org")[0]
    scene.ask(scene.caller, "after-many.fresh.example.org")
    assert scene.caller.answer(again) == "open"


def test_names_that_nobody_mentions_are_not_learned(scene: Scene):
    address = scene.upstream.new("stranger.test")[0]
    assert scene.ask(scene.caller, "stranger.test") == [address]
    assert "stranger.test" not in scene.cache()
    assert scene.caller.attempt(address) == "timeout"


def test_how_long_answers_wait(scene: Scene):
    """No promise about time: it prints (-s) what fresh names cost, mentioned or not."""
    for kind, name in (("not mentioned", "t{}.plain.test"), ("learned", "t{}.fresh.example.org")):
        took_ms, again_ms = [], []
        for number in range(60):
            text = name.format(number)
            scene.upstream.set(text, f"100.65.0.{number}")
            for taken in (took_ms, again_ms):
                began_s = time.perf_counter()
                assert scene.ask(scene.caller, text) == [f"100.65.0.{number}"]
                taken.append((time.perf_counter() - began_s) * 1000)
        for what, taken in (("first", took_ms), ("cached", again_ms)):
            middle, last = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
            print(f"{kind}, {what}: median {middle:.1f} ms, 95 % {last:.1f} ms")


def test_flows_explain_and_reach_speak_of_names(scene: Scene):
    name = "shown.fresh.example.org"
    address = scene.upstream.new(name)[0]
    asked = scene.system.sixfold("explain", "caller", f"{name}:8080").stdout
    assert "opened for *.fresh.example.org" in asked
    assert "CiliumNetworkPolicy default/caller egress[0]" in asked
    scene.ask(scene.caller, name)
    assert scene.caller.answer(address) == "open"
    (flow, *_) = scene.system.flows("--to", "shown.*.example.org", "--last", "1")
    assert flow["destination_names"] == [name]
    explained = scene.system.sixfold("explain", "caller", f"{name}:8080").stdout
    assert f"has resolved to {address}" in explained
    by_address = scene.system.sixfold("explain", "caller", f"{address}:8080").stdout
    assert "FORWARDED" in by_address
    denied = scene.system.sixfold("explain", "other", f"{name}:8080", check=False)
    assert denied.returncode == 1
    assert "*.elsewhere.example.org" in denied.stdout
    rows = scene.system.sixfold("reach").stdout
    assert "*.fresh.example.org" in rows
    table = scene.system.sixfold("fqdn", "cache", "list", "-p", "shown.*.example.org", "-o", "wide")
    assert table.stdout.splitlines()[1].split()[:2] == [name, address]


def test_a_policy_that_goes_closes_its_names_and_cuts_their_connections(scene: Scene):
    scene.system.apply(manifest(cnp("late", "hermit", {"matchName": "late.example.org"})))
    address = scene.upstream.new("late.example.org")[0]
    scene.ask(scene.hermit, "late.example.org")
    with scene.hermit.dial(address) as connection:
        scene.system.sixfold("delete", "cnp", "late")
        with pytest.raises(ConnectionError):
            connection.recv(1)
    assert scene.hermit.attempt(address) == "timeout"
    assert "late.example.org" not in scene.cache()
    # Again: the resolver's cache still has the answer, so nobody has to ask.
    scene.system.apply(manifest(cnp("late", "hermit", {"matchName": "late.example.org"})))
    scene.system.eventually(lambda: scene.hermit.attempt(address) == "open", "not opened again")
    scene.system.sixfold("delete", "cnp", "late")


def test_admin_rules_and_denies_come_first_and_audit_tells(scene: Scene):
    system = scene.system
    address = scene.upstream.new("x3.fresh.example.org")[0]
    scene.ask(scene.caller, "x3.fresh.example.org")
    assert scene.caller.answer(address) == "open"
    admin = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "guard"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "egress": [
                {"action": "Accept", "to": [{"domainNames": ["*.accepted.test"]}]},
                {"action": "Deny", "to": [{"networks": ["198.51.100.0/24"]}]},
            ],
        },
    }
    system.apply(manifest(admin))
    assert scene.caller.attempt(address) == "timeout"
    accepted = scene.upstream.new("a.b.accepted.test")[0]
    scene.ask(scene.hermit, "a.b.accepted.test")
    assert scene.hermit.answer(accepted) == "open"  # one label or more, on every port
    system.sixfold("delete", "clusternetworkpolicy", "guard")
    deny = cnp("deny", "caller", {"matchName": "x.y"})
    deny["spec"]["egressDeny"] = [{"toCIDR": [f"{address}/32"]}]
    system.apply(manifest(deny))
    assert scene.caller.attempt(address) == "timeout"
    system.sixfold("delete", "cnp", "deny")
    assert scene.caller.answer(address) == "open"


def test_in_audit_names_are_told_apart_from_what_would_be_denied(scene: Scene):
    policy = cnp("watched", "hermit", {"matchName": "watched.test"})
    policy["metadata"]["annotations"] = {"sixfold.dev/enforcement": "audit"}
    scene.system.apply(manifest(policy))
    named, other = scene.upstream.new("watched.test")[0], scene.upstream.new("other.test")[0]
    scene.ask(scene.hermit, "watched.test")
    for address, verdict in ((named, "FORWARDED"), (other, "AUDIT")):
        assert scene.hermit.answer(address) == "open"
        assert scene.system.flows("--to", address, "--last", "1")[0]["verdict"] == verdict
    scene.system.sixfold("delete", "cnp", "watched")


def test_the_agent_may_die_at_any_time(scene: Scene):
    """Known names go on, new ones stay closed, and what was asked meanwhile is opened later."""
    system = scene.system
    known = scene.upstream.new("known.fresh.example.org", ttl_s=300)[0]
    scene.ask(scene.caller, "known.fresh.example.org")
    os.kill(system.agent_pid(), signal.SIGKILL)
    unknown = scene.upstream.new("unknown.fresh.example.org", ttl_s=300)[0]
    assert scene.ask(scene.caller, "known.fresh.example.org") == [known]
    assert scene.caller.answer(known) == "open"
    assert scene.ask(scene.caller, "unknown.fresh.example.org") == [unknown]
    assert scene.caller.attempt(unknown) == "timeout"
    system.up()
    assert scene.caller.answer(known) == "open"
    both = {"known.fresh.example.org", "unknown.fresh.example.org"}
    system.eventually(lambda: both <= scene.cache().keys(), "what was asked meanwhile is known")
    assert scene.caller.answer(unknown) == "open"


def test_the_resolver_may_die_at_any_time(scene: Scene):
    system = scene.system
    before = scene.upstream.new("before.fresh.example.org", ttl_s=300)[0]
    scene.ask(scene.caller, "before.fresh.example.org")
    os.kill(int((system.paths.run / "dns.pid").read_text()), signal.SIGKILL)
    assert scene.caller.answer(before) == "open"
    after = scene.upstream.new("after.fresh.example.org")[0]

    def answered() -> bool:
        with suppress(OSError, dns.exception.DNSException):
            return scene.ask(scene.caller, "after.fresh.example.org") == [after]
        return False

    system.eventually(answered, "no resolver")
    system.eventually(lambda: scene.caller.attempt(after) == "open", "the answer opened nothing")
