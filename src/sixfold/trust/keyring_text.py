"""A keyring as the text of its file, and back; and what its file was before there were keyrings.

Pure. JSON with PEM inside, so that ``openssl`` reads what ``jq`` takes out. With a passphrase every
key is encrypted (PKCS#8, PBES2); without, the file's mode is what keeps it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from cryptography import x509

from sixfold.trust.authority import (
    Authority,
    JwtAuthority,
    PrivateKey,
    key_from_pem,
    key_pem,
    pem,
    uri_of,
)
from sixfold.trust.keyring import Held, Keyring, Status, founded


class _Held(msgspec.Struct, omit_defaults=True, kw_only=True):
    status: Status
    tainted: bool = False
    step_at: datetime | None = None


class _X509(_Held, kw_only=True):
    root: str
    root_key: str = ""
    certificate: str
    key: str
    between: list[str] = []


class _Jwt(_Held, kw_only=True):
    key: str


class _File(msgspec.Struct, omit_defaults=True):
    trust_domain: str
    sequence: int
    x509: list[_X509]
    jwt: list[_Jwt]
    pending: str = ""


def encode(keyring: Keyring, passphrase: bytes | None = None) -> bytes:
    def key(one: PrivateKey | None) -> str:
        return key_pem(one, passphrase).decode() if one is not None else ""

    file = _File(
        keyring.trust_domain,
        keyring.sequence,
        [
            _X509(
                status=one.status,
                tainted=one.tainted,
                step_at=one.step_at,
                root=pem(one.authority.root).decode(),
                root_key=key(one.authority.root_key),
                certificate=pem(one.authority.certificate).decode(),
                key=key(one.authority.key),
                between=[pem(each).decode() for each in one.authority.between],
            )
            for one in keyring.x509_authorities
        ],
        [
            _Jwt(
                status=one.status,
                tainted=one.tainted,
                step_at=one.step_at,
                key=key(one.authority.key),
            )
            for one in keyring.jwt_authorities
        ],
        key(keyring.pending),
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def decode(text: bytes, passphrase: bytes | None = None) -> Keyring:
    """ValueError when it is not what ``encode`` wrote, or the passphrase is another."""

    def key(one: str) -> PrivateKey:
        return key_from_pem(one.encode(), passphrase if "ENCRYPTED" in one else None)

    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from None
    held = tuple(
        Held(
            Authority(
                file.trust_domain,
                _certificate(one.root),
                key(one.root_key) if one.root_key else None,
                _certificate(one.certificate),
                key(one.key),
                tuple(map(_certificate, one.between)),
            ),
            one.status,
            one.tainted,
            one.step_at,
        )
        for one in file.x509
    )
    jwts = tuple(
        Held(JwtAuthority(key(one.key)), one.status, one.tainted, one.step_at) for one in file.jwt
    )
    for one in held:
        if one.authority.key.public_key() != one.authority.certificate.public_key():
            raise ValueError("the key is not the certificate's")
    for which in (held, jwts):
        if [one.status for one in which].count("active") != 1:
            raise ValueError("not one authority of each kind is active")
    pending = key(file.pending) if file.pending else None
    return Keyring(file.trust_domain, held, jwts, file.sequence, pending)


def from_pem(text: bytes) -> Keyring:
    """Of ``authority.pem`` as it was until 2026-11-28: a root that signs, its key, and a key for
    tokens. ValueError when it is anything else."""
    certificate = x509.load_pem_x509_certificate(text)
    begin = b"-----BEGIN PRIVATE KEY"
    blocks = text.split(begin)[1:]
    if len(blocks) != 2:
        raise ValueError("not two keys")
    key, jwt_key = (key_from_pem(begin + block) for block in blocks)
    if key.public_key() != certificate.public_key():
        raise ValueError("the key is not the certificate's")
    domain = uri_of(certificate).trust_domain
    return founded(Authority(domain, certificate, key, certificate, key), JwtAuthority(jwt_key))


def _certificate(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())
