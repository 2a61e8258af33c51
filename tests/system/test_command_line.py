"""The verbs against a real agent: what scripts and people at a terminal rely on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import pytest

from .conftest import SIXFOLD, System

pytestmark = pytest.mark.root

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {run: web}}
  ingress: [{from: [{podSelector: {matchLabels: {run: client}}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client}
spec:
  podSelector: {matchLabels: {run: client}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {}}], ports: [{port: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {run: web}, ports: [{port: 80, targetPort: 8080}]}
"""
SERVER = ("--port", "8080", "--", "python3", "-um", "http.server", "8080")
FETCH = (
    "import socket, sys; s = socket.create_connection(('web', int(sys.argv[1])), 2); "
    "s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(12).decode())"
)


@pytest.fixture(scope="module")
def shop(module_system: System) -> System:
    """A web server and a client that may reach it, started from the command line."""
    system = module_system
    system.up()
    system.typed("run", "web", *SERVER)
    system.typed("run", "client", "--env", "LEVEL=debug", "--", "sh", "-c", "echo up; sleep 600")
    system.typed("apply", "-f", "-", "--wait", stdin=POLICY)
    system.eventually(lambda: served(system), "the server answers")
    return system


def served(system: System) -> bool:
    """Whether the client gets an answer by the service's name."""
    argv = ("exec", "client", "--", "python3", "-c", FETCH, "80")
    return "200" in system.typed(*argv, check=False).stdout


def test_exec_logs_and_run_work_on_a_real_pod(shop: System) -> None:
    assert shop.typed("exec", "client", "--", "printenv", "LEVEL").stdout == "debug\n"
    assert shop.typed("exec", "client", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert shop.typed("exec", "-i", "client", "--", "cat", stdin="hello").stdout == "hello"
    assert shop.typed("logs", "client").stdout == "up\n"
    assert '"GET / HTTP/1.0" 200' in shop.typed("logs", "web").stdout


def test_flows_explain_and_the_kernel_tell_the_same_story(shop: System) -> None:
    flow = shop.flows("--from", "client", "--to", "web", "--verdict", "FORWARDED")[-1]
    assert flow["source"]["pod_name"] == "client"
    assert flow["destination_service"] == {"name": "web", "namespace": "default"}
    assert flow["sixfold"]["rule"] == "default/client egress[0], default/web ingress[0]"

    explained = shop.typed("explain", "client", "web:80")
    assert "default/web ingress[0]" in explained.stdout

    entries = shop.json("bpf", "policy", "list", "--pod", "default/web")
    allowed = [entry for entry in entries if entry["rule"] == "default/web ingress[0]"]
    assert {(entry["protocol"], entry["port"]) for entry in allowed} == {("TCP", "8080")}
    assert entries[-1]["rule"].startswith("default-deny")

    (frontend,) = [f for f in shop.json("bpf", "lb", "list") if f["protocol"] == "TCP"]
    assert frontend["service"] == "default/web"
    connections = shop.json("bpf", "ct", "list")
    assert any(c["service"] == "default/web:80" for c in connections)


def test_a_denied_attempt_is_a_flow_with_its_rule_and_exit_1_in_explain(shop: System) -> None:
    address = shop.endpoint("default/client")["ips"][0]
    knock = f"import socket; socket.create_connection(({address!r}, 8080), 0.5)"
    denied = shop.typed("exec", "web", "--", "python3", "-c", knock, check=False)
    assert "TimeoutError" in denied.stderr
    flow = shop.flows("--from", "web", "--verdict", "DROPPED")[-1]
    assert flow["egress_denied_by"][0]["name"] == "default-deny"
    explained = shop.typed("explain", "web", "client:8080", check=False)
    assert (explained.returncode, "default-deny" in explained.stdout) == (1, True)


def test_listings_show_what_is_there(shop: System) -> None:
    (web,) = [r for r in shop.json("bpf", "endpoint", "list") if r["pod"] == "default/web"]
    status = shop.endpoint("default/web")
    assert [web["ipv4"], web["ipv6"]] == status["ips"]
    prefixes = {row["prefix"]: row["identity"] for row in shop.json("bpf", "ipcache", "list")}
    assert prefixes["169.254.20.10/32"] == "resolver"
    routes = shop.json("route", "show")["routes"]
    assert f"{web['ipv4']}/32" in [route["dst"] for route in routes]
    table = shop.typed("get", "pods", "-o", "wide").stdout.splitlines()
    assert table[0].split()[:4] == ["NAME", "READY", "STATUS", "RESTARTS"]
    assert [line.split()[0] for line in table[1:]] == ["client", "web"]


def test_up_twice_is_refused_and_changes_nothing(shop: System) -> None:
    pid = shop.agent_pid()
    again = shop.typed("up", "--detach", check=False)
    assert again.returncode == 1
    assert f"an agent runs already (pid {pid})" in again.stderr
    assert shop.agent_pid() == pid


UNREADY = """
apiVersion: v1
kind: Pod
metadata: {name: unready}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, command: [sleep, inf], readinessProbe: {tcpSocket: {port: 9}, periodSeconds: 1}}
"""


def test_up_says_what_is_not_ready_in_time_and_the_agent_goes_on(system: System) -> None:
    said = "pod default/unready: Running: readiness probe: tcp "
    first = system.typed("up", "-d", "--timeout", "1", "-f", "-", stdin=UNREADY, check=False)
    system.typed("down", "--keep", "--timeout", "0")
    again = system.typed("up", "-d", "--timeout", "1", check=False)
    for done in (first, again):
        assert done.returncode == 1
        assert "up: not in force after 1 s: " in done.stderr
        assert said in done.stderr
        assert "pods       1 total, 0 ready" in done.stdout
    assert system.agent_pid()


def test_who_waits_for_an_agent_that_stops_is_told(system: System) -> None:
    system.up()
    argv = ["nsenter", f"--net={system.host}", *SIXFOLD, "apply", "--wait", "-f", "-"]
    with subprocess.Popen(
        argv,
        env=system.environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as waiting:
        assert waiting.stdin is not None
        waiting.stdin.write(UNREADY)
        waiting.stdin.close()
        waiting.stdin = None
        system.eventually(lambda: "default/unready" in system.endpoints())
        os.kill(system.agent_pid(), signal.SIGTERM)
        out, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 1
    assert "pod/unready created" in out
    assert err == "error: the agent stops; the next one goes on with it (sixfold up)\n"
    assert "Traceback" not in system.agent_log()


def test_up_with_a_bad_manifest_starts_nothing(system: System) -> None:
    bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {}\n"
    done = system.typed("up", "--detach", "-f", "-", stdin=bad, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("-:4: spec.containers: ")
    assert system.typed("status", check=False).returncode == 1


def test_settings_are_kept_for_the_next_start(system: System) -> None:
    system.up("--posture", "kubernetes", "--node", "camp")
    system.typed("down", "--keep")
    system.up()
    agent = json.loads(system.typed("status", "-o", "json").stdout)["agent"]
    assert (agent["posture"], agent["node"]) == ("kubernetes", "camp")


def test_an_agent_whose_run_directory_was_swept_away_stays_the_only_one(system: System) -> None:
    system.up()
    pid = system.agent_pid()
    shutil.rmtree(system.paths.run)
    again = system.typed("up", "--detach", check=False)
    assert again.returncode == 1
    assert f"an agent runs already (pid {pid})" in again.stderr
    assert f"agent stopped (pid {pid})" in system.typed("down", "--timeout", "0").stdout
    system.up()


def test_down_works_after_a_crash_and_when_nothing_runs(system: System) -> None:
    system.up()
    system.on_host("kill", "-9", str(system.agent_pid()))
    assert system.typed("down").returncode == 0
    assert system.typed("down").stdout == "nothing was running\n"
