"""After a change every open connection is judged at once: renewed, or cut and told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from crafted import (
    A4,
    ACK,
    B4,
    ICMP,
    REDIRECT,
    SHOT,
    TCP,
    UDP,
    A,
    B,
    Kernel,
    allow,
    frame4,
    frame6,
    tcp,
    udp,
)

from sixfold.host.datapath import KernelDatapath
from sixfold.model.datapath import EGRESS, INGRESS, Datapath, PolicyEntry, PolicyTable
from sixfold.model.endpoint import EndpointId
from sixfold.model.reason import DropReason

pytestmark = pytest.mark.root

RST = 4
CUT = 4  # EVENT_CUT
PING = b"\x08\0\0\0\0\x07\0\x01"
PACKETS = {
    "tcp": frame4(tcp(ACK)),
    "tcp6": frame6(tcp(ACK)),
    "udp": frame4(udp(b"x"), UDP),
    "icmp": frame4(PING, ICMP),
}


@pytest.fixture
def kernel(datapath: KernelDatapath) -> Kernel:
    made = Kernel(datapath)
    datapath.forget(datapath.sweep())
    return made


def with_policy(desired: Datapath, number: int, *entries: PolicyEntry) -> Datapath:
    table = PolicyTable.of(frozenset(entries), 10, 11)
    return replace(desired, policies={**desired.policies, EndpointId(number): table})


def connections(kernel: Kernel) -> list[tuple[int, tuple[int, int], int]]:
    return [(c.protocol, c.rule, c.revision) for c in kernel.datapath.conntrack()]


@pytest.mark.parametrize("kind", PACKETS)
def test_a_connection_that_is_no_longer_allowed_is_cut_and_named(kernel: Kernel, kind: str) -> None:
    assert kernel.send(PACKETS[kind]) == REDIRECT
    kernel.events()
    before = kernel.datapath.statistics().get("connections_cut", 0)
    kernel.datapath.apply(with_policy(kernel.desired, 1))
    ((key, cut),) = kernel.datapath.sweep().items()
    assert (cut.source_ifindex, cut.destination_ifindex) == (kernel.a, kernel.b)
    (event,) = kernel.events()
    assert (event.type, event.reason, event.direction) == (CUT, DropReason.POLICY_DENIED, EGRESS)
    assert event.rule[EGRESS] == 11
    assert (event.source_identity, event.destination_identity) == (A, B)
    assert kernel.datapath.statistics()["connections_cut"] == before + 1
    assert kernel.send(PACKETS[kind]) == SHOT
    assert kernel.datapath.sweep().keys() == {key}, "told once, kept until it is forgotten"
    assert [event.type for event in kernel.events()] == [2]
    kernel.datapath.forget([key])
    assert kernel.datapath.sweep() == {}
    assert connections(kernel) == []


def test_a_denial_by_the_destination_is_told_as_ingress(kernel: Kernel) -> None:
    kernel.send(PACKETS["tcp"])
    kernel.events()
    kernel.datapath.apply(with_policy(kernel.desired, 2))
    assert len(kernel.datapath.sweep()) == 1
    (event,) = kernel.events()
    assert (event.direction, event.rule[INGRESS]) == (INGRESS, 10)
    assert (event.source, event.destination) == (A4, B4)


def test_what_is_still_allowed_is_renewed_under_its_new_rule(kernel: Kernel) -> None:
    for packet in PACKETS.values():
        assert kernel.send(packet) == REDIRECT
    kernel.events()
    rule = allow(EGRESS, B)._replace(rule=77)
    kernel.datapath.apply(with_policy(kernel.desired, 1, rule))
    assert kernel.datapath.sweep() == {}
    found = connections(kernel)
    assert {(number, rules[EGRESS]) for number, rules, _ in found} == {
        (TCP, 77),
        (UDP, 77),
        (ICMP, 77),
    }
    assert {revision for *_, revision in found} == {kernel.datapath.revision()}
    assert kernel.events() == []
    for packet in PACKETS.values():
        assert kernel.send(packet) == REDIRECT


def test_an_answer_that_is_denied_meanwhile_does_not_hide_the_connection(kernel: Kernel) -> None:
    kernel.send(PACKETS["tcp"])
    kernel.datapath.apply(with_policy(kernel.desired, 1))
    answer = frame4(tcp(ACK, 80, 1000), TCP, B4, A4)
    assert kernel.send(answer, kernel.b) == SHOT
    assert kernel.send(PACKETS["tcp"]) == SHOT
    assert len(kernel.datapath.sweep()) == 1


def test_a_reset_of_a_cut_connection_passes_and_nothing_else(kernel: Kernel) -> None:
    kernel.send(PACKETS["tcp"])
    kernel.datapath.apply(with_policy(kernel.desired, 1))
    assert kernel.send(frame4(tcp(RST | ACK))) == SHOT, "not yet cut"
    cut = kernel.datapath.sweep()
    assert kernel.send(frame4(tcp(RST | ACK))) == REDIRECT
    assert kernel.send(frame4(tcp(RST | ACK) + b"a message out of jail")) == SHOT
    assert kernel.send(frame4(tcp(ACK))) == SHOT
    kernel.datapath.forget(cut)
    assert kernel.send(frame4(tcp(RST | ACK))) == SHOT


def test_a_connection_to_a_pod_that_is_gone_ends_in_silence(kernel: Kernel) -> None:
    kernel.send(PACKETS["tcp"])
    kernel.events()
    left = {kernel.a: kernel.desired.endpoints[kernel.a]}
    gone = with_policy(replace(kernel.desired, endpoints=left), 1)
    kernel.datapath.apply(gone)
    assert kernel.datapath.sweep() == {}
    assert kernel.events() == []
    assert connections(kernel) == []


def test_many_connections_are_judged_in_one_sweep(kernel: Kernel) -> None:
    for port in range(2000, 2300):
        assert kernel.send(frame4(tcp(ACK, port))) == REDIRECT
    kernel.events()
    kernel.datapath.apply(with_policy(kernel.desired, 2))
    cut = kernel.datapath.sweep()
    assert {one.source_port for one in cut.values()} == set(range(2000, 2300))
    assert len(kernel.events()) == 300
    kernel.datapath.forget(cut)


def test_what_an_earlier_agent_left_to_close_is_found_again(
    kernel: Kernel,
) -> None:
    kernel.send(PACKETS["tcp"])
    kernel.datapath.apply(with_policy(kernel.desired, 1))
    kernel.datapath.sweep()
    kernel.datapath._sweep_due = False
    assert len(kernel.datapath.sweep()) == 1


def test_rules_count_connections_and_denied_packets(kernel: Kernel) -> None:
    before = kernel.datapath.rule_hits()

    def hits(rule: int) -> int:
        return kernel.datapath.rule_hits().get(rule, 0) - before.get(rule, 0)

    for _ in range(3):
        kernel.send(PACKETS["tcp"])
        kernel.send(PACKETS["udp"])
    assert (hits(20), hits(21)) == (2, 2), "connections, not packets; of both sides"
    kernel.datapath.apply(with_policy(kernel.desired, 2))
    kernel.datapath.forget(kernel.datapath.sweep())
    assert hits(10) == 2, "each cut counts for the rule that cut"
    kernel.send(PACKETS["tcp"])
    assert hits(10) == 3


def test_an_open_connection_that_comes_into_audit_is_told_once(kernel: Kernel) -> None:
    kernel.send(PACKETS["tcp"])
    kernel.events()
    strict = PolicyTable.of(frozenset(), 10, 44)
    audited = PolicyTable.of(frozenset({allow(EGRESS, B)}), 10, 11, strict)
    kernel.datapath.apply(
        replace(kernel.desired, policies={**kernel.desired.policies, EndpointId(1): audited})
    )
    assert kernel.datapath.sweep() == {}
    (event,) = kernel.events()
    assert (event.type, event.rule[EGRESS], event.reason) == (5, 44, DropReason.POLICY_DENIED)
    kernel.datapath.apply(
        with_policy(
            replace(kernel.desired, policies={**kernel.desired.policies, EndpointId(1): audited}),
            2,
            allow(INGRESS, A),
            allow(INGRESS, 9),
        )
    )
    assert kernel.send(PACKETS["tcp"]) == REDIRECT
    assert kernel.datapath.sweep() == {}
    assert kernel.events() == []
