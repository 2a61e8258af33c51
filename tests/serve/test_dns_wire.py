"""Messages as dnspython reads them, and hostile bytes."""

from __future__ import annotations

import contextlib
import os
import struct

import dns.message
import dns.opcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.discovery.zone import Rcode, RecordKey, ZoneSettings, ZoneTree
from sixfold.serve.dns_answer import Responder
from sixfold.serve.dns_forward import ttls
from sixfold.serve.dns_upstream import HostResolvers, Upstream, parse_upstream, parse_upstreams
from sixfold.serve.dns_wire import Malformed, Query, parse_query

ZONE = {
    RecordKey("web.shop.svc.cluster.local", "A"): ("10.96.0.1", "10.96.0.2"),
    RecordKey("web.shop.svc.cluster.local", "SRV"): ("0 100 80 web.shop.svc.cluster.local.",),
    RecordKey("1.0.96.10.in-addr.arpa", "PTR"): ("web.shop.svc.cluster.local.",),
    RecordKey("dns-version.cluster.local", "TXT"): ('"1.1.0"',),
}
LABEL = st.text("abcXYZ012-_", min_size=1, max_size=20)
NAMES = st.lists(LABEL, max_size=8).map(lambda labels: ".".join(labels) + ".")


def responder():
    made = Responder()
    made.zone = ZoneTree(ZoneSettings(("cluster.local", "96.10.in-addr.arpa")), ZONE)
    return made


@given(NAMES, st.sampled_from(["A", "AAAA", "HTTPS", "ANY"]), st.sampled_from([-1, 0]))
def test_a_query_is_read_as_dnspython_wrote_it(name, type_, edns):
    message = dns.message.make_query(name, type_, use_edns=edns)
    query = parse_query(message.to_wire())
    assert query.id == message.id
    assert query.name == name.lower().rstrip(".")
    assert query.type == message.question[0].rdtype
    assert (query.edns is None) == (edns == -1)


@given(st.binary(max_size=80))
def test_hostile_bytes_are_a_query_or_malformed(packet):
    with contextlib.suppress(Malformed):
        assert isinstance(parse_query(packet), Query)


@given(
    st.sampled_from([*ZONE, RecordKey("nobody.cluster.local", "A")]),
    st.integers(0, 80),
    st.integers(0, 255),
)
def test_one_flipped_byte_never_breaks_the_responder(key, position, value):
    packet = bytearray(dns.message.make_query(key.name, key.type, use_edns=0).to_wire())
    packet[position % len(packet)] = value
    answer = responder().respond(bytes(packet))
    if isinstance(answer, bytes):
        assert len(answer) <= 1232
        if dns.opcode.from_flags(packet[2] << 8) == dns.opcode.QUERY:
            dns.message.from_wire(answer)
        else:  # a sample of another section would not be read back as one
            assert answer[3] & 0xF == Rcode.NOTIMP


@pytest.mark.parametrize("key", ZONE, ids=lambda key: key.type)
def test_every_record_type_is_read_back(key):
    answer = responder().respond(dns.message.make_query(key.name, key.type).to_wire())
    (rrset,) = dns.message.from_wire(answer).answer
    assert {rdata.to_text() for rdata in rrset} == set(ZONE[key])


def test_a_dot_inside_a_label_is_no_separator():
    packet = dns.message.make_query(r"web\.shop.svc.cluster.local", "A").to_wire()
    answer = dns.message.from_wire(responder().respond(packet))
    assert answer.rcode() == Rcode.NXDOMAIN


def test_a_changed_zone_is_answered_at_once_though_answers_are_cached():
    made = responder()
    packet = dns.message.make_query("new.cluster.local", "A").to_wire()
    assert dns.message.from_wire(made.respond(packet)).rcode() == Rcode.NXDOMAIN
    made.zone = ZoneTree(made.zone.settings, {RecordKey("new.cluster.local", "A"): ("10.96.0.9",)})
    made.zone_changed()
    assert dns.message.from_wire(made.respond(packet)).rcode() == Rcode.NOERROR


def test_a_cached_answer_has_the_id_of_its_question():
    made = responder()
    for id_ in (1, 0xFFFF):
        query = dns.message.make_query("web.shop.svc.cluster.local", "A", id=id_)
        assert dns.message.from_wire(made.respond(query.to_wire())).id == id_


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", Upstream("192.0.2.1")),
        ("192.0.2.1:5353", Upstream("192.0.2.1", 5353)),
        ("2001:db8::1", Upstream("2001:db8::1")),
        ("[2001:db8::1]:5353", Upstream("2001:db8::1", 5353)),
    ],
)
def test_an_upstream_is_an_address_with_or_without_port(text, expected):
    assert parse_upstream(text) == expected


def test_the_resolver_never_forwards_to_itself():
    assert parse_upstreams(["169.254.20.10", "fd00:5f::10", "nonsense"]) == ()


@given(st.binary(max_size=80))
def test_hostile_replies_are_never_more_than_malformed(reply):
    # What is suppressed here, the forwarder takes for "not to be kept".
    with contextlib.suppress(Malformed, IndexError, struct.error):
        assert ttls(b"\0\0\x81\x80" + reply)[0] <= 300


def test_the_hosts_nameservers_are_read_again_when_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(HostResolvers, "CHECK_PERIOD_S", 0.0)
    file = tmp_path / "resolv.conf"
    file.write_text("search x\nnameserver 192.0.2.1\nnameserver 169.254.20.10\nnameserver\n")
    resolvers = HostResolvers(file)
    assert resolvers() == (Upstream("192.0.2.1"),)
    file.unlink()
    file.write_text("nameserver 2001:db8::1\n")
    os.utime(file, ns=(1, 1))
    assert resolvers() == (Upstream("2001:db8::1"),)
    file.unlink()
    assert resolvers() == ()
