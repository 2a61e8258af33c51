"""What a question costs: names answered in the kernel, beside dnsmasq.

Client, server and kernel share one CPU at real-time priority, so the time per question is all
the CPU time that it takes, on both ends and between. The mix: half of the questions have records,
a fifth is for a type that a name lacks, the rest are misses of a search path. The kernel's side is
the datapath without an agent: a pod's interface, its policy, and a zone of so many services.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bench.lab import Lab, LabError, inside, ip, run
from bench.peers import SERVER, routed
from bench.programs import A4, A6, A
from bench.schedule import alone
from sixfold.discovery.answers import AnswerPlanner
from sixfold.discovery.wire import encode_name
from sixfold.discovery.zone import RecordKey, Zone, ZoneDelta, ZoneSettings
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.host.names import NameTable
from sixfold.model.config import GATEWAY_IPV4, HOST_MAC, POD_MAC, RESOLVER_IPV4
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

SOURCE = Path(__file__).parent / "questions.c"
ROUNDS, TURN_S, CHANGES = 5, 0.3, 20
FEW, MANY, ASKED = 20, 20_000, 200
SETTINGS = ZoneSettings(("cluster.local",))
AT = IPv4Address("10.96.0.1")


def measure(lab: Lab) -> dict[str, float | str]:
    """Questions per second by who answers; milliseconds from a change to its answer."""
    client = compiled(lab)
    found: dict[str, float | str] = {}
    with _pod(lab) as (datapath, pod):
        table, planner = NameTable(datapath.maps), AnswerPlanner()
        for services in (FEW, MANY):
            zone = _zone(services)
            start = time.perf_counter()
            table.apply(planner.plan(SETTINGS, ZoneDelta(zone)))
            found[f"load_{services}_s"] = round(time.perf_counter() - start, 2)
            found[f"kernel_{services}_qps"] = _rate(client, pod, str(RESOLVER_IPV4), services)
        found["change_ms"] = _change_ms(planner, table, pod)
    if reason := why_no_dnsmasq():
        found["skipped"] = reason
    else:
        found["dnsmasq_qps"] = _dnsmasq(lab, client)
    return found


def compiled(lab: Lab) -> Path:
    binary = lab.directory / "questions"
    target = ["-target", "x86_64-linux-musl", "-static", "-O2"]
    run([sys.executable, "-m", "ziglang", "cc", *target, str(SOURCE), "-o", str(binary)])
    return binary


def _name(number: int) -> str:
    return f"service-{number}.default.svc.cluster.local"


def _zone(services: int) -> Zone:
    return {RecordKey(_name(n), "A"): (str(AT + n),) for n in range(services)}


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


def _rate(client: Path, place: Path, address: str, services: int) -> float:
    """Median of some turns, questions a second."""
    command = inside(place, *alone(str(client), address, str(TURN_S)))
    rates = []
    for _ in range(ROUNDS):
        answered, seconds = run(command, stdin=_questions(services)).split()
        rates.append(int(answered) / float(seconds))
    if not min(rates):
        raise LabError(f"dns: {address} does not answer")
    return round(statistics.median(rates))


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


@contextmanager
def _pod(lab: Lab) -> Iterator[tuple[KernelDatapath, Path]]:
    """An interface with the datapath on it, and a namespace behind, as an agent makes them."""
    host, pod = lab.namespace("dns"), lab.namespace("dns-pod")
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
    instance = f"{lab.prefix}dns"
    lab.stack.callback(KernelDatapath.remove, instance)
    with netns.inside(host):
        index = socket.if_nametoindex("sfpod")
        datapath = KernelDatapath.open(instance)
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


def _dnsmasq(lab: Lab, client: Path) -> float:
    """All names in memory, nothing forwarded, nothing logged."""
    peer = routed(lab, "dnsmasq")
    hosts = lab.directory / "hosts"
    hosts.write_text("".join(f"{AT + n} {_name(n)}\n" for n in range(MANY)))
    options = ["-k", "-h", "-R", f"-H{hosts}", "-C/dev/null", "-uroot", "--pid-file="]
    options += ["--local=/cluster.local/", f"--listen-address={SERVER}", "--bind-interfaces"]
    lab.spawn(peer.server, *alone("dnsmasq", *options))
    time.sleep(1.0)  # reads its hosts
    return _rate(client, peer.client, SERVER, MANY)


def why_no_dnsmasq() -> str:
    """Install it if it is missing and we may; else the reason."""
    if shutil.which("dnsmasq"):
        return ""
    command = "apt-get update -qq && apt-get install -y -qq --no-install-recommends dnsmasq-base"
    subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, check=False)
    return "" if shutil.which("dnsmasq") else "no dnsmasq, and apt-get could not install it"
