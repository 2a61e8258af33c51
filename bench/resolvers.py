"""Name servers that ours is measured against, each with the same names in memory.

All run as an operator would set them up for speed: one worker, nothing logged, nothing forwarded.
They sit behind one forwarding namespace, as a node-local server would behind a pod's veth; the
rewriting and connection tracking that Kubernetes puts before CoreDNS is left out, in their favour.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from pathlib import Path

from bench import packages
from bench.lab import Lab, LabError, inside
from bench.peers import SERVER, Peer, routed
from bench.schedule import alone

PACKAGES = {"dnsmasq": "dnsmasq-base", "knotd": "knot", "nsd": "nsd", "unbound": "unbound"}
READY_S = 15.0
ZONE = "cluster.local"
Names = dict[str, IPv4Address]


def missing() -> dict[str, str]:
    """By server, why it cannot be measured; installed if we may."""
    return packages.missing(PACKAGES)


def versions(servers: Iterable[str]) -> dict[str, str]:
    """Of the Debian packages."""
    return packages.versions([PACKAGES[server] for server in servers])


def start(lab: Lab, server: str, names: Names) -> Peer:
    """A server that answers; its peer says from where and at which address."""
    peer = routed(lab, server)
    directory = lab.directory / server
    directory.mkdir()
    command = _COMMANDS[server](directory, names)
    lab.spawn(peer.server, *alone(packages.which(server), *command))
    _await(peer, next(iter(names)))
    return peer


def _await(peer: Peer, name: str) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        ask = ["dig", "+short", "+time=1", "+tries=1", f"@{SERVER}", name, "A"]
        answer = subprocess.run(
            inside(peer.client, *ask), capture_output=True, text=True, check=False
        ).stdout
        if re.fullmatch(r"[\d.]+\s*", answer):
            return
        if time.monotonic() > deadline:
            raise LabError(f"{peer.name}: no answer for {name} within {READY_S:g} s")
        time.sleep(0.1)


def _zone_file(directory: Path, names: Names) -> Path:
    lines = [f"$ORIGIN {ZONE}.", "$TTL 5", f"@ SOA ns.dns.{ZONE}. a.{ZONE}. 1 7200 1800 86400 5"]
    lines += [f"@ NS ns.dns.{ZONE}.", f"ns.dns A {SERVER}"]
    lines += [f"{name}. A {address}" for name, address in names.items()]
    path = directory / "zone"
    path.write_text("\n".join(lines) + "\n")
    return path


def _dnsmasq(directory: Path, names: Names) -> list[str]:
    hosts = directory / "hosts"
    hosts.write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    options = ["-k", "-h", "-R", f"-H{hosts}", "-C/dev/null", "-uroot", "--pid-file="]
    return [*options, f"--local=/{ZONE}/", f"--listen-address={SERVER}", "--bind-interfaces"]


def _knot(directory: Path, names: Names) -> list[str]:
    path = directory / "knot.conf"
    path.write_text(
        f"""
server:
  rundir: "{directory}"
  listen: {SERVER}@53
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: "{directory}"
log:
  - target: stderr
    any: critical
zone:
  - domain: {ZONE}
    file: "{_zone_file(directory, names)}"
    zonefile-sync: -1
    journal-content: none
"""
    )
    return ["-c", str(path)]


def _nsd(directory: Path, names: Names) -> list[str]:
    path = directory / "nsd.conf"
    path.write_text(
        f"""
server:
  ip-address: {SERVER}
  server-count: 1
  rrl-ratelimit: 0
  username: ""
  chroot: ""
  zonesdir: "{directory}"
  database: ""
  logfile: "{directory}/log"
  pidfile: "{directory}/pid"
  xfrdfile: "{directory}/xfrd"
  xfrdir: "{directory}"
  zonelistfile: "{directory}/zones"
remote-control:
  control-enable: no
zone:
  name: {ZONE}
  zonefile: "{_zone_file(directory, names)}"
"""
    )
    return ["-d", "-c", str(path)]


def _unbound(directory: Path, names: Names) -> list[str]:
    data = "\n".join(f'  local-data: "{name}. 5 A {a}"' for name, a in names.items())
    path = directory / "unbound.conf"
    path.write_text(
        f"""
server:
  interface: {SERVER}
  access-control: 0.0.0.0/0 allow
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  logfile: "{directory}/log"
  do-daemonize: no
  module-config: "iterator"
  local-zone: "{ZONE}." static
{data}
remote-control:
  control-enable: no
"""
    )
    return ["-d", "-c", str(path)]


_COMMANDS: dict[str, Callable[[Path, Names], list[str]]] = {
    "dnsmasq": _dnsmasq,
    "knotd": _knot,
    "nsd": _nsd,
    "unbound": _unbound,
}
