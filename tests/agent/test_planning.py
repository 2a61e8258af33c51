from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random

import pytest

from sixfold.agent.ledger import Ledger
from sixfold.agent.planning import Planning
from sixfold.discovery.learned import Learned
from sixfold.errors import HostError
from sixfold.manifest import loads, offline
from sixfold.model.config import Config
from sixfold.model.world import World
from sixfold.store import Database

POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec: {containers: [{name: c, command: [sleep, inf]}]}
---
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: 10.96.0.9, selector: {app: db}, ports: [{port: 80}]}
"""
PODS = POD % ("web", "web") + POD % ("db", "db")


def world(text: str) -> World:
    return offline(loads(text, offline=True), Config())


@pytest.mark.parametrize("text", [PODS + POLICY, PODS + SERVICE], ids=["policy", "service"])
def test_what_changed_while_planning_failed_is_planned_afterwards(tmp_path: Path, text: str):
    """The round that failed had seen the change; the next must not take it for planned."""
    database = Database(tmp_path / "state.db")
    planning = Planning(Ledger(database))
    planning.plan(world(PODS), [], 0)
    changed = world(text)
    database.connection.execute("PRAGMA query_only=ON")
    with pytest.raises(HostError):
        planning.plan(changed, [], 0)
    database.connection.execute("PRAGMA query_only=OFF")
    found = planning.plan(changed, [], 0)
    fresh = Planning(Ledger(database)).plan(changed, [], 0)
    assert found.datapath == fresh.datapath
    assert found.zone == fresh.zone


NAMES = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toFQDNs: [{matchPattern: "*.a.b"}]
  - toFQDNs: [{matchPattern: "*.c.d"}]
"""


def test_an_address_that_gets_a_second_name_is_open_all_the_way(tmp_path: Path):
    """Who is where is written before tables are switched: what a step writes first, the step
    before must know."""
    planning, address = Planning(Ledger(Database(tmp_path / "state.db"))), ip_address("192.0.2.1")
    named = replace(world(PODS + NAMES), domains={"x.a.b": frozenset({address})})
    steps = [planning.plan(named, [], 0)]
    assert steps[0].bridge is None
    twice = replace(named, domains={**named.domains, "y.c.d": frozenset({address})})
    steps.append(planning.plan(twice, [], 0))
    bridge = steps[1].bridge
    assert bridge is not None
    way = [steps[0].datapath, bridge, steps[1].datapath]
    numbers = [each.ipcache[ip_network(address)].domain for each in way]
    assert numbers[0] == numbers[1] != numbers[2]
    (web,) = (e.id for e in named.endpoints.values() if e.pod == "web")
    for tables, number in ((way[0], numbers[1]), (way[1], numbers[2]), (way[2], numbers[2])):
        assert number in {entry.peer for entry in tables.policies[web].entries}
    assert planning.plan(replace(twice, domains=named.domains), [], 0).bridge is None


def test_what_is_learned_one_by_one_is_planned_as_if_it_had_been_known_at_once(tmp_path: Path):
    pick = Random(7)
    planning = Planning(Ledger(Database(tmp_path / "state.db")))
    learned, quick = Learned(), 0
    plans = planning.plan(world(PODS + NAMES), [], 0)
    for _ in range(60):
        name = f"{pick.choice('xyz')}.{pick.choice(('a.b', 'c.d', 'e.f'))}"
        ttls = {ip_address(f"192.0.2.{pick.randrange(9)}"): 60.0 for _ in range(2)}
        fresh = learned.learn(name, ttls, 0).fresh
        if (found := planning.learn(plans, learned.names, fresh)) is not None:
            plans, entries = found
            assert entries.items() <= plans.datapath.ipcache.items()
            quick += 1
        else:
            plans = planning.plan(replace(plans.world, domains=learned.names), [], 0)
        again = planning.plan(replace(plans.world, domains=dict(learned.names)), [], 0)
        assert again.datapath == plans.datapath
        assert again.policy.domains == plans.policy.domains
        plans = again
    assert 0 < quick < 60


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
def test_names_are_their_service_s_in_any_posture(tmp_path: Path, posture: str):
    ledger = Ledger(Database(tmp_path / "state.db"))
    config = Config(posture=posture, dns_pods="verified")  # type: ignore[arg-type]
    found = offline(loads(PODS + SERVICE, offline=True), config)
    plans = Planning(ledger).plan(found, [], 0)
    owners = {key.name: one.owner for key, one in plans.names.answers.items()}
    assert owners["db.default.svc.cluster.local"] == ledger.service_number("default/db")
    assert owners["9.0.96.10.in-addr.arpa"] == ledger.service_number("default/db")
    assert owners["default.svc.cluster.local"] == 0
