from __future__ import annotations

from pathlib import Path

import pytest

from sixfold.agent.ledger import Ledger
from sixfold.agent.planning import Planning
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
