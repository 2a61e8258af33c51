"""Services of other trust domains that our workloads may dial, and ours that theirs may.

Pure. Both ways lead by a Gateway with a listener of protocol HBONE: nothing else of a node talks
to other trust domains, and its pod is whom network policy speaks of. Who is *in* a tunnel proves
it himself: the handshake is between the two workloads' proxies, and the Gateway passes it on,
unread, by the name in it.

Out: a BackendTLSPolicy with the authorities of another domain is about a Service that selects the
Gateway's pod. Its clients' connections leave there, under the client's own SVID, and one of the
SPIFFE IDs that the policy gives must answer. In: a TLSRoute at the listener says under which name
a Service of ours is known to others. Whom of them it serves is for AuthorizationPolicies to say
(``policy.foreign``); what is not federated is closed both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sixfold.balancing.members import cluster_addresses, selects
from sixfold.mesh import backend_tls
from sixfold.mesh.condition import Condition
from sixfold.mesh.routes import ServicePort
from sixfold.model.backendtls import BackendTLSPolicy
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.service import Service
from sixfold.model.spiffe import parse
from sixfold.model.world import World


class Foreign(NamedTuple):
    """A port of a Service whose backends are of another trust domain.

    addresses  what is dialled
    policy     ``namespace/name`` of what says so
    gateway    pod by which it leaves; "": none
    host       its name over there
    places     where it is let in
    ids        SPIFFE IDs of which one must answer
    domain     their trust domain
    closed     why nothing leaves; "": it does
    """

    port: ServicePort
    addresses: tuple[IPAddress, ...]
    policy: str
    gateway: str
    host: str
    places: tuple[tuple[IPAddress, int], ...]
    ids: tuple[str, ...]
    domain: str
    closed: str


class Export(NamedTuple):
    """A port of a pod of ours that others know by a name.

    gateways     pods by which they come
    looked_into  rules about requests are about it: it takes those, and no tunnel
    """

    host: str
    address: IPAddress
    port: int
    gateways: tuple[str, ...]
    looked_into: bool = False


def foreign_services(world: World) -> Mapping[ServicePort, Foreign]:
    return {
        port: _foreign(world, port, policy)
        for port, policy in sorted(backend_tls.holding(world).items())
        if policy.is_federated
    }


def _foreign(world: World, port: ServicePort, policy: BackendTLSPolicy) -> Foreign:
    one, meta = policy.spec.validation, policy.metadata
    service = world.services[port.service]
    gateway = gateway_of(world, service)
    ids = tuple(name.uri for name in one.subject_alt_names)
    domain = parse(ids[0]).trust_domain
    return Foreign(
        port,
        tuple(cluster_addresses(service)),
        f"{meta.namespace}/{meta.name}",
        gateway.key if gateway is not None else "",
        one.hostname,
        policy.places,
        ids,
        domain,
        why_closed(world, domain)
        or ("" if gateway is not None else f"{port.service} selects no pod of an HBONE Gateway"),
    )


def why_closed(world: World, domain: str) -> str:
    """Why nobody of a trust domain is spoken to; "" when some may be."""
    if domain == world.config.trust_domain:
        return f"{domain} is our own trust domain"
    if domain not in world.federated:
        return f"{domain} is not federated: no ClusterFederatedTrustDomain names it"
    return ""


def gateway_of(world: World, service: Service) -> Endpoint | None:
    """The pod of a Gateway that a Service selects."""
    found = (world.endpoints.get(pod) for pod in sorted(world.gateways_abroad))
    return next(
        (one for one in found if one is not None and selects(service, one.namespace, one.labels)),
        None,
    )


def status_of(world: World, policy: BackendTLSPolicy) -> dict[str, Any]:
    return backend_tls.status_of(world, policy, _refs(world, policy))


def _refs(world: World, policy: BackendTLSPolicy) -> Condition:
    """Whether a policy's authorities are known, and its backends reached."""
    domain = parse(policy.spec.validation.subject_alt_names[0].uri).trust_domain
    if closed := why_closed(world, domain):
        return Condition("ResolvedRefs", False, "InvalidCACertificateRef", closed)
    for one in foreign_services(world).values():
        meta = policy.metadata
        if one.policy == f"{meta.namespace}/{meta.name}" and one.closed:
            return Condition("ResolvedRefs", False, "NoGateway", one.closed)
    return Condition("ResolvedRefs", True, "ResolvedRefs", "")
