"""The stack, end to end: names, balancing, policy, flows, explanation, death of the agent."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from .conftest import SIXFOLD, System, connects

pytestmark = pytest.mark.root

SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: web
          command: [python3, -m, http.server, "8080", --bind, "::"]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, command: [sleep, inf]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: shop, labels: {app: stranger}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: stranger, command: [sleep, inf]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: http}]
"""


@pytest.fixture(scope="module")
def shop(module_system: System) -> System:
    module_system.up(manifest=SHOP)
    return module_system


def test_a_service_is_reached_by_name_over_both_families(shop: System):
    for flag in ("-4", "-6"):
        done = shop.sixfold(
            *("exec", "-n", "shop", "client", "--", "curl", flag, "-sS", "-m20"),
            *("-o", "/dev/null", "-w", "%{http_code}", "http://web"),
        )
        assert done.stdout == "200"


def test_what_no_rule_allows_is_denied_and_the_flow_names_the_default(shop: System):
    web = shop.endpoints()
    address = next(status["ips"][0] for key, status in web.items() if key.startswith("shop/web"))
    assert connects(shop, "shop/stranger", address, 8080) == "timeout"
    flow = shop.flows("--verdict", "DROPPED", "--from", "shop/stranger", "--last", "1")[0]
    assert flow["drop_reason_desc"] == "POLICY_DENIED"
    assert flow["egress_denied_by"][0]["name"] == "default-deny"


def test_the_flow_of_an_allowed_connection_names_both_rules_and_the_service(shop: System):
    shop.sixfold("exec", "-n", "shop", "client", "--", "curl", "-sS", "-m20", "http://web")
    flow = shop.flows("--from", "shop/client", "--to", "shop/web", "--last", "1")[0]
    assert flow["verdict"] == "FORWARDED"
    assert flow["egress_allowed_by"][0]["name"] == "client"
    assert flow["ingress_allowed_by"][0]["name"] == "web"
    assert flow["destination_service"] == {"name": "web", "namespace": "shop"}


def test_explain_says_what_the_kernel_does(shop: System):
    assert shop.sixfold("explain", "shop/client", "web.shop:80").returncode == 0
    denied = shop.sixfold("explain", "shop/stranger", "web.shop:80", check=False)
    assert denied.returncode == 1
    assert "default-deny" in denied.stdout


def test_a_killed_agent_cuts_nothing_opens_nothing_and_is_succeeded(shop: System):
    before = shop.json("get", "pods", "-n", "shop")["items"]
    os.kill(shop.agent_pid(), signal.SIGKILL)
    client = shop.paths.netns("shop/client")
    stranger = shop.paths.netns("shop/stranger")
    web = sorted(client.parent.glob(f"{shop.paths.instance}.shop.web-*"))
    assert len(web) == 2
    assert shop.sixfold("status", check=False).returncode == 1
    fetch = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"]
    resolve = shop.run_in(client, "dig", "+short", "@169.254.20.10", "web.shop.svc.cluster.local")
    vip = resolve.stdout.strip()
    assert shop.run_in(client, *fetch, "-m20", f"http://{vip}").stdout == "200"
    assert shop.run_in(stranger, *fetch, "-m1", f"http://{vip}").stdout == "000"
    shop.up()
    after = shop.json("get", "pods", "-n", "shop")["items"]
    started = lambda pods: {  # noqa: E731
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["containerID"]
        for pod in pods
    }
    assert started(after) == started(before)


def test_a_connection_survives_the_agents_death_and_return(shop: System):
    script = (
        "import socket, time, sys\n"
        "s = socket.create_connection(('web', 80), 3); s.settimeout(3)\n"
        "print('connected', flush=True)\n"
        "for _ in range(20):\n"
        "    s.sendall(b'HEAD / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'[:1]); time.sleep(0.2)\n"
        "print('alive')\n"
    )
    running = subprocess.Popen(
        [
            "nsenter",
            f"--net={shop.host}",
            *SIXFOLD,
            "exec",
            "-n",
            "shop",
            "client",
            "--",
            "python3",
            "-c",
            script,
        ],
        env=shop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert running.stdout
    assert running.stdout.readline() == "connected\n"
    os.kill(shop.agent_pid(), signal.SIGKILL)
    shop.up()
    output, _ = running.communicate(timeout=30)
    assert output.strip() == "alive"


def test_a_service_without_endpoints_refuses_at_once(shop: System):
    shop.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: none, namespace: shop},"
        " spec: {selector: {app: nobody}, ports: [{port: 80}]}}"
    )
    vip = shop.json("get", "svc", "none", "-n", "shop")["spec"]["clusterIP"]
    assert connects(shop, "shop/client", vip, 80) == "refused"
    assert connects(shop, "shop/client", vip, 81) == "refused"


def test_removing_a_policy_closes_what_it_opened_at_once(shop: System):
    shop.sixfold("delete", "netpol", "-n", "shop", "client")
    done = shop.sixfold(
        *("exec", "-n", "shop", "client", "--", "curl", "-sS", "-m1", "http://web"), check=False
    )
    assert done.returncode == 6  # curl: no such name
    vip = shop.json("get", "svc", "web", "-n", "shop")["spec"]["clusterIP"]
    assert connects(shop, "shop/client", vip, 80) == "timeout"
