from __future__ import annotations

import copy

import msgspec

from sixfold.model.gateway import Gateway
from sixfold.workloads.gateway import differs, made_for

GATEWAY = {
    "metadata": {"name": "front", "namespace": "edge", "uid": "u"},
    "spec": {
        "gatewayClassName": "sixfold",
        "listeners": [
            {"name": "a", "port": 80, "protocol": "HTTP", "hostname": "a.com"},
            {"name": "b", "port": 80, "protocol": "HTTP", "hostname": "b.com"},
            {"name": "c", "port": 81, "protocol": "HTTP"},
        ],
        "addresses": [{"value": "192.0.2.7"}, {"value": "2001:db8::7"}],
        "infrastructure": {"labels": {"tier": "edge"}, "annotations": {"x.org/y": "z"}},
    },
}


def test_a_pod_and_a_service_bear_the_name_of_the_gateway_and_its_class():
    pod, service = made_for(msgspec.convert(GATEWAY, Gateway))
    labels = {
        "tier": "edge",
        "gateway.networking.k8s.io/gateway-name": "front",
        "gateway.networking.k8s.io/gateway-class-name": "sixfold",
    }
    for one in (pod, service):
        assert one["metadata"]["name"] == "front-sixfold"
        assert one["metadata"]["labels"] == labels
        assert one["metadata"]["annotations"]["x.org/y"] == "z"
        assert one["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert [port["port"] for port in service["spec"]["ports"]] == [80, 81]
    assert service["spec"]["selector"].items() <= labels.items()
    wanted = service["metadata"]["annotations"]["lbipam.cilium.io/ips"]
    assert wanted == "192.0.2.7,2001:db8::7"


def test_what_the_store_added_makes_no_difference_and_another_label_does():
    _, service = made_for(msgspec.convert(GATEWAY, Gateway))
    stored = copy.deepcopy(service)
    stored["spec"]["clusterIP"] = "10.96.0.9"
    stored["metadata"]["uid"] = "v"
    assert not differs(service, stored)
    stored["metadata"]["labels"]["old"] = "1"
    assert differs(service, stored)
