"""Questions made by hand, the resolver's two answers to them, and how they compare."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import dns.message
from crafted import A4, A6, IPV4, IPV6, UDP, B, Kernel, allow, ethernet, ipv4, ipv6

from sixfold.discovery.answers import AnswerPlanner
from sixfold.discovery.zone import RecordKey, Zone, ZoneDelta, ZoneSettings, ZoneTree
from sixfold.host.datapath import KernelDatapath
from sixfold.host.names import NameTable
from sixfold.host.views import ViewTable
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.model.datapath import EGRESS, INGRESS, IpcacheEntry, PolicyTable
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import RESOLVER, WORLD
from sixfold.model.layers import Layers
from sixfold.model.names import EVERYTHING, LINE_BITS, NamePlan, ViewPlan
from sixfold.serve.dns_answer import Responder
from sixfold.serve.dns_control import views_message
from sixfold.serve.dns_views import Views

REDIRECT = 7
ORIGINS = (
    "cluster.local",
    "244.10.in-addr.arpa",
    "96.10.in-addr.arpa",
    "0.0.0.0.0.0.0.0.4.4.2.0.f.5.0.0.0.0.d.f.ip6.arpa",
)
SETTINGS = ZoneSettings(ORIGINS)


class Asker:
    """Pod a, whose policy lets it ask the resolver, and the resolver's process as it would be."""

    def __init__(self, datapath: KernelDatapath, zone: Zone, settings: ZoneSettings = SETTINGS):
        self.kernel = Kernel(datapath)
        desired = self.kernel.desired
        opened = PolicyTable.of(
            [
                *(allow(EGRESS, peer) for peer in (B, WORLD, RESOLVER)),
                allow(INGRESS, WORLD),
            ],
            10,
            11,
        )
        self.open = replace(
            desired,
            ipcache={
                ip_network(RESOLVER_IPV4): IpcacheEntry(RESOLVER),
                ip_network(RESOLVER_IPV6): IpcacheEntry(RESOLVER),
            },
            policies={**desired.policies, EndpointId(1): opened},
        )
        self.closed = replace(self.open, policies=desired.policies)
        datapath.apply(self.open)
        self.table = NameTable(datapath.maps)
        self.views = ViewTable(datapath.maps)
        self.settings = settings
        self.numbers: dict[str, int] = {}
        self.load(zone)
        self.see(EVERYTHING)

    def load(self, zone: Zone) -> NamePlan:
        """Give both the same zone."""
        self.responder = Responder()
        self.responder.zone = ZoneTree(self.settings, zone)
        planner = AnswerPlanner(number=self.number)
        plan = planner.plan(self.settings, ZoneDelta(zone))
        self.table.apply(plan)
        return plan

    def number(self, owner: str) -> int:
        return self.numbers.setdefault(owner, 1 + 300 * len(self.numbers))

    def see(self, view: int, owners: Iterable[str] = ()) -> None:
        """Give pod a a view; ``owners`` are what one of its own shows."""
        lines: dict[int, int] = {}
        for number in map(self.number, owners):
            lines[number // LINE_BITS] = lines.get(number // LINE_BITS, 0) | 1 << number % LINE_BITS
        seen = {view: lines} if view > EVERYTHING else {}
        clients = {str(address): view for address in (A4, A6)}
        plan = ViewPlan(Layers({EndpointId(1): view}), clients, seen, self.numbers)
        self.views.apply(plan)
        message = views_message(ViewPlan(clients={}), plan)
        self.responder.views = Views(message)
        self.responder.zone_changed()

    def process(self, message: bytes, family: int = 4) -> object:
        """The process's answer to the same."""
        return self.responder.respond(message, str(A4 if family == 4 else A6))

    def ask(self, message: bytes, *, family: int = 4) -> bytes | None:
        """The kernel's answer to a message; None when it leaves it to the process."""
        frame = frame_of(message, family)
        run = self.kernel.run("from_endpoint", frame)
        if run.verdict != REDIRECT:
            assert run.verdict == 0, run
            assert run.packet == frame, "what is passed on is passed on as it was"
            return None
        return message_of(run.packet, frame, family)


def frame_of(message: bytes, family: int, source: int = 4321) -> bytes:
    datagram = struct.pack("!HHHH", source, 53, 8 + len(message), 0) + message
    us, them = (A4, RESOLVER_IPV4) if family == 4 else (A6, RESOLVER_IPV6)
    datagram = sealed(datagram, us.packed + them.packed)
    if family == 4:
        return ethernet(IPV4, ipv4(datagram, UDP, us, them))
    return ethernet(IPV6, ipv6(datagram, UDP, us, them))


def sealed(datagram: bytes, addresses: bytes) -> bytes:
    sum_ = ~summed(addresses + struct.pack("!HH", 17, len(datagram)) + datagram) & 0xFFFF
    return datagram[:6] + struct.pack("!H", sum_ or 0xFFFF) + datagram[8:]


def summed(content: bytes) -> int:
    content += bytes(len(content) & 1)
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def message_of(packet: bytes, frame: bytes, family: int) -> bytes:
    """The message of a reply, whose every header is looked at."""
    assert packet[:6] == frame[6:12]
    assert packet[6:12] == frame[:6]
    start = 34 if family == 4 else 54
    if family == 4:
        assert packet[26:30] == frame[30:34]
        assert packet[30:34] == frame[26:30]
        assert summed(packet[14:34]) == 0xFFFF
        assert struct.unpack_from("!H", packet, 16)[0] == len(packet) - 14
        addresses = packet[26:34]
    else:
        assert packet[22:38] == frame[38:54]
        assert packet[38:54] == frame[22:38]
        assert struct.unpack_from("!H", packet, 18)[0] == len(packet) - 54
        addresses = packet[22:54]
    source, destination, length, _ = struct.unpack_from("!HHHH", packet, start)
    assert (source, destination, length) == (53, 4321, len(packet) - start)
    pseudo = addresses + struct.pack("!HH", 17, length)
    assert summed(pseudo + packet[start:]) == 0xFFFF, "checksum"
    return packet[start + 8 :]


def same(ours: bytes, theirs: bytes) -> None:
    """Two answers are one: all but the order of what rotates, the serial, and compression."""
    assert ours[:10] == theirs[:10], "id, flags and counts"
    question = dns.message.from_wire(theirs).question[0]
    end = 12 + len(question.name.to_wire()) + 4
    assert ours[12:end] == theirs[12:end], "the question as it was asked"
    mine, other = (dns.message.from_wire(each) for each in (ours, theirs))
    sections = ["answer", "authority"]
    if other.additional or not mine.additional:  # the process, which spells all owners out,
        sections.append("additional")  # leaves away what then finds no room
    for section in sections:
        assert records(getattr(mine, section)) == records(getattr(other, section))
    if mine.answer:
        a, b = ([r.to_text() for r in each.answer[0]] for each in (mine, other))
        assert any(a[i:] + a[:i] == b for i in range(len(a))), "a rotation"
    assert (mine.edns, mine.payload, mine.ednsflags) == (other.edns, other.payload, other.ednsflags)


def records(section: list) -> dict:
    found = {}
    for rrset in section:
        texts = {record.to_text() for record in rrset}
        if rrset.rdtype == 6:
            texts = {" ".join(w for i, w in enumerate(t.split()) if i != 2) for t in texts}
        found[rrset.name.to_text().lower(), rrset.rdtype, rrset.ttl] = texts
    return found


def random_zone(random_: random.Random) -> Mapping[RecordKey, tuple[str, ...]]:
    """Names of every kind and length: some too long, too many, or not of the kernel's kind."""
    zone: dict[RecordKey, tuple[str, ...]] = {
        RecordKey("svc.cluster.local", ""): (),
        RecordKey("cluster.local", "NS"): ("ns.dns.cluster.local.",),
        RecordKey("ns.dns.cluster.local", "A"): ("169.254.20.10",),
        RecordKey("dns-version.cluster.local", "TXT"): ('"1.1.0"',),
    }
    for number in range(random_.randrange(1, 12)):
        label = "x" * random_.choice((1, 3, 20, 63)) + str(number)
        name = f"{label[-63:]}.ns{number % 3}.svc.cluster.local"
        if random_.random() < 0.3:
            name = f"{'h' * random_.choice((1, 60))}.{name}"
        count = random_.choice((1, 1, 2, 3, 5, 6, 30, 80))
        if random_.random() < 0.8:
            zone[RecordKey(name, "A")] = tuple(f"10.96.{number}.{i}" for i in range(count))
        if random_.random() < 0.5:
            texts = tuple(f"fd00:5f:96::{number:x}:{i:x}" for i in range(count))
            zone[RecordKey(name, "AAAA")] = texts
        if random_.random() < 0.5:
            rdata = tuple(f"0 100 {80 + i} {name}." for i in range(random_.choice((1, 2, 9))))
            zone[RecordKey(f"_http._tcp.{name}", "SRV")] = rdata
            zone[RecordKey(name, "SRV")] = rdata
        if random_.random() < 0.5:
            address = random_.choice((f"10.96.{number}.1", f"fd00:5f:244::{number:x}"))
            reverse = ip_address(address).reverse_pointer
            zone[RecordKey(reverse, "PTR")] = (f"{name}.",)
    names = sorted({key.name for key in zone if ".ns" in key.name})
    for number in range(random_.randrange(4)):  # addresses of several services
        targets = random_.sample(names, min(len(names), random_.choice((2, 2, 3, 4, 6))))
        if targets:
            reverse = ip_address(f"10.244.7.{number}").reverse_pointer
            zone[RecordKey(reverse, "PTR")] = tuple(f"{name}." for name in targets)
    return zone


def random_query(random_: random.Random, zone: Zone) -> bytes:
    """A question about the zone, near it, or elsewhere; in any case and any dress."""
    name = random_.choice(sorted({key.name for key in zone}))
    match random_.randrange(8):
        case 0:
            name = f"nobody.{name}"
        case 1:
            name = name.partition(".")[2] or name
        case 2:
            name = random_.choice(
                (
                    f"www.example.com.{name}",
                    "www.example.com",
                    "xcluster.local",
                    "cluster.local",
                    "local",
                    "1.0.244.10.in-addr.arpa",
                    "1.2.0.192.in-addr.arpa",
                )
            )
    labels = name.split(".")
    while len(".".join(labels)) > 250:
        del labels[0]
    name = "".join(random_.choice((c.upper(), c.lower())) for c in ".".join(labels))
    types = ("A", "AAAA", "SRV", "PTR", "TXT", "NS", "SOA", "MX", "HTTPS", "ANY", "CNAME", "DS")
    edns = random_.random() < 0.6
    options = [dns.edns.GenericOption(10, random_.randbytes(random_.choice((8, 9, 40))))]
    message = dns.message.make_query(
        name,
        random_.choice(types[:4]) if random_.random() < 0.7 else random_.choice(types),
        use_edns=0 if edns else -1,
        want_dnssec=edns and random_.random() < 0.3,
        payload=random_.choice((0, 512, 600, 1232, 4096)),
        options=options if edns and random_.random() < 0.4 else None,
        id=random_.randrange(1 << 16),
    )
    if random_.random() < 0.3:
        message.flags ^= random_.choice((dns.flags.RD, dns.flags.AD, dns.flags.CD))
    return message.to_wire()
