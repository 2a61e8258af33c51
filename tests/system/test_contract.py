"""The contract that scripts rely on, sentence by sentence, through the command."""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from .conftest import ROOT, SIXFOLD, System
from .places import OPEN, manifest, pod, policy, service

pytestmark = pytest.mark.root

SHOP = manifest(
    pod("web", container={"command": ["python3", "-m", "http.server", "80"]}),
    pod("client"),
    pod("web", namespace="other"),
    service("web", ports=[{"port": 80}]),
    policy("open", None, **OPEN),
)


@pytest.fixture(scope="module")
def shop(module_system: System) -> System:
    module_system.up(manifest=SHOP)
    return module_system


@pytest.mark.parametrize("target", ["setup", "demo", "test", "bench", "check"])
def test_make_has_the_targets(target: str) -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert any(line.startswith(f"{target}:") for line in lines)


def test_up_returns_when_everything_applied_is_in_force(shop: System) -> None:
    agent = shop.status()["agent"]
    assert agent["applied"] == agent["generation"] == 1
    assert agent["pid"] == int((shop.paths.run / "agent.lock").read_text())
    assert Path(f"/proc/{agent['pid']}/cmdline").exists()
    assert all(status["ready"] for status in shop.endpoints().values())


def test_apply_wait_returns_when_its_pods_are_ready_and_its_policies_loaded(shop: System) -> None:
    given = manifest(pod("late"), policy("late", {"app": "late"}, ingress=[{}]))
    shop.sixfold("apply", "--wait", "-f", "-", stdin=given)
    assert shop.endpoint("default/late")["ready"]
    agent = shop.status()["agent"]
    assert agent["applied"] == agent["generation"]
    rules = [row["rule"] for row in shop.json("bpf", "policy", "list", "--pod", "default/late")]
    assert "default/late ingress[0]" in rules
    shop.sixfold("delete", "-f", "-", stdin=given)


def test_endpoints_are_a_list_with_what_scripts_need(shop: System) -> None:
    found = shop.json("get", "endpoints", "-A")
    (client,) = [item for item in found["items"] if item["metadata"]["name"] == "client"]
    assert client["metadata"]["namespace"] == "default"
    status = client["status"]
    assert Path(status["netns"]).exists()
    assert [ip_address(address).version for address in status["ips"]] == [4, 6]
    assert isinstance(status["identity"], int)
    assert status["node"] == shop.status()["agent"]["node"]
    assert status["ready"] is True


@pytest.mark.parametrize("noun", ["pods", "services", "netpol", "endpoints", "endpointslices"])
def test_objects_print_as_table_wide_json_and_yaml(shop: System, noun: str) -> None:
    assert json.loads(shop.sixfold("get", noun, "-o", "json").stdout)["items"]
    assert shop.sixfold("get", noun, "-o", "yaml").stdout.startswith("apiVersion: ")
    table = shop.sixfold("get", noun, "-o", "table").stdout.splitlines()
    wide = shop.sixfold("get", noun, "-o", "wide").stdout.splitlines()
    assert len(table) == len(wide) > 1
    assert len(wide[0]) >= len(table[0])


def test_the_namespace_is_given_by_n_before_or_after_the_verb(shop: System) -> None:
    for arguments in (("-n", "other", "get", "pods"), ("get", "pods", "--namespace", "other")):
        lines = shop.sixfold(*arguments).stdout.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["web"]


def test_manifests_come_from_files_directories_and_standard_input(
    shop: System, tmp_path: Path
) -> None:
    (tmp_path / "shop.yaml").write_text(SHOP)
    for source in (str(tmp_path / "shop.yaml"), str(tmp_path), "-"):
        done = shop.sixfold("apply", "-f", source, stdin=SHOP if source == "-" else None)
        assert {line.split()[1] for line in done.stdout.splitlines()} == {"unchanged"}


def test_flows_print_one_a_line(shop: System) -> None:
    knock = "import socket; socket.create_connection(('web', 80), 3)"
    shop.sixfold("exec", "client", "--", "python3", "-c", knock)
    lines = shop.sixfold("flows", "--from", "client", "-o", "json").stdout.splitlines()
    assert lines
    for line in lines:
        assert json.loads(line)["flow"]["source"]["pod_name"] == "client"


def test_exit_codes_are_0_yes_1_no_2_wrong_usage(shop: System) -> None:
    def code(*arguments: str) -> int:
        return shop.sixfold(*arguments, check=False).returncode

    assert code("explain", "client", "web:80") == 0
    assert code("explain", "client", "other/web:80") == 1
    assert code("explain", "client", "192.0.2.1:80") == 0
    shop.apply(manifest(policy("shut", {"app": "client"}, policyTypes=["Egress"])))
    shop.sixfold("delete", "netpol", "open")
    assert code("explain", "client", "web:80") == 1
    assert code("get", "pod", "nobody") == 1
    assert code("get", "pods", "--no-such-option") == 2
    assert code("no-such-verb") == 2


def test_the_resolver_answers_at_its_address_in_both_families(shop: System) -> None:
    for server in ("169.254.20.10", "fd00:5f::10"):
        ask = ["dig", "+short", f"@{server}", "ns.dns.cluster.local"]
        assert shop.run_in_pod("default/client", *ask).stdout.strip() == "169.254.20.10"


def test_the_api_is_a_socket_for_its_owner_only(shop: System) -> None:
    mode = shop.paths.api_socket.stat()
    assert mode.st_mode & 0o777 == 0o600
    assert mode.st_uid == os.geteuid()


def test_offline_commands_need_neither_root_nor_an_agent(system: System) -> None:
    """As nobody, in a namespace where nothing runs; the interpreter may be in root's home."""
    read = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *read]
    done = system.on_host(*nobody, *SIXFOLD, "explain", "-f", "-", "client", "web:80", stdin=SHOP)
    assert done.returncode == 0, done.stderr
    refused = system.on_host(*nobody, *SIXFOLD, "up", "--detach")
    assert refused.returncode == 1
    assert "needs root" in refused.stderr
