"""Which endpoints serve a service, and at which port: the questions that plan and explain share.

Source: core/v1 Service and discovery.k8s.io/v1 EndpointSlice, as Kubernetes' endpoint slice
controller reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from sixfold.balancing.written import Written, written_for
from sixfold.model.endpoint import Endpoint
from sixfold.model.health import panic_percent
from sixfold.model.locality import failover_of
from sixfold.model.seen import NOTHING_SEEN, Seen
from sixfold.model.service import IPFamily, Service, ServicePort
from sixfold.model.world import World

IPAddress = IPv4Address | IPv6Address
Member = Endpoint | Written  # who serves a service


def selects(service: Service, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a pod belongs to a service; an empty selector selects nothing."""
    selector = service.spec.selector
    return (
        bool(selector)
        and service.spec.type != "ExternalName"
        and service.metadata.namespace == namespace
        and all(labels.get(key) == value for key, value in selector.items())
    )


def members_of(world: World, service: Service, key: str) -> list[Member]:
    """Everybody who serves it, when only a few services are asked about; ``key`` is its name."""
    found: list[Member] = []
    if service.spec.selector:
        found += (
            one
            for _, one in sorted(world.endpoints.items())
            if selects(service, one.namespace, one.labels)
        )
    return [*found, *written_for(world.slices, key)]


def target_port(port: ServicePort, endpoint: Member) -> int | None:
    """The port behind a service port; None when the pod has none of that name.

    A written slice has it under the name of the service's port, and ``targetPort`` is not read.
    """
    if isinstance(endpoint, Written):
        return endpoint.ports.get((port.name, port.protocol))
    wanted = port.target_port or port.port
    if isinstance(wanted, int):
        return wanted
    named = (*endpoint.publish_ports, *endpoint.subject.named_ports)
    found = (p.port for p in named if p.name == wanted and p.protocol == port.protocol)
    return next(found, None)


def target_ports(port: ServicePort, members: Sequence[Member]) -> list[int | None]:
    """Of all of them, in order."""
    wanted = port.target_port or port.port
    if isinstance(wanted, str):
        return [target_port(port, one) for one in members]
    return [wanted if type(one) is Endpoint else target_port(port, one) for one in members]


def cluster_addresses(service: Service) -> tuple[IPAddress, ...]:
    """The cluster addresses, primary first; none when headless or not yet allocated."""
    written = service.spec.cluster_ips or [service.spec.cluster_ip]
    return tuple([_parsed(text) for text in written if text and text != "None"])


@lru_cache(maxsize=4096)  # several ask the same of a service, in every round
def _parsed(text: str) -> IPAddress:
    return ip_address(text)


def families(service: Service) -> tuple[IPFamily, ...]:
    """Address families of the service, primary first; single-stack IPv4 unless it says more.

    Who is behind a headless service without selector is of any family.
    """
    if service.spec.ip_families:
        return tuple(service.spec.ip_families)
    if addresses := cluster_addresses(service):
        return tuple("IPv4" if address.version == 4 else "IPv6" for address in addresses)
    anybody = service.spec.headless and not service.spec.selector
    policy = service.spec.ip_family_policy or ("RequireDualStack" if anybody else "SingleStack")
    if policy != "SingleStack":
        return ("IPv4", "IPv6")
    return ("IPv4",)


def address_of(endpoint: Member, family: IPFamily) -> IPAddress | None:
    return endpoint.ipv4 if family == "IPv4" else endpoint.ipv6


def addresses_of(members: Sequence[Member], family: IPFamily) -> list[IPAddress | None]:
    """Of all of them, in order."""
    return [one.ipv4 for one in members] if family == "IPv4" else [one.ipv6 for one in members]


def is_ready(service: Service, endpoint: Member) -> bool:
    """Whether new connections may go there; publishNotReadyAddresses overrules all."""
    if service.spec.publish_not_ready_addresses:
        return True
    return endpoint.ready and not endpoint.terminating


def place_of(endpoint: Member) -> IPAddress | None:
    """The address by which ``Seen`` knows a backend: its first."""
    return endpoint.ipv4 or endpoint.ipv6


def takes_new(service: Service, endpoint: Member, seen: Seen = NOTHING_SEEN) -> bool:
    """Whether the balancer sends new connections there; what is in maintenance keeps its old."""
    healthy = not seen.unhealthy or place_of(endpoint) not in seen.unhealthy
    return healthy and is_ready(service, endpoint) and _has_share(endpoint)


def receivers(
    service: Service, endpoints: Sequence[Member], seen: Seen = NOTHING_SEEN
) -> list[Member]:
    """Whom new connections go to: those that take new ones; if none does, those that still serve
    on their way out (KEP-1669). In panic everybody who is not on his way out."""
    if panics(service, endpoints, seen):
        return [one for one in endpoints if not one.terminating and _has_share(one)]
    chosen = [endpoint for endpoint in endpoints if takes_new(service, endpoint, seen)]
    return chosen or [
        endpoint
        for endpoint in endpoints
        if endpoint.terminating and endpoint.serving and _has_share(endpoint)
    ]


def panics(service: Service, endpoints: Sequence[Member], seen: Seen = NOTHING_SEEN) -> bool:
    """Whether so few are healthy that the rest would only be overrun (Envoy's panic threshold)."""
    percent = panic_percent(service.metadata.annotations)
    if percent is None:
        return False
    if failover_of(service.metadata.annotations) is not None:
        percent = 0  # the places that are well carry what the others do not
    here = [one for one in endpoints if not one.terminating and _has_share(one)]
    healthy = sum(takes_new(service, one, seen) for one in here)
    if not healthy and any(one.terminating and one.serving for one in endpoints):
        return False
    return healthy < len(here) and (not healthy or healthy * 100 < percent * len(here))


def weight_now(endpoint: Member, seen: Seen = NOTHING_SEEN) -> int:
    """Its share: while somebody of the service starts slowly, in tenths."""
    if not seen.ramps:
        return endpoint.weight
    place = place_of(endpoint)
    percent = seen.ramps.get(place, 100) if place is not None else 100
    return max(1, endpoint.weight * percent // 10)


def _has_share(endpoint: Member) -> bool:
    return endpoint.weight > 0 and not endpoint.drained
