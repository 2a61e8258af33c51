"""The authority of a trust domain: who signs what workloads show each other.

Pure but for the randomness of keys: times are arguments, files are somebody else's. One
self-signed P-256 certificate signs X.509-SVIDs; a key of its own signs JWT-SVIDs, so that what is
stolen of one kind is not good for the other. Source: X509-SVID and JWT-SVID 1.0, RFC 5280.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sixfold.model.spiffe import SpiffeId, parse

PrivateKey = ec.EllipticCurvePrivateKey

AUTHORITY_LIFETIME = timedelta(days=3650)
BACKDATED = timedelta(minutes=1)  # clocks differ


@dataclass(frozen=True, slots=True)
class Authority:
    """Keys and certificate of a trust domain."""

    key: PrivateKey
    certificate: x509.Certificate
    jwt_key: PrivateKey

    @property
    def trust_domain(self) -> str:
        return _uri_of(self.certificate).trust_domain

    @property
    def bundle_der(self) -> bytes:
        """What others need to verify X.509-SVIDs of this domain."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def jwt_key_id(self) -> str:
        public = self.jwt_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return sha256(public).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A certificate and its key; ``renew_at``: half of its life is over."""

    id: SpiffeId
    certificate: x509.Certificate
    key: PrivateKey
    issued: datetime  # it is valid from a little before

    @property
    def certificate_der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """PKCS#8, unencrypted."""
        return self._key(serialization.Encoding.PEM)

    @property
    def key_der(self) -> bytes:
        """PKCS#8, unencrypted."""
        return self._key(serialization.Encoding.DER)

    def _key(self, encoding: serialization.Encoding) -> bytes:
        return self.key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def expires(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def renew_at(self) -> datetime:
        return self.issued + (self.expires - self.issued) / 2


def create(trust_domain: str, now: datetime) -> Authority:
    """A new authority with new keys."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sixfold"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {trust_domain}"[:64]),
        ]
    )
    usage = _key_usage(signs_certificates=True)
    public = key.public_key()
    certificate = (
        _builder(name, name, public, now, AUTHORITY_LIFETIME)
        .add_extension(_uri(SpiffeId(trust_domain)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(key, certificate, ec.generate_private_key(ec.SECP256R1()))


def issue(authority: Authority, id_: SpiffeId, now: datetime, lifetime: timedelta) -> X509Svid:
    """An X.509-SVID with a key of its own."""
    assert id_.trust_domain == authority.trust_domain, f"{id_}: of another trust domain"
    assert id_.path, f"{id_}: names no workload"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sixfold workload")])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, lifetime)
        .add_extension(_uri(id_), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return X509Svid(id_, certificate, key, now)


def to_pem(authority: Authority) -> bytes:
    """Both keys and the certificate, unencrypted: for a file that only root reads."""
    keys = (authority.key, authority.jwt_key)
    return authority.certificate.public_bytes(serialization.Encoding.PEM) + b"".join(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for key in keys
    )


def from_pem(pem: bytes) -> Authority:
    """What ``to_pem`` wrote; ValueError when it is anything else."""
    certificate = x509.load_pem_x509_certificate(pem)
    begin = b"-----BEGIN PRIVATE KEY"
    blocks = pem.split(begin)[1:]
    keys = [serialization.load_pem_private_key(begin + block, None) for block in blocks]
    if len(keys) != 2 or not all(isinstance(key, PrivateKey) for key in keys):
        raise ValueError("not two keys of an elliptic curve")
    key, jwt_key = keys
    assert isinstance(key, PrivateKey), "checked above"
    assert isinstance(jwt_key, PrivateKey), "checked above"
    if key.public_key() != certificate.public_key():
        raise ValueError("the key is not the certificate's")
    _uri_of(certificate)
    return Authority(key, certificate, jwt_key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _uri(id_: SpiffeId) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(id_))])


def _uri_of(certificate: x509.Certificate) -> SpiffeId:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate names no trust domain") from None
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return parse(uri)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
