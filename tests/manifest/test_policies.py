from __future__ import annotations

import pytest


def from_peer(make, peer):
    return make.policy({"ingress": [{"from": [peer]}]})


def to_port(make, port):
    return make.policy({"egress": [{"ports": [port]}]})


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param({"podSelector": {}}, id="pods"),
        pytest.param({"namespaceSelector": {}}, id="namespaces"),
        pytest.param({"podSelector": {}, "namespaceSelector": {}}, id="both"),
        pytest.param({"ipBlock": {"cidr": "0.0.0.0/0"}}, id="everywhere"),
        pytest.param({"ipBlock": {"cidr": "fd00::/8", "except": ["fd00::/16"]}}, id="except"),
    ],
)
def test_peers_of_the_api_are_taken(said, make, peer):
    assert said(from_peer(make, peer)) == []


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        pytest.param({}, ": an empty peer;", id="empty"),
        pytest.param({"podSelector": None}, ": an empty peer;", id="null selector"),
        pytest.param(
            {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}},
            ": ipBlock stands alone",
            id="two",
        ),
        pytest.param({"ipBlock": {}}, "cidr: is required", id="no cidr"),
        pytest.param(
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}},
            "except[0]: 10.0.0.0/8 is not a part of 10.0.0.0/8",
            id="except all",
        ),
        pytest.param(
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}},
            "except[1]: 11.0.0.0/16 is not a part of 10.0.0.0/8",
            id="except outside",
        ),
        pytest.param(
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/16"]}},
            "except[0]: fd00::/16 is not a part of 10.0.0.0/8",
            id="except of the other family",
        ),
    ],
)
def test_peers_that_mean_nothing_are_refused(said, make, peer, message):
    (line,) = said(from_peer(make, peer))
    assert line.startswith("spec.ingress[0].from[0]")
    assert message in line


@pytest.mark.parametrize(
    "port",
    [
        pytest.param({}, id="any TCP"),
        pytest.param({"protocol": "SCTP"}, id="any SCTP"),
        pytest.param({"port": "http"}, id="name"),
        pytest.param({"port": 80, "endPort": 80}, id="range of one"),
        pytest.param({"port": 1, "endPort": 65535}, id="whole range"),
    ],
)
def test_ports_of_the_api_are_taken(said, make, port):
    assert said(to_port(make, port)) == []


@pytest.mark.parametrize(
    ("port", "message"),
    [
        pytest.param({"port": 0}, "port: 0 is not a port; give 1 to 65535", id="0"),
        pytest.param({"port": 65536}, "port: 65536 is not a port; give 1 to 65535", id="65536"),
        pytest.param(
            {"port": "80"}, 'port: "80" is a number in quotes; give 80 without', id="text"
        ),
        pytest.param(
            {"port": 80, "endPort": 79},
            "endPort: 79 is below port 80; give 80 to 65535",
            id="below",
        ),
        pytest.param(
            {"port": 80, "endPort": 70000},
            "endPort: 70000 is not a port; give 1 to 65535",
            id="end",
        ),
        pytest.param(
            {"port": "http", "endPort": 90},
            "endPort: endPort needs a number in port; add the first port",
            id="name",
        ),
        pytest.param(
            {"endPort": 90},
            "endPort: endPort needs a number in port; add the first port",
            id="none",
        ),
    ],
)
def test_ports_that_are_none_are_refused(said, make, port, message):
    assert said(to_port(make, port)) == [f"spec.egress[0].ports[0].{message}"]


def test_policy_types_are_those_of_the_api(said, make):
    (line,) = said(make.policy({"policyTypes": ["ingress"]}))
    assert line.endswith('"ingress" is not one of Egress, Ingress; did you mean Ingress?')
