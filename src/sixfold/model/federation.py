"""spire.spiffe.io/v1alpha1 ClusterFederatedTrustDomain: whose identities are known besides ours."""

from __future__ import annotations

from typing import Literal

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written

FEDERATED_DOMAIN = "ClusterFederatedTrustDomain"


class BundleEndpointProfile(Object):
    """How the endpoint proves itself: as the web does, or by an SVID of its trust domain."""

    type: Literal["https_web", "https_spiffe"]
    endpoint_spiffe_id: str = msgspec.field(name="endpointSPIFFEID", default="")


class ClusterFederatedTrustDomainSpec(Object):
    """``trust_domain_bundle``: what is trusted until the endpoint has been heard."""

    trust_domain: str
    bundle_endpoint_url: str = msgspec.field(name="bundleEndpointURL")
    bundle_endpoint_profile: BundleEndpointProfile
    trust_domain_bundle: str = ""


class ClusterFederatedTrustDomain(Object):
    metadata: ObjectMeta
    spec: ClusterFederatedTrustDomainSpec
    api_version: str = written("spire.spiffe.io/v1alpha1")
    kind: str = written(FEDERATED_DOMAIN)
