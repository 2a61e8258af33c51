"""Which devices face the world, and the programs on them."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from sixfold.host import bpf, netns, uplinks
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import unpack_event
from sixfold.host.netlink_route import GROUP, Link, Route
from sixfold.host.programs import OBJECTS, UPLINK_PROGRAMS
from sixfold.model.datapath import ALLOW, INGRESS, Datapath, IpcacheEntry, PolicyEntry, PolicyTable
from sixfold.model.endpoint import HOST_ENDPOINT
from sixfold.model.identity import HOST, WORLD


def link(index: int, name: str, group: int = 0) -> Link:
    return Link(index, name, "", "", "", 1500, up=True, running=True, group=group)


LINKS = [link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "wg0"), link(5, "sf1", GROUP)]
DEFAULT = Route(ip_network("0.0.0.0/0"), "unicast", 2, None, None, 0, 3)


def found(
    *addresses: tuple[int, str], routes: tuple[Route, ...] = (), wanted: tuple[str, ...] = ()
):
    given = [(index, ip_address(text), 24) for index, text in addresses]
    return list(uplinks.find(LINKS, given, routes, wanted))


def test_a_device_with_a_default_route_is_an_uplink():
    assert found(routes=(DEFAULT,)) == ["eth0"]


def test_a_device_with_an_address_that_others_can_reach_is_an_uplink():
    assert found((3, "192.0.2.1"), (4, "fd00::1")) == ["eth1", "wg0"]


def test_link_local_addresses_loopback_and_our_own_devices_make_no_uplink():
    assert found((3, "fe80::1"), (4, "169.254.3.3"), (1, "198.51.100.1"), (5, "10.244.0.1")) == []


def test_named_devices_are_the_uplinks_and_no_others():
    assert found((4, "192.0.2.1"), routes=(DEFAULT,), wanted=("eth+", "tun0")) == ["eth0", "eth1"]
    assert found(wanted=("eth",)) == []
    assert found(wanted=("lo", "sf+")) == []


@pytest.fixture(scope="module")
def instance() -> Iterator[str]:
    """In a namespace of its own; what is loaded once is adopted by the next test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not OBJECTS.joinpath("uplink.bpf.o").exists():
        pytest.skip("datapath not built")
    made = f"up{uuid.uuid4().hex[:8]}"
    path = Path(f"/run/netns/{made}")
    netns.create(path, lambda: None)
    try:
        yield made
    finally:
        KernelDatapath.remove(made)
        netns.delete(path)


@pytest.fixture
def datapath(instance: str) -> Iterator[tuple[Callable[[], KernelDatapath], int, int]]:
    """With two devices; the function opens the instance, in place of who had it."""
    opened: list[KernelDatapath] = []

    def open_() -> KernelDatapath:
        if opened:
            opened.pop().close()
        opened.append(KernelDatapath.open(instance))
        return opened[-1]

    path = Path(f"/run/netns/{instance}")
    run(path, "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    indices = [int(run(path, "-o", "link", "show", it).split(":")[0]) for it in ("up0", "up1")]
    yield (lambda: netns.run_inside(path, open_)), indices[0], indices[1]
    for each in opened:
        netns.run_inside(path, lambda each=each: each.keep_uplinks({}))
        each.close()
    if "up0" in run(path, "-o", "link"):
        run(path, "link", "del", "up0")


def run(path: Path, *arguments: str) -> str:
    argv = ["nsenter", f"--net={path}", "ip", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def running(datapath: KernelDatapath, ifindex: int) -> list[str]:
    """Programs of ours that really run there, as the kernel says."""
    names = []
    for name in UPLINK_PROGRAMS:
        path = datapath.root / "links" / f"{name}_{ifindex}"
        if not path.exists():
            continue
        fd = bpf.get(path)
        seen = bpf.link_info(fd, cgroup=False)
        os.close(fd)
        if seen.target == ifindex and seen.program_id == bpf.program_id(datapath.programs[name]):
            names.append(name)
    return names


@pytest.mark.root
def test_programs_follow_the_uplinks(datapath):
    open_, up0, up1 = datapath
    mine = open_()
    inside = Path(f"/run/netns/{mine.root.name}")

    def keep(*indices: int) -> list[str]:
        return netns.run_inside(inside, lambda: mine.keep_uplinks(dict.fromkeys(indices, True)))

    assert keep(up0) == [f"from_uplink_{up0}", f"to_uplink_{up0}"]
    assert (running(mine, up0), running(mine, up1)) == (list(UPLINK_PROGRAMS), [])
    assert keep(up0) == []
    keep(up1)
    assert (running(mine, up0), running(mine, up1)) == ([], list(UPLINK_PROGRAMS))
    run(inside, "link", "del", "up1")
    assert keep() == []
    assert list((mine.root / "links").glob("*_uplink_*")) == []
    assert keep(up1) == []  # just gone


@pytest.mark.root
def test_the_next_agent_adopts_what_a_killed_one_left(datapath):
    open_, up0, _ = datapath
    first = open_()
    inside = Path(f"/run/netns/{first.root.name}")
    netns.run_inside(inside, lambda: first.keep_uplinks({up0: True}))
    second = open_()
    assert netns.run_inside(inside, lambda: second.keep_uplinks({up0: True})) == []
    assert running(second, up0) == list(UPLINK_PROGRAMS)


@pytest.mark.root
def test_what_somebody_detached_is_attached_again(datapath):
    open_, up0, _ = datapath
    mine = open_()
    inside = Path(f"/run/netns/{mine.root.name}")
    netns.run_inside(inside, lambda: mine.keep_uplinks({up0: True}))
    fd = bpf.get(mine.root / "links" / f"to_uplink_{up0}")
    bpf.link_detach(fd)
    os.close(fd)
    assert netns.run_inside(inside, lambda: mine.keep_uplinks({up0: True})) == [f"to_uplink_{up0}"]
    assert running(mine, up0) == list(UPLINK_PROGRAMS)


@pytest.mark.root
def test_a_tunnel_without_ethernet_is_judged_alike(datapath):
    """Packets written into a TUN device: a denied one is told, an allowed one is answered."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    open_, _, _ = datapath
    mine = open_()
    inside = Path(f"/run/netns/{mine.root.name}")
    tun = netns.run_inside(inside, make_tun)
    try:
        run(inside, "addr", "add", f"{HERE}/24", "dev", "tun0")
        run(inside, "link", "set", "tun0", "up")
        index = int(run(inside, "-o", "link", "show", "tun0").split(":")[0])
        netns.run_inside(inside, lambda: mine.keep_uplinks({index: False}))
        ssh = PolicyEntry(INGRESS, WORLD, 6, 22, 16, ALLOW, 31)
        state = Datapath(
            ipcache={ip_network(HERE): IpcacheEntry(HOST)},
            policies={HOST_ENDPOINT: PolicyTable.of([ssh], 10, 11)},
        )
        netns.run_inside(inside, lambda: mine.apply(state))
        for port in (23, 22):
            os.write(tun, syn(port))
        answer = next(one for one in iter(lambda: read(tun), b"") if one[9] == 6)
        assert (answer[12:16], answer[20:22]) == (HERE.packed, (22).to_bytes(2, "big"))
        records, _ = mine.events.drain()
        events = [unpack_event(record) for record in records]
        told = {one.destination_port: (one.type, one.source) for one in events if one.protocol == 6}
        assert told == {23: (2, THERE), 22: (1, THERE)}
    finally:
        os.close(tun)


HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.9")


def make_tun() -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    # TUNSETIFF: IFF_TUN, IFF_NO_PI
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
    return descriptor


def read(tun: int) -> bytes:
    """The next packet; none is an error."""
    assert select.select([tun], [], [], 5)[0], "no answer in 5 s"
    return os.read(tun, 2048)


def syn(port: int) -> bytes:
    segment = struct.pack("!HHIIBBHHH", 1000, port, 0, 0, 0x50, 2, 1024, 0, 0)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + THERE.packed + HERE.packed
    pseudo = THERE.packed + HERE.packed + struct.pack("!HH", 6, len(segment))
    total = checksum(pseudo + segment)
    segment = segment[:16] + struct.pack("!H", total) + segment[18:]
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + segment


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
