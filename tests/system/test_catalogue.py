"""What others find through us: Consul's clients, Prometheus. One stack for all tests here."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import consul
import pytest

from sixfold.host import netns

from .conftest import System
from .places import OPEN, Place, manifest, place_of, pod, policy, service

T = TypeVar("T")

pytestmark = pytest.mark.root

PORT = 8500
EDGE = "192.0.2.10"
SERVER = ["python3", "-m", "http.server", "8080"]
HTTP = {"name": "http", "port": 80, "targetPort": "http"}


@dataclass(frozen=True)
class Host:
    """A client on the host, by the catalogue's TCP door."""

    system: System
    web: Place  # a pod

    def request(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON, or text."""

        def ask() -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            raw = answer.read()
            connection.close()
            if answer.headers.get_content_type() == "application/json":
                return answer.status, json.loads(raw)
            return answer.status, raw.decode()

        return netns.run_inside(self.system.host, ask)

    @property
    def token(self) -> str:
        return (self.system.paths.state / "catalog.token").read_text().strip()

    def put(self, path: str, body: object = None, status: int = 200) -> Any:
        """As the operator: with the token."""
        found, text = self.request("PUT", path, body, **{"X-Consul-Token": self.token})
        assert found == status, text
        return text

    def consul(self, use: Callable[[consul.Consul], T]) -> T:
        """What py-consul gets."""

        def inside() -> T:
            with consul.Consul("127.0.0.1", PORT, token=self.token) as client:
                return use(client)

        return netns.run_inside(self.system.host, inside)

    def get(self, path: str) -> Any:
        status, body = self.request("GET", path)
        assert status == 200, body
        return body


@pytest.fixture(scope="module")
def host(module_system: System) -> Host:
    web = {"command": SERVER, "ports": [{"name": "http", "containerPort": 8080}]}
    ready = {"httpGet": {"path": "/", "port": "http"}}
    module_system.up(
        *("--catalog-listen", f"127.0.0.1:{PORT}", "--catalog-listen", f"node:{PORT}"),
        *("--dns-sd-domain", "sixfold.internal"),
        *("--dns-edge", f"{EDGE}:53"),
        manifest=manifest(
            *(
                pod(f"web-{n}", labels={"app": "web"}, container={**web, "readinessProbe": ready})
                for n in range(2)
            ),
            service("web", ports=[HTTP]),
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vault"}},
            pod("safe", namespace="vault"),  # no policy lets anybody in
            service("safe", namespace="vault", ports=[{**HTTP, "targetPort": 8080}]),
            service("each", selector={"app": "web"}, clusterIP="None", ports=[HTTP]),
            policy("open", None, **OPEN),
        ),
    )
    return Host(module_system, place_of(module_system, "web-0"))


def test_prometheus_finds_targets_by_http(host: Host):
    found = host.get("/prometheus/targets?role=endpoints&namespace=default")
    addresses = {one["targets"][0]: one["labels"] for one in found}
    endpoints = host.system.endpoints()
    assert set(addresses) >= {f"{endpoints[f'default/web-{n}']['ips'][0]}:8080" for n in range(2)}
    status, text = host.request("GET", "/prometheus/targets?role=node")
    assert (status, "give one of pod, service" in text) == (400, True)


def test_the_unix_socket_tells_the_same(host: Host):
    done = host.system.on_host(
        *("curl", "-sf", "--unix-socket", str(host.system.paths.run / "catalog.sock")),
        "http://sixfold/prometheus/targets?role=service",
    )
    targets = {group["targets"][0] for group in json.loads(done.stdout)}
    assert targets == {"web.default.svc:80", "each.default.svc:80", "safe.vault.svc:80"}


def test_a_place_open_to_the_world_is_refused(host: Host):
    done = host.system.sixfold("up", "--catalog-listen", "0.0.0.0:8500", check=False)
    assert done.returncode == 2
    assert "give an address of loopback, or node:PORT for pods" in done.stderr


@pytest.fixture
def prometheus(host: Host, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Debian's Prometheus on the host, asking us by http_sd and dns_sd; its HTTP API."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("no prometheus here: apt-get install prometheus")
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 169.254.20.10\n")
    (tmp_path / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: http_sd
  http_sd_configs:
  - {{url: "http://127.0.0.1:{PORT}/prometheus/targets?role=pod", refresh_interval: 1s}}
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_container_port_name], regex: http, action: keep}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
- job_name: dns_sd
  dns_sd_configs:
  - {{names: [_http._tcp.web.default.svc.cluster.local], refresh_interval: 1s}}
"""
    )
    script = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
    argv = [binary, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/d"]
    argv += ["--web.listen-address=127.0.0.1:9090"]
    enter = ["nsenter", f"--net={host.system.host}", "unshare", "--mount"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*enter, "sh", "-c", script, "sh", str(resolv), *argv],
            stdout=log,
            stderr=log,
        )

    def ask(path: str) -> Any:
        done = host.system.on_host("curl", "-sf", f"http://127.0.0.1:9090/api/v1/{path}")
        return json.loads(done.stdout)["data"] if done.returncode == 0 else {}

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def test_a_real_prometheus_scrapes_what_it_found_by_http_and_by_dns(
    host: Host, prometheus: Callable[[str], Any]
):
    def found() -> bool:
        active = prometheus("targets?state=active").get("activeTargets", [])
        pods = {one["labels"].get("pod") for one in active if one["scrapePool"] == "http_sd"}
        urls = {one["scrapeUrl"] for one in active if one["scrapePool"] == "dns_sd"}
        names = {"http://web.default.svc.cluster.local:80/metrics"}
        return pods == {"web-0", "web-1"} and urls == names

    host.system.eventually(found, "two pods by http_sd, one name by dns_sd")

    def answered() -> bool:  # python's server has no /metrics; that it says so is its answer
        active = prometheus("targets?state=active")["activeTargets"]
        return all("404" in one["lastError"] for one in active)

    host.system.eventually(answered, "every target answers")


# --- browsing -------------------------------------------------------------------------------

AVAHI = """
set -e
mkdir -p /run/avahi-daemon
mount -t tmpfs tmpfs /run/avahi-daemon
cd /run/avahi-daemon
echo nameserver 169.254.20.10 > resolv.conf
mount --bind resolv.conf /etc/resolv.conf
cat > bus.conf <<END
<busconfig><type>system</type><listen>unix:path=$PWD/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_type="*"/><allow receive_type="*"/>
<allow send_destination="*"/></policy></busconfig>
END
cat > avahi.conf <<END
[server]
use-ipv6=no
allow-interfaces=lo
[wide-area]
enable-wide-area=yes
[publish]
disable-publishing=yes
END
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$PWD/bus
dbus-daemon --config-file=$PWD/bus.conf --nofork 2>/dev/null & bus=$!
until [ -S bus ]; do sleep 0.05; done
avahi-daemon --no-drop-root --no-rlimits --no-chroot -f $PWD/avahi.conf 2>/dev/null & avahi=$!
until [ -S socket ]; do sleep 0.05; done
trap 'kill $avahi $bus' EXIT
timeout 50 avahi-browse -d sixfold.internal -p -t -r _http._tcp
"""


def browsed(host: Host, name: str, type_: str) -> set[str]:
    """As a pod is answered: by the kernel."""
    found = host.web.run("dig", "+short", "@169.254.20.10", f"{name}.sixfold.internal", type_)
    return set(found.splitlines())


def test_dig_browses_types_instances_places_and_texts(host: Host):
    assert browsed(host, "b._dns-sd._udp", "PTR") == {"sixfold.internal."}
    assert browsed(host, "_services._dns-sd._udp", "PTR") == {"_http._tcp.sixfold.internal."}
    names = ("default/web", "default/each/web-0", "default/each/web-1")  # not vault/safe
    instances = {f"{name}._http._tcp.sixfold.internal." for name in names}
    assert browsed(host, "_http._tcp", "PTR") == instances
    place = {"0 0 80 web.default.svc.sixfold.internal."}
    assert browsed(host, "default/web._http._tcp", "SRV") == place
    text = '"port=http" "spiffe=spiffe://cluster.local/ns/default/sa/default"'
    assert browsed(host, "default/web._http._tcp", "TXT") == {text}
    (address, _) = host.system.endpoints()["default/web-1"]["ips"]
    assert browsed(host, "web-1.each.default.svc", "A") == {address}


@pytest.mark.skipif(shutil.which("avahi-browse") is None, reason="no avahi-browse here")
def test_a_stock_avahi_browses_and_resolves(host: Host):
    done = host.system.on_host("unshare", "--mount", "sh", "-c", AVAHI)
    found = [line.split(";") for line in done.stdout.splitlines() if line.startswith("=")]
    vip = host.system.json("get", "svc", "web")["spec"]["clusterIPs"][0]
    places = {name.replace("\\047", "/"): rest for _, _, _, name, _, _, *rest in found}
    names = {"default/web", "default/each/web-0", "default/each/web-1", "vault/safe"}
    assert set(places) == names
    assert places["default/web"][:3] == ["web.default.svc.sixfold.internal", vip, "80"]
    assert '"port=http"' in places["default/web"][3]


# --- global names ---------------------------------------------------------------------------

REGIONS = {"eu": "192.0.2.11", "us": "192.0.2.12"}
SUBNETS = {"eu": "198.51.100.0/24", "us": "203.0.113.0/24"}


def global_name(policy: str) -> dict[str, Any]:
    check = {"tcpSocket": {"port": 9000}, "periodSeconds": 1, "timeoutSeconds": 30}
    check |= {"successThreshold": 1, "failureThreshold": 1}
    subnets = {name: {"clientSubnets": [SUBNETS[name]]} for name in REGIONS}
    return {
        "apiVersion": "sixfold.dev/v1",
        "kind": "GlobalName",
        "metadata": {"name": "shop"},
        "spec": {
            "hostname": "shop.example.org",
            "policy": policy,
            "healthCheck": check,
            "regions": [
                {
                    "name": name,
                    "addresses": [address],
                    **(subnets[name] if policy == "Geography" else {}),
                }
                for name, address in REGIONS.items()
            ],
        },
    }


def test_a_global_name_follows_health_place_and_order(host: Host):
    system, place = host.system, Place(host.system.host, EDGE, "::1")
    for address in (EDGE, *REGIONS.values()):
        place.run("ip", "address", "add", f"{address}/32", "dev", "lo")

    def edge(subnet: str = "", *options: str) -> str:
        options += (f"+subnet={subnet}",) if subnet else ()
        return place.run("dig", "+short", f"@{EDGE}", *options, "shop.example.org").strip()

    def inside() -> str:
        return host.web.run("dig", "+short", "@169.254.20.10", "shop.example.org").strip()

    eu, us = REGIONS.values()
    with place.listen(9000) as both:
        both.listen(64)
        system.apply(manifest(global_name("Geography")))
        assert (edge(SUBNETS["eu"]), edge(SUBNETS["us"])) == (eu, us)
        assert "CLIENT-SUBNET: 203.0.113.0/24/24" in place.run(
            "dig", f"@{EDGE}", "+subnet=203.0.113.0/24", "shop.example.org"
        )
        assert "status: REFUSED" in place.run("dig", f"@{EDGE}", "web.default.svc.cluster.local")
        assert edge("203.0.113.0/24", "+tcp") == us
        system.apply(manifest(global_name("Failover")))
        assert (edge(), inside()) == (eu, eu)
        place.run("ip", "address", "del", f"{eu}/32", "dev", "lo")
        system.eventually(lambda: edge() == us, "the second region takes over")
        assert inside() == us
        explained = system.json("resolve", "shop.example.org", "--as", "default/web-0")["steps"][-1]
        assert (explained["by"], explained["records"]) == ("resolver", [us])
        assert explained["why"] == "a global name, Failover: eu not well, us well"
    # all are ill: answered as if all were well, and that is said
    place.run("ip", "address", "add", f"{eu}/32", "dev", "lo")
    said = "global name shop.example.org: none of 2 regions is well; answered as if all were"
    system.eventually(lambda: said in system.agent_log(), "no region is well")
    assert (edge(), inside()) == (eu, eu)
    assert "none of 2 regions is well; answered as if all were" in system.sixfold("status").stdout
    assert "0/2 well" in system.sixfold("get", "globalnames").stdout
    system.sixfold("delete", "globalname", "shop")
    assert edge() == ""


# --- Consul ---------------------------------------------------------------------------------


def test_py_consul_finds_the_pods_of_a_service_with_tags_and_meta(host: Host):
    _, entries = host.consul(lambda c: c.health.service("web", passing=True))
    assert {one["Service"]["Meta"]["pod-name"] for one in entries} == {"web-0", "web-1"}
    (service, *_) = [one["Service"] for one in entries]
    assert (service["Service"], service["Port"], service["Tags"]) == ("web", 8080, ["http"])
    assert service["Meta"]["k8s-namespace"] == "default"
    assert service["Meta"]["port-name"] == "http"
    assert service["Meta"]["spiffe-id"] == "spiffe://cluster.local/ns/default/sa/default"
    _, tagged = host.consul(lambda c: c.health.service("web", tag="nope"))
    assert tagged == []
    _, services = host.consul(lambda c: c.catalog.services())
    assert services == {"consul": [], "web": ["http"], "each": ["http"], "safe.vault": ["http"]}
    _, (node,) = host.consul(lambda c: c.catalog.nodes())
    _, described = host.consul(lambda c: c.catalog.node(node["Node"]))
    assert {one["Service"] for one in described["Services"].values()} >= {"web", "each"}
    assert host.consul(lambda c: c.catalog.datacenters()) == ["dc1"]
    assert host.consul(lambda c: c.agent.self())["Config"]["NodeName"] == node["Node"]
    assert host.consul(lambda c: c.status.leader()).startswith("10.244.0.1:")
    _, checks = host.consul(lambda c: c.health.state("passing"))
    assert {one["CheckID"] for one in checks} > {"serfHealth"}


def test_a_process_registers_itself_and_is_as_well_as_its_ttl_says(host: Host):
    ttl = consul.Check.ttl("30s")
    host.consul(
        lambda c: c.agent.service.register(
            "ledger", "l1", address="192.0.2.7", port=7000, tags=["v1"], check=ttl
        )
    )

    def health() -> list[str]:
        _, entries = host.consul(lambda c: c.health.service("ledger"))
        return [check["Status"] for one in entries for check in one["Checks"][1:]]

    assert health() == ["critical"]
    host.consul(lambda c: c.agent.check.ttl_pass("service:l1", "all is well"))
    assert health() == ["passing"]
    _, (entry,) = host.consul(lambda c: c.health.service("ledger", passing=True))
    assert entry["Service"]["Address"] == "192.0.2.7"
    assert entry["Checks"][1]["Output"] == "all is well"
    host.consul(lambda c: c.agent.check.ttl_warn("service:l1"))
    assert health() == ["warning"]
    host.consul(lambda c: c.agent.service.maintenance("l1", "true", "upgrade"))
    assert health() == ["warning", "critical"]
    host.consul(lambda c: c.agent.service.maintenance("l1", "false"))
    assert set(host.consul(lambda c: c.agent.services())) == {"l1"}
    assert set(host.consul(lambda c: c.agent.checks())) == {"service:l1"}
    host.consul(lambda c: c.agent.service.deregister("l1"))
    assert health() == []


def test_what_registers_itself_is_an_endpoint_of_the_service_named_so(host: Host):
    web = Place(host.system.host, "10.244.0.1", "fd00:5f:244::1")
    client = host.web
    host.system.apply(manifest(service("outside", selector={}, ports=[HTTP])))
    (vip, *_) = host.system.json("get", "svc", "outside")["spec"]["clusterIPs"]
    assert client.answer(vip, 80) == "ECONNREFUSED"
    with web.listen(7000) as listener:
        body = {"Name": "outside", "Port": 7000, "Weights": {"Passing": 5}, "Check": {"TTL": "60s"}}
        host.put("/v1/agent/service/register", body)
        assert client.answer(vip, 80) == "ECONNREFUSED"  # critical until it says otherwise
        host.put("/v1/agent/check/pass/service:outside")
        with client.dial(vip, 80):
            connection, (source, _) = listener.accept()
            connection.close()
        assert source == client.ipv4
        (slice_,) = [
            one
            for one in host.system.json("get", "endpointslices")["items"]
            if "registration" in one["metadata"]["name"]
        ]
        assert slice_["endpoints"][0]["targetRef"]["name"] == "outside"
        host.system.sixfold("reach")  # whatever reads the whole world reads it, too
        host.put("/v1/agent/check/fail/service:outside")
        assert client.answer(vip, 80) == "ECONNREFUSED"
        host.put("/v1/agent/service/deregister/outside")


def test_a_blocked_query_wakes_for_its_own_service_and_no_other(host: Host):
    host.put("/v1/agent/service/register", {"Name": "one", "Check": {"TTL": "60s"}})
    index, _ = host.consul(lambda c: c.health.service("one"))
    host.put("/v1/agent/service/register", {"Name": "two", "Port": 1})
    same, entries = host.consul(lambda c: c.health.service("one", index=index, wait="100ms"))
    assert (same, len(entries)) == (index, 1)  # it timed out
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(
            host.consul, lambda c: c.health.service("one", index=index, wait="100s")
        )
        host.put("/v1/agent/check/pass/service:one?note=up")
        later, (entry,) = waiting.result(100)
    assert int(later) > int(index)
    assert entry["Checks"][1]["Status"] == "passing"
    # an index of another agent's time is answered at once
    host.consul(lambda c: c.health.service("one", index=str(int(later) + 10**9), wait="9m"))
    for name in ("one", "two"):
        host.put(f"/v1/agent/service/deregister/{name}")


def test_a_blocked_query_wakes_when_policy_shows_or_hides_its_service(host: Host):
    node = host.system.status()["agent"]["pod_networks"][0]
    address = str(next(ip_network(node).hosts()))

    def ask(service: str, **query: str) -> tuple[str, list[Any]]:
        url = f"http://{address}:{PORT}/v1/health/service/{service}?{urlencode(query)}"
        head, _, body = host.web.run("curl", "-si", "-m", "25", url).partition("\n\n")
        (index,) = re.findall(r"x-consul-index: (\d+)", head)
        return index, json.loads(body)

    opening = policy("in", None, namespace="vault", ingress=[{}])
    before, entries = ask("safe", ns="vault")
    other, _ = ask("web")
    assert entries == []
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, "safe", ns="vault", index=before, wait="20s")
        host.system.apply(json.dumps(opening))
        shown, entries = waiting.result(25)
        assert [one["Service"]["Meta"]["pod-name"] for one in entries] == ["safe"]
        waiting = pool.submit(ask, "safe", ns="vault", index=shown, wait="20s")
        host.system.sixfold("delete", "netpol", "in", "-n", "vault")
        hidden, entries = waiting.result(25)
    assert entries == []
    assert int(before) < int(shown) < int(hidden)
    assert ask("web", index=other, wait="100ms")[0] == other, "of another service"


def test_the_agent_asks_what_is_to_be_asked(host: Host):
    address = host.web.ipv4
    checks = [
        {"CheckID": "http", "HTTP": f"http://{address}:8080/", "Interval": "1s"},
        {"CheckID": "none", "HTTP": f"http://{address}:8080/none", "Interval": "1s"},
        {"CheckID": "tcp", "TCP": f"{address}:8080", "Interval": "1s", "Timeout": "1s"},
        {"CheckID": "shut", "TCP": f"{address}:1", "Interval": "1s"},
    ]
    body = {"Name": "asked", "Port": 8080, "Address": address, "Checks": checks}
    host.put("/v1/agent/service/register", body)

    def states() -> bool:
        found = {one["CheckID"]: one["Status"] for one in host.get("/v1/health/checks/asked")}
        wanted = {"http": "passing", "none": "critical", "tcp": "passing", "shut": "critical"}
        return found == wanted

    host.system.eventually(states, "checks by HTTP and TCP")
    outputs = {one["CheckID"]: one["Output"] for one in host.get("/v1/health/checks/asked")}
    assert outputs["none"].endswith("status 404")
    host.put("/v1/agent/service/deregister/asked")


def test_filters_choose_and_refuse_what_they_do_not_know(host: Host):
    path = "/v1/health/service/web?filter="
    chosen = host.get(
        path + quote('"http" in Service.Tags and Service.Meta["pod-name"] == "web-1"')
    )
    assert [one["Service"]["Meta"]["pod-name"] for one in chosen] == ["web-1"]
    for expression in ('Service.Nope == "x"', 'Service.ID matches "w.*"', "and"):
        status, text = host.request("GET", path + quote(expression))
        assert (status, text.startswith("filter: ")) == (400, True)


def test_only_the_operator_registers_what_it_likes(host: Host):
    body = {"Name": "web", "Address": "192.0.2.66", "Port": 80}
    path = "/v1/agent/service/register"
    pod = host.web.ipv4
    for headers in ({}, {"X-Consul-Token": "guess"}, {"X-Forwarded-For": pod}):
        status, text = host.request("PUT", path, body, **headers)
        assert (status, "Permission denied" in text or "ACL not found" in text) == (403, True)
    assert len(host.get("/v1/health/service/web")) == 2
    for wrong in ({**body, "Address": "10.96.0.5"}, {**body, "Address": "10.244.77.7"}):
        assert "Address" in host.put(path, wrong, status=400)
    assert "Connect: not supported" in host.put(path, {**body, "Connect": {"Native": True}}, 400)


def test_a_pod_registers_itself_and_nobody_else(host: Host):
    system = host.system
    closed = service("closed", selector={}, ports=[HTTP])
    takes = service("takes", selector={}, ports=[HTTP])
    takes["metadata"]["annotations"] = {"sixfold.dev/registration": "open"}
    system.apply(manifest(closed, takes, pod("guest")))
    guest = place_of(system, "guest")

    def put(path: str, body: object = None) -> str:
        url = f"http://10.244.0.1:{PORT}/v1/agent/{path}"
        data = () if body is None else ("-d", json.dumps(body))
        return guest.run("curl", "-s", "-w", "%{http_code}", "-X", "PUT", url, *data)

    body = {"Name": "takes", "ID": "g", "Port": 8080, "Check": {"TTL": "60s"}}
    for wrong, says in (
        ({**body, "Name": "closed"}, "takes no registrations of pods"),
        ({**body, "Name": "nobody"}, "takes no registrations of pods"),
        ({**body, "Name": "takes.other"}, "registers in namespace default only"),
        ({**body, "Address": "192.0.2.1"}, "registers itself only"),
        (
            {**body, "Check": {"TCP": "192.0.2.1:80", "Interval": "1s"}},
            "a check of default/guest asks",
        ),
    ):
        answer = put("service/register", wrong)
        assert answer.endswith("403"), answer
        assert says in answer
    assert put("service/register", body) == "200"
    assert put("check/pass/service:g") == "200"
    host.put("/v1/agent/service/register", {"Name": "other"})
    assert 'service ID "other" is not of default/guest' in put("service/deregister/other")
    host.put("/v1/agent/service/deregister/other")
    (endpoint,) = host.get("/v1/health/service/takes?passing")
    assert endpoint["Service"]["Address"] == guest.ipv4
    # it is told of what it may reach, as by the resolver
    door = f"http://10.244.0.1:{PORT}"
    seen = json.loads(guest.run("curl", "-s", f"{door}/v1/catalog/services"))
    assert set(seen) == {"consul", "takes", "web", "each"}
    assert set(host.get("/v1/catalog/services")) == {*seen, "safe.vault"}
    assert guest.run("curl", "-s", f"{door}/v1/health/service/safe.vault") == "[]"
    groups = json.loads(guest.run("curl", "-s", f"{door}/prometheus/targets?role=pod"))
    spaces = {one["labels"]["__meta_kubernetes_namespace"] for one in groups}
    assert spaces == {"default"}
    (vip, *_) = system.json("get", "svc", "takes")["spec"]["clusterIPs"]
    with guest.listen(8080) as listener:
        host.web.dial(vip, 80).close()
        listener.accept()[0].close()
    system.sixfold("delete", "pod", "guest")  # its address may be another's next
    system.eventually(lambda: host.get("/v1/catalog/service/takes") == [], "it goes with its pod")


def test_keys_and_values_are_refused_with_words(host: Host):
    assert host.request("GET", "/v1/kv/app/config")[0] == 404
    assert "not supported by sixfold" in host.put("/v1/kv/app/config", "x", status=501)
    assert "not supported by sixfold" in host.put("/v1/acl/login", {}, status=404)


def test_the_npm_client_watches(host: Host, tmp_path: Path):
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node and npm here")
    got = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "consul@2.0.1"],
        cwd=tmp_path,
        capture_output=True,
        timeout=90,
        check=False,
    )
    if got.returncode:
        pytest.skip("npm cannot fetch consul@2.0.1 here")
    (tmp_path / "watch.js").write_text(
        f"""
const Consul = require('consul');
const client = new Consul({{host: '127.0.0.1', port: {PORT}}});
const watch = client.watch({{method: client.health.service, options: {{service: 'seen'}}}});
watch.on('change', (data) => {{ console.log(data.length); if (data.length) process.exit(0); }});
watch.on('error', (error) => {{ console.error(error); }});
"""
    )
    process = subprocess.Popen(
        ["nsenter", f"--net={host.system.host}", "node", "watch.js"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"  # it waits now
        host.put("/v1/agent/service/register", {"Name": "seen", "Port": 1})
        assert process.communicate(timeout=20)[0] == "1\n"
    finally:
        process.kill()
        process.wait()
        host.put("/v1/agent/service/deregister/seen")


def test_registrations_survive_the_agent(host: Host):
    check = {"TTL": "60s", "DeregisterCriticalServiceAfter": "24h"}
    host.put("/v1/agent/service/register", {"Name": "kept", "Tags": ["a"], "Check": check})
    host.put("/v1/agent/check/pass/service:kept?note=well")
    before = host.consul(lambda c: c.health.service("kept"))[0]
    os.kill(host.system.agent_pid(), signal.SIGKILL)
    host.system.up()
    after, (entry,) = host.consul(lambda c: c.health.service("kept"))
    assert (entry["Service"]["Tags"], entry["Checks"][1]["Status"]) == (["a"], "passing")
    assert int(after) > int(before)
    host.put("/v1/agent/service/deregister/kept")
