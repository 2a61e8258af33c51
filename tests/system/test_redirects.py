"""Connections to addresses that DNS has retired, led to who serves now: where a pod asks for it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import dns.message
import dns.query
import pytest

from .conftest import System
from .places import FAMILIES, Place, manifest, place_of, pod, service

pytestmark = pytest.mark.root

RESOLVER, NAME = "169.254.20.10", "db.default.svc.cluster.local"
REDIRECT = {"sixfold.dev/redirect-retired": "true"}
PORT = 5432


def asking(made: dict) -> dict:
    made["metadata"]["annotations"] = REDIRECT
    return made


def ask(place: Place) -> None:
    """What a client does once, and never again."""
    for type_ in ("A", "AAAA"):
        with place.dial(RESOLVER, 53, kind=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            reply = dns.query.udp(dns.message.make_query(NAME, type_), RESOLVER, 5, sock=sock)
            assert reply.answer


@dataclass
class Shop:
    system: System
    client: Place  # asks for redirects
    plain: Place  # does not
    stranger: Place  # asks, and never looked the name up
    heir: Place  # serves
    gone: Place  # did

    def flow(self, name: str) -> dict:
        """The last connection of a pod, as the flow log has it."""
        (found,) = self.system.flows(
            *("--from", f"default/{name}", "--port", str(PORT), "--protocol", "tcp"),
            *("--last", "1"),
        )
        return found


@pytest.fixture(scope="module")
def shop(module_system: System) -> Iterator[Shop]:
    system = module_system
    system.up(
        *("--posture", "kubernetes"),
        manifest=manifest(
            asking(pod("client")),
            pod("plain"),
            asking(pod("stranger")),
            *(pod(f"db-{n}", labels={"app": "db"}) for n in range(2)),
            service("db", clusterIP="None", ports=[{"port": PORT}]),
        ),
    )
    client, plain, stranger = (place_of(system, name) for name in ("client", "plain", "stranger"))
    heir, gone = (place_of(system, f"db-{n}") for n in range(2))
    ask(client)
    ask(plain)
    system.sixfold("delete", "pod", "db-1", "--now")
    with heir.listen(PORT), heir.listen(PORT, version=6):
        yield Shop(system, client, plain, stranger, heir, gone)


@FAMILIES
def test_a_connection_to_a_retired_address_reaches_who_serves_now(shop: Shop, version: int):
    retired = shop.gone.address(version)
    with shop.client.dial(retired, PORT) as sock:
        assert sock.getpeername()[0] == retired, "the client is told nothing else"
    flow = shop.flow("client")
    assert (flow["verdict"], flow["destination"]["pod_name"]) == ("FORWARDED", "db-0")
    assert flow["destination_service"] == {"name": "db", "namespace": "default"}
    assert flow["sixfold"]["redirected"] is True


@FAMILIES
def test_connected_datagrams_go_there_too(shop: Shop, version: int):
    kind = socket.SOCK_DGRAM
    system, db = shop.system, service("db", clusterIP="None")
    ports = [{"name": p.lower(), "port": PORT, "protocol": p} for p in ("TCP", "UDP")]
    db["spec"]["ports"] = ports
    system.apply(json.dumps(db))
    with (
        shop.heir.listen(PORT, version=version, kind=kind) as server,
        shop.client.dial(shop.gone.address(version), PORT, kind=kind) as sock,
    ):
        sock.send(b"x")
        data, sender = server.recvfrom(16)
        server.sendto(data + b"y", sender)
        assert sock.recv(16) == b"xy"


@FAMILIES
def test_who_does_not_ask_for_it_gets_what_he_dials(shop: Shop, version: int):
    assert shop.plain.attempt(shop.gone.address(version), PORT) != "open"
    assert "redirected" not in shop.flow("plain")["sixfold"]


@FAMILIES
def test_who_never_looked_the_name_up_is_not_redirected(shop: Shop, version: int):
    assert shop.stranger.attempt(shop.gone.address(version), PORT) != "open"


def test_another_port_is_not_the_services(shop: Shop):
    with shop.heir.listen(PORT + 1):
        assert shop.client.attempt(shop.gone.ipv4, PORT + 1) != "open"


def test_the_audit_and_metrics_say_how_often(shop: Shop):
    for _ in range(2):
        shop.client.dial(shop.gone.ipv4, PORT).close()
    lines = shop.system.sixfold("metrics", "sixfold_redirected_dials_total").stdout.splitlines()
    (sample,) = [line for line in lines if 'workload="Pod/client"' in line]
    assert int(sample.split()[-1]) >= 2


def test_policy_is_asked_of_who_serves_now(shop: Shop):
    """Allowed was the retired address, and everybody else; not its successor."""
    denied = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
    }
    shop.system.apply(json.dumps(denied))
    assert shop.client.attempt(shop.gone.ipv4, PORT) == "timeout"
    flow = shop.flow("client")
    assert (flow["verdict"], flow["destination"]["pod_name"]) == ("DROPPED", "db-0")
    shop.system.sixfold("delete", "netpol", "closed")
    shop.client.dial(shop.gone.ipv4, PORT).close()


def test_without_anybody_who_serves_nothing_is_redirected(shop: Shop):
    shop.system.sixfold("delete", "pod", "db-0", "--now")
    assert shop.client.attempt(shop.gone.ipv4, PORT) != "open"
    assert "redirected" not in shop.flow("client")["sixfold"]
