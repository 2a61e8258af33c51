"""Audit on real traffic: what would be denied passes, and says so."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sixfold.cli.client import Client

from .conftest import System
from .places import Place, labelled, manifest, place_of, pod, policy, received

pytestmark = pytest.mark.root

AUDIT = {"sixfold.dev/enforcement": "audit"}
NAMES = ("caller", "guest", "server")
LET = {"ingress": [{"from": [labelled(app="caller")]}]}


def marked(item: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    return {**item, "metadata": {**item["metadata"], "annotations": annotations}}


def namespace(annotations: dict[str, str]) -> dict[str, Any]:
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    return marked(made, annotations)


SERVER = policy("server", {"app": "server"}, **LET)
OUT = [policy(f"{name}-out", {"app": name}, policyTypes=["Egress"], egress=[{}]) for name in NAMES]


@dataclass
class Lab:
    system: System
    places: dict[str, Place]
    server: socket.socket

    def apply(self, *objects: dict[str, Any]) -> None:
        body = {"objects": list(objects), "sources": []}
        Client(self.system.paths.api_socket).post("/v1/apply", body)

    def answer(self, name: str) -> str:
        return self.places[name].answer(self.places["server"].ipv4)

    def attempt(self, name: str) -> str:
        return self.places[name].attempt(self.places["server"].ipv4)

    def told(self) -> dict[str, Any]:
        return self.system.flows("--verdict", "AUDIT", "--last", "1")[0]


@pytest.fixture(scope="module")
def lab(module_system: System) -> Iterator[Lab]:
    module_system.up(manifest=manifest(*map(pod, NAMES), *OUT, SERVER))
    places = {name: place_of(module_system, f"default/{name}") for name in NAMES}
    with places["server"].listen() as server:
        yield Lab(module_system, places, server)


@pytest.fixture(autouse=True)
def enforced(lab: Lab) -> Iterator[None]:
    yield
    lab.apply(SERVER, namespace({}))
    assert lab.attempt("guest") == "timeout"


def test_what_a_policy_in_audit_would_deny_passes_and_names_it(lab: Lab):
    lab.apply(marked(SERVER, AUDIT))
    assert lab.answer("caller") == lab.answer("guest") == "open"
    flow = lab.told()
    assert flow["source"]["pod_name"] == "guest"
    assert flow["verdict"] == "AUDIT"
    assert flow["ingress_denied_by"][0]["labels"] == ["sixfold:because=default/server"]
    assert "drop_reason" not in flow
    last = lab.system.flows("--from", "default/caller", "--last", "1")[0]
    assert last["verdict"] == "FORWARDED"
    assert last["sixfold"]["ingress_rule"]["text"] == "default/server ingress[0]"


def test_explain_and_status_say_that_it_is_in_audit(lab: Lab):
    lab.apply(marked(SERVER, AUDIT))
    done = lab.system.sixfold("explain", "default/guest", "default/server:8080", "-o", "json")
    lines = [(line["pattern"], line["outcome"]) for line in json.loads(done.stdout)["lines"]]
    assert ("policy ingress", "AUDIT") in lines
    assert lines[-1] == ("verdict", "AUDIT")
    assert "audit" in lab.system.sixfold("get", "netpol").stdout
    assert "sixfold.dev/enforcement=audit" in lab.system.sixfold("describe", "netpol/server").stdout
    assert lab.system.json("reach")["audit"]["by"] == ["default/server"]
    listed = lab.system.json("bpf", "policy", "list", "--pod", "default/server")
    told = [row["rule"] for row in listed if row.get("enforcement") == "audit"]
    assert "default-deny (default/server)" in told
    patterns = {one["name"]: one for one in lab.system.status()["patterns"]}
    assert patterns["policy"]["state"] == "audit"
    assert "default/server" in patterns["policy"]["detail"]


def test_a_namespace_in_audit_denies_nothing(lab: Lab):
    lab.apply(namespace(AUDIT))
    assert lab.answer("guest") == "open"
    assert lab.told()["source"]["pod_name"] == "guest"


def test_the_end_of_an_audit_cuts_what_it_let_in(lab: Lab):
    lab.apply(marked(SERVER, AUDIT))
    client = lab.places["guest"].dial(lab.places["server"].ipv4)
    lab.apply(SERVER)
    with pytest.raises(ConnectionError):
        client.recv(1)
    client.close()


def test_the_end_of_an_audit_cuts_udp_too(lab: Lab):
    lab.apply(marked(SERVER, AUDIT))
    address = lab.places["server"].ipv4
    with (
        lab.places["server"].listen(kind=socket.SOCK_DGRAM) as server,
        lab.places["guest"].dial(address, kind=socket.SOCK_DGRAM) as client,
    ):
        client.send(b"one")
        assert received(server) == b"one"
        lab.apply(SERVER)
        with pytest.raises(OSError, match="Destination address required"):  # disconnected
            client.send(b"two")
        assert received(server) is None


def test_what_is_let_in_by_audit_is_counted(lab: Lab):
    def audited() -> int:
        return int(lab.system.status()["drops"].get("connections_audited", 0))

    lab.apply(marked(SERVER, AUDIT))
    before = audited()
    lab.answer("caller")
    lab.answer("guest")
    assert audited() == before + 1


def test_an_open_connection_that_an_audit_finds_is_told(lab: Lab):
    lab.apply(policy("server", {"app": "server"}, ingress=[{}]))
    with lab.places["guest"].dial(lab.places["server"].ipv4) as client:
        port = client.getsockname()[1]
        lab.apply(marked(SERVER, AUDIT))
        assert lab.told()["l4"]["TCP"]["source_port"] == port
        client.sendall(b"x")
        assert received(client) is None, "open, and nobody answers"


def test_a_misspelt_annotation_is_refused(lab: Lab):
    wrong = manifest(marked(SERVER, {"sixfold.dev/enforcement": "Audit"}))
    done = lab.system.sixfold("apply", "-f", "-", stdin=wrong, check=False)
    assert done.returncode == 1
    assert "sixfold.dev/enforcement" in done.stderr


def test_everything_in_audit_by_a_flag_and_out_of_it(lab: Lab):
    pid = lab.system.agent_pid()
    lab.system.on_host("kill", "-9", str(pid))
    lab.system.sixfold("up", "--detach", "--audit")
    assert lab.system.status()["agent"]["audit"] is True
    assert lab.answer("guest") == "open"
    assert lab.told()["source"]["pod_name"] == "guest"
    lab.system.on_host("kill", "-9", str(lab.system.agent_pid()))
    lab.system.sixfold("up", "--detach", "--enforce")
    assert lab.attempt("guest") == "timeout"
