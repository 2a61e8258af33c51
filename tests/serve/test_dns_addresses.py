"""What an answer says of the name that was asked: read with dnspython's bytes."""

from ipaddress import ip_address

import dns.message
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from sixfold.serve.dns_addresses import addresses_of

A, B = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SIX = ip_address("2001:db8::1")


def reply(*records: tuple[str, int, str, str], name: str = "www.example.org") -> bytes:
    message = dns.message.make_response(dns.message.make_query(name, "A"))
    for owner, ttl_s, type_, text in records:
        rrset = dns.rrset.from_text(f"{owner}.", ttl_s, "IN", type_, text)
        message.answer.append(rrset)
    return message.to_wire()


def test_its_own_addresses_count():
    packet = reply(("WWW.example.org", 60, "A", str(A)), ("www.example.org", 30, "A", str(B)))
    assert addresses_of(packet, "www.example.org") == {A: 60, B: 30}
    packet = reply(("www.example.org", 60, "AAAA", str(SIX)))
    assert addresses_of(packet, "www.example.org") == {SIX: 60}


def test_those_at_the_end_of_its_aliases_count_as_long_as_the_shortest_link():
    packet = reply(
        ("www.example.org", 40, "CNAME", "cdn.example.net."),
        ("cdn.example.net", 20, "CNAME", "edge.example.com."),
        ("edge.example.com", 300, "A", str(A)),
    )
    assert addresses_of(packet, "www.example.org") == {A: 20}


def test_records_of_other_names_belong_to_nobody():
    packet = reply(
        ("www.example.org", 60, "A", str(A)),
        ("bank.example.com", 60, "A", str(B)),
    )
    assert addresses_of(packet, "www.example.org") == {A: 60}
    assert addresses_of(packet, "example.org") == {}


def test_aliases_that_go_round_end():
    packet = reply(
        ("www.example.org", 60, "CNAME", "a.example.org."),
        ("a.example.org", 60, "CNAME", "www.example.org."),
    )
    assert addresses_of(packet, "www.example.org") == {}


def test_a_negative_ttl_is_none():
    packet = bytearray(reply(("www.example.org", 60, "A", str(A))))
    at = packet.rindex(b"\0\0\0\x3c")
    packet[at] = 0x80
    assert addresses_of(bytes(packet), "www.example.org") == {A: 0}


@given(st.data())
def test_broken_answers_say_nothing_wrong(data):
    packet = bytearray(
        reply(
            ("www.example.org", 40, "CNAME", "cdn.example.net."),
            ("cdn.example.net", 9, "A", str(A)),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packet)))
    addresses_of(bytes(packet[:cut]), "www.example.org")  # raises nothing


def test_pointers_that_go_round_end():
    packet = reply(("www.example.org", 60, "A", str(A)))
    at = packet.rindex(b"\xc0\x0c")
    looped = packet[:at] + bytes((0xC0 | at >> 8, at & 0xFF)) + packet[at + 2 :]
    assert addresses_of(looped, "www.example.org") == {}
