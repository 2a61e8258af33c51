from __future__ import annotations

import pytest


def listener(**fields):
    return {"name": "http", "port": 80, "protocol": "HTTP", **fields}


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"listeners": []}, "spec.listeners: has 0"),
        ({"listeners": [listener(), listener(port=81)]}, "spec.listeners[1].name: a second"),
        ({"listeners": [listener(port=0)]}, "spec.listeners[0].port"),
        ({"listeners": [listener(port=15008)]}, "spec.listeners[0].port: 15008 is the mesh's own"),
        ({"listeners": [listener(hostname="a*b")]}, "spec.listeners[0].hostname"),
        ({"listeners": [listener(tls={})]}, "spec.listeners[0].tls: means nothing to HTTP"),
        (
            {"listeners": [listener(allowedRoutes={"namespaces": {"from": "Selector"}})]},
            "spec.listeners[0].allowedRoutes.namespaces.selector: goes with from: Selector",
        ),
        (
            {"listeners": [listener(protocol="HTTPS")]},
            "spec.listeners[0].tls: is required for HTTPS",
        ),
        (
            {"listeners": [listener(protocol="HTTPS", tls={"mode": "Passthrough"})]},
            "spec.listeners[0].tls.mode: HTTPS is terminated",
        ),
        (
            {"listeners": [listener(protocol="HTTPS", tls={})]},
            "spec.listeners[0].tls.certificateRefs: is required",
        ),
        ({"addresses": [{"type": "Hostname", "value": "a"}]}, "spec.addresses[0].type: Hostname"),
        ({"addresses": [{"value": "a"}]}, "spec.addresses[0].value"),
        ({"gatewayClassName": "a.b"}, "spec.gatewayClassName: its service would be front-a.b"),
        ({"infrastructure": {"labels": {"a": "b c"}}}, "spec.infrastructure.labels.a"),
        ({"tls": {"frontend": {}}}, "spec.tls: not supported"),
    ],
)
def test_what_a_gateway_cannot_be_is_said_where_it_is(make, said, spec, place):
    assert any(line.startswith(place) for line in said(make.gateway(**spec))), said(
        make.gateway(**spec)
    )


def test_a_gateway_may_have_many_listeners(make, said):
    more = [listener(name=f"l{n}", hostname=f"*.h{n}.example.com") for n in range(64)]
    assert said(make.gateway(*more)) == []


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"data": {"a": "not base64 at all"}}, "data.a: is not base64"),
        ({"data": {"a/b": "Yg=="}}, 'data["a/b"]: "a/b" is no key'),
        ({"type": "kubernetes.io/tls"}, 'data["tls.crt"]: is required'),
        ({"stringData": {"a": "x" * (1 << 20)}}, "data: has"),
    ],
)
def test_what_is_wrong_with_a_secret_is_said_without_what_is_in_it(make, said, fields, place):
    lines = said(make.secret(**fields))
    assert any(line.startswith(place) for line in lines), lines
    assert not any("not base64 at all" in line for line in lines)


def test_a_config_map_has_each_key_once(make, said):
    (line,) = said(make.config_map(binaryData={"a": "Yg=="}))
    assert line == "binaryData.a: is in data, too; keep one"


@pytest.mark.parametrize(
    ("validation", "place"),
    [
        ({"hostname": "a_b"}, "spec.validation.hostname"),
        ({"caCertificateRefs": []}, "spec.validation.caCertificateRefs: give either"),
        ({"wellKnownCACertificates": "System"}, "spec.validation.caCertificateRefs: give either"),
        (
            {"caCertificateRefs": [{"name": "a", "kind": "Secret"}]},
            "spec.validation.caCertificateRefs[0].kind: Secret is none here",
        ),
        (
            {"subjectAltNames": [{"type": "URI", "hostname": "a.com"}]},
            "spec.validation.subjectAltNames[0].type",
        ),
        (
            {"subjectAltNames": [{"type": "URI", "uri": "a.com"}]},
            "spec.validation.subjectAltNames[0].uri",
        ),
    ],
)
def test_what_a_policy_of_backends_cannot_be_is_said_where_it_is(make, said, validation, place):
    assert any(line.startswith(place) for line in said(make.backend_tls(**validation)))


ID = {"type": "URI", "uri": "spiffe://partner.example/ns/shop/sa/db"}
OTHER = {"type": "URI", "uri": "spiffe://third.example/ns/shop/sa/db"}


def abroad(make, names=(ID,), **options):
    made = make.backend_tls(
        caCertificateRefs=[],
        wellKnownCACertificates="sixfold.dev/federated",
        subjectAltNames=list(names),
    )
    made["spec"]["options"] = {f"sixfold.dev/{key}": text for key, text in options.items()}
    return made


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([ID], {"endpoints": "192.0.2.80:15443, [2001:db8::80]:15443"}, None),
        ([ID], {}, 'spec.options["sixfold.dev/endpoints"]: is required with these authorities'),
        ([ID], {"endpoints": "partner:1"}, "does not appear to be an IPv4 or IPv6 address"),
        ([ID], {"endpoints": "192.0.2.80"}, "give ADDRESS:PORT"),
        ([ID], {"endpoints": " "}, "names no place"),
        ([ID], {"endpoints": "192.0.2.80:1", "sni": "x"}, '["sixfold.dev/sni"]: is no option here'),
        ([], {"endpoints": "192.0.2.80:1"}, "spec.validation.subjectAltNames: is required"),
        ([ID, OTHER], {"endpoints": "192.0.2.80:1"}, "give IDs of one domain"),
        (
            [{"type": "Hostname", "hostname": "a.com"}],
            {"endpoints": "192.0.2.80:1"},
            "spec.validation.subjectAltNames[0].uri: '': does not start with spiffe://",
        ),
    ],
)
def test_services_of_other_trust_domains_have_places_and_identities(
    make, said, names, options, message
):
    found = said(abroad(make, names, **options))
    assert found == [] if message is None else any(message in line for line in found), found


def test_places_are_for_other_trust_domains_only(make, said):
    made = make.backend_tls()
    made["spec"]["options"] = {"sixfold.dev/endpoints": "192.0.2.80:1"}
    assert any("goes with wellKnownCACertificates" in line for line in said(made))


def test_tunnels_of_other_trust_domains_have_their_own_tls(make, said):
    def listener(**more):
        return make.gateway({"name": "in", "port": 15443, "protocol": "HBONE", **more})

    assert said(listener()) == []
    mixed = make.gateway(
        {"name": "in", "port": 15443, "protocol": "HBONE"},
        {"name": "http", "port": 80, "protocol": "HTTP"},
    )
    assert any("alone at its Gateway" in line for line in said(mixed))
    (line,) = said(listener(tls={"mode": "Passthrough"}))
    assert "spec.listeners[0].tls: HBONE is mTLS" in line
