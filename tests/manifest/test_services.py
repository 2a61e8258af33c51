from __future__ import annotations

import pytest

from sixfold.manifest import decode


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"clusterIP": "None", "ports": []}, id="headless without ports"),
        pytest.param(
            {"clusterIP": "None", "ports": [{"port": 1, "protocol": "SCTP"}]}, id="headless SCTP"
        ),
        pytest.param({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}, id="address"),
        pytest.param({"ports": [{"port": 53, "protocol": "UDP", "targetPort": "dns"}]}, id="name"),
        pytest.param(
            {"ports": [{"port": 53, "name": "a"}, {"port": 53, "name": "b", "protocol": "UDP"}]},
            id="one port, two protocols",
        ),
        pytest.param(
            {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}, id="dual stack"
        ),
        pytest.param(
            {"sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}, id="defaults"
        ),
        pytest.param({"externalIPs": [], "loadBalancerIP": ""}, id="empty"),
        pytest.param(
            {"type": "ExternalName", "externalName": "db.example.org.", "selector": None},
            id="alias",
        ),
    ],
)
def test_services_of_the_api_are_taken(said, make, spec):
    assert said(make.service(spec)) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"ports": []}, "ports: is required; add a port", id="no ports"),
        pytest.param(
            {"clusterIPs": ["10.96.0.9", "fd00:5f:96::9"]},
            "ipFamilyPolicy: two addresses need PreferDualStack or RequireDualStack; set it, "
            "or give one",
            id="two addresses",
        ),
        pytest.param(
            {"ports": [{"port": 3868, "protocol": "SCTP"}]},
            "ports[0].protocol: SCTP: the kernel asks nobody where such sockets connect to; "
            "make the service headless",
            id="SCTP",
        ),
        pytest.param(
            {"type": "ExternalName", "selector": {}},
            "externalName: is required for type ExternalName; give a DNS name",
            id="alias of nothing",
        ),
        pytest.param(
            {"type": "ExternalName", "selector": {}, "externalName": "192.0.2.1"},
            "externalName: 192.0.2.1 is an address, and would be looked up as a name; "
            "give an EndpointSlice for a Service without selector",
            id="alias of an address",
        ),
        pytest.param(
            {"type": "ExternalName", "externalName": "db.example.org"},
            "selector: means nothing for type ExternalName, which is an alias; remove it",
            id="alias with pods",
        ),
        pytest.param(
            {"externalName": "db.example.org"},
            "externalName: means nothing without type ExternalName; remove it",
            id="no alias",
        ),
        pytest.param(
            {"ports": [{"port": 1}, {"port": 2, "name": "b"}]},
            "ports[0].name: is required when there are several ports; add it",
            id="no name",
        ),
        pytest.param(
            {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]},
            'ports[1].name: "a" is the name of ports[0] too; give another',
            id="name twice",
        ),
        pytest.param(
            {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]},
            "ports[1].port: 1/TCP is ports[0] too; give another",
            id="port twice",
        ),
        pytest.param(
            {"ports": [{"port": 0}]}, "ports[0].port: 0 is not a port; give 1 to 65535", id="port"
        ),
        pytest.param(
            {"clusterIP": "10.96.0.256"},
            'clusterIP: "10.96.0.256" is not an IP address; give one, or "None" for a headless'
            " service",
            id="no address",
        ),
        pytest.param(
            {"clusterIP": "127.0.0.1"},
            "clusterIP: 127.0.0.1 cannot be a service address; give one of the service range",
            id="loopback",
        ),
        pytest.param(
            {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.2"]},
            'clusterIPs[0]: is not clusterIP, which is "10.96.0.1"; make them equal',
            id="disagree",
        ),
        pytest.param(
            {"clusterIPs": ["10.96.0.1", "10.96.0.2"]},
            "clusterIPs[1]: is of the same family as the first; give one per family",
            id="same family",
        ),
        pytest.param(
            {"clusterIPs": ["None", "10.96.0.2"]},
            'clusterIPs: "None" stands alone; remove the others',
            id="None and more",
        ),
        pytest.param(
            {"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": "PreferDualStack"},
            "ipFamilies: the same family twice; keep one",
            id="family twice",
        ),
        pytest.param(
            {"ipFamilies": ["IPv4", "IPv6"]},
            "ipFamilies: two families need ipFamilyPolicy PreferDualStack or RequireDualStack;"
            " set it",
            id="single stack",
        ),
        pytest.param(
            {"ipFamilies": ["IPv6"], "clusterIP": "10.96.0.1"},
            "ipFamilies[0]: IPv6, but the address there is 10.96.0.1; make them agree",
            id="family of the address",
        ),
        pytest.param(
            {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}}},
            "sessionAffinityConfig: means nothing without sessionAffinity ClientIP; remove it",
            id="timeout of no affinity",
        ),
        pytest.param(
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
            },
            "sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is out of range; give 1 to 86400",
            id="timeout of an affinity",
        ),
        pytest.param(
            {"internalTrafficPolicy": "local"},
            'internalTrafficPolicy: "local" is not one of Cluster, Local; did you mean Local?',
            id="policy of traffic inside",
        ),
    ],
)
def test_what_a_service_cannot_be_is_said(said, make, spec, message):
    assert said(make.service(spec)) == [f"spec.{message}"]


@pytest.mark.parametrize(
    ("spec", "affinity_s"),
    [
        ({}, 0),
        ({"sessionAffinity": "ClientIP"}, 10800),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            },
            5,
        ),
    ],
)
def test_an_affinity_lasts_three_hours_unless_it_says(make, spec, affinity_s):
    assert decode(make.service(spec)).object.spec.affinity_s == affinity_s


def test_offline_a_load_balancer_is_a_cluster_address(said, make):
    spec = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "nodePort": 30080}],
    }
    assert said(make.service(spec), offline=True) == []


def test_cluster_addresses_are_read_by_their_upstream_names(make):
    spec = decode(make.service({"clusterIP": "None", "clusterIPs": ["None"]})).object.spec
    assert spec.headless
    assert spec.cluster_ips == ["None"]
