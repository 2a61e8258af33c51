"""`sixfold lb compare`, offline and of what an agent recorded."""

from __future__ import annotations

import json

import pytest

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {sixfold.dev/lb-weight: "3"}}
    spec: {containers: [{name: c, command: [x], ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations: {sixfold.dev/lb-maglev-table-size: "251", sixfold.dev/lb-algorithm: maglev}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
"""
STATED = ("--rate", "20", "--duration", "exp:30s", "--connections", "500")


def test_offline_every_replica_is_a_backend_and_the_answer_is_reproducible(sixfold, tmp_path):
    drawing = tmp_path / "web.svg"
    asked = ("lb", "compare", "web", "-n", "shop", "-f", "-", *STATED)
    result = sixfold(*asked, "-o", "json", "--svg", str(drawing), stdin=MANIFEST)
    answer = json.loads(result.stdout)
    assert [one["weight"] for one in answer["backends"]] == [3] * 4
    assert answer["in_force"] == "maglev"
    assert [one["algorithm"] for one in answer["algorithms"]] == [
        "random",
        "round-robin",
        "least-connections",
        "maglev",
        "source-hash",
    ]
    assert drawing.read_text().startswith("<svg")
    assert sixfold(*asked, "-o", "json", stdin=MANIFEST).stdout == result.stdout


def test_the_table_marks_what_is_in_force(sixfold):
    text = sixfold("lb", "compare", "web:http", "-n", "shop", "-f", "-", *STATED, stdin=MANIFEST)
    assert "backends     4" in text.stdout
    marked = [line.split()[0] for line in text.stdout.splitlines() if " * " in line]
    assert marked == ["maglev"]
    assert "█" in text.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--rate", "20"), "--rate and --duration belong together"),
        (("--rate", "20", "--duration", "30s"), "give SHAPE:MEAN, as in exp:30s"),
        ((), "manifests have no records"),
        (("web:81", *STATED), "refused at once"),
        (("other", *STATED), "service shop/other: not in the manifests"),
    ],
)
def test_what_cannot_be_answered_is_said(sixfold, args, said):
    service = () if args and not args[0].startswith("-") else ("web",)
    result = sixfold("lb", "compare", *service, *args, "-n", "shop", "-f", "-", stdin=MANIFEST)
    assert result.exit_code in (1, 2)
    assert said in result.stderr


def test_what_was_recorded_is_replayed_on_the_backends_that_are_active(sixfold, agent):
    backend = {"address": "192.0.2.1", "port": 80, "weight": 1, "state": "active"}
    frontend = {
        "service": "default/web",
        "port": 80,
        "name": "http",
        "protocol": "TCP",
        "algorithm": "random",
        "why": "nothing says",
        "table_size": 251,
        "backends": [
            backend,
            {**backend, "address": "192.0.2.2"},
            {**backend, "address": "192.0.2.3", "state": "draining"},
        ],
    }
    agent.answers["GET /v1/balancing"] = {"frontends": [frontend]}
    agent.answers["GET /v1/connections"] = {
        "connections": [
            {"at_s": float(at), "lasts_s": 4.0, "client": 5, "open": at > 38} for at in range(40)
        ]
    }
    result = sixfold("lb", "compare", "web")
    assert result.stdout.startswith(
        "connections  40 recorded, 4.0 s on average, 1 of them still open; 3 workers each\n"
        "backends     2\n"
    )
    agent.answers["GET /v1/connections"] = {"connections": []}
    result = sixfold("lb", "compare", "web")
    assert "0 connections are recorded; too few" in result.stderr
