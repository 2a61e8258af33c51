"""The kernel answers as the resolver's process would, or not at all."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import replace
from itertools import chain, combinations

import dns.message
import dns.rcode
import pytest
from crafted import A4, POD_MAC, SHOT, UDP, frame4, udp
from questions import (
    REDIRECT,
    SETTINGS,
    Asker,
    frame_of,
    random_query,
    random_zone,
    same,
)

from sixfold.discovery.zone import RecordKey, ZoneSettings, owner_of
from sixfold.host import layout
from sixfold.host.datapath import KernelDatapath
from sixfold.host.views import ViewTable
from sixfold.model.config import RESOLVER_IPV4
from sixfold.model.names import EVERYTHING, NAME_TYPE, NOTHING, NameKey
from sixfold.model.reason import DropReason
from sixfold.observe.join import EVENT_DROP

pytestmark = pytest.mark.root

ROUNDS = int(os.environ.get("SIXFOLD_FUZZ_ROUNDS", "2000"))
WEB = "web.shop.svc.cluster.local"
ZONE = {
    RecordKey("svc.cluster.local", ""): (),
    RecordKey(WEB, "A"): ("10.96.0.1",),
    RecordKey(f"_http._tcp.{WEB}", "SRV"): (f"0 100 80 {WEB}.",),
    RecordKey("few.shop.svc.cluster.local", "A"): tuple(f"10.244.0.{i}" for i in range(3)),
    RecordKey("many.shop.svc.cluster.local", "A"): tuple(f"10.244.1.{i}" for i in range(70)),
    RecordKey("crowd.shop.svc.cluster.local", "A"): tuple(f"10.244.2.{i}" for i in range(100)),
}


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("SIXFOLD_FUZZ_SEED", random.randrange(2**32)))
    print(f"SIXFOLD_FUZZ_SEED={chosen}")
    return chosen


@pytest.fixture
def asker(datapath: KernelDatapath) -> Asker:
    return Asker(datapath, ZONE)


def query(name: str = WEB, type_: str = "A", **more: object) -> bytes:
    return dns.message.make_query(name, type_, **more).to_wire()


def test_kernel_and_process_answer_alike(datapath: KernelDatapath, seed: int) -> None:
    random_ = random.Random(seed)
    asker = Asker(datapath, {})
    answered = denied = 0
    for _ in range(30):
        zone = random_zone(random_)
        asker.load(zone)
        owners = {owner for key in zone if (owner := owner_of(key.name, ["cluster.local"]))}
        some = random_.sample(sorted(owners), random_.randint(0, len(owners)))
        asker.see(random_.choice((NOTHING, EVERYTHING, 2, 3, 4)), some)
        for _ in range(ROUNDS // 120):
            message, family = random_query(random_, zone), random_.choice((4, 6))
            theirs = asker.process(message, family)
            ours = asker.ask(message, family=family)
            if ours is None:
                continue
            assert isinstance(theirs, bytes), "what is not ours is passed on"
            same(ours, theirs)
            answered += bool(ours[7])
            denied += not ours[7]
    assert answered > ROUNDS / 200  # most of what is asked is hidden, or not there
    assert denied > ROUNDS / 100


@pytest.mark.parametrize("family", [4, 6])
def test_a_question_is_answered_in_the_case_in_which_it_was_asked(
    asker: Asker, family: int
) -> None:
    name = "wEb.ShOp.sVc.CLUSTER.local."
    reply = dns.message.from_wire(asker.ask(query(name), family=family) or b"")
    assert reply.question[0].name.to_text() == name
    assert [record.address for record in reply.answer[0]] == ["10.96.0.1"]
    assert reply.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("name", "type_", "rcode"),
    [
        (WEB, "AAAA", dns.rcode.NOERROR),
        (WEB, "MX", dns.rcode.NOERROR),
        ("shop.svc.cluster.local", "A", dns.rcode.NOERROR),
        ("_tcp.web.shop.svc.cluster.local", "SRV", dns.rcode.NOERROR),
        ("cluster.local", "A", dns.rcode.NOERROR),
        ("nobody.shop.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("www.example.com.shop.svc.cluster.local", "AAAA", dns.rcode.NXDOMAIN),
        ("9.9.244.10.in-addr.arpa", "PTR", dns.rcode.NXDOMAIN),
    ],
)
def test_what_is_not_there_is_denied_with_the_soa(
    asker: Asker, name: str, type_: str, rcode: int
) -> None:
    reply = dns.message.from_wire(asker.ask(query(name, type_)) or b"")
    assert (reply.rcode(), reply.answer) == (rcode, [])
    assert reply.authority[0][0].minimum == SETTINGS.ttl_s


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        (WEB, "A"),
        (WEB, "AAAA"),
        (WEB, "MX"),
        (f"_http._tcp.{WEB}", "SRV"),
        (f"_tcp.{WEB}", "A"),
        ("1.0.96.10.in-addr.arpa", "PTR"),
        ("crowd.shop.svc.cluster.local", "A"),
    ],
)
def test_what_a_pod_must_not_know_of_does_not_exist_for_it(
    asker: Asker, name: str, type_: str
) -> None:
    asker.load({**ZONE, RecordKey("1.0.96.10.in-addr.arpa", "PTR"): (f"{WEB}.",)})
    owner = "shop/crowd" if name.startswith("crowd") else "shop/web"
    message = query(name, type_)
    open_ = asker.ask(message)
    assert open_ is None or dns.message.from_wire(open_).rcode() == dns.rcode.NOERROR
    for view, owners in ((NOTHING, ()), (2, ("shop/other",))):
        asker.see(view, owners)
        connections = asker.kernel.datapath.maps["conntrack"]
        connections.delete([key for key, _ in connections.items()])  # else it is part of one
        asker.kernel.events()
        ours = asker.ask(message) or b""
        same(ours, asker.process(message))
        assert dns.message.from_wire(ours).rcode() == dns.rcode.NXDOMAIN
        (event,) = asker.kernel.events()
        assert (event.type, event.reason) == (EVENT_DROP, DropReason.NAME_HIDDEN)
        assert (event.service, event.answer, event.rule) == (asker.numbers[owner], 4, (0, 0))
    asker.see(3, (owner,))
    ours = asker.ask(message)
    assert (ours is None) == (open_ is None)
    assert ours is None or dns.message.from_wire(ours).rcode() == dns.rcode.NOERROR


SHARED = "7.0.244.10.in-addr.arpa"
POINTERS = (
    f"h.{WEB}.",
    "h.few.shop.svc.cluster.local.",
    f"i.{WEB}.",
    "h.db.data.svc.cluster.local.",
)


@pytest.mark.parametrize("family", [4, 6])
def test_an_address_is_called_by_those_of_its_services_that_the_pod_sees(
    asker: Asker, family: int
) -> None:
    asker.load({**ZONE, RecordKey(SHARED, "PTR"): POINTERS})
    message = query(SHARED, "PTR")
    owners = ("data/db", "shop/few", "shop/web")
    for view, seen in enumerate(chain.from_iterable(combinations(owners, n) for n in range(4))):
        asker.see(view + 2, (*seen, "shop/other"))
        ours = asker.ask(message, family=family) or b""
        same(ours, asker.process(message, family))
        reply = dns.message.from_wire(ours)
        assert sum(map(len, reply.answer)) == sum(1 + (one == "shop/web") for one in seen)
        assert reply.rcode() == (dns.rcode.NOERROR if seen else dns.rcode.NXDOMAIN)
        text = query(SHARED, "TXT")
        same(asker.ask(text, family=family) or b"", asker.process(text, family))
    asker.see(EVERYTHING)
    assert len(dns.message.from_wire(asker.ask(message) or b"").answer[0]) == len(POINTERS)


def test_an_address_of_none_that_the_pod_sees_is_told_as_hidden(asker: Asker) -> None:
    asker.load({**ZONE, RecordKey(SHARED, "PTR"): POINTERS})
    asker.see(NOTHING)
    asker.kernel.events()
    assert asker.ask(query(SHARED, "PTR"))
    (event,) = asker.kernel.events()
    assert (event.reason, event.service) == (DropReason.NAME_HIDDEN, asker.numbers["data/db"])


def test_an_address_of_many_services_is_the_process_s_but_for_who_sees_all(asker: Asker) -> None:
    targets = tuple(f"h.svc-{n}.shop.svc.cluster.local." for n in range(4))
    asker.load({**ZONE, RecordKey(SHARED, "PTR"): targets})
    message = query(SHARED, "PTR")
    assert len(dns.message.from_wire(asker.ask(message) or b"").answer[0]) == 4
    for view, owners in ((NOTHING, ()), (2, ("shop/svc-1", "shop/svc-2"))):
        asker.see(view, owners)
        assert asker.ask(message) is None


def test_what_was_written_for_other_owners_is_told_to_nobody(asker: Asker) -> None:
    """The moment between two writes, when the owners are new and the records are not."""
    planned = asker.load({**ZONE, RecordKey(SHARED, "PTR"): POINTERS[:2]})
    few, web = asker.number("shop/few"), asker.number("shop/web")
    asker.see(2, ("shop/few",))
    assert asker.ask(query(SHARED, "PTR"))
    itself = NameKey(0, SHARED, NAME_TYPE)
    swapped = planned.answers[itself]._replace(records=struct.pack("<2I", web, few))
    changed = replace(planned, answers=planned.answers.changed({itself: swapped}))
    asker.table.apply(changed)
    assert asker.ask(query(SHARED, "PTR")) is None


def test_what_belongs_to_nobody_is_told_to_everybody(asker: Asker) -> None:
    asker.see(NOTHING)
    for name in ("cluster.local", "svc.cluster.local"):
        reply = dns.message.from_wire(asker.ask(query(name)) or b"")
        assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])


def test_views_outlive_the_agent_and_what_somebody_changes_is_put_back(
    datapath: KernelDatapath, asker: Asker
) -> None:
    asker.see(5, ("shop/web", "shop/few"))
    assert ViewTable(datapath.maps).read() == asker.views.read()
    assert asker.views.repair() == []
    datapath.maps["views"].delete([key for key, _ in datapath.maps["views"].items()])
    datapath.maps["view_of"].update([(layout.U32.pack(1), layout.U32.pack(EVERYTHING))])
    assert asker.views.repair() == ["view_of[1]: changed; put back", "views[5]: changed; put back"]
    assert asker.views.last() == 5
    message = query("few.shop.svc.cluster.local")
    assert dns.message.from_wire(asker.ask(message) or b"").answer


def test_every_rotation_of_the_addresses_comes_up(asker: Asker) -> None:
    for name, count, tries in (("few", 3, 60), ("many", 70, 140)):
        message = query(f"{name}.shop.svc.cluster.local", use_edns=0, payload=1232)
        replies = [dns.message.from_wire(asker.ask(message) or b"") for _ in range(tries)]
        firsts = {reply.answer[0][0].address for reply in replies}
        assert len(firsts) >= min(count, 40)  # of 140 draws of 70, some 60 differ
        assert {len(reply.answer[0]) for reply in replies} == {count}


@pytest.mark.parametrize(("size", "answered"), [(None, False), (600, False), (1232, True)])
def test_no_reply_is_longer_than_edns_allows(
    asker: Asker, size: int | None, answered: bool
) -> None:
    edns = {} if size is None else {"use_edns": 0, "payload": size}
    reply = asker.ask(query("many.shop.svc.cluster.local", **edns))
    assert (reply is not None) == answered
    assert reply is None or len(reply) <= 1232


PLAIN = query()
EDNS = query(use_edns=0)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(query("crowd.shop.svc.cluster.local", use_edns=0), id="set too long"),
        pytest.param(query("www.example.com"), id="not ours"),
        pytest.param(query("xcluster.local"), id="ends like ours"),
        pytest.param(query("cluster.local", "SOA"), id="SOA"),
        pytest.param(query(WEB, "ANY"), id="ANY"),
        pytest.param(query(WEB, "AXFR"), id="AXFR"),
        pytest.param(query(WEB, use_edns=1), id="EDNS 1"),
        pytest.param(PLAIN[:2] + b"\x85" + PLAIN[3:], id="a response"),
        pytest.param(PLAIN[:2] + b"\x21" + PLAIN[3:], id="NOTIFY"),
        pytest.param(PLAIN[:2] + b"\x03" + PLAIN[3:], id="truncated flag"),
        pytest.param(PLAIN[:3] + b"\x40" + PLAIN[4:], id="reserved flag"),
        pytest.param(PLAIN[:5] + b"\x02" + PLAIN[6:], id="two questions"),
        pytest.param(PLAIN[:5] + b"\x00" + PLAIN[6:], id="no question"),
        pytest.param(PLAIN[:7] + b"\x01" + PLAIN[8:], id="an answer in it"),
        pytest.param(PLAIN[:-1] + b"\x03", id="class CH"),
        pytest.param(PLAIN + b"\0", id="something behind it"),
        pytest.param(EDNS + b"\0", id="something behind EDNS"),
        pytest.param(EDNS[:-1] + b"\x01", id="options that are not there"),
        pytest.param(PLAIN[:-1], id="cut"),
        pytest.param(PLAIN[:12], id="header only"),
        pytest.param(PLAIN[:11], id="half a header"),
        pytest.param(b"", id="empty"),
        pytest.param(PLAIN[:12] + b"\xc0\x0c" + PLAIN[-4:], id="a name that points"),
        pytest.param(PLAIN[:12] + b"\x40a" + PLAIN[14:], id="label type 1"),
        pytest.param(PLAIN[:12] + b"\x01a" * 127 + PLAIN[12:], id="name of 280 bytes"),
        pytest.param(PLAIN[:-4] + b"\0\0" + PLAIN[-2:], id="type 0"),
        pytest.param(EDNS + bytes(500), id="600 bytes"),
    ],
)
def test_what_is_odd_goes_on_to_the_process_as_it_came(asker: Asker, message: bytes) -> None:
    assert asker.ask(message) is None
    assert asker.ask(message, family=6) is None


def test_fragments_and_other_ports_and_addresses_are_not_looked_into(asker: Asker) -> None:
    run = asker.kernel.run
    first = frame4(udp(PLAIN, destination=53), UDP, A4, RESOLVER_IPV4, fragment=0x2000)
    assert run("from_endpoint", first).packet == first
    other = frame4(udp(PLAIN, destination=54), UDP, A4, RESOLVER_IPV4)
    assert run("from_endpoint", other).packet == other


def test_a_pod_that_may_not_ask_the_resolver_is_answered_nothing(
    datapath: KernelDatapath, asker: Asker
) -> None:
    assert asker.ask(PLAIN), "what policy said of this one must not be kept too long"
    datapath.apply(asker.closed)
    asker.kernel.events()
    assert asker.kernel.send(frame_of(PLAIN, 4)) == SHOT
    (event,) = asker.kernel.events()
    assert DropReason(event.reason) == DropReason.POLICY_DENIED
    datapath.apply(asker.open)
    assert asker.ask(PLAIN)


def test_a_stranger_is_answered_nothing(asker: Asker) -> None:
    assert asker.ask(PLAIN)
    spoofed = frame_of(PLAIN, 4).replace(A4.packed, bytes((192, 0, 2, 77)))
    assert asker.kernel.send(spoofed) == SHOT
    other_mac = frame_of(PLAIN, 4).replace(POD_MAC, b"\x02\0\0\0\0\x09")
    assert asker.kernel.send(other_mac) == SHOT


def test_a_question_leaves_no_connection_and_one_event(asker: Asker) -> None:
    asker.kernel.events()
    before = len(dict(asker.kernel.datapath.maps["conntrack"].items()))
    asker.ask(PLAIN)
    assert len(dict(asker.kernel.datapath.maps["conntrack"].items())) == before
    (event,) = asker.kernel.events()
    assert (event.answer, event.destination_port) == (1, 53)


def test_one_socket_may_ask_the_kernel_and_the_process(asker: Asker) -> None:
    assert asker.ask(query("www.example.com")) is None
    assert asker.ask(PLAIN) is not None
    assert asker.ask(query("www.example.org")) is None


def test_a_flood_is_counted_whole_and_leaves_the_ring_to_others(asker: Asker) -> None:
    def counts() -> tuple[int, int]:
        hits = asker.kernel.datapath.rule_hits()
        return asker.kernel.datapath.statistics().get("names_found", 0), hits.get(21, 0)

    asker.kernel.events()
    found, hits = counts()
    frame = frame_of(PLAIN, 4)
    for _ in range(2_000):
        assert asker.kernel.send(frame) == REDIRECT
    told = len(asker.kernel.events())
    assert told < 2_000 / 2
    assert counts() == (found + 2_000, hits + 2_000)


def test_a_sum_that_was_left_out_stays_so(asker: Asker) -> None:
    frame = bytearray(frame_of(PLAIN, 4))
    frame[40:42] = b"\0\0"
    run = asker.kernel.run("from_endpoint", bytes(frame))
    assert run.verdict == REDIRECT
    assert run.packet[40:42] == b"\0\0"


def test_names_that_find_no_room_are_the_process_s_and_nothing_is_denied(
    datapath: KernelDatapath,
) -> None:
    asker = Asker(datapath, {})
    names = datapath.maps["names"]
    small = names.definition._replace(max_entries=8)
    names.definition, kept = small, names.definition
    try:
        asker.load(ZONE)
        assert asker.table.left_out > 0
        assert not asker.table.denies("nobody.shop.svc.cluster.local")
        assert asker.ask(query("nobody.shop.svc.cluster.local")) is None
        for key in ZONE:
            message = query(key.name, key.type or "A")
            if (ours := asker.ask(message)) is not None:
                same(ours, asker.responder.respond(message))
    finally:
        names.definition = kept
    asker.load(ZONE)
    assert asker.ask(query("nobody.shop.svc.cluster.local"))


def test_of_names_with_one_hash_none_is_answered_for_another(
    datapath: KernelDatapath, seed: int
) -> None:
    random_ = random.Random(seed)
    few = layout.NAME_FACTORS.pack(*(1 + n % 7 << 61 for n in range(64)))  # of 8 hashes
    datapath.maps["name_factors"].update([(bytes(4), few)])
    try:
        asker = Asker(datapath, {})
        left_out = answered = 0
        for _ in range(30):
            zone = random_zone(random_)
            asker.load(zone)
            left_out += asker.table.left_out
            own = [query(key.name, key.type or "A") for key in zone]
            for message in own + [random_query(random_, zone) for _ in range(ROUNDS // 120)]:
                if (ours := asker.ask(message)) is not None:
                    same(ours, asker.responder.respond(message))
                    answered += 1
        assert left_out
        assert answered
    finally:
        datapath.maps["name_factors"].update([(bytes(4), bytes(layout.NAME_FACTORS.size))])
    assert Asker(datapath, ZONE).table.left_out == 0


def test_a_name_that_is_made_up_when_asked_for_is_the_process_s(
    datapath: KernelDatapath,
) -> None:
    asker = Asker(datapath, ZONE, ZoneSettings(SETTINGS.origins, pods_insecure=True))
    assert asker.ask(query("192-0-2-1.shop.pod.cluster.local")) is None
    assert asker.ask(query("nobody.shop.svc.cluster.local"))


def test_any_history_of_zones_ends_in_the_last(datapath: KernelDatapath, seed: int) -> None:
    random_ = random.Random(seed)
    asker = Asker(datapath, {})
    for _ in range(12):
        if random_.random() < 0.3:
            asker.table = type(asker.table)(datapath.maps)  # a new agent
        if random_.random() < 0.3:
            for name in ("names", "name_zones"):  # somebody deletes entries behind our back
                keys = [key for key, _ in datapath.maps[name].items()]
                gone = random_.sample(keys, min(len(keys), 3))
                datapath.maps[name].delete(gone)
                assert bool(asker.table.repair()) == bool(gone and asker.table._held is not None)
        plan = asker.load(random_zone(random_))
        held = type(asker.table)(datapath.maps).read()
        assert dict(held) == dict(plan.answers)
        sets = len(dict(datapath.maps["name_sets"].items()))
        assert sets == sum(len(a.records) * (2 if a.stride else 1) > 160 for a in held.values())


def mutate(random_: random.Random, message: bytes) -> bytes:
    out = bytearray(message)
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(out)) if out else 0
        match random_.randrange(6):
            case 0 if out:
                out[at] = random_.randrange(256)
            case 1 if len(out) > 13:
                del out[random_.randrange(13, len(out)) :]
            case 2:
                out += random_.randbytes(random_.randrange(1, 300))
            case 3 if out:
                out[at] = random_.choice((0, 1, 41, 63, 64, 192, 255))
            case 4 if len(out) > 12:
                out[random_.randrange(12)] ^= 1 << random_.randrange(8)
            case 5 if len(out) > 20:
                out[at:at] = out[max(0, at - 5) : at]
    return bytes(out)


def test_a_mutated_question_is_answered_rightly_or_passed_on(
    datapath: KernelDatapath, seed: int
) -> None:
    random_ = random.Random(seed)
    asker = Asker(datapath, ZONE)
    answered = 0
    names = (WEB, "nobody.shop.svc.cluster.local", "few.shop.svc.cluster.local", "www.example")
    corpus = [query(name, use_edns=edns) for name in names for edns in (-1, 0)]
    for _ in range(ROUNDS):
        message = mutate(random_, random_.choice(corpus))
        ours = asker.ask(message, family=random_.choice((4, 6)))
        if ours is None:
            continue
        answered += 1
        theirs = asker.responder.respond(message)
        assert isinstance(theirs, bytes), message.hex()
        same(ours, theirs)
    assert answered > ROUNDS / 100
