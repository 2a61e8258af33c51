"""ServiceEntries and DestinationRules: what is taken, and what is refused, where, and why."""

import pytest
from tests.manifest.conftest import destination_rule, service_entry


def port(number=443, protocol="TLS", **more):
    return {"number": number, "name": "p", "protocol": protocol, **more}


RAW = port(protocol="TCP", targetPort=8443)


def placed(endpoint=None, **spec):
    return service_entry(
        **{
            "resolution": "STATIC",
            "addresses": ["192.0.2.1"],
            "endpoints": [{"address": "198.51.100.1", **(endpoint or {})}],
            **spec,
        }
    )


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(service_entry(), id="requests"),
        pytest.param(service_entry(hosts=["*.example.com"], ports=[port()]), id="wildcard"),
        pytest.param(service_entry(location="MESH_EXTERNAL", exportTo=["*"]), id="everywhere"),
        pytest.param(placed(), id="placed"),
        pytest.param(placed(addresses=[]), id="by name"),
        pytest.param(placed(ports=[RAW], endpoint={"ports": {"p": 1}}), id="translated"),
        pytest.param(destination_rule(), id="mutual"),
        pytest.param(destination_rule(mode="SIMPLE", credentialName=""), id="simple"),
    ],
)
def test_what_can_be_enforced_is_taken(said, raw):
    assert said(raw) == []


@pytest.mark.parametrize(
    ("raw", "where", "message"),
    [
        pytest.param(service_entry(hosts=[]), "spec.hosts", "give 1 to", id="hosts"),
        pytest.param(service_entry(hosts=["*"]), "hosts[0]", "name it", id="every"),
        pytest.param(
            service_entry(hosts=["*.example.com"]), "hosts[0]", "one host each", id="wildcard"
        ),
        pytest.param(service_entry(ports=[]), "spec.ports", "is empty", id="ports"),
        pytest.param(
            service_entry(ports=[port(), port()]), "ports[1].number", "ports[0]", id="twice"
        ),
        pytest.param(
            service_entry(ports=[port(targetPort=1)]), "targetPort", "only requests", id="target"
        ),
        pytest.param(
            service_entry(ports=[port(protocol="MONGO")]), "protocol", "not one of", id="protocol"
        ),
        pytest.param(
            service_entry(location="MESH_INTERNAL"), "location", "give MESH_EXTERNAL", id="inside"
        ),
        pytest.param(service_entry(resolution="STATIC"), "endpoints", "is empty", id="static"),
        pytest.param(
            service_entry(addresses=["192.0.2.1"]), "addresses", "give resolution", id="addresses"
        ),
        pytest.param(placed(hosts=["bank"]), "hosts[0]", "with a dot", id="bare"),
        pytest.param(placed(addresses=["192.0.2.0/24"]), "addresses[0]", "no", id="block"),
        pytest.param(placed(endpoint={"address": "db"}), "endpoints[0].address", "no", id="name"),
        pytest.param(placed(endpoint={"weight": 101}), "endpoints[0].weight", "100", id="weight"),
        pytest.param(
            placed(endpoint={"ports": {"http": 1}}), "ports", "only TCP ports", id="http port"
        ),
        pytest.param(
            placed(addresses=[], ports=[port(protocol="TCP")], endpoint={"ports": {"p": 1}}),
            *("endpoints[0].ports", "dialled at one of addresses"),
            id="not translated",
        ),
        pytest.param(
            destination_rule(credentialName=""), "credentialName", "is required", id="mutual"
        ),
        pytest.param(
            destination_rule(caCertificates="/x"), "caCertificates", "credentialName", id="file"
        ),
        pytest.param(
            destination_rule(insecureSkipVerify=True), "insecureSkipVerify", "nobody", id="skip"
        ),
        pytest.param(destination_rule(mode="ISTIO_MUTUAL"), "mode", "not one of", id="mesh"),
    ],
)
def test_what_cannot_is_refused_by_its_place(said, raw, where, message):
    (line,) = said(raw)
    assert where in line
    assert message in line
