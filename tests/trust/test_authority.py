"""The authority and what it signs, as SPIFFE's specifications want them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from spiffe import SpiffeId as Stock
from spiffe import TrustDomain, X509Svid
from spiffe.spiffe_id.spiffe_id import SpiffeIdError, TrustDomainError

from sixfold.model.spiffe import SpiffeId, check_trust_domain, parse, workload_id
from sixfold.trust.authority import JwtAuthority, create, issue, new_key, uris
from sixfold.trust.jwt_svid import issue_jwt, validate_jwt
from sixfold.trust.keyring import first

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
AUTHORITY = create("shop.example", NOW)
KEYRING = first("shop.example", NOW)
TOKENS = KEYRING.jwt_authority
WEB = workload_id("shop.example", "shop", "web")


@given(st.text("aZ0._-/ %é:", max_size=12))
def test_an_id_is_one_for_us_when_it_is_one_for_the_stock_library(rest: str):
    text = f"spiffe://shop.example/{rest}"
    try:
        theirs = str(Stock(text))
    except SpiffeIdError:
        theirs = ""
    try:
        ours = str(parse(text))
    except ValueError:
        ours = ""
    assert ours == theirs


@given(st.text("abz0._-A/@", max_size=12))
def test_a_trust_domain_is_one_for_us_when_it_is_one_for_the_stock_library(name: str):
    try:
        theirs = TrustDomain(name).name == name  # theirs takes the domain out of a whole ID
    except TrustDomainError:
        theirs = False
    try:
        ours = check_trust_domain(name) == name
    except ValueError:
        ours = False
    assert ours == theirs


def test_an_svid_keeps_every_rule_of_the_specification():
    svid = issue(AUTHORITY, WEB, NOW, HOUR)
    found = {one.oid._name: one for one in svid.certificate.extensions}
    names = found["subjectAltName"].value
    assert [name.value for name in names] == [str(WEB)]
    assert found["basicConstraints"].value.ca is False
    usage = found["keyUsage"]
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert len(list(found["extendedKeyUsage"].value)) == 2
    assert svid.certificate.subject != svid.certificate.issuer
    assert svid.expires == NOW + HOUR
    assert svid.renew_at == NOW + HOUR / 2
    svid.certificate.verify_directly_issued_by(AUTHORITY.certificate)
    assert str(X509Svid.parse_raw(svid.chain_der, svid.key_der).spiffe_id) == str(WEB)


def test_a_root_signs_one_intermediate_and_that_nothing_but_leaves():
    lengths = [
        one.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for one in (AUTHORITY.root, AUTHORITY.certificate)
    ]
    assert lengths == [1, 0]
    AUTHORITY.certificate.verify_directly_issued_by(AUTHORITY.root)
    assert uris(AUTHORITY.root) == uris(AUTHORITY.certificate) == ["spiffe://shop.example"]


def test_a_workload_shows_the_intermediate_and_not_the_root():
    svid = issue(AUTHORITY, WEB, NOW, HOUR)
    shown = x509.load_pem_x509_certificates(svid.chain_pem)
    assert shown == [svid.certificate, AUTHORITY.certificate]
    assert len(X509Svid.parse_raw(svid.chain_der, svid.key_der).cert_chain) == 2


def test_a_certificate_ends_with_its_authority_at_the_latest():
    ends = AUTHORITY.certificate.not_valid_after_utc
    assert issue(AUTHORITY, WEB, ends - HOUR / 2, HOUR).expires == ends


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"aud": ["other"]}, "udience"),
        ({"exp": int(NOW.timestamp()) - 1}, "expired"),
        ({"sub": "spiffe://else.where/ns/shop/sa/web"}, "another trust domain"),
        ({"sub": "web"}, "does not start with"),
    ],
)
def test_a_token_that_breaks_a_rule_is_not_valid(change: dict, why: str):
    claims = {"sub": str(WEB), "aud": ["db"], "exp": int((NOW + HOUR).timestamp())}
    headers = {"kid": TOKENS.id}
    token = jwt.encode({**claims, **change}, TOKENS.key, "ES256", headers)
    with pytest.raises(ValueError, match=why):
        validate_jwt(KEYRING, token, "db", NOW)


def test_a_token_of_another_key_or_algorithm_is_not_valid():
    claims = {"sub": str(WEB), "aud": ["db"], "exp": int((NOW + HOUR).timestamp())}
    other = JwtAuthority(new_key())
    for token in (
        jwt.encode(claims, other.key, "ES256", {"kid": TOKENS.id}),
        jwt.encode(claims, TOKENS.key, "ES256", {"kid": "another"}),
        jwt.encode(claims, None, "none"),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            validate_jwt(KEYRING, token, "db", NOW)


def test_a_token_says_whose_it_is():
    token = issue_jwt(TOKENS, WEB, ["db", "cache"], NOW, HOUR)
    id_, claims = validate_jwt(KEYRING, token, "cache", NOW)
    assert id_ == WEB
    assert claims["aud"] == ["db", "cache"]


def test_a_trust_domain_has_no_workload():
    assert parse("spiffe://shop.example") == SpiffeId("shop.example")
