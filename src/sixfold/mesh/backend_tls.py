"""Which backends speak TLS themselves, and how do they prove who they are?

Pure. Between the proxies a request goes in mTLS, as any; the last step, from the proxy in the pod's
namespace to the pod's process, is in TLS then, and checked. What cannot be checked is not sent.
Of several policies about a port one that names it goes before others, then the oldest (GEP-713,
GEP-1897).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from sixfold.mesh.certificates import authorities
from sixfold.mesh.condition import Condition, told_of_targets
from sixfold.mesh.routes import ServicePort
from sixfold.model.backendtls import AUTHORITIES, BackendTLSPolicy, BackendTLSTarget
from sixfold.model.world import World

SYSTEM = "/etc/ssl/certs/ca-certificates.crt"  # whom the host trusts


class Verified(NamedTuple):
    """How a backend is looked at.

    pem    who may vouch for it; "": whom the host trusts
    names  of which its certificate has one: kind, as Envoy calls it, and text
    """

    host: str
    pem: str
    names: tuple[tuple[str, str], ...]


Tls = Verified | Condition  # or why it cannot be looked at


def tls_of(world: World) -> Mapping[ServicePort, Tls]:
    return {
        port: verified(world, policy)
        for port, policy in holding(world).items()
        if not policy.is_federated
    }


def verified(world: World, policy: BackendTLSPolicy) -> Tls:
    one = policy.spec.validation
    texts = []
    for reference in one.ca_certificate_refs:
        name = f"{policy.metadata.namespace}/{reference.name}"
        found = world.config_maps.get(name)
        text = found.data.get(AUTHORITIES, "") if found is not None else ""
        if found is None or not authorities(text.encode()):
            what = "is not there" if found is None else f"has no certificates in {AUTHORITIES}"
            message = f"configmap {name} {what}"
            return Condition("ResolvedRefs", False, "InvalidCACertificateRef", message)
        texts.append(text if text.endswith("\n") else f"{text}\n")
    names = tuple(
        ("DNS", name.hostname) if name.type == "Hostname" else ("URI", name.uri)
        for name in one.subject_alt_names
    )
    return Verified(one.hostname, "".join(texts), names or (("DNS", one.hostname),))


def context(one: Verified, protocol: str) -> tls_pb2.UpstreamTlsContext:
    """``protocol`` of requests, as ALPN names it."""
    trusted = {"inline_string": one.pem} if one.pem else {"filename": SYSTEM}
    return tls_pb2.UpstreamTlsContext(
        sni=one.host,
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": [protocol],
            "validation_context": {
                "trusted_ca": trusted,
                "match_typed_subject_alt_names": [
                    {"san_type": kind, "matcher": {"exact": text}} for kind, text in one.names
                ],
            },
        },
    )


def status_of(
    world: World, policy: BackendTLSPolicy, refs: Condition | None = None
) -> dict[str, Any]:
    """``status``: an entry for each target; ``refs``: of who may vouch, where that is known."""
    found = verified(world, policy) if refs is None else refs
    if isinstance(found, Condition):
        refs = found
    else:
        refs = Condition("ResolvedRefs", True, "ResolvedRefs", "")
    return told_of_targets(
        policy.metadata,
        (
            (target, [_accepted(world, policy, target, refs), refs])
            for target in policy.spec.target_refs
        ),
    )


def _accepted(
    world: World, policy: BackendTLSPolicy, target: BackendTLSTarget, refs: Condition
) -> Condition:
    held = holding(world)
    ports = [*_ports(world, policy, target)]
    if not ports:
        text = f"there is no service {policy.metadata.namespace}/{target.name} with such a TCP port"
        return Condition("Accepted", False, "TargetNotFound", text)
    for port in ports:
        if (other := held[port]) is not policy:
            meta = other.metadata
            text = f"{meta.namespace}/{meta.name} goes before it, for {port}"
            return Condition("Accepted", False, "Conflicted", text)
    if not refs.holds:
        return Condition("Accepted", False, "NoValidCACertificate", refs.message)
    about = "connections to it" if policy.is_federated else "requests of routes"
    return Condition("Accepted", True, "Accepted", f"in force for {about}")


def holding(world: World) -> dict[ServicePort, BackendTLSPolicy]:
    """Which policy each port has."""
    found: dict[ServicePort, BackendTLSPolicy] = {}
    policies = sorted(world.backend_tls.values(), key=_age)
    for named in (True, False):
        for policy in policies:
            for target in policy.spec.target_refs:
                if bool(target.section_name) == named:
                    for port in _ports(world, policy, target):
                        found.setdefault(port, policy)
    return found


def _ports(
    world: World, policy: BackendTLSPolicy, target: BackendTLSTarget
) -> Iterator[ServicePort]:
    name = f"{policy.metadata.namespace}/{target.name}"
    service = world.services.get(name)
    for port in service.spec.ports if service is not None else ():
        if port.protocol == "TCP" and target.section_name in ("", port.name):
            yield ServicePort(name, port.port)


def _age(policy: BackendTLSPolicy) -> tuple[str, str, str]:
    meta = policy.metadata
    return meta.creation_timestamp or "9", meta.namespace, meta.name
