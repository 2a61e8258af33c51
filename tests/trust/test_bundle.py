"""Bundles as others read them, and theirs as we do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from spiffe import JwtBundle, TrustDomain, X509Bundle

from sixfold.model.spiffe import workload_id
from sixfold.trust import keyring as rings
from sixfold.trust.bundle import document, key_set, read, roots_der
from sixfold.trust.jwt_svid import issue_jwt, validate_jwt
from sixfold.trust.keyring import first

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OURS = first("shop.example", NOW)
THEIRS = rings.prepare(rings.prepare(first("partner.example", NOW), "x509", NOW), "jwt", NOW)


def test_a_document_says_all_roots_and_all_keys_and_is_read_back():
    found = read("partner.example", document(THEIRS))
    assert found.roots == THEIRS.roots
    keys = {one.authority.id for one in THEIRS.jwt_authorities}
    assert {key["kid"] for key in found.jwt_keys} == keys
    assert (found.sequence, found.refresh_hint_s) == (3, 300)
    uses = [key["use"] for key in json.loads(document(THEIRS))["keys"]]
    assert uses == ["x509-svid", "x509-svid", "jwt-svid", "jwt-svid"]


def test_the_stock_library_reads_what_the_workload_api_tells():
    domain = TrustDomain("partner.example")
    assert len(X509Bundle.parse_raw(domain, roots_der(THEIRS)).x509_authorities) == 2
    assert len(JwtBundle.parse(domain, key_set(THEIRS)).jwt_authorities) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{"use": "x509-svid"}]}']
)
def test_what_is_no_bundle_is_refused(text: str):
    with pytest.raises(ValueError, match=r"partner\.example: what it tells is no SPIFFE bundle"):
        read("partner.example", text)


def test_keys_of_unknown_use_are_passed_over_and_hints_are_held_to_bounds():
    text = '{"keys": [{"use": "sig"}, {"use": "jwt-svid"}], "spiffe_refresh_hint": 1}'
    found = read("partner.example", text)
    assert (found.roots, found.jwt_keys, found.refresh_hint_s) == ((), (), 60)


def test_a_foreign_token_is_valid_by_its_own_domains_keys_only():
    me = workload_id("partner.example", "ns", "web")
    token = issue_jwt(THEIRS.jwt_authority, me, ["db"], NOW, HOUR)
    theirs = read("partner.example", document(THEIRS)).jwt_keys
    assert validate_jwt(OURS, token, "db", NOW, {"partner.example": theirs})[0] == me
    with pytest.raises(ValueError, match="another trust domain"):
        validate_jwt(OURS, token, "db", NOW)
    with pytest.raises(ValueError, match="key ID"):
        validate_jwt(OURS, token, "db", NOW, {"partner.example": theirs[1:]})
    forged = issue_jwt(
        THEIRS.jwt_authority, workload_id("shop.example", "ns", "web"), ["db"], NOW, HOUR
    )
    with pytest.raises(ValueError, match="key ID"):
        validate_jwt(OURS, forged, "db", NOW, {"partner.example": theirs})
