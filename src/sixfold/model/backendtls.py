"""gateway.networking.k8s.io/v1 BackendTLSPolicy: backends that speak TLS themselves.

Source: Gateway API 1.4. It is about requests that a route leads to a Service: to its pods they go
in TLS, once more, and the pods prove to be who the policy says.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written

BACKEND_TLS = "BackendTLSPolicy"
AUTHORITIES = "ca.crt"  # key of a ConfigMap


class BackendTLSTarget(Object):
    """A Service of its namespace; ``section_name``: one of its ports, by name."""

    name: str
    group: str = ""
    kind: str = "Service"
    section_name: str = ""


class AuthorityReference(Object):
    name: str
    group: str = ""
    kind: str = "ConfigMap"


class SubjectAltName(Object):
    type: Literal["Hostname", "URI"]
    hostname: str = ""
    uri: str = ""


class BackendValidation(Object):
    """``hostname`` is named in the handshake, and must be proved, unless other names are given."""

    hostname: str
    ca_certificate_refs: list[AuthorityReference] = []
    well_known_ca_certificates: Literal["System"] | None = msgspec.field(
        default=None, name="wellKnownCACertificates"
    )
    subject_alt_names: list[SubjectAltName] = []


class BackendTLSPolicySpec(Object):
    target_refs: list[BackendTLSTarget]
    validation: BackendValidation


class BackendTLSPolicy(Object):
    metadata: ObjectMeta
    spec: BackendTLSPolicySpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("BackendTLSPolicy")
    status: dict[str, Any] = {}
