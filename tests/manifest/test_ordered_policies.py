from __future__ import annotations

import pytest

KINDS = ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
EVERY = [{"namespaces": {}}]


def egress(make, peers=EVERY, action="Accept", **more):
    return make.cluster_policy({"egress": [{"action": action, "to": peers, **more}]})


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_the_api_are_taken(said, make, kind):
    assert said(make.cluster_policy(kind=kind)) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"priority": 1001}, "priority: 1001 is out of range", id="priority"),
        pytest.param({"tier": "Admni"}, "did you mean Admin?", id="tier"),
        pytest.param(
            {"subject": {}}, "subject: has nothing; give exactly one of", id="no subject"
        ),
        pytest.param(
            {"subject": {"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}},
            "subject: has namespaces and pods; give exactly one of",
            id="two subjects",
        ),
        pytest.param(
            {"ingress": [{"action": "Allow", "from": EVERY}]}, "is not one of", id="old action"
        ),
        pytest.param({"ingress": [{"action": "Deny", "from": []}]}, "an empty list", id="nobody"),
        pytest.param({"ingress": [{"action": "Deny"}]}, "from: is required", id="no peers"),
        pytest.param(
            {"ingress": [{"action": "Deny", "from": EVERY}] * 26}, "26 items; at most", id="26"
        ),
    ],
)  # fmt: skip
def test_what_the_api_refuses_is_refused(said, make, spec, message):
    lines = said(make.cluster_policy(spec))
    assert len(lines) == 1
    assert message.replace("at most", "give at most") in lines[0]


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        pytest.param({}, "has nothing; give exactly one of", id="empty"),
        pytest.param({"networks": []}, "networks: an empty list", id="no network"),
        pytest.param({"networks": ["10.0.0.0/33"]}, "networks[0]: ", id="too long"),
        pytest.param({"nodes": {}}, "nodes: not supported: ", id="nodes"),
        pytest.param({"domainNames": ["*"]}, "is no domain name", id="domain"),
    ],
)
def test_peers_that_mean_nothing_are_refused(said, make, peer, message):
    (line,) = said(egress(make, [peer]), offline=True)
    assert message in line


def test_domain_names_can_be_accepted_only(said, make):
    names = [{"domainNames": ["*.example.com"]}]
    assert said(egress(make, names), offline=True) == []
    (line,) = said(egress(make, names, "Deny"), offline=True)
    assert "names can be accepted only" in line


def test_only_pods_have_named_ports(said, make):
    named = [{"destinationNamedPort": "web"}]
    assert said(egress(make, protocols=named)) == []
    (line,) = said(egress(make, [{"networks": ["192.0.2.0/24"]}], protocols=named))
    assert "only pods have named ports" in line


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        pytest.param({}, "has nothing; give exactly one of tcp", id="none"),
        pytest.param({"tcp": {}, "udp": {}}, "has tcp and udp", id="two"),
        pytest.param({"tcp": {"destinationPort": {"number": 0}}}, "0 is not a port", id="0"),
        pytest.param(
            {"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}},
            "end: 9 is not above start 9",
            id="range",
        ),
    ],
)
def test_protocols_that_are_none_are_refused(said, make, protocol, message):
    (line,) = said(egress(make, protocols=[protocol]))
    assert message in line


def test_there_is_one_baseline_and_it_does_not_pass(said, make):
    rule = {"action": "Pass", "from": EVERY}
    raw = make.cluster_policy({"ingress": [rule]}, kind="BaselineAdminNetworkPolicy")
    (line,) = said(raw)
    assert line.startswith("spec.ingress[0].action: nothing comes after this tier")
    raw = make.cluster_policy(kind="BaselineAdminNetworkPolicy")
    raw["metadata"]["name"] = "other"
    assert said(raw) == ["metadata.name: there is one of this kind; call it default"]


def test_no_kind_is_in_a_namespace(said, make):
    for kind in KINDS:
        raw = make.cluster_policy(kind=kind)
        raw["metadata"]["namespace"] = "shop"
        (line,) = said(raw)
        assert line.startswith("metadata.namespace: ")


@pytest.mark.parametrize("field", ["sameLabels", "notSameLabels"])
def test_what_the_api_has_removed_says_so(said, make, field):
    peer = {"namespaces": {field: ["team"]}}
    rule = {"action": "Deny", "from": [peer]}
    raw = make.cluster_policy({"ingress": [rule]}, kind="AdminNetworkPolicy")
    (line,) = said(raw)
    assert line.startswith(f"spec.ingress[0].from[0].namespaces.{field}: not supported: ")
    assert "the API has removed it" in line
