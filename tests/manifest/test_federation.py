"""What a ClusterFederatedTrustDomain cannot say."""

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
