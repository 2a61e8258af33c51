"""What does this host lack, and what to do about it?

Looks and changes nothing; the one trial runs in a throwaway namespace. Works without root,
and says which answers need it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sixfold.errors import HostError, SixfoldError
from sixfold.host import capabilities, netns, sysctl, uplinks
from sixfold.host import netlink_nft as nft
from sixfold.host import netlink_route as rt
from sixfold.host.nat import Masquerade
from sixfold.host.netlink import NETLINK_NETFILTER, Netlink, NetlinkError
from sixfold.host.node import (
    FORWARDING,
    HOST_DEVICE,
    overlaps,
    pod_mtu,
    unusable,
    ways_out,
)
from sixfold.host.paths import BPFFS_ROOT, NETNS_ROOT, Paths, cgroup_root
from sixfold.host.programs import ACCELERATION_FLOOR, kernel_version, tells_refusals
from sixfold.host.wall import Wall
from sixfold.model.config import HOST_MAC, POD_MAC, RESOLVER_IPV4, RESOLVER_IPV6, Config

State = Literal["ok", "warn", "fail"]

KERNEL_FLOOR = (6, 6)  # TCX links
BORN_S = 1_735_689_600  # 2025-01-01: no clock that is right shows an earlier time
TIME_ERROR = 5  # adjtimex(2): not synchronised


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``fix`` is what to do unless it is ok."""

    name: str
    state: State
    detail: str
    fix: str = ""


def examine(paths: Paths, config: Config | None = None) -> list[Check]:
    """All checks, in the order in which ``up`` would meet them."""
    config = config or Config(instance=paths.instance)
    checks: dict[str, Callable[[], Check]] = {
        "kernel": _kernel,
        "acceleration": _acceleration,
        "refusals": _refusals,
        "privileges": _privileges,
        "BTF": _btf,
        "libbpf": _libbpf,
        "bpffs": _bpffs,
        "cgroup v2": _cgroup,
        "namespaces, veth, nf_tables": _trial,
        "tc filters": _tc,
        "pools": lambda: _pools(config),
        "resolver address": _resolver,
        "IPv6": _ipv6,
        "forwarding": _forwarding,
        "other filters": _filters,
        "uplinks": lambda: _uplinks(config),
        "mtu": lambda: _mtu(config),
        "clock": _clock,
        "instance": lambda: _leftovers(paths),
    }
    return [_guarded(name, check) for name, check in checks.items()]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """A check that cannot look is a warning, not the end of the examination."""
    try:
        return check()
    except (SixfoldError, OSError) as error:
        return Check(name, "warn", f"cannot tell: {error}", "run as root to know")


def _kernel() -> Check:
    release = os.uname().release
    if kernel_version() >= KERNEL_FLOOR:
        return Check("kernel", "ok", release)
    floor = ".".join(map(str, KERNEL_FLOOR))
    return Check("kernel", "fail", release, f"needs Linux {floor} or newer; boot one")


def _acceleration() -> Check:
    if kernel_version() >= ACCELERATION_FLOOR:
        return Check("acceleration", "ok", "possible")
    floor = ".".join(map(str, ACCELERATION_FLOOR))
    fix = (
        f"needs Linux {floor} or newer; until then tunnels, and pods that ask for it, go by packets"
    )
    return Check("acceleration", "warn", "not on this kernel", fix)


def _refusals() -> Check:
    if tells_refusals():
        return Check("refusals", "ok", "refused system calls of pods are told")
    fix = "needs Linux 6.14 or newer; until then they are refused all the same, and told nowhere"
    return Check("refusals", "warn", "this kernel does not tell what it refuses to pods", fix)


def _privileges() -> Check:
    missing = capabilities.missing()
    if not missing:
        return Check("privileges", "ok", f"uid {os.geteuid()} with all capabilities it needs")
    return Check(
        "privileges",
        "fail",
        f"uid {os.geteuid()} lacks {', '.join(missing)}",
        "run as root (sudo sixfold up); offline commands (explain -f, verify) need none",
    )


def _btf() -> Check:
    path = Path("/sys/kernel/btf/vmlinux")
    if path.exists():
        return Check("BTF", "ok", str(path))
    return Check("BTF", "fail", f"no {path}", "needs a kernel with CONFIG_DEBUG_INFO_BTF=y")


def _libbpf() -> Check:
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        return Check("libbpf", "fail", "no libbpf.so.1", "apt-get install libbpf1")
    return Check("libbpf", "ok", "libbpf.so.1")


def _mounted(kind: str) -> list[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[2] == kind]


def _bpffs() -> Check:
    root = str(BPFFS_ROOT)
    if root in _mounted("bpf"):
        return Check("bpffs", "ok", root)
    fix = f"up mounts it; by hand: mount -t bpf bpf {root}"
    return Check("bpffs", "warn", f"not mounted on {root}", fix)


def _cgroup() -> Check:
    try:
        root = cgroup_root()
    except HostError as error:
        return Check("cgroup v2", "fail", str(error), "mount -t cgroup2 none /sys/fs/cgroup")
    if os.access(root, os.W_OK) or os.geteuid() != 0:
        return Check("cgroup v2", "ok", str(root))
    fix = "in a container: start it with a writable cgroup v2 (--cgroupns=host, rw)"
    return Check("cgroup v2", "fail", f"{root} is read-only", fix)


def _trial() -> Check:
    """Make, in a namespace that vanishes with its thread, what every pod needs."""
    name = "namespaces, veth, nf_tables"
    if capabilities.missing():
        return Check(name, "warn", "cannot tell without root", "run as root to know")
    try:
        netns.in_thread(_try_everything)
    except (SixfoldError, OSError) as error:
        fix = "needs CONFIG_NET_NS, VETH, NF_TABLES_INET, NFT_MASQ (modprobe veth nft_masq)"
        return Check(name, "fail", str(error), fix)
    return Check(name, "ok", "made and removed in a throwaway namespace")


def _tc() -> Check:
    name = "tc filters"
    if capabilities.missing():
        return Check(name, "warn", "cannot tell without root", "run as root to know")
    if netns.in_thread(_try_wall):
        return Check(name, "ok", "a pod that loses its programs is closed")
    fix = "modprobe cls_bpf; needs CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF"
    return Check(name, "warn", "a pod that loses its programs is open until repaired", fix)


def _try_wall() -> bool:
    netns.leave()
    wall = Wall()
    try:
        return wall.put_behind(1)  # lo
    finally:
        wall.close()


def _try_everything() -> None:
    netns.leave()
    with Netlink() as netlink:
        netlink.batch([rt.veth_add("trial0", HOST_MAC, "trial1", POD_MAC, mtu=1500)])
    masquerade = Masquerade(Config())
    try:
        masquerade.setup(["trial0"])
        masquerade.remove()
    finally:
        masquerade.close()


def _pools(config: Config) -> Check:
    pools = (config.pod_ipv4, config.service_ipv4, config.pod_ipv6, config.service_ipv6)
    with Netlink() as netlink:
        found = unusable(pools) + overlaps(rt.dump_links(netlink), rt.dump_routes(netlink), pools)
    if not found:
        return Check("pools", "ok", f"{', '.join(map(str, pools))} overlap no route of this host")
    what, _, fix = found[0].partition("; ")
    return Check("pools", "fail", what, fix)


def _resolver() -> Check:
    with Netlink() as netlink:
        names = {link.index: link.name for link in rt.dump_links(netlink)}
        taken = [
            f"{address} is on {names.get(index, index)}"
            for index, address, _ in rt.dump_addresses(netlink)
            if address in (RESOLVER_IPV4, RESOLVER_IPV6) and names.get(index) != HOST_DEVICE
        ]
    if not taken:
        return Check("resolver address", "ok", f"{RESOLVER_IPV4} and {RESOLVER_IPV6} are free")
    fix = "remove it from there (a node-local DNS cache uses the same address)"
    return Check("resolver address", "fail", taken[0], fix)


def _ipv6() -> Check:
    if (sysctl.ROOT / "net/ipv6").exists():
        return Check("IPv6", "ok", "in the kernel; a host that has it switched off may keep it off")
    return Check("IPv6", "fail", "not in this kernel", "boot without ipv6.disable=1")


def _forwarding() -> Check:
    off = [key for key in FORWARDING if sysctl.read(key) == "0"]
    if not off:
        return Check("forwarding", "ok", "on")
    if os.access(sysctl.ROOT / off[0], os.W_OK):
        return Check("forwarding", "ok", f"{', '.join(off)} is 0: up sets it, down restores it")
    if capabilities.missing():
        return Check("forwarding", "ok", f"{', '.join(off)} is 0: up, as root, sets it")
    fix = "set it outside: sysctl -w " + " ".join(f"{key.replace('/', '.')}=1" for key in off)
    return Check("forwarding", "fail", f"{', '.join(off)} is 0 and /proc/sys is read-only", fix)


def _filters() -> Check:
    """Others' filters: accepting in our table does not help where another one drops."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            dropping = nft.dropping_forward_chains(netlink)
        except NetlinkError as error:
            return Check("other filters", "warn", f"cannot tell: {error}", "run as root to know")
    if not dropping:
        return Check("other filters", "ok", "no nf_tables chain drops forwarded packets by default")
    family, table, chain = dropping[0]
    return Check(
        "other filters",
        "warn",
        f"nft chain {family} {table} {chain} drops by default: pods may not reach the world",
        f"nft insert rule {family} {table} {chain} meta iifgroup {rt.GROUP} accept; "
        f"nft insert rule {family} {table} {chain} meta oifgroup {rt.GROUP} accept",
    )


def _uplinks(config: Config) -> Check:
    """Where policy for the host itself is enforced."""
    with Netlink() as netlink:
        links, routes = rt.dump_links(netlink), rt.dump_routes(netlink)
        found = uplinks.find(links, rt.dump_addresses(netlink), routes, config.devices)
    if found:
        return Check("uplinks", "ok", ", ".join(sorted(found)))
    if config.devices:
        detail = f"no device here is named {' or '.join(config.devices)}"
        return Check("uplinks", "warn", detail, "sixfold up --devices NAME, see ip link")
    return Check("uplinks", "ok", "none: no device has an address or a default route")


def _mtu(config: Config) -> Check:
    with Netlink() as netlink:
        links, routes = rt.dump_links(netlink), rt.dump_routes(netlink)
    ways = ways_out(links, routes)
    if not config.mtu:
        mtu = pod_mtu(config, links, routes)
        return Check("mtu", "ok", f"pods get {mtu}, from {_names(ways)}")
    small = sorted((link.mtu, link.name) for link in ways if link.mtu < config.mtu)
    if not small:
        return Check("mtu", "ok", f"{config.mtu} fits {_names(ways)}")
    mtu, name = small[0]
    detail = f"pods have {config.mtu}, {name} has {mtu}: large packets need path MTU discovery"
    return Check("mtu", "warn", detail, f"sixfold up --mtu {mtu}")


def _names(links: set[rt.Link]) -> str:
    return ", ".join(sorted(link.name for link in links)) or "(no default route)"


def _clock() -> Check:
    if time.time() < BORN_S:
        fix = "set it: certificates are not valid yet (timedatectl set-ntp true)"
        return Check("clock", "fail", time.strftime("%F %T UTC", time.gmtime()), fix)
    timex = ctypes.create_string_buffer(256)  # modes 0: only look
    if ctypes.CDLL(None).adjtimex(timex) == TIME_ERROR:
        fix = "run a time service (chrony, systemd-timesyncd) once certificates matter"
        return Check("clock", "warn", "not synchronised", fix)
    return Check("clock", "ok", "synchronised")


def _leftovers(paths: Paths) -> Check:
    if _answers(paths.api_socket):
        return Check("instance", "ok", f"{paths.instance}: agent is running")
    left = list(_left(paths))
    if not left:
        return Check("instance", "ok", f"{paths.instance}: not running, nothing left behind")
    return Check(
        "instance",
        "warn",
        f"{paths.instance}: no agent answers, but there is {', '.join(left)}",
        "sixfold up adopts it, sixfold down removes it",
    )


def _left(paths: Paths) -> Iterator[str]:
    if paths.bpffs.exists():
        yield str(paths.bpffs)
    if count := len(list(NETNS_ROOT.glob(f"{paths.netns_prefix}*"))):
        yield f"{count} network namespaces {paths.netns_prefix}*"
    with contextlib.suppress(HostError):
        if paths.cgroup.exists():
            yield str(paths.cgroup)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
