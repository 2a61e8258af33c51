import json
import os
import subprocess
import sys
from ipaddress import ip_address

import pytest
from click.shell_completion import BashComplete

from sixfold import __version__
from sixfold.cli.bpf import Names, ports
from sixfold.cli.root import cli
from sixfold.cli.up import not_in_force
from sixfold.model.datapath import EGRESS, PolicyEntry
from sixfold.model.identity import HOST, Identity
from sixfold.model.place import place_text

STATUS = {
    "agent": {
        "pid": 42,
        "version": "9.9",
        "generation": 7,
        "applied": 6,
        "node": "basecamp",
        "posture": "zero-trust",
        "devices": ["eth0"],
        "uptime_s": 130,
        "problem": "put policy[1]: E2BIG: map is full",
        "repairs": ["link of web put back"],
    },
    "pods": {"total": 3, "ready": 2, "unsettled": ["shop/db"]},
    "services": 2,
    "policies": 4,
    "flows": {"seen": 10, "lost": 1},
    "drops": {"POLICY_DENIED": 5, "CT_FULL": 0},
    "patterns": [{"name": "routing", "state": "ok", "detail": "3 endpoints"}],
}


def test_status_shows_what_is_not_in_force_yet(sixfold, agent):
    agent.answers["GET /v1/status"] = STATUS
    result = sixfold("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "agent      pid 42, version 9.9, up 2m10s, node basecamp, posture zero-trust",
        "uplinks    eth0",
        "objects    generation 7, applied 6: Pending",
        "pods       3 total, 2 ready",
        "services   2",
        "policies   4",
        "flows      10 seen, 1 lost",
        "unsettled  shop/db",
        "problem    put policy[1]: E2BIG: map is full",
        "repaired   link of web put back",
        "",
        "PATTERN   STATE   DETAIL",
        "routing   ok      3 endpoints",
        "",
        "COUNTER         COUNT",
        "POLICY_DENIED   5",
    ]


def test_status_as_json_is_the_agents_own(sixfold, agent):
    agent.answers["GET /v1/status"] = STATUS
    assert json.loads(sixfold("status", "-o", "json").stdout) == STATUS


def test_up_fails_when_what_it_started_is_not_in_force():
    fine = {"agent": {"applied": 7, "generation": 7, "problem": ""}, "pods": {"unsettled": []}}
    assert not_in_force(fine) == ""
    assert not_in_force(STATUS) == (
        "shop/db; put policy[1]: E2BIG: map is full; generation 7, applied is 6"
    )


@pytest.mark.parametrize("args", [["-o", "wide", "status"], ["status", "-o", "wide"]])
def test_wide_is_understood_where_it_has_no_more_to_say(args, sixfold, agent):
    agent.answers["GET /v1/status"] = STATUS
    assert sixfold(*args).stdout == sixfold("status").stdout


def test_version_works_with_and_without_an_agent(sixfold, agent):
    agent.answers["GET /v1/status"] = STATUS
    assert json.loads(sixfold("version", "-o", "json").stdout)["agent"] == "9.9"
    agent.path.unlink()
    result = sixfold("version")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [f"client:  {__version__}", "agent:   not running"]


def test_routes_are_a_table_of_what_is_there(sixfold, agent):
    agent.answers["GET /v1/routes"] = {
        "routes": [{"dst": "10.244.0.4/32", "dev": "sf1", "via": "", "pod": "shop/web"}]
    }
    assert sixfold("route", "show").stdout.splitlines() == [
        "DST             DEV   VIA   POD",
        "10.244.0.4/32   sf1   -     shop/web",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell, sixfold):
    script = sixfold("completion", shell).stdout
    assert "_SIXFOLD_COMPLETE" in script
    assert "%" not in script.replace("%%", "") or "%(" not in script


def complete(*words: str) -> list[str]:
    """What the shell would be offered for the last word."""
    completer = BashComplete(cli, {}, "sixfold", "_SIXFOLD_COMPLETE")
    return [item.value for item in completer.get_completions(list(words[:-1]), words[-1])]


def test_completion_offers_verbs_kinds_and_names(agent):
    agent.answers["GET /v1/objects/Pod/shop"] = {
        "items": [{"metadata": {"name": "web-0"}}, {"metadata": {"name": "db-0"}}]
    }
    assert complete("ex") == ["exec", "explain"]
    assert complete("get", "depl") == ["deployments"]
    assert complete("get", "-n", "shop", "pods", "w") == ["web-0"]
    assert complete("logs", "-n", "shop", "d") == ["db-0"]


def test_completion_is_silent_without_an_agent(run_dir):
    assert complete("logs", "w") == []


def test_a_shell_is_answered_through_the_environment(run_dir):
    result = subprocess.run(
        [sys.executable, "-m", "sixfold.cli"],
        env={
            **os.environ,
            "_SIXFOLD_COMPLETE": "bash_complete",
            "COMP_WORDS": "sixfold ex",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.stderr) == ("plain,exec\nplain,explain\n", "")


def test_numbers_of_the_kernel_get_names_where_the_agent_has_them():
    names = Names(
        identities={"1234": ["k8s:app=web", "k8s:io.cilium.k8s.policy.serviceaccount=default"]},
        rules={"5": "shop/allow ingress[0]"},
        endpoints={"21": "shop/web-0"},
    )
    assert names.identity(Identity(1234)) == "1234 app=web"
    assert names.identity(HOST) == "host"
    assert names.identity(Identity(999)) == "999"
    assert (names.rule(5), names.rule(6), names.rule(0)) == ("shop/allow ingress[0]", "rule 6", "-")
    assert (names.endpoint(21), names.endpoint(3)) == ("shop/web-0", "endpoint 3")


@pytest.mark.parametrize(
    ("port", "bits", "protocol", "text"),
    [
        (80, 16, 6, "80"),
        (80, 12, 6, "80-95"),
        (0, 0, 6, "any"),
        (0, 0, 0, "any"),
        (0, 1, 6, "0-32767"),
    ],
)
def test_a_prefix_of_ports_is_shown_as_the_range_it_is(port, bits, protocol, text):
    assert ports(PolicyEntry(EGRESS, Identity(0), protocol, port, bits, True, 1)) == text


def test_sockets_are_bracketed_when_ipv6():
    assert place_text(ip_address("192.0.2.1"), 80) == "192.0.2.1:80"
    assert place_text(ip_address("2001:db8::1"), 80) == "[2001:db8::1]:80"


def test_doctor_says_what_to_do_and_fails_when_something_is_missing(sixfold):
    result = sixfold("doctor", "-o", "json")
    checks = json.loads(result.stdout)
    failed = any(check["state"] == "fail" for check in checks)
    assert result.exit_code == (1 if failed else 0)
    assert all(check["fix"] for check in checks if check["state"] == "fail")
