"""May this Secret stand for a server? What a listener shows is looked at before Envoy is told.

Pure. Expired certificates are shown, as elsewhere: clients say so themselves.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from sixfold.model.secret import CERTIFICATE, KEY, Secret


class Shown(NamedTuple):
    """PEM."""

    chain: bytes
    key: bytes


def shown(secret: Secret) -> Shown | str:
    """What a listener shows, or what is wrong with it; the text tells no part of it."""
    return _checked(secret.value(CERTIFICATE), secret.value(KEY))


@lru_cache(256)
def _checked(chain: bytes, key: bytes) -> Shown | str:
    try:
        first, *_ = x509.load_pem_x509_certificates(chain)
    except ValueError:
        return f"{CERTIFICATE} is no certificate in PEM"
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return f"{KEY} is no private key in PEM, without a password"
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        return f"{KEY} is not the key of {CERTIFICATE}"
    return Shown(chain, key)


@lru_cache(256)
def authorities(pem: bytes) -> bool:
    """Whether it is certificates in PEM."""
    try:
        return bool(x509.load_pem_x509_certificates(pem))
    except ValueError:
        return False
