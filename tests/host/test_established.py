"""What is open at the uplinks, as netfilter has it; and the kernel's keys for it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from sixfold.host import layout
from sixfold.host.established import Open, Tracked, Way, at_uplinks, packed
from sixfold.host.ssh import Session, parse
from sixfold.model.datapath import IPAddress
from sixfold.model.identity import HOST, WORLD

US, THEM, POD = map(ip_address, ("192.0.2.1", "198.51.100.9", "10.244.0.2"))
TCP, UDP = 6, 17


def found(sent: Way, answer: Way | None = None, listening: tuple[int, ...] = ()) -> list[Open]:
    one = Tracked(TCP, sent, answer or sent.back)
    return list(at_uplinks([one], {US}, {POD}, listening))


def test_who_opened_it_says_netfilter_and_for_listening_ports_the_socket():
    into, out = Way(THEM, 1000, US, 22), Way(US, 2000, THEM, 443)
    assert found(into) == [Open(TCP, into, 0, "dialled at the host")]
    assert found(out) == [Open(TCP, out, 0, "opened by the host")]
    assert found(into.back, listening=(22,)) == [Open(TCP, into, 0, "dialled at the host")]


def test_what_is_masqueraded_is_forwarded_and_known_by_its_address_outside():
    sent, answer = Way(POD, 1000, THEM, 443), Way(THEM, 443, US, 1001)
    assert found(sent, answer) == [Open(TCP, Way(US, 1001, THEM, 443), 0, "forwarded")]


def test_a_published_port_is_the_hosts():
    sent = Way(THEM, 1000, US, 8080)
    (one,) = found(sent, Way(ip_address("172.17.0.2"), 80, THEM, 1000))
    assert (one.way, one.whose) == (sent, "dialled at the host")


def test_what_does_not_leave_the_host_or_is_not_its_own_is_left_out():
    assert found(Way(US, 1, US, 2)) == []
    assert found(Way(POD, 1, US, 2)) == []
    assert found(Way(US, 1, POD, 2)) == []
    assert found(Way(POD, 1, THEM, 2)) == []


@pytest.mark.parametrize(
    "addresses", [(US, THEM), (IPv6Address("2001:db8::1"), IPv6Address("::9"))]
)
@pytest.mark.parametrize("whose", ["opened by the host", "dialled at the host", "forwarded"])
def test_an_entry_reads_as_what_it_was_made_of(addresses: tuple[IPAddress, ...], whose):
    us, them = addresses
    way = Way(us, 1000, them, 443)
    if whose == "dialled at the host":
        way = way.back
    key, entry = packed(Open(UDP, way, 0, whose), 7, 5 << 30)
    assert (len(key), len(entry)) == (layout.CONNTRACK_KEY.size, layout.CONNTRACK.size)
    one = layout.unpack_connection(key, entry, 6 << 30)
    assert (one.source, one.source_port, one.destination, one.destination_port) == tuple(way)
    hosts = one.source_identity if one.source == us else one.destination_identity
    others = one.destination_identity if one.source == us else one.source_identity
    assert (hosts, others, one.revision) == (HOST, WORLD, 7)
    assert one.forwarded == (whose == "forwarded")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("198.51.100.9 40000 192.0.2.1 22", Session(IPv4Address("198.51.100.9"), 22)),
        ("fe80::7%eth0 40000 fe80::1%eth0 2222", Session(IPv6Address("fe80::7"), 2222)),
        ("", None),
        ("nonsense", None),
    ],
)
def test_a_session_is_read_as_sshd_writes_it(text, wanted):
    assert parse(text) == wanted
