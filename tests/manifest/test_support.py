from __future__ import annotations

import copy
from pathlib import Path

import pytest

from sixfold.manifest import KINDS, decode
from sixfold.manifest.shape import struct_type
from sixfold.manifest.support import page, rows, structs

PAGE = Path(__file__).parents[2] / "docs" / "support.md"

# A value per refused field that asks for something, where "x" would not.
ASKING = {
    "externalIPs": ["192.0.2.1"],
    "loadBalancerSourceRanges": ["192.0.2.0/24"],
    "hostNetwork": True,
    "allocateLoadBalancerNodePorts": True,
    "nodePort": 30000,
    "nodes": {},
    "domainNames": ["example.com"],
    "toFQDNs": [{"matchName": "example.com"}],
}
# What holds the struct, in an object that is valid without it.
EXTRA = {
    "EnvVarSource": {"env": [{"name": "A", "valueFrom": {}}]},
    "ContainerPort": {"ports": [{"containerPort": 80}]},
    "ContainerSecurityContext": {"securityContext": {}},
}
REFUSED = [
    pytest.param(struct, row.field, id=f"{struct.__name__}.{row.field}")
    for struct in structs()
    for row in rows(struct)
    if row.status == "refused"
]


def place(struct, make):
    """A valid object, and the mapping inside it that has the shape of the struct."""
    raw = next(r for r in make.all() if r["kind"] == structs()[struct][0].partition(".")[0])
    if raw["kind"] == "Pod":
        raw["spec"]["containers"][0] |= copy.deepcopy(EXTRA.get(struct.__name__, {}))
        if struct.__name__ == "PodSecurityContext":
            raw["spec"]["securityContext"] = {}
    if struct.__name__ == "WorkloadEntry":
        raw["spec"] |= {"resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]}
    inner = raw
    for step in structs()[struct][0].split(".")[1:]:
        inner = inner[step.removesuffix("[]")]
        inner = inner[0] if step.endswith("[]") else inner
    return raw, inner


def test_the_page_is_what_the_code_says():
    again = "run .venv/bin/python -m sixfold.manifest.support > docs/support.md"
    assert PAGE.read_text() == page(), again


def test_every_field_of_every_struct_has_a_line():
    for struct in structs():
        named = {row.field for row in rows(struct)} | {"apiVersion", "kind"}
        assert {field.encode_name for field in struct_type(struct).fields} <= named


def test_every_kind_of_ours_has_its_section():
    text = PAGE.read_text()
    for kind in KINDS.values():
        assert kind.derived or f"\n## {kind.name}\n" in text


@pytest.mark.parametrize(("struct", "name"), REFUSED)
def test_a_field_that_is_documented_as_refused_is_refused(make, said, struct, name):
    raw, inner = place(struct, make)
    inner[name] = ASKING.get(name, "x")
    assert any(
        f"{name}: not supported: " in line and line.endswith("see docs/support.md")
        for line in said(raw)
    )


@pytest.mark.parametrize("struct", structs(), ids=lambda struct: struct.__name__)
def test_every_field_that_is_documented_as_taken_decodes(struct):
    known = {field.encode_name for field in struct_type(struct).fields}
    taken = {row.field for row in rows(struct) if row.status != "refused"}
    assert taken <= known


def test_names_are_spelled_as_upstream_spells_them():
    """CamelCase by rule would make clusterIp of cluster_ip; upstream writes initialisms whole."""
    wrong = ("Ip", "Ips", "Id", "Uid", "Dns", "Pid", "Ipc", "Fqdn", "Url", "Api", "Tls", "Tcp")
    for struct in structs():
        for row in rows(struct):
            assert not row.field.endswith(wrong), f"{struct.__name__}.{row.field}"


def test_fields_without_effect_really_are_taken(make):
    spec = {
        "nodeName": "n",
        "nodeSelector": {"a": "b"},
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [{}],
        "tolerations": [{"operator": "Exists"}],
        "schedulerName": "s",
        "priorityClassName": "p",
        "priority": 5,
        "preemptionPolicy": "Never",
        "imagePullSecrets": [{"name": "s"}],
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
    }
    container = make.container(
        imagePullPolicy="Always",
        resources={"limits": {"cpu": 1}},
        terminationMessagePath="/x",
        terminationMessagePolicy="File",
        stdin=True,
        stdinOnce=True,
        tty=True,
    )
    decode(make.pod({**spec, "containers": [container]}))
