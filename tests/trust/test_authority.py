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
from sixfold.trust.authority import create, from_pem, issue, to_pem
from sixfold.trust.jwt_svid import issue_jwt, validate_jwt

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
AUTHORITY = create("shop.example", NOW)
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
    assert str(X509Svid.parse_raw(svid.certificate_der, svid.key_der).spiffe_id) == str(WEB)


def test_the_authority_signs_certificates_and_nothing_below_them():
    constraints = AUTHORITY.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True,
        True,
        0,
    )
    assert AUTHORITY.trust_domain == "shop.example"


def test_an_authority_comes_back_from_its_file():
    again = from_pem(to_pem(AUTHORITY))
    assert to_pem(again) == to_pem(AUTHORITY)
    issue(again, WEB, NOW, HOUR).certificate.verify_directly_issued_by(AUTHORITY.certificate)


@pytest.mark.parametrize("cut", [0, 10, 700, 1100])
def test_a_damaged_file_is_no_authority(cut: int):
    with pytest.raises(ValueError, match=r"\w"):
        from_pem(to_pem(AUTHORITY)[:cut])


def test_keys_of_another_authority_are_refused():
    other = create("shop.example", NOW)
    certificate, keys = (
        pem.partition(b"-----BEGIN PRIVATE") for pem in map(to_pem, (AUTHORITY, other))
    )
    mixed = certificate[0] + keys[1] + keys[2]
    with pytest.raises(ValueError, match="not the certificate's"):
        from_pem(mixed)


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
    headers = {"kid": AUTHORITY.jwt_key_id}
    token = jwt.encode({**claims, **change}, AUTHORITY.jwt_key, "ES256", headers)
    with pytest.raises(ValueError, match=why):
        validate_jwt(AUTHORITY, token, "db", NOW)


def test_a_token_of_another_key_or_algorithm_is_not_valid():
    claims = {"sub": str(WEB), "aud": ["db"], "exp": int((NOW + HOUR).timestamp())}
    other = create("shop.example", NOW)
    for token in (
        jwt.encode(claims, other.jwt_key, "ES256", {"kid": AUTHORITY.jwt_key_id}),
        jwt.encode(claims, AUTHORITY.jwt_key, "ES256", {"kid": "another"}),
        jwt.encode(claims, None, "none"),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            validate_jwt(AUTHORITY, token, "db", NOW)


def test_a_token_says_whose_it_is():
    token = issue_jwt(AUTHORITY, WEB, ["db", "cache"], NOW, HOUR)
    id_, claims = validate_jwt(AUTHORITY, token, "cache", NOW)
    assert id_ == WEB
    assert claims["aud"] == ["db", "cache"]


def test_a_trust_domain_has_no_workload():
    assert parse("spiffe://shop.example") == SpiffeId("shop.example")
