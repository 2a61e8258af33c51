"""Addresses, and the listings that show where they lead: true to the kernel, whoever dies."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from typing import Any

import pytest

from .conftest import CommandError, System
from .places import labelled, manifest, places_of, pod, policy, service

pytestmark = pytest.mark.root

NAMES = ("web-1", "web-2", "client", "idle-1", "idle-2")
ONLY_CLIENT = {"ingress": [{"from": [labelled(app="client")], "ports": [{"port": 8080}]}]}
TO_WEB = {
    "policyTypes": ["Egress"],
    "egress": [{"to": [labelled(app="web")], "ports": [{"port": 8080}]}],
}


@pytest.fixture(scope="module")
def block(module_system: System) -> System:
    """Five pods in a block of eight addresses: network, host and broadcast are taken."""
    web = {"labels": {"app": "web"}}
    module_system.up(
        *("--pod-cidr", "10.99.0.0/29"),
        manifest=manifest(
            *(pod(name, **(web if name.startswith("web") else {})) for name in NAMES),
            service("web", ports=[{"port": 80, "targetPort": 8080}]),
            policy("web", {"app": "web"}, **ONLY_CLIENT),
            policy("client", {"app": "client"}, **TO_WEB),
        ),
    )
    return module_system


def addresses(system: System) -> dict[str, list[str]]:
    return {name: status["ips"] for name, status in system.endpoints().items()}


def rows(system: System, *arguments: str) -> list[dict[str, Any]]:
    return system.json("bpf", arguments[0], "list", *arguments[1:])


def test_every_pod_has_two_addresses_and_no_two_pods_share_one(block: System):
    found = addresses(block)
    assert len({address for pair in found.values() for address in pair}) == 10
    assert {pair[0] for pair in found.values()} == {f"10.99.0.{number}" for number in range(2, 7)}


def test_listed_endpoints_are_links_and_programs_of_the_kernel(block: System):
    links = {link["ifindex"]: link for link in json.loads(block.on_host("ip", "-j", "link").stdout)}
    loaded = {row["pod"]: row for row in rows(block, "endpoint")}
    for name, status in block.endpoints().items():
        assert links[status["ifindex"]]["operstate"] == "UP"
        inside = json.loads(
            block.run_in(status["netns"], "ip", "-j", "addr", "show", "eth0").stdout
        )
        has = {item["local"] for item in inside[0]["addr_info"] if item["scope"] == "global"}
        assert has == set(status["ips"])
        assert inside[0]["link_index"] == status["ifindex"]
        row = loaded.pop(name)
        assert [row["ipv4"], row["ipv6"]] == status["ips"]
        assert row["ifindex"] == status["ifindex"]
        assert row["identity"].split()[0] == str(status["identity"])
    assert loaded == {}


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_listed_routes_are_those_of_the_kernel(block: System, family: str):
    command = ["ip", "-j", "-d", family, "route", "show", "proto", "95"]
    kernel = {
        (
            item["type"],
            item["dst"].partition("/")[0],
            item["dev"] if item["type"] == "unicast" else "",
        )
        for item in json.loads(block.on_host(*command).stdout)
    }
    listed = {
        (item["type"], item["dst"].partition("/")[0], item["dev"])
        for item in block.json("route", "show")["routes"]
        if (":" in item["dst"]) is (family == "-6")
    }
    assert listed == kernel
    assert len(listed) == 2 + len(NAMES)


def test_listed_identities_cover_the_host_the_resolver_and_the_world(block: System):
    known = {row["prefix"]: row["identity"] for row in rows(block, "ipcache")}
    assert known["0.0.0.0/0"] == known["::/0"] == "world"
    assert known["10.99.0.1/32"] == known["fd00:5f:244::1/128"] == "host"
    assert known["169.254.20.10/32"] == known["fd00:5f::10/128"] == "resolver"


def test_a_listed_policy_names_peer_port_and_rule(block: System):
    listed = rows(block, "policy", "--pod", "default/web-1")
    (client,) = places_of(block, "client")
    allowed = [row for row in listed if row["action"] == "allow" and row["direction"] == "ingress"]
    assert [(row["protocol"], row["port"], row["rule"]) for row in allowed] == [
        ("TCP", "8080", "default/web ingress[0]")
    ]
    assert allowed[0]["peer"].split()[0] == str(client.identity)
    defaults = {row["direction"]: row["rule"] for row in listed if row["peer"] == "any other"}
    assert "default/web" in defaults["ingress"]
    assert "zero-trust" in defaults["egress"]


def test_a_listed_connection_is_the_one_that_is_open(block: System):
    client, *webs = places_of(block, "client", "web-1", "web-2")
    vip = block.json("get", "svc", "web")["spec"]["clusterIP"]
    balanced = {row["frontend"]: row["backends"] for row in rows(block, "lb")}
    assert set(balanced[f"{vip}:80"]) == {f"{place.ipv4}:8080" for place in webs}
    with ExitStack() as stack:
        for place in webs:
            stack.enter_context(place.listen())
        sock = stack.enter_context(client.dial(vip, 80))
        port = sock.getsockname()[1]
        found = [row for row in rows(block, "ct") if row["source"] == f"{client.ipv4}:{port}"]
    assert len(found) == 1
    assert found[0]["destination"] in balanced[f"{vip}:80"]
    assert found[0]["service"] == "default/web:80"
    assert found[0]["egress_rule"] == "default/client egress[0]"
    assert found[0]["ingress_rule"] == "default/web ingress[0]"
    assert found[0]["packets"].split("/")[0] == "2"  # SYN, ACK


def test_an_exhausted_pool_is_said_and_disturbs_nobody(block: System):
    before = addresses(block)
    block.apply(manifest(pod("late")))
    block.eventually(lambda: "NetworkError" in str(block.status()["pods"]["unsettled"]))
    with pytest.raises(CommandError, match=r"pod default/late: NetworkError"):
        block.apply(manifest(pod("late")), "--wait", "--timeout", "1")
    status = block.json("get", "pod", "late")["status"]
    assert "all 5 addresses are in use" in status["message"]
    assert addresses(block) == before


def test_a_freed_address_rests_although_somebody_waits_for_it(block: System):
    freed = addresses(block)["default/idle-1"]
    block.sixfold("delete", "pod", "idle-1", "--wait")
    block.eventually(
        lambda: "until reuse is safe" in block.json("get", "pod", "late")["status"]["message"]
    )
    held = {address for pair in addresses(block).values() for address in pair}
    assert held.isdisjoint(freed)
    block.sixfold("delete", "pod", "late", "--wait")


def test_addresses_survive_the_agents_death_and_a_whole_restart(block: System):
    before = addresses(block)
    assert len(before) == 4
    os.kill(block.agent_pid(), signal.SIGKILL)
    block.up()
    assert addresses(block) == before
    block.sixfold("down", "--keep", "--timeout", "1")
    block.up()
    assert addresses(block) == before
    assert len(rows(block, "endpoint")) == 4
