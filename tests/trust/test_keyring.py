"""Authorities succeed one another without anybody meeting a certificate whose root they lack."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trust.before import old_file

from sixfold.model.spiffe import workload_id
from sixfold.trust import keyring as rings
from sixfold.trust.authority import (
    JwtAuthority,
    X509Svid,
    create,
    issue,
    new_key,
    renewed,
    request,
    sign,
)
from sixfold.trust.jwt_svid import issue_jwt, validate_jwt
from sixfold.trust.keyring import Keyring, due, first, founded, next_step
from sixfold.trust.keyring_text import decode, encode, from_pem

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEB = workload_id("shop.example", "shop", "web")


def verifies(svid: X509Svid, ring: Keyring, now: datetime) -> bool:
    """As a stock library sees it, that has only what the bundle has."""
    policy = PolicyBuilder().store(Store(ring.roots)).time(now)
    try:
        policy.build_client_verifier().verify(svid.certificate, list(svid.chain))
    except VerificationError:
        return False
    return True


@settings(suppress_health_check=[HealthCheck.too_slow])  # keys are made
@given(st.lists(st.tuples(st.sampled_from(["rotate", "renew", "wait"]), st.integers(1, 90))))
def test_what_was_issued_verifies_until_it_ends_whatever_happens_by_the_clock(steps):
    ring, now = first("shop.example", NOW), NOW
    issued: list[X509Svid] = []
    for what, minutes in steps[:6]:
        issued.append(issue(ring.authority, WEB, now, HOUR))
        if what == "rotate" and all(one.status != "prepared" for one in ring.x509_authorities):
            ring = rings.prepare(ring, "x509", now, activate_at=now + HOUR / 4)
        elif what == "renew":
            ring = rings.renew(ring, now)
        for _ in range(minutes):
            now += timedelta(minutes=1)
            ring = due(ring, now, HOUR)
        for one in issued:
            assert verifies(one, ring, now) or one.expires <= now


def test_a_rotation_ends_with_one_root_and_goes_step_by_step():
    ring = first("shop.example", NOW)
    old = ring.authority.id
    ring = rings.prepare(ring, "x509", NOW, activate_at=NOW + HOUR / 4)
    seen = [(ring.authority.id == old, len(ring.roots))]
    while (step := next_step(ring)) and step < NOW + 3 * HOUR:
        ring = due(ring, step, HOUR)
        seen.append((ring.authority.id == old, len(ring.roots)))
    assert seen == [(True, 2), (False, 2), (False, 1)]
    assert ring.sequence == 3


def test_an_intermediate_is_renewed_at_half_of_its_life_where_its_root_is_here():
    ring = first("shop.example", NOW)
    later = NOW + timedelta(days=183)
    assert due(ring, NOW, HOUR) is ring
    again = due(ring, later, HOUR)
    assert again.authority.certificate != ring.authority.certificate
    assert again.roots == ring.roots
    _, without = rings.without_root_key(ring)
    assert due(without, later, HOUR) is without


def test_each_step_says_why_it_cannot_be_taken():
    ring = first("shop.example", NOW)
    for step in (rings.activate, rings.taint, rings.revoke):
        with pytest.raises(ValueError, match="is active"):
            step(ring, "x509")
    prepared = rings.prepare(ring, "jwt", NOW)
    with pytest.raises(ValueError, match="prepared already"):
        rings.prepare(prepared, "jwt", NOW)
    assert rings.revoke(prepared, "jwt").jwt_authorities == ring.jwt_authorities


def test_a_tainted_authoritys_certificates_are_to_be_replaced():
    ring = rings.activate(rings.prepare(first("shop.example", NOW), "x509", NOW), "x509")
    old, new = (one.authority.id for one in ring.x509_authorities)
    assert ring.trusted == {old, new}
    assert rings.taint(ring, "x509").trusted == {new}


@pytest.mark.parametrize("passphrase", [None, b"open sesame"])
def test_a_keyring_comes_back_from_its_text(passphrase: bytes | None):
    ring = rings.prepare(first("shop.example", NOW), "x509", NOW, activate_at=NOW + HOUR)
    _, ring = rings.ask(rings.taint(rings.activate(ring, "x509"), "x509"))
    text = encode(ring, passphrase)
    assert encode(decode(text, passphrase)) == encode(ring)
    assert (b"ENCRYPTED PRIVATE KEY" in text) == (passphrase is not None)
    if passphrase:
        assert b"BEGIN PRIVATE KEY" not in text
        for wrong in (None, b"open barley"):
            with pytest.raises(ValueError, match=r"\w"):
                decode(text, wrong)


@pytest.mark.parametrize("cut", [0, 10, 700, 1100])
def test_a_damaged_text_is_no_keyring(cut: int):
    with pytest.raises(ValueError, match=r"\w"):
        decode(encode(first("shop.example", NOW))[:cut])


def test_keys_of_another_authority_are_refused():
    ring, other = first("shop.example", NOW), create("shop.example", NOW)
    (held,) = ring.x509_authorities
    mixed = replace(held, authority=replace(held.authority, key=other.key))
    with pytest.raises(ValueError, match="not the certificate's"):
        decode(encode(replace(ring, x509_authorities=(mixed,))))


def test_the_file_of_the_version_before_is_taken_over_and_rotates_to_an_intermediate():
    text, before = old_file("shop.example", NOW)
    ring = from_pem(text)
    assert ring.roots == (before.root,)
    svid = issue(ring.authority, WEB, NOW, HOUR)
    assert svid.chain == ()
    assert verifies(svid, ring, NOW)
    with pytest.raises(ValueError, match="rotate it"):
        rings.renew(ring, NOW)
    with pytest.raises(ValueError, match="rotate it first"):
        rings.without_root_key(ring)
    ring = rings.activate(rings.prepare(ring, "x509", NOW), "x509")
    assert verifies(svid, ring, NOW)
    assert verifies(issue(ring.authority, WEB, NOW, HOUR), ring, NOW)
    key, ring = rings.without_root_key(ring)
    assert key.public_key() == ring.authority.root.public_key()
    assert verifies(issue(rings.renew(ring, NOW, key).authority, WEB, NOW, HOUR), ring, NOW)


@pytest.mark.parametrize("cut", [0, 10, 700, 1100])
def test_a_damaged_file_of_the_version_before_is_refused(cut: int):
    with pytest.raises(ValueError, match=r"\w"):
        from_pem(old_file("shop.example", NOW)[0][:cut])


def test_a_root_elsewhere_signs_what_is_asked_and_a_foreign_root_is_prepared():
    key, ring = rings.without_root_key(first("shop.example", NOW))
    _, ring = rings.ask(ring)
    assert ring.pending
    made = sign(request("shop.example", ring.pending), ring.authority.root, key, NOW)
    renewed_ring = rings.take(ring, [made], None, None, NOW)
    assert renewed_ring.authority.certificate == made
    assert renewed_ring.pending is None
    assert verifies(issue(renewed_ring.authority, WEB, NOW, HOUR), ring, NOW)

    other = create("shop.example", NOW)
    assert other.root_key
    made = sign(request("shop.example", ring.pending), other.root, other.root_key, NOW)
    taken = rings.take(ring, [made, other.root], other.root, None, NOW)
    assert [one.status for one in taken.x509_authorities] == ["active", "prepared"]
    taken = rings.activate(taken, "x509")
    assert verifies(issue(taken.authority, WEB, NOW, HOUR), taken, NOW)


def test_what_somebody_else_signed_is_looked_at():
    ring, other = first("shop.example", NOW), create("else.where", NOW)
    root = other.root
    cases = [
        (lambda: rings.take(ring, [other.certificate], root, None, NOW), "no request is open"),
        (lambda: rings.take(ring, [other.certificate], root, new_key(), NOW), "not the key's"),
        (lambda: rings.take(ring, [other.certificate], root, other.key, NOW), "else.where"),
        (lambda: rings.take(ring, [other.certificate], None, other.key, NOW), "not issued by"),
        (lambda: rings.take(ring, [root], root, other.key, NOW), "no intermediate"),
        (lambda: rings.take(ring, [other.certificate], root, other.key, NOW - HOUR), "not valid"),
        (lambda: renewed(ring.authority, new_key(), NOW), "not that of root"),
    ]
    for attempt, why in cases:
        with pytest.raises(ValueError, match=why):
            attempt()
    asked, root_key = request("else.where", new_key()), ring.authority.root_key
    assert root_key
    with pytest.raises(ValueError, match=r"else.where, not shop.example"):
        sign(asked, ring.authority.root, root_key, NOW)


def test_a_token_of_an_old_key_is_valid_until_the_key_is_revoked():
    ring = founded(create("shop.example", NOW), JwtAuthority(new_key()))
    token = issue_jwt(ring.jwt_authority, WEB, ["db"], NOW, HOUR)
    ring = rings.activate(rings.prepare(ring, "jwt", NOW), "jwt")
    assert validate_jwt(ring, token, "db", NOW)[0] == WEB
    with pytest.raises(ValueError, match="key ID"):
        validate_jwt(rings.revoke(ring, "jwt"), token, "db", NOW)
