"""An authority of a trust domain: who signs what workloads show each other.

Pure but for the randomness of keys: times are arguments, files are somebody else's. A self-signed
P-256 root is what others trust; an intermediate under it signs X.509-SVIDs, so that the root's key
may be kept where no agent is. JWT-SVIDs have keys of their own: what is stolen of one kind is not
good for the other. Source: X509-SVID and JWT-SVID 1.0, RFC 5280.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sixfold.model.spiffe import SpiffeId, parse

PrivateKey = ec.EllipticCurvePrivateKey

ROOT_LIFETIME = timedelta(days=3650)
INTERMEDIATE_LIFETIME = timedelta(days=365)
BACKDATED = timedelta(minutes=1)  # clocks differ
SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class Authority:
    """A root, and what signs under it here.

    root_key     None: it is kept elsewhere
    certificate  its key signs SVIDs: an intermediate; the root itself, where it was made before
                 there were intermediates
    between      from that to the root, neither included, where an upstream authority has such
    """

    trust_domain: str
    root: x509.Certificate
    root_key: PrivateKey | None
    certificate: x509.Certificate
    key: PrivateKey
    between: tuple[x509.Certificate, ...] = ()

    @property
    def id(self) -> str:
        """Of the root's key, as SPIRE names authorities: the subject key identifier."""
        return key_identifier(self.root)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a workload shows besides its own certificate."""
        return () if self.certificate == self.root else (self.certificate, *self.between)


@dataclass(frozen=True, slots=True)
class JwtAuthority:
    """A key that signs tokens."""

    key: PrivateKey

    @property
    def id(self) -> str:
        """Key ID of its tokens."""
        return sha256(self.key.public_key().public_bytes(*SPKI)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A certificate and its key; ``renew_at``: half of its life is over."""

    id: SpiffeId
    certificate: x509.Certificate
    key: PrivateKey
    issued: datetime  # it is valid from a little before
    chain: tuple[x509.Certificate, ...] = ()  # what is shown besides
    authority: str = ""  # who signed it

    @property
    def chain_der(self) -> bytes:
        """The leaf first, as the Workload API wants it."""
        return b"".join(map(der, (self.certificate, *self.chain)))

    @property
    def chain_pem(self) -> bytes:
        return b"".join(map(pem, (self.certificate, *self.chain)))

    @property
    def key_pem(self) -> bytes:
        """PKCS#8, unencrypted."""
        return key_pem(self.key)

    @property
    def key_der(self) -> bytes:
        """PKCS#8, unencrypted."""
        return self.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def expires(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def renew_at(self) -> datetime:
        return self.issued + (self.expires - self.issued) / 2


def create(trust_domain: str, now: datetime) -> Authority:
    """A new authority with new keys."""
    key, signing = new_key(), new_key()
    root = _certificate(key, key, None, trust_domain, now, ROOT_LIFETIME, path_length=1)
    intermediate = _certificate(
        signing, key, root, trust_domain, now, INTERMEDIATE_LIFETIME, path_length=0
    )
    return Authority(trust_domain, root, key, intermediate, signing)


def renewed(authority: Authority, root_key: PrivateKey, now: datetime) -> Authority:
    """The same root with a new intermediate; ValueError when the key is not the root's."""
    if root_key.public_key() != authority.root.public_key():
        raise ValueError(f"the key is not that of root {authority.id}")
    if _path_length(authority.root) == 0:
        raise ValueError(f"root {authority.id} may sign no intermediate; rotate it")
    key, domain = new_key(), authority.trust_domain
    certificate = _certificate(
        key, root_key, authority.root, domain, now, INTERMEDIATE_LIFETIME, path_length=0
    )
    return replace(authority, certificate=certificate, key=key, between=())


def issue(authority: Authority, id_: SpiffeId, now: datetime, lifetime: timedelta) -> X509Svid:
    """An X.509-SVID with a key of its own; it ends with its authority at the latest."""
    assert id_.trust_domain == authority.trust_domain, f"{id_}: of another trust domain"
    assert id_.path, f"{id_}: names no workload"
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sixfold workload")])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = authority.certificate
    ends = min(now + lifetime, issuer.not_valid_after_utc)
    certificate = (
        _builder(subject, issuer.subject, key.public_key(), now, ends)
        .add_extension(_uri(id_), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(_issuer_key(issuer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return X509Svid(id_, certificate, key, now, authority.chain, authority.id)


def request(trust_domain: str, key: PrivateKey) -> bytes:
    """PKCS#10, in PEM: what an authority elsewhere is asked to sign as an intermediate."""
    name, public = _name(trust_domain, "intermediate", key), key.public_key()
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(_uri(SpiffeId(trust_domain)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return csr.public_bytes(serialization.Encoding.PEM)


def sign(
    csr_pem: bytes, root: x509.Certificate, root_key: PrivateKey, now: datetime
) -> x509.Certificate:
    """An intermediate for whoever asks, by a root that is kept apart; ValueError if it may not."""
    csr = x509.load_pem_x509_csr(csr_pem)
    public, domain = csr.public_key(), uri_of(root).trust_domain
    if not csr.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("the request is not signed by its own key, or that is no elliptic curve's")
    if uri_of(csr).trust_domain != domain:
        raise ValueError(f"the request is of trust domain {uri_of(csr).trust_domain}, not {domain}")
    if root_key.public_key() != root.public_key():
        raise ValueError("the key is not the root's")
    if _path_length(root) == 0:
        raise ValueError("the root may sign no intermediate")
    return _signed(csr.subject, public, root_key, root, domain, now, INTERMEDIATE_LIFETIME, 0)


def imported(
    chain: tuple[x509.Certificate, ...],
    key: PrivateKey,
    root: x509.Certificate,
    trust_domain: str,
    now: datetime,
) -> Authority:
    """An authority that an upstream one signed; ValueError says what is wrong with it.

    chain  from the intermediate towards the root; the root itself may be at its end
    """
    if chain and chain[-1] == root:
        chain = chain[:-1]
    if not chain:
        raise ValueError("the chain has no intermediate")
    if chain[0].public_key() != key.public_key():
        raise ValueError("the certificate is not the key's")
    for child, parent in zip(chain, (*chain[1:], root), strict=True):
        try:
            child.verify_directly_issued_by(parent)
        except Exception as error:
            why = str(error) or "its signature is another's"
            raise ValueError(
                f"{_subject(child)}: not issued by {_subject(parent)}: {why}"
            ) from None
    for depth, one in enumerate((*chain, root)):
        if _path_length(one) < depth:
            raise ValueError(f"{_subject(one)}: may not sign what is {depth} below it")
        if not one.not_valid_before_utc - BACKDATED <= now < one.not_valid_after_utc:
            raise ValueError(f"{_subject(one)}: is not valid now")
        key_identifier(one)
    public = root.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise ValueError(f"{_subject(root)}: its key is neither of an elliptic curve nor RSA")
    if (names := uris(chain[0])) and [str(SpiffeId(trust_domain))] != names:
        raise ValueError(f"the certificate names {', '.join(names)}, not spiffe://{trust_domain}")
    return Authority(trust_domain, root, None, chain[0], key, chain[1:])


# --- encodings ------------------------------------------------------------------------------------


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS#8."""
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else None
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        how or serialization.NoEncryption(),
    )


def key_from_pem(text: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """ValueError when it is none of P-256, or the passphrase is wrong."""
    try:
        key = serialization.load_pem_private_key(text, passphrase)
    except TypeError as error:  # encrypted without a passphrase, or the other way round
        raise ValueError(str(error)) from None
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the key is not of the elliptic curve P-256")
    return key


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_identifier(certificate: x509.Certificate) -> str:
    """ValueError when it has none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise ValueError(f"{_subject(certificate)}: has no subject key identifier") from None
    return found.value.digest.hex()


def uri_of(named: x509.Certificate | x509.CertificateSigningRequest) -> SpiffeId:
    """ValueError when it is not exactly one."""
    found = uris(named)
    if len(found) != 1:
        raise ValueError("the certificate names no trust domain")
    return parse(found[0])


def uris(named: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    try:
        names = named.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


# --- parts ----------------------------------------------------------------------------------------


def _name(trust_domain: str, what: str, key: PrivateKey) -> x509.Name:
    """No two keys share a name: chains are looked for by it."""
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sixfold"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{what} {digest[:16]}"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {trust_domain}"[:64]),
        ]
    )


def _certificate(
    key: PrivateKey,
    issuer_key: PrivateKey,
    issuer: x509.Certificate | None,
    trust_domain: str,
    now: datetime,
    lifetime: timedelta,
    *,
    path_length: int,
) -> x509.Certificate:
    """Of an authority; without an issuer it is its own."""
    name = _name(trust_domain, "intermediate" if issuer else "root", key)
    public = key.public_key()
    return _signed(name, public, issuer_key, issuer, trust_domain, now, lifetime, path_length)


def _signed(
    name: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer_key: PrivateKey,
    issuer: x509.Certificate | None,
    trust_domain: str,
    now: datetime,
    lifetime: timedelta,
    path_length: int,
) -> x509.Certificate:
    ends = now + lifetime
    if issuer is not None:
        ends = min(ends, issuer.not_valid_after_utc)
    built = (
        _builder(name, name if issuer is None else issuer.subject, public, now, ends)
        .add_extension(_uri(SpiffeId(trust_domain)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if issuer is not None:
        built = built.add_extension(_issuer_key(issuer), critical=False)
    return built.sign(issuer_key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
    )


def _issuer_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _path_length(certificate: x509.Certificate) -> int:
    """How many authorities it may have below it; -1: it is none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return -1
    if not found.ca:
        return -1
    return 99 if found.path_length is None else found.path_length


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


def _uri(id_: SpiffeId) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(id_))])


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
