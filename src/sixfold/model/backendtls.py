"""gateway.networking.k8s.io/v1 BackendTLSPolicy: backends that speak TLS themselves.

Source: Gateway API 1.4. It is about requests that a route leads to a Service: to its pods they go
in TLS, once more, and the pods prove to be who the policy says. With the authorities of other trust
domains (``sixfold.dev/federated``) it is about a Service whose backends are there: all connections
to it leave by the Gateway that it selects, and whoever is at the other end proves his SPIFFE ID.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.datapath import IPAddress
from sixfold.model.meta import Object, ObjectMeta, written
from sixfold.model.place import read_place

BACKEND_TLS = "BackendTLSPolicy"
AUTHORITIES = "ca.crt"  # key of a ConfigMap
FEDERATED = "sixfold.dev/federated"  # authorities: of the trust domain that the names are of
PLACES = "sixfold.dev/endpoints"  # option: ADDRESS:PORT, …; where the other domain lets us in


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
    well_known_ca_certificates: Literal["System", "sixfold.dev/federated"] | None = msgspec.field(
        default=None, name="wellKnownCACertificates"
    )
    subject_alt_names: list[SubjectAltName] = []


class BackendTLSPolicySpec(Object):
    target_refs: list[BackendTLSTarget]
    validation: BackendValidation
    options: dict[str, str] = {}


class BackendTLSPolicy(Object):
    metadata: ObjectMeta
    spec: BackendTLSPolicySpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("BackendTLSPolicy")
    status: dict[str, Any] = {}

    @property
    def is_federated(self) -> bool:
        """Whether its backends are of another trust domain."""
        return self.spec.validation.well_known_ca_certificates == FEDERATED

    @property
    def places(self) -> tuple[tuple[IPAddress, int], ...]:
        """Where they are let in; ValueError says what is wrong."""
        given = self.spec.options.get(PLACES, "").split(",")
        return tuple(read_place(one.strip()) for one in given if one.strip())
