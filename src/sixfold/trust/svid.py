"""Is a certificate an X.509-SVID? What the specification asks of a leaf, rule by rule.

Pure. Source: X509-SVID 1.0, §§2-4 and appendix A.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sixfold.model.spiffe import parse

Kind = TypeVar("Kind", bound=x509.ExtensionType)
BOTH_ENDS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def faults(leaf: x509.Certificate) -> Iterator[str]:
    """What is wrong with it as the certificate of a workload."""
    yield from _faults_of_name(leaf)
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        yield "it may sign others (CA is true)"
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.critical:
        yield "its key usage is not said, or not critical"
    if usage is not None:
        if not usage.value.digital_signature:
            yield "its key usage lacks digitalSignature"
        if usage.value.key_cert_sign or usage.value.crl_sign:
            yield "its key usage has keyCertSign or cRLSign"
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if extended is not None and not set(extended.value) >= BOTH_ENDS:
        yield "its extended key usage is not for servers and clients both"


def _faults_of_name(leaf: x509.Certificate) -> Iterator[str]:
    names = _extension(leaf, x509.SubjectAlternativeName)
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if len(uris) != 1:
        yield f"it has {len(uris)} URI names, exactly one is wanted"
        return
    assert names is not None
    if not list(leaf.subject) and not names.critical:
        yield "without a subject, its alternative name is to be critical"
    try:
        id_ = parse(uris[0])
    except ValueError as error:
        yield str(error)
        return
    if not id_.path:
        yield f"{id_} names a trust domain, and no workload of it"


def _extension(leaf: x509.Certificate, kind: type[Kind]) -> x509.Extension[Kind] | None:
    try:
        return leaf.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
