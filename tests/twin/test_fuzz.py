"""Mutated packets: the programs survive, and nobody speaks in another's name."""

from __future__ import annotations

import os
import random
from ipaddress import IPv6Address

import pytest
from crafted import (
    A4,
    A6,
    ARP,
    B4,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    PASS,
    POD_MAC,
    REDIRECT,
    SHOT,
    UDP,
    Kernel,
    arp,
    frame4,
    frame6,
    ipv4,
    solicit,
    tcp,
    udp,
)

from sixfold.host.datapath import KernelDatapath

pytestmark = pytest.mark.root

ROUNDS = int(os.environ.get("SIXFOLD_FUZZ_ROUNDS", "4000"))
CORPUS = [
    frame4(tcp()),
    frame6(tcp()),
    frame4(udp(b"payload"), UDP),
    frame6(udp(b"payload"), UDP),
    frame4(udp(bytes(24)), UDP, fragment=0x2000, number=5),
    frame4(bytes(16), UDP, fragment=4, number=5),
    frame6(b"\x06\0" + bytes(6) + tcp(), 0),
    frame6(b"\x11\0\0\x01\0\0\0\x05" + udp(bytes(16)), 44),
    frame4(b"\x08\0\0\0\0\x07\0\x01", ICMP),
    frame4(b"\x03\x03\0\0\0\0\0\0" + ipv4(udp(), UDP, B4, A4), ICMP),
    frame6(b"\x80\0\0\0\0\x07\0\x01", ICMPV6),
    arp(),
    solicit(IPv6Address("fe80::1")),
]


def mutate(random_: random.Random, packet: bytes) -> bytes:
    """Flip, cut, grow and splice, once to four times."""
    out = bytearray(packet)
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(out))
        match random_.randrange(5):
            case 0:
                out[at] ^= 1 << random_.randrange(8)
            case 1:
                out[at] = random_.choice((0, 1, 4, 5, 6, 17, 44, 58, 0x45, 0x60, 0xFF))
            case 2:
                del out[max(at, 14) :]
            case 3:
                out += random_.randbytes(random_.randrange(1, 40))
            case 4:
                other = random_.choice(CORPUS)
                out[14:] = out[14 : max(at, 14)] + other[max(at, 14) :]
        # BPF_PROG_TEST_RUN takes no less; tests/host sends the shorter ones over a wire.
        least = {b"\x08\0": 34, b"\x86\xdd": 54}.get(bytes(out[12:14]), 15)
        out += bytes(max(0, least - len(out)))
    return bytes(out)


def speaks_for_itself(packet: bytes) -> bool:
    """Whether a packet from pod a bears a's addresses only."""
    if packet[6:12] != POD_MAC:
        return False
    match int.from_bytes(packet[12:14], "big"):
        case kind if kind == IPV4:
            return packet[26:30] == A4.packed
        case kind if kind == IPV6:
            source = IPv6Address(packet[22:38])
            solicits = packet[20] == ICMPV6 and packet[54] in (135, 136)
            return source == A6 or (source.is_link_local and solicits)
        case kind if kind == ARP:
            return packet[22:28] == POD_MAC and packet[28:32] == A4.packed
    return False


def test_no_mutated_packet_is_forwarded_in_anothers_name(datapath: KernelDatapath) -> None:
    seed = int(os.environ.get("SIXFOLD_FUZZ_SEED", random.randrange(2**32)))
    print(f"SIXFOLD_FUZZ_SEED={seed}")
    random_, kernel = random.Random(seed), Kernel(datapath)
    verdicts = {PASS: 0, SHOT: 0, REDIRECT: 0}
    for _ in range(ROUNDS):
        packet = mutate(random_, random_.choice(CORPUS))
        verdict = kernel.send(packet)
        verdicts[verdict] += 1
        assert verdict == SHOT or speaks_for_itself(packet), packet.hex()
        assert kernel.receive(packet) in (PASS, SHOT)
    assert verdicts[SHOT] > ROUNDS / 10
    assert verdicts[REDIRECT] > ROUNDS / 100
