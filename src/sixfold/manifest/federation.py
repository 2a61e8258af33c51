"""What is wrong with SPIRE's objects, beyond their shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from sixfold.manifest.metadata import selector
from sixfold.manifest.path import Finding, Path
from sixfold.model.clusterspiffeid import TEMPLATE, ClusterSPIFFEID
from sixfold.model.federation import ClusterFederatedTrustDomain
from sixfold.model.spiffe import check_trust_domain, parse
from sixfold.trust.attested import fault

_SPEC: Path = ("spec",)
_PROFILE: Path = (*_SPEC, "bundleEndpointProfile")


def federated_trust_domain(obj: ClusterFederatedTrustDomain) -> Iterator[Finding]:
    """Findings about the spec."""
    spec, profile = obj.spec, obj.spec.bundle_endpoint_profile
    yield from _wrong((*_SPEC, "trustDomain"), check_trust_domain, spec.trust_domain)
    url = urlsplit(spec.bundle_endpoint_url)
    if url.scheme != "https" or not url.hostname or url.username is not None:
        message = f"{spec.bundle_endpoint_url!r}: give https://HOST/PATH, without a user"
        yield Finding((*_SPEC, "bundleEndpointURL"), message)
    if spec.trust_domain_bundle:
        yield from _wrong((*_SPEC, "trustDomainBundle"), _is_bundle, spec.trust_domain_bundle)
    named = (*_PROFILE, "endpointSPIFFEID")
    if profile.type == "https_spiffe":
        yield from _wrong(named, parse, profile.endpoint_spiffe_id)
        of_itself = profile.endpoint_spiffe_id.startswith(f"spiffe://{spec.trust_domain}/")
        if not of_itself:
            yield Finding(named, f"is not of {spec.trust_domain}, which alone may vouch for it")
        elif not spec.trust_domain_bundle:
            message = "is required with https_spiffe: nothing else says whom to believe at first"
            yield Finding((*_SPEC, "trustDomainBundle"), message)
    elif profile.endpoint_spiffe_id:
        yield Finding(named, "is for https_spiffe; an endpoint of the web proves its host's name")


def spiffe_id(obj: ClusterSPIFFEID) -> Iterator[Finding]:
    """Findings about the spec."""
    spec = obj.spec
    if "".join(spec.spiffe_id_template.split()) != "".join(TEMPLATE.split()):
        message = f"is not how identities are named here; give {TEMPLATE}"
        yield Finding((*_SPEC, "spiffeIDTemplate"), message)
    for name, wanted in (
        ("namespaceSelector", spec.namespace_selector),
        ("podSelector", spec.pod_selector),
    ):
        if wanted is not None:
            yield from selector((*_SPEC, name), wanted)
    for index, text in enumerate(spec.workload_selector_templates):
        if wrong := fault(text):
            yield Finding((*_SPEC, "workloadSelectorTemplates", index), wrong)


def _wrong(path: Path, check: Callable[[str], object], value: str) -> Iterator[Finding]:
    try:
        check(value)
    except ValueError as error:
        yield Finding(path, str(error))


def _is_bundle(text: str) -> None:
    told = json.loads(text)
    if not isinstance(told, dict) or not isinstance(told.get("keys"), list):
        raise ValueError("is no JSON Web Key Set: no list of keys")
