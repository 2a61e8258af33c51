"""Whatever the way there: the kernel holds the desired state, and says so when asked."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from msgspec import structs

from sixfold.balancing.table import table_of
from sixfold.host import layout
from sixfold.host.datapath import KernelDatapath
from sixfold.host.shadow import BUILT_IN
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import (
    Backend,
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    IpcacheEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import Identity

pytestmark = pytest.mark.root

STEPS = int(os.environ.get("SIXFOLD_FUZZ_ROUNDS", "60"))


def random_state(random_: random.Random) -> Datapath:
    """Small worlds, so that steps meet the same keys again and again."""
    some = random_.sample(range(1, 9), random_.randrange(9))
    addresses = random_.sample(range(1, 20), 8)
    endpoints = {
        100 + i: EndpointEntry(
            100 + i,
            EndpointId(i),
            Identity(256 + random_.randrange(3)),
            IPv4Address("192.0.2.0") + addresses[i - 1],
            random_.choice([None, IPv6Address("2001:db8::") + addresses[i - 1]]),
            netns_cookie=random_.choice([0, 7000 + i]),
        )
        for i in some
    }
    tables = [
        PolicyTable.of(
            frozenset(
                PolicyEntry(d, Identity(256 + p), 6, 80 + p, 16, True, random_.randrange(1, 4))
                for d in (0, 1)
                for p in random_.sample(range(3), random_.randrange(4))
            ),
            1,
            2,
        )
        for _ in range(3)
    ]
    tables += [
        structs.replace(random_.choice(tables), audit=random_.choice(tables)) for _ in range(2)
    ]
    backends = [
        Backend.at(IPv4Address("192.0.2.0") + i, 80 + i, random_.choice([1, 1, 5]))
        for i in range(6)
    ]
    return Datapath(
        endpoints=endpoints,
        ipcache={
            network: IpcacheEntry(*(Identity(random_.randrange(1, 5)) for _ in range(3)))
            for network in (
                IPv4Network("0.0.0.0/0"),
                IPv6Network("::/0"),
                IPv4Network("10.0.0.0/8"),
            )
            if random_.random() < 0.6
        },
        policies={EndpointId(i): random_.choice(tables) for i in some if random_.random() < 0.9},
        frontends={
            Frontend.at(IPv4Address("198.51.100.0") + i, 80, 6): random_frontend(
                random_, i, backends
            )
            for i in random_.sample(range(10), random_.randrange(10))
        },
        service_networks=frozenset(
            it
            for it in (
                random_.choice((IPv4Network("10.96.0.0/16"), IPv4Network("0.0.0.0/1"))),
                IPv6Network("fd00:5f:96::/112"),
            )
            if random_.random() < 0.7
        ),
        host_netns_cookie=random_.choice([0, 6999]),
    )


def random_frontend(random_: random.Random, number: int, backends: list[Backend]) -> FrontendEntry:
    some = tuple(random_.sample(backends, random_.randrange(6)))
    algorithm = random_.choice([*Algorithm])
    return FrontendEntry(
        number, some, algorithm, table_of(algorithm, some, 251), random_.choice([0, 9])
    )


def test_any_sequence_of_states_ends_in_the_last(datapath: KernelDatapath) -> None:
    seed = int(os.environ.get("SIXFOLD_FUZZ_SEED", random.randrange(2**32)))
    print(f"SIXFOLD_FUZZ_SEED={seed}")
    random_ = random.Random(seed)
    datapath.mend_links = lambda desired: iter(())  # these interfaces are not real
    for _ in range(STEPS):
        desired = random_state(random_)
        if random_.random() < 0.3:
            datapath._shadow = None  # as a new agent: adopt
        if random_.random() < 0.2:
            damage(random_, datapath)
            datapath.repair(desired)
        else:
            datapath.apply(desired)
        held = datapath.read()
        assert held == replace(desired, ipcache={**BUILT_IN, **desired.ipcache})
        assert datapath._shadow is not None
        assert datapath._shadow.is_true(datapath.maps)
        assert datapath.apply(desired) == 0


def damage(random_: random.Random, datapath: KernelDatapath) -> None:
    """Somebody deletes entries behind our back."""
    for name in ("policy", "policy_tables", "ipcache", "endpoints", "addresses", "frontends"):
        keys = [key for key, _ in datapath.maps[name].items()]
        datapath.maps[name].delete(random_.sample(keys, min(len(keys), random_.randrange(3))))
    if random_.random() < 0.5:
        datapath.maps["service_networks"].update({bytes(4): bytes(layout.SERVICE_NETWORK.size)})


def test_an_endpoint_that_lost_its_table_is_cleared_when_nobody_wants_it(
    datapath: KernelDatapath,
) -> None:
    rules = frozenset({PolicyEntry(0, Identity(256), 6, 80, 16, True, 1)})
    datapath.mend_links = lambda desired: iter(())
    datapath.apply(Datapath(policies={EndpointId(6): PolicyTable.of(rules, 1, 2)}))
    tables = datapath.maps["policy_tables"]
    tables.delete([key for key, _ in tables.items()])
    datapath._shadow = None  # a new agent, whose world has no such endpoint
    datapath.apply(Datapath())
    assert {value for _, value in datapath.maps["policy_of"].items()} == {bytes(4)}
