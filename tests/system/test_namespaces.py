"""The end of a namespace: its pods first, then what protected them."""

from __future__ import annotations

import pytest

from .conftest import System, connects

pytestmark = pytest.mark.root

WORLD = """
apiVersion: v1
kind: Pod
metadata: {name: vault, namespace: inner, labels: {app: vault}}
spec:
  terminationGracePeriodSeconds: 30
  containers:
    - name: vault
      command: [sh, -c, "trap : TERM; python3 -m http.server 8080 & while :; do sleep 0.1; done"]
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: inner}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: thief, namespace: outer}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: thief, command: [sleep, inf]}]
"""


def test_policies_of_a_namespace_outlive_its_pods(system: System):
    """CVE-2024-7598: with the policies gone first, upstream's default opens ending pods."""
    system.up("--posture", "kubernetes", manifest=WORLD)
    address = system.endpoint("inner/vault")["ips"][0]
    assert connects(system, "outer/thief", address, 8080) == "timeout"
    system.sixfold("delete", "namespace", "inner", "--wait=false")
    assert system.json("get", "namespace", "inner")["status"]["phase"] == "Terminating"
    assert connects(system, "outer/thief", address, 8080) == "timeout"
    refused = system.sixfold("apply", "-f", "-", stdin=WORLD, check=False)
    assert refused.returncode == 1
    assert "namespace inner is being deleted" in refused.stderr
    system.sixfold("delete", "pod", "vault", "-n", "inner", "--now", "--wait=false")
    system.eventually(
        lambda: system.sixfold("get", "namespace", "inner", check=False).returncode == 1
    )
    assert system.json("get", "netpol", "-A")["items"] == []
