"""A roll-out under traffic: callers of the service notice nothing."""

from __future__ import annotations

import json
import subprocess

import pytest

from .conftest import SIXFOLD, System

pytestmark = pytest.mark.root

# A server as it should be: asked to stop, it goes on with what is under way, then ends.
SERVER = """
import http.server, os, signal, threading
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(3, os._exit, [0]).start())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["VERSION"].encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
# New connections, one after the other, until it has heard version 2 alone for a while.
CALLER = """
import collections, json, time, urllib.request
heard, streak, deadline = collections.Counter(), 0, time.monotonic() + 200
print("calling", flush=True)
while streak < 300 and time.monotonic() < deadline:
    try:
        answer = urllib.request.urlopen("http://web", timeout=30).read().decode()
    except OSError as error:
        answer = repr(error)
    heard[answer] += 1
    streak = streak + 1 if answer == "2" else 0
print(json.dumps(heard))
"""


def deployment(version: str) -> str:
    container = {
        "name": "c",
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
    }
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
                },
            },
        }
    )


OTHERS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, command: [sleep, inf]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
"""


def test_no_connection_fails_while_a_deployment_is_replaced(system: System) -> None:
    system.up(manifest=f"{deployment('1')}\n---\n{OTHERS}")
    argv = ["nsenter", f"--net={system.host}", *SIXFOLD]
    argv += ["exec", "client", "--", "python3", "-c", CALLER]
    with subprocess.Popen(
        argv, env=system.environment, stdout=subprocess.PIPE, text=True
    ) as calling:
        assert calling.stdout is not None
        assert calling.stdout.readline() == "calling\n"
        system.apply(deployment("2"), "--wait")
        heard = json.loads(calling.stdout.readline())
    assert heard.keys() == {"1", "2"}, heard
