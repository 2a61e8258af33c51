"""The way out, tried: a world behind the host, and another one that must not be reached by it."""

import os
import socket
import subprocess
import uuid
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from sixfold.host import netlink_nft as nft
from sixfold.host import netlink_route as rt
from sixfold.host import netns
from sixfold.host.nat import Masquerade
from sixfold.host.netlink import NETLINK_NETFILTER, Netlink
from sixfold.host.network import HostNetwork
from sixfold.host.paths import NETNS_ROOT, Paths
from sixfold.model.config import Config

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

POD = ip_address("10.244.0.2"), ip_address("fd00:5f:244::2")
UPLINK = {"east": ("192.0.2.1", "2001:db8:1::1"), "west": ("198.51.100.1", "2001:db8:2::1")}
WORLD = {"east": ("192.0.2.9", "2001:db8:1::9"), "west": ("198.51.100.9", "2001:db8:2::9")}
PREFIX = (24, 64)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path / "run"))
    return Paths(f"t4-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def worlds(paths):
    """A host (the test's thread is in it) between two worlds, which use it as their router."""
    made = {name: NETNS_ROOT / f"{paths.instance}-{name}" for name in ("host", "east", "west")}
    with ExitStack() as stack:
        for path in made.values():
            netns.create(path, lambda: None)
            stack.callback(netns.delete, path)
        stack.enter_context(netns.inside(made["host"]))
        ip("link", "set", "lo", "up")
        # A router asks for neighbours from its link-local address: at once, please.
        Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        for name in ("east", "west"):
            ip("link", "add", name, "type", "veth", "peer", "name", "up0",
               "netns", made[name].name)  # fmt: skip
            ip("link", "set", name, "up")
            for family, length in enumerate(PREFIX):
                address = f"{UPLINK[name][family]}/{length}"
                ip("addr", "add", address, "dev", name, *(["nodad"] * family))
            netns.run_inside(made[name], lambda name=name: _world(name))
        yield made


def _world(name):
    ip("link", "set", "lo", "up")
    ip("link", "set", "up0", "up")
    for family, length in enumerate(PREFIX):
        address = f"{WORLD[name][family]}/{length}"
        ip("addr", "add", address, "dev", "up0", *(["nodad"] * family))
        ip(f"-{'46'[family]}", "route", "add", "default", "via", UPLINK[name][family])


@pytest.fixture
def network(worlds, paths):
    network = HostNetwork(Config(instance=paths.instance), paths)
    network.setup()
    yield network
    network.teardown()
    network.close()


@pytest.fixture
def pod(network):
    pod = network.attach("shop/client", *POD)
    network.activate(pod.ifindex)
    return pod


def source_seen(address, server_path, client_path, timeout_s=4.0):
    """Who the server at the address thinks is calling."""
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    server = netns.run_inside(
        server_path, lambda: socket.create_server((address, 8080), family=family)
    )
    with server:
        client = netns.run_inside(
            client_path, lambda: socket.create_connection((address, 8080), timeout=timeout_s)
        )
        connection, (source, *_) = server.accept()
        connection.close()
        client.close()
        return source


both_families = pytest.mark.parametrize(
    "family", [pytest.param(0, id="IPv4"), pytest.param(1, id="IPv6")]
)


@both_families
def test_world_sees_the_host_instead_of_the_pod(worlds, pod, family):
    for name in ("east", "west"):
        seen = source_seen(WORLD[name][family], worlds[name], pod.netns)
        assert seen == UPLINK[name][family]


@both_families
def test_pods_see_each_other_as_they_are(worlds, network, pod, family):
    web = network.attach("shop/web", POD[0] + 1, POD[1] + 1)
    network.activate(web.ifindex)
    assert source_seen(str(web.addresses[family]), web.netns, pod.netns) == str(POD[family])


@both_families
def test_host_that_did_not_forward_does_not_become_a_router(worlds, network, family):
    with pytest.raises(TimeoutError):
        source_seen(WORLD["west"][family], worlds["west"], worlds["east"], timeout_s=1.5)


@both_families
def test_host_that_was_a_router_still_is(worlds, paths, family):
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        Path("/proc/sys", key).write_text("1")
    network = HostNetwork(Config(instance=paths.instance), paths)
    network.setup()
    seen = source_seen(WORLD["west"][family], worlds["west"], worlds["east"])
    network.teardown()
    network.close()
    assert seen == WORLD["east"][family]


def test_successor_still_knows_that_the_host_was_no_router(worlds, network, paths):
    """By then forwarding is on, and it was us."""
    successor = HostNetwork(Config(instance=paths.instance), paths)
    assert successor.setup() == []
    successor.close()
    with pytest.raises(TimeoutError):
        source_seen(WORLD["west"][0], worlds["west"], worlds["east"], timeout_s=1.5)


@pytest.fixture
def netfilter(worlds):
    with Netlink(NETLINK_NETFILTER) as netlink:
        yield netlink


def test_table_that_somebody_flushed_is_restored(worlds, network, pod, netfilter, paths):
    before = nft.comments(netfilter, paths.instance)
    nft.transaction(netfilter, [nft.delete_table(paths.instance)])
    assert network.repair() == [f"nft table inet {paths.instance}"]
    assert nft.comments(netfilter, paths.instance) == before
    assert source_seen(WORLD["east"][0], worlds["east"], pod.netns) == UPLINK["east"][0]


def test_rule_that_somebody_added_to_our_table_is_removed(network, netfilter, paths):
    table = paths.instance
    nft.transaction(netfilter, [nft.add_rule(table, "forward", "foreign", nft.drop())])
    assert network.repair() == [f"nft table inet {table}"]
    assert "foreign" not in str(nft.comments(netfilter, table))


def test_tables_of_others_are_left_alone(worlds, paths, netfilter):
    theirs = [
        nft.add_table("theirs"),
        nft.add_chain("theirs", "out", "nat", nft.POSTROUTING, nft.PRIORITY_SRCNAT),
        nft.add_rule("theirs", "out", "keep me", nft.masquerade()),
    ]
    nft.transaction(netfilter, theirs)
    masquerade = Masquerade(Config(instance=paths.instance))
    masquerade.setup([])
    masquerade.remove()
    masquerade.close()
    assert nft.comments(netfilter, "theirs") == [("out", "keep me")]
    assert nft.comments(netfilter, paths.instance) == []


def test_links_of_the_host_network_are_in_its_group(network, pod):
    with Netlink() as netlink:
        groups = {link.name: link.group for link in rt.dump_links(netlink)}
    assert groups[pod.device] == groups["sixfold0"] == rt.GROUP
    assert groups["east"] == 0
