"""Real namespaces behind a namespace that plays the host; nothing touches the machine's own."""

import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from sixfold.errors import HostError
from sixfold.host import netlink_route as rt
from sixfold.host import netns
from sixfold.host.netlink import Netlink
from sixfold.host.network import HostNetwork
from sixfold.host.paths import NETNS_ROOT, Paths
from sixfold.model.config import Config

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

WEB = ip_address("10.244.0.2"), ip_address("fd00:5f:244::2")
CLIENT = ip_address("10.244.0.3"), ip_address("fd00:5f:244::3")
SOON_S = 0.8  # below the second after which TCP sends a lost SYN again


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path / "run"))
    return Paths(f"t4-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def host(paths):
    """The test's thread is in a namespace of its own: the host of this test."""
    path = NETNS_ROOT / f"{paths.instance}-host"
    netns.create(path, lambda: None)
    try:
        with netns.inside(path), Netlink() as netlink:
            netlink.batch([rt.link_up(1)])
            yield netlink
    finally:
        netns.delete(path)
        for left in NETNS_ROOT.glob(f"{paths.instance}*"):
            netns.delete(left)


@pytest.fixture
def config(paths):
    return Config(instance=paths.instance)


@pytest.fixture
def network(host, config, paths):
    network = HostNetwork(config, paths)
    network.setup()
    yield network
    network.teardown()
    network.close()


def start(network, name, addresses):
    attachment = network.attach(name, *addresses)
    network.activate(attachment.ifindex)
    return attachment


def listen(address, path=None, port=8080):
    """A listening socket, in the pod's namespace or on the host."""

    def make():
        family = socket.AF_INET6 if ip_address(str(address)).version == 6 else socket.AF_INET
        return socket.create_server((str(address), port), family=family)

    return netns.run_inside(path, make) if path else make()


def dial(address, path=None, port=8080, timeout_s=SOON_S):
    """A connection from the pod, or from the host; raises soon when it does not come about."""

    def make():
        return socket.create_connection((str(address), port), timeout=timeout_s)

    return netns.run_inside(path, make) if path else make()


def peer_seen(server, address, path=None):
    """Connect and return the source address that the server sees."""
    with server, dial(address, path):
        connection, (source, *_) = server.accept()
        connection.close()
        return source


def refusal(address, path=None):
    """Errno of a connect that the network refuses, 0 when it connects.

    Linux delivers an ICMPv6 error only to a socket that is not in a system call, and on one
    host the error comes back within connect(): the one for the second SYN, after 1 s, bites.
    """
    try:
        dial(address, path, timeout_s=3).close()
    except TimeoutError:
        raise AssertionError(f"{address} was not refused") from None
    except OSError as error:
        return error.errno
    return 0


def link_mtu(name):
    with Netlink() as netlink:
        return rt.get_link(netlink, name=name).mtu


def device_names(netlink):
    return {link.name for link in rt.dump_links(netlink)}


@pytest.mark.parametrize("family", [pytest.param(0, id="IPv4"), pytest.param(1, id="IPv6")])
class TestTraffic:
    def test_pod_reaches_pod_from_its_own_address(self, network, family):
        web = start(network, "shop/web", WEB)
        client = start(network, "shop/client", CLIENT)
        seen = peer_seen(listen(WEB[family], web.netns), WEB[family], client.netns)
        assert seen == str(CLIENT[family])

    def test_pods_know_the_host_by_one_address(self, network, config, family):
        web = start(network, "shop/web", WEB)
        seen = peer_seen(listen(WEB[family], web.netns), WEB[family])
        assert seen == str((config.host_ipv4, config.host_ipv6)[family])

    def test_pod_reaches_the_resolver_address(self, network, family):
        client = start(network, "shop/client", CLIENT)
        resolver = ("169.254.20.10", "fd00:5f::10")[family]
        assert peer_seen(listen(resolver), resolver, client.netns) == str(CLIENT[family])

    def test_first_packet_after_activation_is_not_lost(self, network, family):
        server = listen(("0.0.0.0", "::")[family])
        for number in range(10):
            pod = start(network, f"shop/p{number}", CLIENT)
            dial(("169.254.20.10", "fd00:5f::10")[family], pod.netns).close()
            network.detach(pod.name)
        server.close()

    def test_first_packet_to_a_pod_after_activation_is_not_lost(self, network, family):
        for number in range(10):
            pod = start(network, f"shop/p{number}", CLIENT)
            with pytest.raises(ConnectionRefusedError):
                dial(CLIENT[family])
            network.detach(pod.name)

    def test_pod_that_is_not_active_reaches_nothing(self, network, family):
        client = network.attach("shop/client", *CLIENT)
        with (
            listen(("169.254.20.10", "fd00:5f::10")[family]),
            pytest.raises(OSError, match=r"timed out|unreachable"),
        ):
            dial(("169.254.20.10", "fd00:5f::10")[family], client.netns).close()

    def test_addresses_that_nobody_has_are_unreachable_at_once(self, network, family):
        client = start(network, "shop/client", CLIENT)
        nobody = [("10.244.7.7", "fd00:5f:244::707"), ("10.96.7.7", "fd00:5f:96::707")]
        for pair in nobody:
            assert refusal(pair[family]) == errno.EHOSTUNREACH
            from_pod = refusal(pair[family], client.netns)
            assert from_pod == (errno.EHOSTUNREACH, errno.ENETUNREACH)[family]


def test_single_family_pod_has_only_that_family(network):
    start(network, "shop/four", (WEB[0], None))
    start(network, "shop/six", (None, CLIENT[1]))
    observed = network.observe()
    assert observed["shop/four"].addresses == (WEB[0],)
    assert observed["shop/six"].addresses == (CLIENT[1],)


def test_second_setup_finds_nothing_to_do(network):
    start(network, "shop/web", WEB)
    assert network.setup() == []
    assert network.repair() == []


def test_successor_observes_what_was_attached(network, config, paths):
    web = start(network, "shop/web.with.dots", WEB)
    successor = HostNetwork(config, paths)
    assert successor.setup() == []
    assert successor.observe() == {"shop/web.with.dots": web}
    assert web.cookie == netns.run_inside(web.netns, netns.cookie) != 0
    successor.close()


def test_pod_is_shown_by_ip_netns(network):
    web = start(network, "shop/web", WEB)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert web.netns.name in listed.stdout


def test_attachment_that_was_never_activated_is_removed_by_the_successor(
    network, host, config, paths
):
    half = network.attach("shop/half", *WEB)
    successor = HostNetwork(config, paths)
    done = successor.setup()
    assert f"half-made link {half.device} removed" in done
    assert not half.netns.exists()
    successor.close()
    assert half.device not in device_names(host)


def test_file_that_is_no_namespace_is_removed_by_setup(network, paths):
    leftover = paths.netns("shop/half")
    leftover.touch()
    assert network.setup() == [f"half-made namespace {leftover.name} removed"]
    assert not leftover.exists()


def test_names_of_other_instances_are_left_alone(network, paths):
    other = Paths(paths.instance + "x")
    netns.create(other.netns("shop/web"), lambda: None)
    network.setup()
    network.teardown()
    assert netns.exists(other.netns("shop/web"))
    netns.delete(other.netns("shop/web"))


def test_detached_name_is_free_at_once(network, host):
    for _ in range(5):
        web = start(network, "shop/web", WEB)
        network.detach("shop/web")
        assert network.observe() == {}
        assert not web.netns.exists()
        assert not any(route["pod"] for route in network.routes())
    deadline = time.monotonic() + 60
    while web.device in device_names(host):  # deleted in the background
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_detach_of_nothing_is_fine(network):
    network.detach("shop/never-was")


def test_a_pods_mtu_is_that_of_the_way_out_unless_told(host, config, paths):
    def mtus(pod):
        inside = netns.run_inside(pod.netns, lambda: link_mtu("eth0"))
        return link_mtu(pod.device), inside

    for line in (
        "link add up0 mtu 1400 type veth peer name up1",
        "link set up0 up",
        "addr add 192.0.2.1/24 dev up0",
        "route add default via 192.0.2.9",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    network = HostNetwork(config, paths)
    network.setup()
    assert mtus(start(network, "shop/web", WEB)) == (1400, 1400)
    subprocess.run(["ip", "link", "set", "up0", "mtu", "1300"], check=True)
    network.repair()
    assert mtus(start(network, "shop/client", CLIENT)) == (1300, 1300)
    network.teardown()
    network.close()
    network = HostNetwork(replace(config, mtu=1450), paths)
    network.setup()
    assert mtus(start(network, "shop/web", WEB)) == (1450, 1450)
    network.teardown()
    network.close()


def test_failed_attach_leaves_nothing(host, config, paths):
    network = HostNetwork(replace(config, mtu=70_000), paths)
    with pytest.raises(HostError, match=r"link add sf[0-9a-f]* type veth: E"):
        network.attach("shop/web", *WEB)
    assert not paths.netns("shop/web").exists()
    assert device_names(host) == {"lo"}
    network.close()


def test_name_too_long_for_a_file_is_refused(network):
    with pytest.raises(HostError, match="shorten the pod's name"):
        network.attach("shop/" + "a" * 250, *WEB)


def test_teardown_leaves_the_host_as_it_was(host, config, paths):
    def state():
        return (
            device_names(host),
            rt.dump_routes(host),
            rt.dump_addresses(host),
            {key: Path("/proc/sys", key).read_text() for key in keys},
        )

    keys = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
    before = state()
    network = HostNetwork(config, paths)
    network.setup()
    start(network, "shop/web", WEB)
    network.attach("shop/half", *CLIENT)
    assert state() != before
    network.teardown()
    network.close()
    assert state() == before
    assert list(NETNS_ROOT.glob(f"{paths.instance}.*")) == []
    assert list(paths.run.iterdir()) == []


def test_pool_over_a_network_of_the_host_is_refused(host, config, paths):
    for command in ("link add up0 type veth", "link set up0 up", "route add 10.244.9.0/24 dev up0"):
        subprocess.run(["ip", *command.split()], check=True)
    network = HostNetwork(config, paths)
    overlap = r"pool 10\.244\.0\.0/16: overlaps route 10\.244\.9\.0/24 dev up0"
    with pytest.raises(HostError, match=overlap):
        network.setup()
    network.close()
    assert device_names(host) == {"lo", "up0", "veth0"}


@pytest.mark.parametrize(
    ("breakage", "repair"),
    [
        pytest.param("ip route del 10.244.0.2", "host side of pod shop/web", id="route"),
        pytest.param(
            "ip route replace 10.244.0.2 dev {device}", "host side of pod shop/web", id="source"
        ),
        pytest.param("ip -6 route del fd00:5f:244::2", "host side of pod shop/web", id="route6"),
        pytest.param(
            "ip neigh del 10.244.0.2 dev {device}", "host side of pod shop/web", id="neighbour"
        ),
        pytest.param("ip link set {device} down", "host side of pod shop/web", id="link-down"),
        pytest.param("ip link del sixfold0", "link sixfold0", id="device"),
        pytest.param("ip addr del 169.254.20.10/32 dev sixfold0", "address", id="address"),
        pytest.param("ip route del unreachable 10.244.0.0/16", "unreachable", id="pool"),
        pytest.param("sh -c 'echo 0 > /proc/sys/net/ipv4/ip_forward'", "sysctl", id="forwarding"),
    ],
)
def test_what_somebody_else_broke_is_repaired(network, breakage, repair):
    web = start(network, "shop/web", WEB)
    subprocess.run(shlex.split(breakage.format(device=web.device)), check=True)
    assert repair in " ".join(network.repair())
    assert network.repair() == []
    for address in WEB:
        peer_seen(listen(address, web.netns), address)


def test_pod_whose_link_was_deleted_is_reported_as_broken(network):
    web = start(network, "shop/web", WEB)
    start(network, "shop/client", CLIENT)
    network.repair()
    assert network.broken == frozenset()
    subprocess.run(["ip", "link", "del", web.device], check=True)
    network.repair()
    assert network.broken == {"shop/web"}
    again = start(network, "shop/web", WEB)
    assert again.netns == web.netns
    network.repair()
    assert network.broken == frozenset()


@pytest.mark.parametrize("family", [pytest.param(0, id="IPv4"), pytest.param(1, id="IPv6")])
def test_host_that_has_ipv6_switched_off_still_serves_its_pods(host, config, paths, family):
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    network = HostNetwork(config, paths)
    network.setup()
    web, client = start(network, "shop/web", WEB), start(network, "shop/client", CLIENT)
    seen = peer_seen(listen(WEB[family], web.netns), WEB[family], client.netns)
    network.teardown()
    network.close()
    assert seen == str(CLIENT[family])
    assert Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text() == "1\n"


def test_second_instance_in_one_namespace_is_refused_and_harms_nothing(
    network, config, tmp_path, monkeypatch
):
    web = start(network, "shop/web", WEB)
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path / "other"))
    other = HostNetwork(replace(config, instance="t4-other"), Paths("t4-other"))
    with pytest.raises(HostError, match=f"instance {config.instance} runs in it"):
        other.setup()
    other.teardown()
    other.close()
    assert network.observe() == {"shop/web": web}
    assert network.repair() == []


def test_routes_are_shown_in_the_words_of_ip_route(network):
    web = start(network, "shop/web", WEB)
    rows = network.routes()
    assert {
        "type": "unicast", "dst": "10.244.0.2/32", "dev": web.device, "via": "",
        "src": "10.244.0.1", "scope": "link", "proto": "95", "pod": "shop/web",
    } in rows  # fmt: skip
    assert [row["dst"] for row in rows if row["type"] == "unreachable"] == [
        "10.96.0.0/16", "10.244.0.0/16", "fd00:5f:96::/112", "fd00:5f:244::/64",
    ]  # fmt: skip


FOREVER = """
import itertools, sys
from ipaddress import ip_address
from sixfold.host.network import HostNetwork
from sixfold.host.paths import Paths
from sixfold.model.config import Config

network = HostNetwork(Config(instance=sys.argv[1]), Paths(sys.argv[1]))
network.setup()
print("ready", flush=True)
for number in itertools.count():
    name, offset = f"shop/p{number % 5}", number % 5
    pod = network.attach(
        name, ip_address("10.244.0.2") + offset, ip_address("fd00:5f:244::2") + offset
    )
    network.activate(pod.ifindex)
    if number % 3 == 0:
        network.detach(name)
"""


def test_agent_killed_at_any_moment_leaves_whole_attachments_or_none(host, config, paths):
    for round_number in range(8):
        agent = subprocess.Popen(
            [sys.executable, "-c", FOREVER, paths.instance], stdout=subprocess.PIPE
        )
        assert agent.stdout.readline() == b"ready\n"
        time.sleep(0.013 * (round_number + 1))
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        agent.stdout.close()

        successor = HostNetwork(config, paths)
        successor.setup()
        assert successor.setup() == []
        pods = successor.observe()
        for pod in pods.values():
            for address in pod.addresses:
                peer_seen(listen(address, pod.netns), address)
        names = {path.name for path in NETNS_ROOT.glob(f"{paths.instance}.*")}
        assert names == {pod.netns.name for pod in pods.values()}
        successor.close()
        ours = {name for name in device_names(host) if name.startswith("sf")}
        assert ours == {pod.device for pod in pods.values()}
    last = HostNetwork(config, paths)
    last.teardown()
    last.close()
    with suppress(FileNotFoundError):
        assert list(paths.run.iterdir()) == []
