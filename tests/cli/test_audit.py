"""`sixfold audit`: of manifests, and of what an agent says."""

from __future__ import annotations

import json

import pytest

OPEN = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, command: [x]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, annotations: {sixfold.dev/lb-algorithm: round-robin}}
spec: {selector: {app: web}, ports: [{name: grpc, port: 80}]}
"""


def audit(sixfold, *args):
    return sixfold("audit", "-f", "-", *args, stdin=OPEN)


def test_findings_have_place_evidence_and_fix(sixfold):
    result = audit(sixfold, "--posture", "kubernetes")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].endswith(
        "Z01 critical: shop/Pod/web: no policy selects it: ingress and egress open to everybody"
    )
    assert any('metadata.annotations["sixfold.dev/lb-algorithm"]: Z23 medium' in x for x in lines)
    assert "1 medium, 1 critical" in result.stderr


@pytest.mark.parametrize(
    ("fail_on", "code"), [("critical", 0), ("high", 0), ("medium", 1), ("low", 1), ("never", 0)]
)
def test_the_exit_code_is_by_the_worst(sixfold, fail_on, code):
    assert audit(sixfold, "--fail-on", fail_on).exit_code == code


def test_every_format(sixfold):
    (one,) = json.loads(audit(sixfold, "-o", "json").stdout)
    assert (one["rule"], one["about"], one["line"]) == ("Z23", "shop/Service/web", 9)
    assert json.loads(audit(sixfold, "-o", "sarif").stdout)["version"] == "2.1.0"
    assert audit(sixfold, "-o", "markdown").stdout.startswith("# Audit\n")
    assert audit(sixfold, "--rule", "Z01").stdout == ""
    assert "Z99: no rule" in audit(sixfold, "--rule", "Z99").stderr
