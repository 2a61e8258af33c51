"""What the version of 2026-11-28 kept as its authority: a root that may sign nothing but leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sixfold.trust.authority import Authority, create, key_pem, new_key, pem


def old_file(trust_domain: str, now: datetime) -> tuple[bytes, Authority]:
    """``authority.pem``, and the authority with that root."""
    made = create(trust_domain, now)
    builder = (
        x509.CertificateBuilder()
        .subject_name(made.root.subject)
        .issuer_name(made.root.subject)
        .public_key(made.root.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=3650))
    )
    for one in made.root.extensions:
        changed = isinstance(one.value, x509.BasicConstraints)
        value = x509.BasicConstraints(ca=True, path_length=0) if changed else one.value
        builder = builder.add_extension(value, one.critical)
    assert made.root_key
    root = builder.sign(made.root_key, hashes.SHA256())
    return pem(root) + key_pem(made.root_key) + key_pem(new_key()), replace(made, root=root)
