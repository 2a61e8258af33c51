"""Metrics of a running stack, against what was done to it: by Prometheus' parser, and by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sixfold.host import bpf

from .conftest import SIXFOLD, System
from .places import manifest, place_of, pod, policy, service

pytestmark = pytest.mark.root

ADDRESS = "127.0.0.1:9153"
STRANGER = "192.0.2.7"
DOCUMENT = Path(__file__).parents[2] / "docs/metrics.md"
Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def shop(module_system: System) -> Iterator[System]:
    module_system.up(
        *("--metrics-address", ADDRESS),
        manifest=manifest(
            pod("client"),
            pod("web"),
            service("web", ports=[{"port": 80, "targetPort": 8080}]),
            policy("all", None, ingress=[{}], egress=[{"to": [{"podSelector": {}}]}]),
        ),
    )
    with place_of(module_system, "web").listen():
        yield module_system


def values(text: str) -> dict[Sample, float]:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def measured(system: System) -> dict[Sample, float]:
    return values(system.sixfold("metrics").stdout)


def sample(name: str, **labels: str) -> Sample:
    return name, tuple(sorted(labels.items()))


def grown(before: dict[Sample, float], after: dict[Sample, float]) -> dict[Sample, float]:
    """What went up, and by how much."""
    return {key: n - before.get(key, 0) for key, n in after.items() if n > before.get(key, 0)}


def test_a_connection_to_a_service_is_counted_everywhere_it_should_be(shop: System):
    web = shop.json("get", "svc", "web")["spec"]["clusterIP"]
    client, before = place_of(shop, "client"), measured(shop)
    for _ in range(3):
        assert client.answer(web, 80) == "open"
    more = grown(before, measured(shop))
    of_service = {"namespace": "default", "service": "web", "port": "80", "protocol": "TCP"}
    rule = {"namespace": "default", "policy": "all", "rule": "egress[0]", "direction": "egress"}
    both = {"source_namespace": "default", "destination_namespace": "default"}
    for one in (
        sample("sixfold_connections_total"),
        sample("sixfold_service_dials_total"),
        sample("sixfold_service_connections_total", **of_service),
        sample("sixfold_backend_connections_total", **of_service, endpoint="default/web"),
        sample("sixfold_policy_rule_hits_total", **rule),
        sample("sixfold_flows_total", verdict="FORWARDED", reason="", **both),
    ):
        assert more[one] == 3, one
    assert not any(name == "sixfold_drops_total" for name, _ in more)


def test_a_drop_is_counted_by_reason_and_under_the_policy_that_isolates(shop: System):
    before = measured(shop)
    assert place_of(shop, "client").attempt(STRANGER, 80) == "timeout"
    more = grown(before, measured(shop))
    drops = more[sample("sixfold_drops_total", reason="policy_denied")]
    assert drops >= 1
    denied = {"policy": "all", "rule": "default-deny", "direction": "egress"}
    assert more[sample("sixfold_policy_rule_hits_total", namespace="default", **denied)] == drops
    sides = {"source_namespace": "default", "destination_namespace": "reserved:world"}
    flows = sample("sixfold_flows_total", verdict="DROPPED", reason="policy_denied", **sides)
    assert more[flows] == drops


def test_names_are_counted_by_who_answered(shop: System):
    before = measured(shop)
    client = place_of(shop, "client")
    ask = ["dig", "+tries=1", "@169.254.20.10"]
    client.run(*ask, "web.default.svc.cluster.local")
    client.run(*ask, "nosuch.default.svc.cluster.local")
    client.run(*ask, "+tcp", "web.default.svc.cluster.local")
    more = grown(before, measured(shop))

    def answers(responder: str, rcode: str) -> float:
        return more[sample("sixfold_dns_answers_total", responder=responder, rcode=rcode)]

    assert answers("kernel", "NOERROR") == answers("kernel", "NXDOMAIN") == 1
    assert answers("process", "NOERROR") == 1


def test_how_the_agent_is_stands_in_it(shop: System):
    found, status = measured(shop), shop.status()["agent"]
    assert found[sample("sixfold_generation_in_force")] == status["applied"]
    assert found[sample("sixfold_round_duration_seconds_count")] >= 1
    assert found[sample("sixfold_resolver_up")] == 1
    two = {"namespace": "default", "phase": "Running", "ready": "true"}
    assert found[sample("sixfold_pods", **two)] == 2
    web = {"namespace": "default", "service": "web"}
    assert found[sample("sixfold_service_backends", state="active", **web)] == 1


def test_maps_are_as_full_as_the_kernel_says(shop: System):
    """Against a look at every entry: hashes, those that forget, those of each CPU, and tries."""
    place_of(shop, "client").attempt(place_of(shop, "web").ipv4)
    found = measured(shop)
    for name in ("names", "policy", "conntrack", "rule_hits", "ipcache", "endpoints"):
        table = bpf.Map(bpf.get(shop.paths.bpffs / "maps" / name), name)
        count = sum(1 for _ in table.items())
        room = table.definition.max_entries
        table.close()
        assert count > 0
        assert found[sample("sixfold_map_entries", map=name)] == count, name
        assert found[sample("sixfold_map_max_entries", map=name)] == room


def test_every_metric_is_described(shop: System):
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line[:3] == "| `"]
    described = {row[1].strip(" `"): row[2].strip() for row in rows}
    lines = shop.sixfold("metrics").stdout.splitlines()
    found = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))
    assert found.items() <= described.items()


def test_who_asks_for_openmetrics_gets_it(shop: System):
    asked = ("curl", "-s", "-H", "Accept: application/openmetrics-text; version=1.0.0")
    text = shop.on_host(*asked, f"http://{ADDRESS}/metrics").stdout
    names = {family.name for family in openmetrics.text_string_to_metric_families(text)}
    plain = text_string_to_metric_families(shop.sixfold("metrics").stdout)
    assert names == {family.name for family in plain}


def test_only_root_reads_the_socket_and_only_loopback_the_port(shop: System):
    assert (shop.paths.run / "metrics.sock").stat().st_mode & 0o777 == 0o600
    done = shop.on_host(*SIXFOLD, "up", "--metrics-address", "192.0.2.1:9153", "--detach")
    assert done.returncode == 2
    assert "give an address of loopback" in done.stderr


def test_a_name_chooses_what_is_printed(shop: System):
    lines = shop.sixfold("metrics", "sixfold_pods").stdout.splitlines()
    assert [line.split("{")[0] for line in lines] == [
        "# HELP sixfold_pods Pods.",
        "# TYPE sixfold_pods gauge",
        "sixfold_pods",
    ]


def test_promtool_has_nothing_to_say(shop: System):
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian: prometheus)")
    text = shop.sixfold("metrics").stdout
    done = shop.run_in(shop.host, "promtool", "check", "metrics", stdin=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_prometheus_scrapes_it(shop: System, tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("needs Prometheus (Debian: prometheus)")
    config = tmp_path / "prometheus.yml"
    job = {"job_name": "sixfold", "static_configs": [{"targets": [ADDRESS]}]}
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path}",
        "--web.listen-address=127.0.0.1:9090",
    ]
    server = subprocess.Popen(
        ["nsenter", f"--net={shop.host}", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    query = "http://127.0.0.1:9090/api/v1/query?query=sixfold_generation_in_force"

    def found() -> list[dict]:
        text = shop.on_host("curl", "-s", query).stdout
        return json.loads(text)["data"]["result"] if text.startswith("{") else []

    try:
        (one,) = shop.eventually(found, "a sample in Prometheus")
        assert float(one["value"][1]) == shop.status()["agent"]["applied"]
    finally:
        server.terminate()
        server.wait(20)
