"""Somebody breaks what is in force: it is put right, said in the status, and no door opens.

One denied client knocks all the time, from before the damage until after the repair.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sixfold.host import bpf, netlink_nft, netns
from sixfold.host.netlink import NETLINK_NETFILTER, Netlink

from .conftest import System
from .places import labelled, manifest, place_of, pod, policy, service

pytestmark = pytest.mark.root

LISTEN = ["python3", "-m", "http.server", "8080", "--bind", "::"]
SHOP = manifest(
    pod("web", container={"command": LISTEN, "ports": [{"containerPort": 8080}]}),
    pod("friend"),
    pod("stranger"),
    service("web", ports=[{"port": 80, "targetPort": 8080}]),
    policy("web", {"app": "web"}, ingress=[{"from": [labelled(app="friend")]}]),
    policy(*("out", {}), policyTypes=["Egress"], egress=[{"to": [labelled(app="web")]}]),
)


@pytest.fixture(scope="module")
def shop(module_system: System) -> System:
    module_system.up(manifest=SHOP)
    return module_system


@contextmanager
def knocking(system: System) -> Iterator[None]:
    """The stranger tries all the time; nobody may ever answer."""
    stranger, web = place_of(system, "default/stranger"), place_of(system, "default/web")
    answers: list[str] = []
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            answers.append(stranger.attempt(web.ipv4, timeout_s=0.05))

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert set(answers) <= {"timeout"}, set(answers)
    assert answers


def friend_reaches_web(system: System) -> bool:
    """By the service's address, from the pod itself: all of the stack is needed for it."""
    vip = system.json("get", "service", "web")["spec"]["clusterIP"]
    fetch = f"exec 3<>/dev/tcp/{vip}/80 && echo open"
    done = system.sixfold("exec", "friend", "--", "timeout", "2", "bash", "-c", fetch, check=False)
    return done.stdout == "open\n"


def pinned(system: System, *names: str) -> None:
    for name in names:
        for path in (system.paths.bpffs / "links").glob(name):
            path.unlink()


def detached(system: System) -> None:
    for path in (system.paths.bpffs / "links").glob("connect*"):
        link = bpf.get(path)
        bpf.link_detach(link)
        os.close(link)


def without(name: str) -> Callable[[System], None]:
    def delete(system: System) -> None:
        found = bpf.Map(bpf.get(system.paths.bpffs / "maps" / name), name)
        found.delete([key for key, _ in found.items()])
        found.close()

    return delete


def nft_flushed(system: System) -> None:
    def flush() -> None:
        with Netlink(NETLINK_NETFILTER) as netlink:
            table = netlink_nft.delete_table(system.paths.instance)
            netlink_nft.transaction(netlink, [table])

    netns.run_inside(system.host, flush)


def host_runs(*argv: str) -> Callable[[System], None]:
    def run(system: System) -> None:
        done = system.on_host(*argv)
        assert done.returncode == 0, done.stderr

    return run


def forwarding_off(system: System) -> None:
    knob = Path("/proc/sys/net/ipv4/ip_forward")
    netns.run_inside(system.host, lambda: knob.write_text("0"))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            {
                "links[from_endpoint_": lambda it: pinned(it, "*"),
                "nft table": nft_flushed,
                "sysctl net/ipv4/ip_forward": forwarding_off,
                "host side of pod default/web": host_runs("ip", "route", "flush", "proto", "95"),
            },
            id="pins-filters-settings-routes",
        ),
        pytest.param(
            {
                "links[connect4]: detached; attached again": detached,
                "policies[": without("policy"),
                "frontends[": without("frontends"),
            },
            id="hooks-policies-services",
        ),
        pytest.param(
            {
                "policies[": without("policy_tables"),
                "ipcache[": without("ipcache"),
                "endpoints[": without("endpoints"),
            },
            id="tables-ipcache-endpoints",
        ),
    ],
)
def test_what_somebody_broke_is_put_right_and_said(
    shop: System, damage: dict[str, Callable[[System], None]]
) -> None:
    before = len(shop.agent_log())
    with knocking(shop):
        for breaks in damage.values():
            breaks(shop)
        for said in damage:
            shop.eventually(lambda said=said: f"repair: {said}" in shop.agent_log()[before:], said)
        shop.eventually(lambda: friend_reaches_web(shop), "the friend reaches web")
    assert shop.status()["agent"]["repairs"]


def test_pods_that_lost_their_network_are_made_anew_and_their_clients_told(shop: System) -> None:
    before = shop.endpoints()
    links = shop.on_host("ip", "-o", "link").stdout.splitlines()
    (device,) = [line.split()[1].split("@")[0] for line in links if "default/web" in line]
    with place_of(shop, "default/friend").dial(before["default/web"]["ips"][0], 8080) as client:
        shop.on_host("ip", "link", "delete", device)
        shop.on_host("ip", "netns", "delete", Path(before["default/stranger"]["netns"]).name)
        client.settimeout(shop.wait_s)
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)
    for name in ("web", "stranger"):
        said = f"pod default/{name}: its network is gone; started anew"
        shop.eventually(lambda said=said: said in shop.agent_log(), said)
    shop.eventually(lambda: shop.endpoints().keys() == before.keys(), "all are back")
    shop.eventually(lambda: friend_reaches_web(shop), "the friend reaches web again")
    for name, status in shop.endpoints().items():
        assert (status["ips"], status["identity"]) == (
            before[name]["ips"],
            before[name]["identity"],
        )


@pytest.mark.parametrize(("name", "victim"), [("web", "pid"), ("friend", "shim")])
def test_a_killed_workload_is_restarted_and_counted(shop: System, name: str, victim: str) -> None:
    """``pid`` and ``shim`` are files of the shim: its command's process, and its own."""

    def restarts() -> int:
        (status,) = shop.json("get", "pod", name)["status"]["containerStatuses"]
        return int(status["restartCount"]) if status["ready"] else -1

    before = restarts()
    uid = shop.json("get", "pod", name)["metadata"]["uid"]
    attempts = (shop.paths.run / "pods" / uid / "containers" / "main").glob("[0-9]*")
    last = max(attempts, key=lambda path: int(path.name))
    with knocking(shop):
        os.kill(int((last / victim).read_text().split()[0]), signal.SIGKILL)
        shop.eventually(lambda: restarts() > before, "restarted and ready")
    shop.eventually(lambda: friend_reaches_web(shop), "the friend reaches web again")


def test_a_killed_resolver_comes_back_with_its_names(shop: System) -> None:
    def answer() -> str:
        ask = ["dig", "+short", "+time=1", "+tries=1", "@169.254.20.10"]
        return shop.on_host(*ask, "web.default.svc.cluster.local").stdout.strip()

    vip = shop.json("get", "service", "web")["spec"]["clusterIP"]
    shop.eventually(lambda: answer() == vip, "the name")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if b"sixfold.serve.dns" in words and shop.paths.instance.encode() in words:
            os.kill(int(path.parent.name), signal.SIGKILL)
    shop.eventually(lambda: answer() == vip, "the name, from another resolver")


def test_status_and_log_stay_short_when_very_much_was_broken(shop: System) -> None:
    before = len(shop.agent_log())
    frontends = bpf.Map(bpf.get(shop.paths.bpffs / "maps" / "frontends"), "frontends")
    size = frontends.definition.key_size
    strange = ((b"\xfd" + n.to_bytes(15, "big")).ljust(size, b"\0") for n in range(5000))
    frontends.update((key, bytes(frontends.definition.value_size)) for key in strange)
    frontends.close()
    shop.eventually(lambda: "more" in shop.agent_log()[before:], "a short account")
    assert shop.agent_log()[before:].count("\n") < 50
    assert len(shop.status()["agent"]["repairs"]) <= 10
