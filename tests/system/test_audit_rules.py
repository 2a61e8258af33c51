"""The audit of a running system: silent where all is well, and each fault found where it is."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sixfold.host import bpf, layout

from .conftest import System
from .places import Place, labelled, manifest, place_of, pod, policy, service

pytestmark = pytest.mark.root

CALLER_OUT = policy(
    "caller", {"app": "caller"}, policyTypes=["Egress"], egress=[{"to": [labelled(app="server")]}]
)
SERVER_IN = policy(
    "server",
    {"app": "server"},
    ingress=[{"from": [labelled(app="caller")], "ports": [{"port": 8080}]}],
)
FROM_HOST = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "from-host", "namespace": "default"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"fromEntities": ["host"]}],
    },
}
PLAIN = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "plain", "namespace": "default"},
    "spec": {
        "selector": {"matchLabels": {"app": "server"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"8080": {"mode": "DISABLE"}},
    },
}
ABOUT_REQUESTS = {
    **FROM_HOST,
    "metadata": {"name": "requests", "namespace": "default"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "caller"}}],
                "toPorts": [
                    {
                        "ports": [{"port": "8080", "protocol": "TCP"}],
                        "rules": {"http": [{"method": "GET"}]},
                    }
                ],
            }
        ],
    },
}


@dataclass
class Lab:
    system: System
    caller: Place
    server: Place

    def audit(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.system.sixfold("audit", "-o", "json", *arguments, check=False)
        assert done.returncode in (0, 1), done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def conntrack(self) -> bpf.Map:
        return bpf.Map(bpf.get(self.system.paths.bpffs / "maps" / "conntrack"), "conntrack")


@pytest.fixture(scope="module")
def lab(module_system: System) -> Iterator[Lab]:
    pods = [pod(name, serviceAccountName=name) for name in ("caller", "server")]
    module_system.up("--mtls", "strict", manifest=manifest(*pods, CALLER_OUT, SERVER_IN))
    caller, server = (place_of(module_system, f"default/{name}") for name in ("caller", "server"))
    with server.listen():
        yield Lab(module_system, caller, server)


def test_a_running_system_in_which_all_is_well_is_silent(lab: Lab):
    with lab.caller.dial(lab.server.ipv4) as client:
        assert lab.audit() == []
        done = lab.system.sixfold("audit", "--probe")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing found\n")
        client.close()
    dropped = lab.system.flows("--verdict", "DROPPED")
    told = {
        (one["sixfold"]["drop_reason"], one["l4"]["TCP"]["destination_port"]) for one in dropped
    }
    assert {("MTLS_REQUIRED", 8080), ("POLICY_DENIED", 15008)} <= told, "a stranger tried"


def test_the_posture_of_a_pair_is_what_its_connections_were(lab: Lab):
    lab.caller.dial(lab.server.ipv4).close()
    done = lab.system.sixfold("posture", "-o", "json", check=False)
    (pair,) = json.loads(done.stdout)["pairs"]
    assert (pair["name"], pair["to"]) == ("default/Pod/caller", "default/Pod/server")
    assert pair["exceptions"] == {
        "discoverable": "no service leads to it",
        "balanced": "dialled past its service",
    }
    assert done.returncode == 1


def test_a_rule_without_use_is_found_until_it_is_used(lab: Lab):
    lab.system.apply(manifest(FROM_HOST))
    (one,) = lab.audit("--rule", "Z10", "--unused-days", "0")
    assert one["about"] == "default/CiliumNetworkPolicy/from-host"
    assert lab.audit("--rule", "Z10") == []
    lab.system.run_in(
        lab.system.host, "timeout", "20", "bash", "-c", f"</dev/tcp/{lab.server.ipv4}/8080"
    )
    assert lab.audit("--rule", "Z10", "--unused-days", "0") == []
    lab.system.sixfold("delete", "cnp", "from-host")


def posture(seconds: float) -> dict[str, Any]:
    """The namespace is relaxed for so long."""
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    relaxation = {
        "name": "moving",
        "namespace": "default",
        "until": end.isoformat(),
        "reason": "until the move is over",
        "enforcement": "audit",
    }
    return {
        "apiVersion": "sixfold.dev/v1",
        "kind": "Posture",
        "metadata": {"name": "default"},
        "spec": {"relaxations": [relaxation]},
    }


def test_a_relaxation_is_listed_as_long_as_it_lasts_and_ends_by_itself(lab: Lab):
    def relaxed() -> list[dict[str, str]]:
        (line,) = [one for one in lab.system.status()["denials"] if one["layer"] == "port"]
        found: list[dict[str, str]] = line["relaxed"]
        return found

    def trust() -> str:
        (line,) = [one for one in lab.system.status()["patterns"] if one["name"] == "trust"]
        return str(line["state"])

    assert trust() == "ok"
    with lab.caller.listen(9090) as listener:
        assert lab.server.attempt(lab.caller.ipv4, 9090) != "open"
        lab.system.apply(manifest(posture(3600)))
        (one,) = lab.audit("--rule", "Z26")
        assert (one["severity"], one["about"]) == ("low", "Posture/default")
        assert [it["by"].startswith("relaxation moving") for it in relaxed()] == [True]
        assert trust() == "relaxed"
        with lab.server.dial(lab.caller.ipv4, 9090) as client, listener.accept()[0] as accepted:
            accepted.sendall(b"x")
            assert client.recv(1) == b"x"
            lab.system.apply(manifest(posture(1)))
            with suppress(ConnectionError):  # cut, and nobody had to speak
                assert client.recv(1) == b""
        assert lab.server.attempt(lab.caller.ipv4, 9090) != "open"
    assert relaxed() == lab.audit("--rule", "Z26") == []
    status = lab.system.json("get", "posture", "default")["status"]
    assert [one["state"] for one in status["relaxations"]] == ["Ended"]
    assert status["events"][-1]["message"] in lab.system.agent_log()
    assert "has ended; namespace default" in status["events"][-1]["message"]
    flows = lab.system.flows("--from", "default/server", "--to", "default/caller")
    assert {"DROPPED", "AUDIT"} <= {flow["verdict"] for flow in flows}
    done = lab.system.sixfold("apply", "-f", "-", stdin=manifest(posture(-60)))
    assert "it is over, and relaxes nothing" in done.stderr
    lab.system.sixfold("delete", "posture", "default")


def test_a_process_of_the_host_on_a_workload_is_named(lab: Lab):
    lab.system.apply(manifest(FROM_HOST))
    host = Place(lab.system.host, "", "")
    with (
        lab.server.listen(version=6),
        host.dial(lab.server.ipv6),
        host.dial(lab.server.ipv4),
    ):
        assert len(lab.audit("--rule", "Z25")) == 2
    with host.dial(lab.server.ipv4) as client:
        (one,) = lab.audit("--rule", "Z25")
        assert one["about"] == "default/Pod/server"
        assert "port 8080/TCP" in one["message"]
        assert one["message"].startswith(("pytest", "python"))
        client.close()
    lab.system.sixfold("delete", "cnp", "from-host")


def test_what_goes_in_plaintext_is_found_and_a_policy_that_denies_it_by_now(lab: Lab):
    """The latter is planted in the kernel's table: a change would have cut it."""
    lab.system.apply(manifest(PLAIN))
    with lab.caller.dial(lab.server.ipv4):
        (one,) = lab.audit("--rule", "Z03")
        assert one["message"] == "port 8080/TCP is talked to in plaintext by default/caller"
        assert "disabled by PeerAuthentication default/plain, port 8080" in one["evidence"]
        connections = lab.conntrack()
        now_ns = time.monotonic_ns()
        key, value = next(
            (key, value)
            for key, value in connections.items()
            if (one := layout.unpack_connection(key, value, now_ns)).is_open
            and one.destination_port == 8080
        )
        planted = key.replace(layout.pack_port(8080), layout.pack_port(8081))
        connections.update([(planted, value)])
        try:
            (one,) = lab.audit("--rule", "Z16")
        finally:
            connections.delete([planted])
    assert one["about"] == "default/Pod/caller"
    assert "server port 8081/TCP is open" in one["message"]
    assert one["evidence"] == "denied today by default-deny (default/server)"
    lab.system.sixfold("delete", "peerauthentication", "plain")
    assert lab.audit("--rule", "Z16", "--rule", "Z03") == []


def test_a_permissive_port_that_nobody_needs_is_found_until_somebody_does(lab: Lab):
    every = {**PLAIN, "spec": {**PLAIN["spec"], "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}}}}
    lab.system.apply(manifest(every))
    (one,) = lab.audit("--rule", "Z04", "--unused-days", "0")
    assert (one["about"], one["severity"]) == ("default/Pod/server", "medium")
    assert lab.audit("--rule", "Z04") == []
    lab.system.sixfold("delete", "peerauthentication", "plain")


def test_a_hole_is_found_by_who_tries_it(lab: Lab):
    """Planted in the kernel's table: the agent repairs it, a little later."""
    modes = bpf.Map(bpf.get(lab.system.paths.bpffs / "maps" / "modes"), "modes")
    agent = lab.system.agent_pid()
    lab.system.apply(manifest(ABOUT_REQUESTS))
    lines = dict(modes.items())
    (key,) = (key for key in lines if key[4:6] == layout.pack_port(8080))
    hole = [(key, layout.PORT_MODE.pack(layout.PORT_MODE.unpack(lines[key])[0], 0, 0, 0))]
    done = threading.Event()

    def plant() -> None:
        while not done.wait(0.02):
            modes.update(hole)

    planting = threading.Thread(target=plant)
    planting.start()
    try:
        found = {one["message"] for one in lab.audit("--probe", "--rule", "Z08")}
    finally:
        done.set()
        planting.join()
        modes.update([(key, lines[key])])
    assert found == {
        "port 8080/TCP: its rules about requests can be gone around",
        f"{lab.server.ipv4}:8080: its rules about requests can be gone around",
        f"[{lab.server.ipv6}]:8080: its rules about requests can be gone around",
    }
    assert lab.audit("--probe", "--rule", "Z08") == []
    assert lab.system.agent_pid() == agent
    lab.system.sixfold("delete", "cnp", "requests")


def test_a_process_in_a_workloads_network_that_is_none_of_it_is_found(lab: Lab):
    enter = ["nsenter", f"--net={lab.server.path}", "sleep", "30"]
    with subprocess.Popen(enter) as stray:
        lab.system.eventually(lambda: lab.audit("--rule", "Z15"))
        (one,) = lab.audit("--rule", "Z15")
        stray.kill()
    assert one["about"] == "default/Pod/server"
    assert one["message"] == f"sleep ({stray.pid}) is in its network, and no process of it"
    assert lab.audit("--rule", "Z15") == []


def test_any_identity_is_no_identity(lab: Lab):
    everybody = policy("server", {"app": "server"}, ingress=[{"ports": [{"port": 8080}]}])
    lab.system.apply(manifest(everybody))
    (one,) = lab.audit("--rule", "Z05")
    assert one["message"] == "whoever has an identity may call it, on TCP/8080"
    lab.system.apply(manifest(SERVER_IN))
    assert lab.audit("--rule", "Z05") == []


def test_a_door_that_others_can_open_is_found(lab: Lab):
    run = lab.system.paths.run
    run.chmod(0o755)
    lab.system.paths.api_socket.chmod(0o666)
    try:
        found = lab.audit("--rule", "Z19")
    finally:
        lab.system.paths.api_socket.chmod(0o600)
        run.chmod(0o700)
    assert [one["message"] for one in found] == [
        f"listens on {lab.system.paths.api_socket}, mode 0666, where others reach it"
    ]
    assert lab.audit("--rule", "Z19") == []


def test_a_health_port_is_a_door_that_was_asked_for(lab: Lab):
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}
    lab.system.apply(manifest(service("server", **spec)))
    (item,) = lab.system.json("get", "svc")["items"]
    port = item["spec"]["healthCheckNodePort"]
    listening = lab.system.run_in(lab.system.host, "ss", "-Hltn").stdout
    assert f":{port} " in listening
    assert lab.audit("--rule", "Z19") == []
    lab.system.sixfold("delete", "svc", "server")


def test_every_door_is_in_the_docs(lab: Lab):
    page = (Path(__file__).parents[2] / "docs/doors.md").read_text()
    run = lab.system.paths.run
    folders = {"": run, "-workload": lab.system.paths.workload_socket.parent}
    doors = [
        f"/run/<instance>{suffix}/{path.relative_to(folder)}"
        for suffix, folder in folders.items()
        for path in folder.rglob("*.sock")
    ]
    assert len(doors) >= 4
    assert [door for door in doors if f"`{door}" not in page] == []


def test_workloads_that_share_an_account_are_found(lab: Lab):
    lab.system.apply(manifest(pod("twin", serviceAccountName="server")))
    (one,) = lab.audit("--rule", "Z14")
    assert one["about"] == "default/ServiceAccount/server"
    lab.system.sixfold("delete", "pod", "twin")
    assert lab.audit("--rule", "Z14") == []


def test_the_rules_are_listed(lab: Lab):
    listed = lab.system.json("audit", "--rules")
    assert [one["rule"] for one in listed] == sorted(one["rule"] for one in listed)
    assert {"Z01", "Z10", "Z25"} <= {one["rule"] for one in listed}
