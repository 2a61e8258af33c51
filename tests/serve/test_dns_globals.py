"""Global names on the wire, read with dnspython."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.discovery.globalnames import PlannedName, PlannedRegion, Side
from sixfold.serve.dns_globals import GlobalNames, source_prefix
from sixfold.serve.dns_outside import Outside
from sixfold.serve.dns_wire import parse_query

HOST = "shop.example.org"


def region(name: str, address: str, *subnets: str) -> PlannedRegion:
    side = Side((address,), True)
    return PlannedRegion(name, 1, subnets, side, side)


def names() -> GlobalNames:
    made = GlobalNames(lambda: 0.0)
    eu = region("eu", "192.0.2.1", "198.51.100.0/24")
    us = region("us", "192.0.2.2", "203.0.113.0/24", "2001:db8::/32")
    made.load((PlannedName(HOST, "Geography", 5, (eu, us)),))
    return made


def ask(query: dns.message.Message, client: str = "127.0.0.1") -> dns.message.Message:
    answer = Outside(names()).answer(query.to_wire(), client)
    assert answer is not None
    return dns.message.from_wire(answer)


def query(name: str = HOST, type_: str = "A", subnet: str = "") -> dns.message.Message:
    options = []
    if subnet:
        address, _, length = subnet.partition("/")
        options = [dns.edns.ECSOption(address, int(length))]
    return dns.message.make_query(name, type_, use_edns=0, options=options)


def addresses(answer: dns.message.Message) -> list[str]:
    return [record.to_text() for rrset in answer.answer for record in rrset]


@pytest.mark.parametrize(
    ("subnet", "address"),
    [
        ("198.51.100.0/24", "192.0.2.1"),
        ("203.0.113.128/25", "192.0.2.2"),
        ("2001:db8:7::/48", "192.0.2.2"),
    ],
)
def test_a_client_is_where_its_resolver_says(subnet, address):
    answer = ask(query(subnet=subnet))
    assert addresses(answer) == [address]
    (option,) = answer.options
    assert (option.to_text().split()[1].split("/")[0]) == subnet.split("/")[0]
    assert option.scopelen == option.srclen == int(subnet.split("/")[1])


def test_without_a_subnet_it_is_where_the_question_came_from():
    assert addresses(ask(query(), "203.0.113.5")) == ["192.0.2.2"]
    assert addresses(ask(query(), "2001:db8::1%eth0")) == ["192.0.2.2"]


def test_the_edge_is_an_authority_and_no_resolver():
    answer = ask(query())
    assert answer.flags & dns.flags.AA
    assert not answer.flags & dns.flags.RA
    assert ask(query("example.com")).rcode() == dns.rcode.REFUSED
    assert ask(query("web.shop.svc.cluster.local")).rcode() == dns.rcode.REFUSED


def test_another_type_is_nodata_with_the_soa():
    for type_ in ("AAAA", "TXT", "NS"):
        answer = ask(query(type_=type_))
        assert (answer.rcode(), addresses(answer)) == (dns.rcode.NOERROR, [])
        assert answer.authority[0].name.to_text() == f"{HOST}."
    assert addresses(ask(query(type_="SOA")))[0].startswith(f"{HOST}. hostmaster.{HOST}. ")


def test_pods_are_where_they_are_whatever_they_say():
    asked = parse_query(query(subnet="203.0.113.0/24").to_wire())
    answer = names().inside(asked, "198.51.100.9", 1232)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert addresses(message) == ["192.0.2.1"]
    assert message.flags & dns.flags.RA
    assert names().inside(parse_query(query("other.example").to_wire()), "10.0.0.1", 512) is None


def test_an_odd_subnet_is_a_format_error():
    for body in (
        b"\0\1\x18\0\1\2",
        b"\0\1\x18\1\1\2\3",
        b"\0\3\0\0",
        b"\0\1\x21\0\1\2\3\4\5",
        b"\0",
    ):
        odd = dns.message.make_query(
            HOST, "A", use_edns=0, options=[dns.edns.GenericOption(8, body)]
        )
        assert ask(odd).rcode() == dns.rcode.FORMERR


@given(st.binary(max_size=120), st.integers(0, 60))
def test_whatever_comes_is_answered_shortly_or_not_at_all(noise, at):
    packet = query(subnet="198.51.100.0/24").to_wire()
    packet = packet[:at] + noise + packet[at + len(noise) :]
    answer = Outside(names()).answer(packet, "192.0.2.99")
    assert answer is None or len(answer) <= 512


def test_who_counts_as_one():
    assert source_prefix("192.0.2.77") == "192.0.2.0/24"
    assert source_prefix("2001:db8:1:2:3::4%eth0") == "2001:db8:1::/56"
