"""What SPIRE's objects cannot say."""

import pytest

BUNDLE = '{"keys": []}'
ID = "spiffe://partner.example/endpoint"


def spiffe(id_=ID):
    return {"type": "https_spiffe", "endpointSPIFFEID": id_}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"trustDomainBundle": BUNDLE},
        {"bundleEndpointProfile": spiffe(), "trustDomainBundle": BUNDLE},
    ],
)
def test_a_trust_domain_is_taken(said, make, spec):
    assert said(make.federated_trust_domain(spec)) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"trustDomain": "Partner"}, "spec.trustDomain: 'Partner': no trust domain"),
        ({"bundleEndpointURL": "http://a/b"}, "bundleEndpointURL: 'http://a/b': give https"),
        ({"bundleEndpointURL": "https://u@a/b"}, "without a user"),
        ({"trustDomainBundle": "{}"}, "trustDomainBundle: is no JSON Web Key Set"),
        ({"trustDomainBundle": "?"}, "spec.trustDomainBundle"),
        ({"bundleEndpointProfile": {"type": "https"}}, "bundleEndpointProfile.type"),
        (
            {"bundleEndpointProfile": {"type": "https_web", "endpointSPIFFEID": ID}},
            "endpointSPIFFEID: is for https_spiffe",
        ),
        ({"bundleEndpointProfile": spiffe()}, "trustDomainBundle: is required with https_spiffe"),
        (
            {"bundleEndpointProfile": spiffe("spiffe://other/x"), "trustDomainBundle": BUNDLE},
            "is not of partner.example",
        ),
        ({"className": "x"}, "spec.className: unknown field"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(said, make, spec, message):
    found = said(make.federated_trust_domain(spec))
    assert any(message in one for one in found), found


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {
            "spiffeIDTemplate": "spiffe://{{.TrustDomain}}/ns/{{.PodMeta.Namespace}}/sa/"
            "{{.PodSpec.ServiceAccountName}}"
        },
        {"podSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}},
        {
            "workloadSelectorTemplates": [
                "unix:uid:0",
                "unix:path:/bin/x",
                f"unix:sha256:{'a' * 64}",
            ]
        },
    ],
)
def test_who_has_an_identity_is_taken(said, make, spec):
    assert said(make.spiffe_id(spec)) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"spiffeIDTemplate": "spiffe://x/web"}, "spec.spiffeIDTemplate: is not how identities"),
        ({"workloadSelectorTemplates": ["k8s:ns:x"]}, "workloadSelectorTemplates[0]: 'k8s:ns:x'"),
        ({"workloadSelectorTemplates": ["unix:uid:root"]}, "'root' is no number"),
        ({"workloadSelectorTemplates": ["unix:path:x"]}, "'x' is no absolute path"),
        ({"workloadSelectorTemplates": ["unix:sha256:AB"]}, "has 64 digits"),
        ({"podSelector": {"matchLabels": {"-": "x"}}}, "spec.podSelector"),
        ({"ttl": "1h"}, "spec.ttl: unknown field"),
        ({"federatesWith": ["x"]}, "spec.federatesWith: unknown field"),
    ],
)
def test_who_cannot_have_an_identity_is_said(said, make, spec, message):
    found = said(make.spiffe_id(spec))
    assert any(message in one for one in found), found
