"""What a question costs: names answered in the kernel, beside knot, nsd, unbound and dnsmasq.

Client, server and kernel share one CPU at real-time priority, so the time per question is all
the CPU time that it takes, on both ends and between. The mix: half of the questions have records,
a fifth is for a type that a name lacks, the rest are misses of a search path. They are asked one
after the other, as a program does that waits for its answer, and in turns of 32, which lets a
server fetch and send many at a time. The kernel's side is the datapath without an agent: a pod's
interface, its policy, and a zone of so many services. All take turns, so that a machine that
slows down slows down all. Our socket hooks see the sockets of that pod only, so that the others run
as on a host without us.

What any answer in the kernel must cost, client included, is measured beside: a program that turns
each datagram round, unread; for `getaddrinfo`, one that puts the same answer behind each question.

What the kernel leaves to the resolver's process is measured apart: the same mix, all of it answered
there, by the CPU time that the process takes.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, NamedTuple

from hatch_build import zig_bpf

from bench import resolvers
from bench.lab import Lab, LabError, inside, ip, run
from bench.peers import SERVER, veth
from bench.programs import A4, A6, A
from bench.schedule import alone
from sixfold.discovery.answers import AnswerPlanner
from sixfold.discovery.wire import encode_name
from sixfold.discovery.zone import RecordKey, Zone, ZoneDelta, ZoneSettings
from sixfold.host import bpf, netns
from sixfold.host.datapath import KernelDatapath
from sixfold.host.loader import BpfObject
from sixfold.host.names import NameTable
from sixfold.host.paths import BPFFS_ROOT, cgroup_root
from sixfold.model.config import GATEWAY_IPV4, HOST_MAC, POD_MAC, RESOLVER_IPV4, Config
from sixfold.model.datapath import (
    EGRESS,
    Datapath,
    EndpointEntry,
    IpcacheEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import RESOLVER
from sixfold.serve import dns_control as control

HERE = Path(__file__).parent
ROUNDS, TURN_S, CHANGES, LOOKUPS = 7, 0.15, 20, 500
PROCESS_TURN_S, PROCESS_IN_FLIGHT = 0.5, 64
IN_FLIGHT = (1, 32)
LIMIT, SAME = "turned round, unread", "the same for all, unread"
FEW, MANY, ASKED = 20, 20_000, 200
SETTINGS = ZoneSettings(("cluster.local",))
AT = IPv4Address("10.96.0.1")
SEARCHED = "kubernetes"  # as a program writes it; libc tries the search path
SEARCH = "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"


class Place(NamedTuple):
    """From where to ask, whom, and of how many services."""

    client: Path
    address: str
    services: int = MANY
    cgroup: Path | None = None  # of the client; None: where we are

    def command(self, *argv: str) -> list[str]:
        if self.cgroup is not None:
            join = f'echo $$ > {self.cgroup}/cgroup.procs && exec "$@"'
            argv = ("sh", "-c", join, "sh", *argv)
        return inside(self.client, *argv)


def measure(lab: Lab, rng: random.Random) -> dict[str, Any]:
    """Questions a second by who answers and how many are in flight; milliseconds of a change."""
    found: dict[str, Any] = {"skipped": resolvers.missing()}
    client = compiled(lab, "questions", "x86_64-linux-gnu")  # musl sends many one by one
    lookup = compiled(lab, "lookup", "x86_64-linux-gnu")
    servers = [name for name in resolvers.PACKAGES if name not in found["skipped"]]
    found["versions"] = resolvers.versions(servers)
    names = {_name(n): AT + n for n in range(MANY)} | {f"{SEARCHED}.default.svc.cluster.local": AT}
    places = {name: Place(resolvers.start(lab, name, names).client, SERVER) for name in servers}
    with _pod(lab, "few") as (small, few), _pod(lab, "dns") as (datapath, pod):
        NameTable(small.maps).apply(AnswerPlanner().plan(SETTINGS, ZoneDelta(_zone(FEW))))
        table, planner = NameTable(datapath.maps), AnswerPlanner()
        start = time.perf_counter()
        table.apply(planner.plan(SETTINGS, ZoneDelta(_zone(MANY))))
        found["load_s"] = round(time.perf_counter() - start, 2)
        kernel = Place(pod, str(RESOLVER_IPV4), cgroup=_cgroup(lab, "dns"))
        fewer = {
            f"kernel, {FEW} services": Place(few, str(RESOLVER_IPV4), FEW, _cgroup(lab, "few"))
        }
        limit = {LIMIT: Place(_turning(lab, "turn"), str(RESOLVER_IPV4))}
        same = {SAME: Place(_turning(lab, "answer"), str(RESOLVER_IPV4))}
        found["rates"] = _rates(client, {**fewer, "kernel": kernel, **places, **limit}, rng)
        found["lookup_ns"] = _lookups(lookup, lab, {"kernel": kernel, **places, **same}, rng)
        found["change_ms"] = _change_ms(planner, table, pod)
    found["process_rate"] = _process_rate(lab, client)
    return found


def compiled(lab: Lab, name: str, target: str, *flags: str) -> Path:
    binary = lab.directory / name
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O2", *flags]
    run([*command, str(HERE / f"{name}.c"), "-o", str(binary)])
    return binary


def _name(number: int) -> str:
    return f"service-{number}.default.svc.cluster.local"


def _zone(services: int) -> Zone:
    names = [f"{SEARCHED}.default.svc.cluster.local", *map(_name, range(services))]
    return {RecordKey(name, "A"): (str(AT + n),) for n, name in enumerate(names)}


def _message(name: str, type_: int) -> bytes:
    header = struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0)
    return header + encode_name(name) + struct.pack("!HH", type_, 1)


def _questions(services: int) -> str:
    lines = []
    for n in range(ASKED):
        name = _name(n * 97 % services)
        kinds = {0: (name, 28), 1: (name, 28)}
        asked = kinds.get(n % 10, (name, 1) if n % 10 < 7 else (f"{name[:-14]}.{name}", 1))
        lines.append(_message(*asked).hex())
    return "\n".join(lines) + "\n"


def _rates(
    client: Path, places: dict[str, Place], rng: random.Random
) -> dict[str, dict[int, float]]:
    """By who answers, and by how many are in flight: the median of turns in random order."""
    turns = [(name, count) for name in places for count in IN_FLIGHT]
    rates: dict[tuple[str, int], list[float]] = {turn: [] for turn in turns}
    for _ in range(ROUNDS):
        rng.shuffle(turns)
        for name, count in turns:
            place, options = places[name], (str(TURN_S), str(count))
            command = place.command(*alone(str(client), place.address, *options))
            answered, seconds = run(command, stdin=_questions(place.services)).split()
            if not int(answered):
                raise LabError(f"dns: {name} does not answer")
            rates[name, count].append(int(answered) / float(seconds))
    return {
        name: {count: round(statistics.median(rates[name, count])) for count in IN_FLIGHT}
        for name in places
    }


def _lookups(
    lookup: Path, lab: Lab, places: dict[str, Place], rng: random.Random
) -> dict[str, list[int]]:
    """Median and 99th percentile, by who answers: the medians of turns in random order."""
    turns, took = list(places), {name: list[list[int]]() for name in places}
    for _ in range(ROUNDS):
        rng.shuffle(turns)
        for name in turns:
            took[name].append(_lookup(lookup, lab, places[name]))
    return {
        name: [int(statistics.median(each)) for each in zip(*took[name], strict=True)]
        for name in places
    }


def _lookup(lookup: Path, lab: Lab, place: Place) -> list[int]:
    """Median and 99th percentile of getaddrinfo() of a name that a search path completes."""
    conf = lab.directory / "resolv.conf"
    conf.write_text(f"nameserver {place.address}\n{SEARCH}")
    body = f"mount --bind {conf} /etc/resolv.conf && exec {lookup} {SEARCHED} {LOOKUPS}"
    command = place.command(*alone("unshare", "-m", "sh", "-c", body))
    return [int(ns) for ns in run(command).split()]


def _process_rate(lab: Lab, client: Path) -> int:
    """Answers of the resolver's process for a second of its CPU time: the median of turns."""
    peer, run_directory = veth(lab), lab.directory / "resolver"
    variables = {"SIXFOLD_RUN_DIR": str(run_directory), "SIXFOLD_STATE_DIR": str(run_directory)}
    command = [sys.executable, "-m", "sixfold.serve.dns", "--listen", SERVER]
    environment = [f"{key}={value}" for key, value in variables.items()]
    pid = lab.spawn(peer.server, "env", *environment, *alone(*command))
    load = control.load_message(Config(), SETTINGS, _zone(MANY), 1)
    load.clients = ()
    with socket.socket(socket.AF_UNIX) as agent:
        _connect(agent, str(run_directory / "dns.sock"))
        frame = control.encode(load)
        agent.sendall(control.LENGTH.pack(len(frame)) + frame)
        agent.recv(4096)  # loaded
        rates = []
        for _ in range(ROUNDS):
            before = _cpu_s(pid)
            options = (SERVER, str(PROCESS_TURN_S), str(PROCESS_IN_FLIGHT))
            command = inside(peer.client, *alone(str(client), *options))
            answered, _ = run(command, stdin=_questions(MANY)).split()
            rates.append(int(answered) / (_cpu_s(pid) - before))
    return round(statistics.median(rates))


def _connect(sock: socket.socket, path: str) -> None:
    deadline = time.monotonic() + resolvers.READY_S
    while True:
        try:
            return sock.connect(path)
        except OSError as error:
            if time.monotonic() > deadline:
                raise LabError(f"dns: {path}: {error}") from error
            time.sleep(0.1)


def _cpu_s(pid: int) -> float:
    """What a process of one thread has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _change_ms(planner: AnswerPlanner, table: NameTable, pod: Path) -> float:
    """Median from a changed record set, planned and written, to its answer."""
    key, took = RecordKey(_name(7), "A"), []
    with netns.inside(pod):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(2)
    sock.connect((str(RESOLVER_IPV4), 53))
    for number in range(CHANGES):
        address = IPv4Address("10.97.0.1") + number
        start = time.perf_counter()
        table.apply(planner.plan(SETTINGS, ZoneDelta({key: (str(address),)})))
        sock.send(_message(key.name, 1))
        answer = sock.recv(512)
        took.append((time.perf_counter() - start) * 1000)
        if not answer.endswith(address.packed):
            raise LabError("dns: an answer older than the change")
    sock.close()
    return round(statistics.median(took), 3)


def _veth(lab: Lab, name: str) -> tuple[Path, Path]:
    """Namespaces of the host and of a pod with an interface of its own."""
    host, pod = lab.namespace(name), lab.namespace(f"{name}-pod")
    ip(
        host,
        f"link add sfpod address {HOST_MAC} type veth peer name eth0 address {POD_MAC} "
        f"netns {pod.name}",
        "link set sfpod up",
    )
    ip(
        pod,
        f"addr add {A4}/32 dev eth0",
        "link set eth0 up",
        f"neigh replace {GATEWAY_IPV4} lladdr {HOST_MAC} dev eth0",
        f"route add default via {GATEWAY_IPV4} dev eth0 onlink",
    )
    return host, pod


def _cgroup(lab: Lab, name: str) -> Path:
    """Of a pod's processes; ended with the run."""
    path = cgroup_root() / f"{lab.prefix}{name}"
    if not path.exists():
        path.mkdir()
        lab.stack.callback(path.rmdir)
    return path


def _turning(lab: Lab, name: str) -> Path:
    """A pod whose datagrams come back at once, by that program of turn.bpf.c."""
    host, pod = _veth(lab, name)
    built = lab.directory / "turn.bpf.o"
    zig_bpf(HERE / "turn.bpf.c", built)
    maps = BPFFS_ROOT / f"{lab.prefix}{name}"
    lab.stack.callback(shutil.rmtree, maps)
    maps.mkdir()
    with BpfObject(built) as one:
        programs = one.load(maps)
    with netns.inside(host):
        link = bpf.link_create(programs[name], socket.if_nametoindex("sfpod"), bpf.TCX_INGRESS)
    lab.stack.callback(os.close, link)
    for program in programs.values():
        os.close(program)
    return pod


@contextmanager
def _pod(lab: Lab, name: str) -> Iterator[tuple[KernelDatapath, Path]]:
    """An interface with the datapath on it, and a namespace behind, as an agent makes them."""
    host, pod = _veth(lab, name)
    instance = f"{lab.prefix}{name}"
    lab.stack.callback(KernelDatapath.remove, instance)
    with netns.inside(host):
        index = socket.if_nametoindex("sfpod")
        datapath = KernelDatapath.open(instance, _cgroup(lab, name))
        try:
            opened = PolicyEntry(EGRESS, RESOLVER, 17, 53, 16, 1, 9)
            datapath.apply(
                Datapath(
                    endpoints={index: EndpointEntry(index, EndpointId(1), A, A4, A6)},
                    ipcache={IPv4Network(RESOLVER_IPV4): IpcacheEntry(RESOLVER)},
                    policies={EndpointId(1): PolicyTable.of([opened], 10, 11)},
                )
            )
            datapath.attach(index)
            yield datapath, pod
        finally:
            datapath.close()
