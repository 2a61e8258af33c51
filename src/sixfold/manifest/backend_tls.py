"""What is wrong with a BackendTLSPolicy, beyond its shape."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from sixfold.manifest import names
from sixfold.manifest.metadata import said
from sixfold.manifest.path import Finding, Path
from sixfold.model.backendtls import FEDERATED, PLACES, BackendTLSPolicy
from sixfold.model.spiffe import parse

TARGETS_MAX, REFERENCES_MAX, NAMES_MAX = 16, 8, 5


def backend_tls(obj: BackendTLSPolicy) -> Iterator[Finding]:
    """Findings about the spec."""
    path: Path = ("spec", "targetRefs")
    if not 1 <= len(obj.spec.target_refs) <= TARGETS_MAX:
        yield Finding(path, f"has {len(obj.spec.target_refs)}; give 1 to {TARGETS_MAX}")
    for index, target in enumerate(obj.spec.target_refs):
        if (target.group, target.kind) != ("", "Service"):
            yield Finding((*path, index, "kind"), f"{target.kind} is no target; give a Service")
    path = ("spec", "validation")
    one = obj.spec.validation
    yield from said((*path, "hostname"), names.dns_subdomain(one.hostname))
    references = one.ca_certificate_refs
    if bool(references) == (one.well_known_ca_certificates is not None):
        text = "give either this or wellKnownCACertificates: System, and not both"
        yield Finding((*path, "caCertificateRefs"), text)
    if len(references) > REFERENCES_MAX:
        yield Finding((*path, "caCertificateRefs"), f"give at most {REFERENCES_MAX}")
    for index, reference in enumerate(references):
        if (reference.group, reference.kind) != ("", "ConfigMap"):
            where = (*path, "caCertificateRefs", index, "kind")
            yield Finding(where, f"{reference.kind} is none here; give a ConfigMap with ca.crt")
    if len(one.subject_alt_names) > NAMES_MAX:
        yield Finding((*path, "subjectAltNames"), f"give at most {NAMES_MAX}")
    for index, name in enumerate(one.subject_alt_names):
        here = (*path, "subjectAltNames", index)
        if bool(name.hostname) == bool(name.uri) or (name.type == "URI") != bool(name.uri):
            yield Finding((*here, "type"), f"type {name.type} goes with exactly its own field")
        elif name.hostname:
            host = name.hostname.removeprefix("*.")
            yield from said((*here, "hostname"), names.dns_subdomain(host))
        elif not urlsplit(name.uri).scheme:
            yield Finding((*here, "uri"), f"{names.quoted(name.uri)} has no scheme")
    yield from _federated(obj)


def _federated(obj: BackendTLSPolicy) -> Iterator[Finding]:
    """What goes with the authorities of other trust domains, and with nothing else."""
    options, path = obj.spec.options, ("spec", "options")
    for key in sorted(options):
        if key != PLACES:
            yield Finding((*path, key), f"is no option here; {PLACES} is")
        elif not obj.is_federated:
            text = f"goes with wellKnownCACertificates: {FEDERATED}, and with nothing else"
            yield Finding((*path, key), text)
        else:
            try:
                places = obj.places
            except ValueError as error:
                yield Finding((*path, key), str(error))
            else:
                if not places:
                    yield Finding((*path, key), "names no place; give ADDRESS:PORT")
    if not obj.is_federated:
        return
    if PLACES not in options:
        text = "is required with these authorities: where the other trust domain lets us in"
        yield Finding((*path, PLACES), text)
    where: Path = ("spec", "validation", "subjectAltNames")
    given = obj.spec.validation.subject_alt_names
    if not given:
        yield Finding(where, "is required with these authorities; give SPIFFE IDs")
    domains = set()
    for index, name in enumerate(given):
        try:
            domains.add(parse(name.uri).trust_domain)
        except ValueError as error:
            yield Finding((*where, index, "uri"), str(error))
    if len(domains) > 1:
        yield Finding(where, f"are of {' and '.join(sorted(domains))}; give IDs of one domain")
