"""The tools on the compiled policies, against a running system and its real traffic."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE

import pytest
import yaml

from .conftest import SIXFOLD, System, connects
from .places import Place

pytestmark = pytest.mark.root

SERVER = (
    "import socket\n"
    "server = socket.create_server(('0.0.0.0', 8080))\n"
    "while True: server.accept()[0].close()\n"
)


def pod(name: str, program: str, namespace: str = "shop") -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: main, command: [{sys.executable}, -c, {json.dumps(program)}]}}]
"""


WAIT = "import time; time.sleep(3600)"
WORKLOADS = "---".join(
    [pod("web", WAIT), pod("db", SERVER), pod("other", WAIT), pod("away", WAIT, "hills")]
)
POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 8080, endPort: 8090}]}]
"""


@pytest.fixture(scope="module")
def shop(module_system: System) -> System:
    module_system.up(manifest=f"{WORKLOADS}---{POLICIES}")
    db = address(module_system)
    module_system.eventually(lambda: connects(module_system, "shop/web", db, 8080) == "open")
    return module_system


def address(system: System, prefix: str = "shop/db") -> str:
    return next(ip for ip in system.endpoint(prefix)["ips"] if "." in ip)


def between(answer: dict) -> list[tuple]:
    return [
        (edge["from"], edge["to"], *edge["ports"])
        for edge in answer["edges"]
        if edge["to"] != "resolver"
    ]


def test_reach_is_what_packets_do(shop: System) -> None:
    edges = between(shop.json("reach"))
    assert edges == [
        ("shop/other", "shop/db", "TCP/8080"),
        ("shop/web", "shop/db", "TCP/8080"),
    ]
    db = address(shop)
    for name in ("shop/web", "shop/other", "hills/away"):
        reached = connects(shop, name, db, 8080, 0.5) == "open"
        assert reached == any(edge[0] == name for edge in edges)


def test_live_and_offline_say_the_same(shop: System) -> None:
    done = shop.sixfold("reach", "-f", "-", "-o", "json", stdin=f"{WORKLOADS}---{POLICIES}")
    offline = json.loads(done.stdout)["edges"]
    # Offline a Deployment is any number of pods, which may reach each other; here it is one.
    assert [edge for edge in offline if edge["from"] != edge["to"]] == shop.json("reach")["edges"]


def test_probes_name_pods_workloads_and_addresses(shop: System) -> None:
    db = address(shop)
    probes = [
        {"from": source, "to": target, "protocol": "TCP", "port": port}
        for source in ("shop/web", "shop/Deployment/web", address(shop, "shop/web"))
        for target in ("shop/db", db)
        for port in (8080, 8081)
    ]
    text = "".join(json.dumps(probe) + "\n" for probe in probes)
    lines = shop.sixfold("reach", "--probes", "-", stdin=text).stdout.splitlines()
    verdicts = [json.loads(line)["verdict"] for line in lines]
    assert verdicts == ["ALLOWED", "DENIED"] * 6


def test_assertions_are_proved_of_the_running_system(shop: System) -> None:
    only = "- only: {to: {workload: shop/db}, from: {namespace: shop}}\n"
    assert shop.sixfold("verify", "--assert", "-", stdin=only).returncode == 0
    narrow = "- only: {to: {workload: shop/db}, from: {workload: shop/web}}\n"
    done = shop.sixfold("verify", "--assert", "-", stdin=narrow, check=False)
    assert done.returncode == 1
    assert "shop/other-" in done.stdout


def test_the_smallest_edit_lets_the_connection_pass(shop: System) -> None:
    db, question = address(shop), ("hills/away", "shop/db:8080")
    assert connects(shop, "hills/away", db, 8080, 0.5) == "timeout"
    fix = shop.sixfold("explain", *question, "--fix", check=False).stdout
    difference = shop.sixfold("diff", "--live", "-", "-o", "json", stdin=fix, check=False)
    assert json.loads(difference.stdout)["opened"] == [
        {"from": ["hills/away"], "to": ["shop/db"], "ports": ["TCP/8080"]}
    ]
    shop.apply(fix, "--wait")
    assert connects(shop, "hills/away", db, 8080) == "open"
    assert shop.sixfold("explain", *question).returncode == 0
    shop.sixfold("delete", "networkpolicy", "-n", "hills", "away-to-db")
    shop.apply(POLICIES, "--wait")


def test_a_namespace_that_goes_into_audit_opens_what_was_denied(shop: System) -> None:
    meta = {"name": "shop", "annotations": {"sixfold.dev/enforcement": "audit"}}
    audit = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    done = shop.sixfold("diff", "--live", "-", "-o", "json", stdin=audit, check=False)
    opened = json.loads(done.stdout)["opened"]
    assert any("shop/db" in row["to"] and "hills/away" in row["from"] for row in opened) is False
    assert any("shop/db" in row["to"] and "shop/web" in row["from"] for row in opened)


def test_a_suggestion_reaches_exactly_what_was_seen(shop: System) -> None:
    """Last: it takes the place of the policies."""
    shop.sixfold("delete", "networkpolicy", "-n", "shop", "db", "out")
    db = address(shop)
    opened = POLICIES.replace("{matchLabels: {app: db}}", "{}", 1)
    shop.apply(opened, "--wait")
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    assert connects(shop, "shop/web", db, 8080) == "open"
    suggested = shop.eventually(
        lambda: "name: web" in (out := shop.sixfold("suggest", "--since", since).stdout) and out
    )
    shop.sixfold("delete", "networkpolicy", "-n", "shop", "db", "out")
    shop.apply(suggested, "--wait")
    assert between(shop.json("reach")) == [("shop/web", "shop/db", "TCP/8080")]
    assert connects(shop, "shop/web", db, 8080) == "open"
    assert connects(shop, "hills/away", db, 8080, 0.5) == "timeout"


def test_a_namespace_is_walked_to_least_privilege_and_back_when_something_is_dropped(
    shop: System,
) -> None:
    """Last, too. What was seen passes afterwards; who comes when it is enforced is dropped."""
    db = address(shop)
    web, other = (
        Place(Path(shop.endpoint(f"shop/{name}")["netns"]), "", "") for name in ("web", "other")
    )
    shop.sixfold("delete", "netpol", "-n", "shop", "--all")
    argv = ["nsenter", f"--net={shop.host}", *SIXFOLD, "harden", "shop", "--yes", "--rollback"]
    argv += ["--for", "3s", "--watch", "5s"]
    with subprocess.Popen(argv, env=shop.environment, stderr=PIPE, stdout=PIPE, text=True) as walk:
        assert walk.stderr is not None
        told = []
        for line in walk.stderr:
            told.append(line)
            if line.startswith("1/5"):
                assert web.answer(db) == "open"
            if line.startswith("4/5"):
                assert web.answer(db) == "open"
                assert other.attempt(db) == "timeout"
        assert walk.stdout is not None
        policies = [one["metadata"]["name"] for one in yaml.safe_load_all(walk.stdout)]
    assert walk.returncode == 1
    assert policies == ["default-deny", "db", "other", "web"]
    assert any("+ shop/web → shop/db  TCP/8080" in line for line in told)
    (dropped,) = [line for line in told if "DROPPED" in line and "shop/other" in line]
    assert "default-deny (shop/default-deny,shop/other)" in dropped
    assert other.answer(db) == "open", "in audit again"
    (one,) = shop.json("get", "posture", "default")["spec"]["relaxations"]
    assert one["reason"] == "sixfold harden: something was dropped"
