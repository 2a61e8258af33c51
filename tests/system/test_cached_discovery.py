"""A client that keeps addresses, caught: counted in the kernel at connect, told by the audit.

Nobody waits for a TTL here: what the kernel remembers of answers and of retired addresses is put
back in time instead.
"""

from __future__ import annotations

import json
import socket
import time

import dns.message
import dns.query
import pytest

from sixfold.host import bpf, layout

from .conftest import System
from .places import Place, manifest, place_of, pod, service

pytestmark = pytest.mark.root

RESOLVER = "169.254.20.10"
NAME = "db.default.svc.cluster.local"
LONG_NS = 60 * 10**9


def ask(place: Place) -> set[str]:
    with place.dial(RESOLVER, 53, kind=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        reply = dns.query.udp(dns.message.make_query(NAME, "A"), RESOLVER, timeout=5, sock=sock)
    return {record.address for rrset in reply.answer for record in rrset}


def age(system: System, name: str, at: int, now_ns: int = 0) -> None:
    """Put the time at an offset of every value of a map back by a minute; or to now."""
    table = bpf.Map(bpf.get(system.paths.bpffs / "maps" / name), name)
    changed = []
    for key, value in table.items():
        then = int.from_bytes(value[at : at + 8], "little")
        if then:
            put = (now_ns or then - LONG_NS).to_bytes(8, "little")
            changed.append((key, value[:at] + put + value[at + 8 :]))
    table.update(changed)
    table.close()


def findings(system: System) -> dict[str, str]:
    """What the audit says of Z24, by pod."""
    done = system.sixfold("audit", "--rule", "Z24", "-o", "json", check=False).stdout
    return {one["about"]: one["message"] for one in json.loads(done)}


def stale(system: System, name: str) -> list[str | None]:
    """What the flows of a pod's connections to the database say of how it knew the address."""
    flows = system.flows("--from", f"default/{name}", "--protocol", "tcp", "--all")
    return [one["sixfold"].get("stale") for one in flows]


def test_who_keeps_addresses_is_caught_and_who_asks_again_is_not(system: System) -> None:
    names = ("good", "caching", "fixed")
    system.up(
        *("--posture", "kubernetes"),
        manifest=manifest(
            *(pod(name) for name in names),
            *(pod(f"db-{n}", labels={"app": "db"}) for n in range(2)),
            service("db", clusterIP="None", ports=[{"port": 5432}]),
        ),
    )
    good, caching, fixed = (place_of(system, name) for name in names)
    db = [place_of(system, f"db-{n}") for n in range(2)]
    assert ask(good) == ask(caching) == {one.ipv4 for one in db}
    for place in (good, caching, fixed):
        assert place.answer(db[0].ipv4) == "ECONNREFUSED"
    age(system, "lookups", 0)
    for _ in range(20):
        ask(good)
        good.attempt(db[0].ipv4)
        caching.attempt(db[0].ipv4)
        fixed.attempt(db[0].ipv4)
    age(system, "dials", 0)
    told = findings(system)
    assert told["default/Pod/caching"].startswith("EXPIRED")
    assert set(told) == {"default/Pod/caching"}, "ten minutes are not over for who never asked"
    system.sixfold("delete", "pod", "db-1", "--now")
    assert ask(good) == {db[0].ipv4}
    retired = layout.NAMED_ADDRESS.size - 8
    age(system, "named_addresses", retired, time.monotonic_ns())
    caching.attempt(db[1].ipv4)
    assert "RETIRED" not in findings(system)["default/Pod/caching"], "within its TTL"
    age(system, "named_addresses", retired)
    caching.attempt(db[1].ipv4)
    done = system.sixfold("audit", "--rule", "Z24", check=False).stdout
    assert f"RETIRED: dials {db[1].ipv4}, which is no address of default/db any more" in done
    assert stale(system, "caching") == [None, *["EXPIRED"] * 21, "RETIRED"]
    assert stale(system, "fixed") == ["NO_LOOKUP"] * 21
    assert stale(system, "good") == [None] * 21
    told = system.sixfold("flows", "--stale", "retired", "--all").stdout
    assert told.count("service default/db:8080 stale RETIRED") == 1
    for _ in range(11):
        age(system, "dials", 0)
    told = findings(system)
    assert told["default/Pod/fixed"].startswith("NO_LOOKUP")
    assert "default/Pod/good" not in told
