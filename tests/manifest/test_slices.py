"""EndpointSlices that somebody wrote: taken whole, or refused with the place."""

from __future__ import annotations

import pytest

FIRST = "endpoints[0]"


def endpoint(*addresses, **more):
    return {"endpoints": [{"addresses": list(addresses), **more}]}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"endpoints": []}, id="nobody yet"),
        pytest.param({"addressType": "IPv6", **endpoint("2001:db8::1")}, id="ipv6"),
        pytest.param(
            endpoint(
                "192.0.2.1", conditions={"ready": False, "serving": True, "terminating": True}
            ),
            id="conditions",
        ),
        pytest.param({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}, id="ports"),
        pytest.param(
            endpoint("192.0.2.1", targetRef={"kind": "Server", "name": "db-1"}, hostname="db-1"),
            id="names",
        ),
    ],
)
def test_slices_of_the_api_are_taken(said, make, more):
    assert said(make.endpoint_slice(**more)) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param(
            {"addressType": "FQDN", **endpoint("db.example.com")},
            "addressType: FQDN: names are not dialled; give addresses",
            id="fqdn",
        ),
        pytest.param(endpoint(), f"{FIRST}.addresses: is empty", id="nobody"),
        pytest.param(
            endpoint("192.0.2.1", "192.0.2.2"),
            f"{FIRST}.addresses[1]: only the first would be dialled",
            id="two addresses",
        ),
        pytest.param(
            endpoint("2001:db8::1"), f"{FIRST}.addresses[0]: 2001:db8::1 is no IPv4", id="family"
        ),
        pytest.param(
            endpoint("127.0.0.1"), f"{FIRST}.addresses[0]: 127.0.0.1 is no", id="loopback"
        ),
        pytest.param(endpoint("db"), f'{FIRST}.addresses[0]: "db" is not an IP', id="no address"),
        pytest.param(endpoint("192.0.2.1", hostname="db.x"), f"{FIRST}.hostname: ", id="hostname"),
        pytest.param({"ports": [{"name": "a"}]}, "ports[0].port: is required", id="any port"),
        pytest.param({"ports": [{"port": 0}]}, "ports[0].port: 0 is not a port", id="port"),
        pytest.param(
            {"ports": [{"port": 1}, {"port": 2}]}, 'ports[1].name: "" is the name', id="twice"
        ),
        pytest.param(
            {"endpoints": [{"addresses": ["192.0.2.1"]}] * 1001},
            "endpoints: 1001 endpoints; give at most 1000",
            id="many",
        ),
    ],
)
def test_what_would_be_skipped_over_is_refused(said, make, more, message):
    (line,) = said(make.endpoint_slice(**more))
    assert message in line


def test_a_slice_belongs_to_a_service(said, make):
    raw = make.endpoint_slice()
    raw["metadata"]["labels"] = {}
    (line,) = said(raw)
    assert 'metadata.labels["kubernetes.io/service-name"]: is required' in line


def test_what_a_controller_makes_is_refused(said, make):
    raw = make.endpoint_slice()
    label = "endpointslice.kubernetes.io/managed-by"
    raw["metadata"]["labels"][label] = "endpointslice-controller.k8s.io"
    (line,) = said(raw)
    assert "makes its slices anew from Services and pods" in line
