"""What others find through us: targets of Prometheus. One stack for all tests here."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sixfold.host import netns

from .conftest import System
from .places import OPEN, manifest, pod, policy, service

pytestmark = pytest.mark.root

PORT = 8500
SERVER = ["python3", "-m", "http.server", "8080"]
HTTP = {"name": "http", "port": 80, "targetPort": "http"}


@dataclass(frozen=True)
class Host:
    """A client on the host, by the catalogue's TCP door."""

    system: System

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

    def get(self, path: str) -> Any:
        status, body = self.request("GET", path)
        assert status == 200, body
        return body


@pytest.fixture(scope="module")
def host(module_system: System) -> Host:
    web = {"command": SERVER, "ports": [{"name": "http", "containerPort": 8080}]}
    ready = {"httpGet": {"path": "/", "port": "http"}}
    module_system.up(
        *("--catalog-listen", f"127.0.0.1:{PORT}"),
        manifest=manifest(
            *(
                pod(f"web-{n}", labels={"app": "web"}, container={**web, "readinessProbe": ready})
                for n in range(2)
            ),
            service("web", ports=[HTTP]),
            policy("open", None, **OPEN),
        ),
    )
    return Host(module_system)


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
    (group,) = json.loads(done.stdout)
    assert group["targets"] == ["web.default.svc:80"]


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
