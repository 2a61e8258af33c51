"""The kernel's policy lookup and ``policy.decide.lookup`` give the same answer and rule."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest
from crafted import A4, B4, ICMP, SHOT, TCP, UDP, A, B, Kernel, frame4, tcp, udp
from msgspec import structs

from sixfold.host.datapath import KernelDatapath
from sixfold.model.datapath import ALLOW, DENY, EGRESS, PASS, IpcacheEntry, PolicyEntry, PolicyTable
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import ANY_POD, FIRST_CIDR, FIRST_DOMAIN, HOST, OUTSIDE, WORLD, Identity
from sixfold.policy.decide import Party, lookup

pytestmark = pytest.mark.root

TABLES, FLOWS = 40, 50
VERDICT, DROP, AUDIT = 1, 2, 5  # event types
CIDRS = [Identity(FIRST_CIDR + i) for i in range(3)]
DOMAINS = [Identity(FIRST_DOMAIN + i) for i in range(2)]
# Networks of the world: plain, with a CIDR identity of its own, and with one on top.
NETWORKS = {
    "203.0.113.0/26": IpcacheEntry(WORLD),
    "203.0.113.64/26": IpcacheEntry(WORLD, CIDRS[0]),
    "203.0.113.128/26": IpcacheEntry(CIDRS[1]),
    "203.0.113.192/26": IpcacheEntry(CIDRS[1], CIDRS[2]),
    "198.51.100.64/26": IpcacheEntry(HOST, CIDRS[0]),
    "198.51.100.128/26": IpcacheEntry(WORLD, CIDRS[0], DOMAINS[0]),
    "198.51.100.192/26": IpcacheEntry(WORLD, Identity(0), DOMAINS[1]),
    "203.0.112.0/26": IpcacheEntry(HOST, Identity(0), DOMAINS[0]),
}
PEERS = [
    *(Identity(0), WORLD, HOST, B, ANY_POD, *CIDRS),
    *(Identity(cidr + OUTSIDE) for cidr in CIDRS),
    *DOMAINS,
]


def random_table(random_: random.Random) -> PolicyTable:
    """Verdicts of both sections for overlapping peers, protocols and blocks."""
    entries: dict[tuple[int, ...], PolicyEntry] = {}
    for rule in range(100, 100 + random_.randrange(24)):
        peer = random_.choice(PEERS)
        protocol = random_.choice([0, TCP, UDP, ICMP])
        bits = random_.choice([0, 12, 13, 15, 16]) if protocol else 0
        port = random_.choice([8, 13, 80, 81, 88, 1024]) if bits else 0
        port = port >> (16 - bits) << (16 - bits)
        admin = random_.random() < 0.3
        verdict = random_.choice([ALLOW, ALLOW, DENY, *([PASS] if admin else [])])
        precedence = random_.choice([0, 1, 2, (1 << 30) - 1])
        entry = PolicyEntry(EGRESS, peer, protocol, port, bits, verdict, rule, precedence, admin)
        entries[(admin, peer, protocol, port, bits)] = entry
    return PolicyTable.of(frozenset(entries.values()), 10, 11)


def packet(protocol: int, port: int, destination: IPv4Address) -> bytes:
    if protocol == TCP:
        return frame4(tcp(destination=port), TCP, A4, destination)
    if protocol == UDP:
        return frame4(udp(destination=port), UDP, A4, destination)
    return frame4(bytes([port, 0, 0, 0, 0, 7, 0, 1]), ICMP, A4, destination)


def test_kernel_and_python_name_the_same_rule(datapath: KernelDatapath) -> None:
    seed = int(os.environ.get("SIXFOLD_FUZZ_SEED", random.randrange(2**32)))
    print(f"SIXFOLD_FUZZ_SEED={seed}")
    random_, kernel = random.Random(seed), Kernel(datapath)
    ipcache = {ip_network(network): entry for network, entry in NETWORKS.items()}
    for _ in range(TABLES):
        table = random_table(random_)
        if random_.random() < 0.5:
            table = structs.replace(table, audit=random_table(random_))
        policies = {**kernel.desired.policies, EndpointId(1): table}
        endpoints = dict(kernel.desired.endpoints)
        endpoints[kernel.b] = replace(endpoints[kernel.b], cidr4=CIDRS[0])
        datapath.apply(
            replace(kernel.desired, endpoints=endpoints, policies=policies, ipcache=ipcache)
        )
        for _ in range(FLOWS):
            network, entry = random_.choice(list(ipcache.items()))
            destination = network[random_.randrange(64)]
            if random_.random() < 0.2:  # the pod, in a block
                destination, entry = B4, IpcacheEntry(B, CIDRS[0])
            protocol = random_.choice([TCP, UDP, ICMP])
            port = random_.choice([79, 80, 81, 82, 88, 95, 96, 1024, 65535])
            port = random_.choice([8, 13, 15, 17]) if protocol == ICMP else port
            connections = datapath.maps["conntrack"]
            connections.delete([key for key, _ in connections.items()])
            verdict = kernel.send(packet(protocol, port, IPv4Address(destination)))
            wanted = lookup(
                table,
                EGRESS,
                Party(entry.identity, entry.cidr, domains=(entry.domain,) if entry.domain else ()),
                protocol,
                port,
            )
            (event,) = kernel.events()
            assert (verdict != SHOT, event.rule[EGRESS]) == (wanted.allow, wanted.rule)
            assert event.type == (AUDIT if wanted.audit else VERDICT if wanted.allow else DROP)
            assert event.source_identity == A
