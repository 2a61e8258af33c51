"""What judging a new connection costs in the kernel, by the number of rules on either side.

By BPF_PROG_TEST_RUN, as ``programs``: a SYN of a connection that is closed at once, so that each
run is judged, remembered and told. Pairs of pods differ in nothing but how many rules they have.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from bench.lab import Lab, ip
from bench.programs import RST, SYN, TCP, frame4, run_program
from bench.schedule import urgent
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.model.datapath import (
    EGRESS,
    INGRESS,
    Datapath,
    EndpointEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import FIRST_ALLOCATED, Identity

RULES = (1, 100, 10_000)
ROUNDS, REPEAT = 25, 4_000
PORT, DEFAULT = 80, 9
FIRST_PEER = 2_000


def measure(lab: Lab) -> dict[str, float]:
    """Median ns a packet, by how many rules there are; and by what the kernel says, "verdict"."""
    with _loaded(lab) as (datapath, pairs):
        program = datapath.programs["from_endpoint"]
        figures: dict[int, list[float]] = {count: [] for count in RULES}
        for _ in range(ROUNDS):
            for count, (source, destination) in pairs.items():
                assert source.ipv4 is not None
                assert destination.ipv4 is not None
                packet = frame4(source.ipv4, destination.ipv4, SYN | RST, 1001, PORT)
                datapath.events.drain()  # a full ring would be quicker
                with urgent():
                    figures[count].append(run_program(program, packet, source.ifindex, REPEAT))
        forwarded = datapath.statistics()["connections_forwarded"]
    found = {str(count): round(statistics.median(some), 1) for count, some in figures.items()}
    return {**found, "judged": forwarded}


@contextmanager
def _loaded(
    lab: Lab,
) -> Iterator[tuple[KernelDatapath, dict[int, tuple[EndpointEntry, EndpointEntry]]]]:
    where = lab.namespace("lookups")
    ip(where, *(f"link add from{n} type veth peer name to{n}" for n in range(len(RULES))))
    instance = f"{lab.prefix}lookups"
    lab.stack.callback(KernelDatapath.remove, instance)
    with netns.inside(where):
        pairs = {count: _pair(number) for number, count in enumerate(RULES)}
        datapath = KernelDatapath.open(instance)
        try:
            endpoints = [one for pair in pairs.values() for one in pair]
            datapath.apply(
                Datapath(
                    endpoints={one.ifindex: one for one in endpoints},
                    policies={
                        one.id: _table(count, pair[1 - side].identity)
                        for count, pair in pairs.items()
                        for side, one in enumerate(pair)
                    },
                )
            )
            yield datapath, pairs
        finally:
            datapath.close()


def _pair(number: int) -> tuple[EndpointEntry, EndpointEntry]:
    def end(side: int, name: str) -> EndpointEntry:
        at = 1 + 2 * number + side
        return EndpointEntry(
            socket.if_nametoindex(f"{name}{number}"),
            EndpointId(at),
            Identity(FIRST_ALLOCATED + at),
            IPv4Address("192.0.2.0") + at,
            None,
        )

    return end(0, "from"), end(1, "to")


def _table(count: int, peer: Identity) -> PolicyTable:
    """One rule for the peer that calls or is called, in each direction, and others beside it."""
    peers = [peer, *(Identity(FIRST_PEER + number) for number in range(count - 1))]
    entries = [
        PolicyEntry(direction, one, TCP, PORT, 16, True, DEFAULT)
        for direction in (INGRESS, EGRESS)
        for one in peers
    ]
    return PolicyTable.of(entries, DEFAULT + 1, DEFAULT + 2)
