"""What the ways in from outside, and pools of addresses for them, cannot be."""

from __future__ import annotations

import pytest

BALANCER = {"type": "LoadBalancer"}
LOCAL = {**BALANCER, "externalTrafficPolicy": "Local"}
NODE_PORT = {"type": "NodePort"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param(
            {"ports": [{"port": 80, "nodePort": 30080}]},
            "ports[0].nodePort: means nothing without type NodePort or LoadBalancer; remove it",
            id="node port of a cluster address",
        ),
        pytest.param(
            {**NODE_PORT, "ports": [{"port": 80, "nodePort": 80}]},
            "ports[0].nodePort: 80 is not in the range of node ports; give 30000 to 32767",
            id="node port out of range",
        ),
        pytest.param(
            {
                **NODE_PORT,
                "ports": [
                    {"name": "a", "port": 80, "nodePort": 30080},
                    {"name": "b", "port": 81, "nodePort": 30080},
                ],
            },
            "ports[1].nodePort: 30080/TCP is ports[0] too; give another",
            id="node port twice",
        ),
        pytest.param(
            {**NODE_PORT, "clusterIP": "None"},
            'clusterIP: "None" is not for type NodePort; remove it',
            id="headless",
        ),
        pytest.param(
            {"externalIPs": ["127.0.0.1"]},
            "externalIPs[0]: 127.0.0.1 cannot be dialled from outside; give another address",
            id="loopback",
        ),
        pytest.param(
            {"externalIPs": ["there"]},
            'externalIPs[0]: "there" is not an IP address; give one',
            id="no address",
        ),
        pytest.param(
            {"externalTrafficPolicy": "Local"},
            "externalTrafficPolicy: means nothing without type NodePort or LoadBalancer, or "
            "externalIPs; remove it",
            id="policy of no traffic",
        ),
        pytest.param(
            {**NODE_PORT, "externalTrafficPolicy": "local"},
            'externalTrafficPolicy: "local" is not one of Cluster, Local; did you mean Local?',
            id="policy",
        ),
        pytest.param(
            {**NODE_PORT, "loadBalancerSourceRanges": ["192.0.2.0/24"]},
            "loadBalancerSourceRanges: means nothing without type LoadBalancer; remove it",
            id="ranges of no load balancer",
        ),
        pytest.param(
            {**BALANCER, "loadBalancerSourceRanges": ["192.0.2.1/24"]},
            'loadBalancerSourceRanges[0]: "192.0.2.1/24" has host bits set; give 192.0.2.0/24',
            id="range",
        ),
        pytest.param(
            {**BALANCER, "loadBalancerClass": "example.com/other"},
            "loadBalancerClass: not supported: nobody else announces addresses here; see "
            "docs/support.md",
            id="class",
        ),
        pytest.param(
            {**BALANCER, "healthCheckNodePort": 30090},
            "healthCheckNodePort: means nothing without type LoadBalancer and "
            "externalTrafficPolicy Local; remove it",
            id="health of what is used anyway",
        ),
        pytest.param(
            {**LOCAL, "healthCheckNodePort": 80},
            "healthCheckNodePort: 80 is not in the range of node ports; give 30000 to 32767",
            id="health port out of range",
        ),
        pytest.param(
            {
                **LOCAL,
                "ports": [{"port": 80, "nodePort": 30080}],
                "healthCheckNodePort": 30080,
            },
            "healthCheckNodePort: 30080 is a nodePort of this service, too; give another",
            id="health at a node port",
        ),
    ],
)
def test_what_a_way_in_cannot_be_is_said(said, make, spec, message):
    assert said(make.service(spec)) == [f"spec.{message}"]


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        ("lbipam.cilium.io/sharing-key", "a", "not supported: an address belongs to one service"),
        ("service.cilium.io/src-ranges-policy", "deny", '"deny" is not supported; give allow'),
        ("lbipam.cilium.io/ips", "192.0.2.300", '"192.0.2.300" is not an IP address'),
    ],
)
def test_annotations_that_would_let_in_others_are_refused(said, make, annotation, value, message):
    raw = make.service(BALANCER)
    raw["metadata"]["annotations"] = {annotation: value}
    (found,) = said(raw)
    assert found.startswith(f'metadata.annotations["{annotation}"]: {message}')


def test_a_whole_load_balancer_is_taken(said, make):
    spec = {
        **BALANCER,
        "ports": [{"port": 80, "nodePort": 30080}],
        "loadBalancerIP": "192.0.2.64",
        "loadBalancerClass": "io.cilium/l2-announcer",
        "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30090,
        "allocateLoadBalancerNodePorts": False,
        "externalIPs": ["203.0.113.7"],
    }
    assert said(make.service(spec)) == []


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "[0]: give a cidr, or start and stop"),
        ({"cidr": "192.0.2.0/24", "start": "192.0.2.1"}, "[0]: give a cidr, or start and stop"),
        ({"cidr": "192.0.2.1/24"}, '[0].cidr: "192.0.2.1/24" has host bits set'),
        ({"cidr": "127.0.0.0/24"}, "[0].cidr: 127.0.0.0/24 cannot be dialled from outside"),
        (
            {"start": "192.0.2.9", "stop": "192.0.2.1"},
            "[0].stop: 192.0.2.1 does not come after 192.0.2.9",
        ),
    ],
)
def test_what_a_block_cannot_be_is_said(said, make, block, message):
    (found,) = said(make.pool({"blocks": [block]}))
    assert found.startswith(f"spec.blocks{message}")


def test_a_pool_without_blocks_is_refused(said, make):
    assert said(make.pool({"blocks": []})) == ["spec.blocks: no addresses to give; add a block"]
