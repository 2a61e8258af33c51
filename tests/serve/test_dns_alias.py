"""Aliases of ours that upstream completes, as dnspython reads them."""

from __future__ import annotations

import contextlib

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.discovery.zone import RecordKey, ZoneSettings, ZoneTree
from sixfold.serve.dns_alias import Alias
from sixfold.serve.dns_answer import Responder

NAME, TARGET = "api.shop.svc.cluster.local", "www.example.org"


def alias(type_="A", *, edns=0):
    responder = Responder()
    zone = {RecordKey(NAME, "CNAME"): (f"{TARGET}.",)}
    responder.zone = ZoneTree(ZoneSettings(("cluster.local",)), zone)
    query = dns.message.make_query(NAME.upper(), type_, use_edns=edns)
    answer = responder.respond(query.to_wire())
    assert isinstance(answer, Alias)
    return query, answer


def upstream(answer, *lines, rcode="NOERROR", authority=()):
    """The reply to what is left to ask, compressed as servers do."""
    type_ = answer.rest.type
    reply = dns.message.make_response(dns.message.make_query(f"{TARGET}.", type_))
    reply.set_rcode(dns.rcode.from_text(rcode))
    reply.answer += [dns.rrset.from_text(*line.split(maxsplit=4)) for line in lines]
    reply.authority += [dns.rrset.from_text(*line.split(maxsplit=4)) for line in authority]
    return reply.to_wire()


def read(query, wire):
    message = dns.message.from_wire(wire)
    assert query.is_response(message)
    return message


def test_what_is_left_to_ask_is_the_target():
    _, answer = alias("AAAA")
    question = dns.message.from_wire(b"\0" * 5 + b"\1" + b"\0" * 6 + answer.rest.question)
    assert question.question[0].to_text() == f"{TARGET}. IN AAAA"
    assert answer.rest.name == TARGET


@pytest.mark.parametrize(
    ("type_", "lines"),
    [
        ("A", [f"{TARGET}. 60 IN A 198.51.100.1", f"{TARGET}. 60 IN A 198.51.100.2"]),
        (
            "AAAA",
            [f"{TARGET}. 9 IN CNAME cdn.example.org.", "cdn.example.org. 60 IN AAAA 2001:db8::1"],
        ),
        ("MX", [f"{TARGET}. 60 IN MX 10 mail.example.org."]),
        ("TXT", [f'{TARGET}. 60 IN TXT "a" "b"']),
        ("SRV", [f"{TARGET}. 60 IN SRV 0 1 80 {TARGET}."]),
    ],
)
def test_the_alias_and_what_it_leads_to_are_one_answer(type_, lines):
    query, answer = alias(type_)
    message = read(query, answer.complete(upstream(answer, *lines), 4096))
    first, *rest = message.answer
    assert first.to_text().lower() == f"{NAME}. 5 in cname {TARGET}."
    wanted = dns.message.from_wire(upstream(answer, *lines)).answer
    assert [one.to_text() for one in rest] == [one.to_text() for one in wanted]


def test_a_denial_of_the_target_is_passed_on_with_its_reason():
    query, answer = alias()
    soa = "example.org. 60 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5"
    reply = upstream(answer, rcode="NXDOMAIN", authority=[soa])
    message = read(query, answer.complete(reply, 4096))
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert [one.to_text() for one in message.authority] == [soa]
    assert len(message.answer) == 1


def test_what_is_too_long_for_the_client_is_cut():
    query, answer = alias(edns=-1)
    lines = [f"{TARGET}. 60 IN A 198.51.100.{number}" for number in range(50)]
    message = read(query, answer.complete(upstream(answer, *lines), 512))
    assert message.flags & dns.flags.TC


@given(st.integers(0, 200), st.integers(0, 255))
def test_no_byte_of_a_reply_breaks_it(position, value):
    _, answer = alias()
    reply = bytearray(upstream(answer, f"{TARGET}. 60 IN A 198.51.100.1"))
    reply[position % len(reply)] = value
    if (whole := answer.complete(bytes(reply), 4096)) is not None:
        with contextlib.suppress(dns.exception.DNSException):
            dns.message.from_wire(whole)
