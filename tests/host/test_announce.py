"""Frames that say where an address is, and segments that make a client ask."""

from __future__ import annotations

from ipaddress import ip_address

from sixfold.host.announce import announcement, checksum, solicited_mac
from sixfold.host.nudge import segment

MAC = bytes.fromhex("0200000000aa")


def test_an_arp_announcement_is_a_request_for_its_own_sender():
    frame = announcement(ip_address("192.0.2.64"), MAC)
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x06"
    assert frame[20:22] == b"\0\1"
    assert (frame[22:28], frame[28:32], frame[38:42]) == (
        MAC,
        ip_address("192.0.2.64").packed,
        ip_address("192.0.2.64").packed,
    )


def test_an_unsolicited_advertisement_is_whole():
    address = ip_address("2001:db8::64")
    frame = announcement(address, MAC)
    assert frame[:6] == bytes.fromhex("333300000001")
    source, destination, body = frame[22:38], frame[38:54], frame[54:]
    assert (source, destination) == (address.packed, ip_address("ff02::1").packed)
    assert (body[0], body[4], body[8:24], body[-6:]) == (136, 0x20, address.packed, MAC)
    pseudo = source + destination + len(body).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert checksum(pseudo + body) == 0


def test_questions_for_an_address_go_to_its_own_group():
    assert solicited_mac(ip_address("2001:db8::12:3456")).hex(":") == "33:33:ff:12:34:56"


def test_a_nudge_is_an_empty_acknowledgement_of_either_family():
    for source, destination, size in (
        ("192.0.2.64", "198.51.100.2", 20),
        ("2001:db8::64", "2001:db8::2", 40),
    ):
        one, other = ip_address(source), ip_address(destination)
        packet = segment(one, 80, other, 4000)
        tcp = packet[size:]
        assert (tcp[:4], tcp[13], len(tcp)) == (b"\0\x50\x0f\xa0", 0x10, 20)
        pseudo = one.packed + other.packed + (20).to_bytes(4, "big") + (6).to_bytes(4, "big")
        assert checksum(pseudo + tcp) == 0
