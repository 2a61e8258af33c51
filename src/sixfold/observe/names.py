"""Who is behind an address, an identity, a rule number: the tables that events are joined with.

Pure. The agent fills them; entries outlive what they name, because events are joined when
somebody reads them, and a pod that is gone still has flows in the log. An address keeps its
last owner: the address pool does not hand it out again for ``Config.ip_reuse_grace_s``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from sixfold.model.endpoint import Endpoint
from sixfold.model.flow import Peer
from sixfold.model.identity import RESERVED_NAMES, UNKNOWN, WORLD, Identity, Subject
from sixfold.model.rule import Rule

IPAddress = IPv4Address | IPv6Address

DOMAINS_MAX = 32_768  # addresses of the world that have a name
NAMES_MAX = 8  # of one of them


@dataclass(frozen=True, slots=True)
class Owner:
    """The pod that has, or last had, an address."""

    namespace: str
    pod: str
    workload: str  # "Deployment/web"
    endpoint_id: int
    identity: Identity = UNKNOWN


@dataclass(frozen=True, slots=True)
class ServiceName:
    """What a service number stands for; ``port`` is where clients knock."""

    namespace: str
    name: str
    port: int


@dataclass(slots=True)
class Names:
    """Lookup tables; plain dicts, so that the agent may also hand over its own."""

    owners: dict[IPAddress, Owner] = field(default_factory=dict)
    interfaces: dict[int, Owner] = field(default_factory=dict)  # by host-side ifindex
    labels: dict[Identity, tuple[str, ...]] = field(default_factory=dict)
    rules: dict[int, Rule] = field(default_factory=dict)
    services: dict[int, ServiceName] = field(default_factory=dict)
    domains: dict[IPAddress, tuple[str, ...]] = field(default_factory=dict)
    node: str = ""
    _taken: dict[int, Endpoint] = field(default_factory=dict)  # by ifindex, as of update()

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Name the endpoint's addresses and its identity."""
        owner = Owner(
            endpoint.namespace, endpoint.pod, endpoint.workload, endpoint.id, endpoint.identity
        )
        for address in endpoint.addresses:
            self.owners[address] = owner
        if endpoint.ifindex:
            self.interfaces[endpoint.ifindex] = owner
        self.labels[endpoint.identity] = identity_labels(endpoint.subject)

    def add_domain(self, name: str, addresses: Iterable[IPAddress]) -> None:
        """A name of the world has resolved to these; of too many the oldest is forgotten."""
        for address in addresses:
            known = tuple(one for one in self.domains.pop(address, ()) if one != name)
            self.domains[address] = (*known, name)[-NAMES_MAX:]
            if len(self.domains) > DOMAINS_MAX:
                del self.domains[next(iter(self.domains))]

    def update(self, endpoints: Iterable[Endpoint]) -> None:
        """Take over what is now; what is gone keeps its name. Cost follows the change."""
        for endpoint in endpoints:
            if self._taken.get(endpoint.ifindex) is not endpoint:
                self._taken[endpoint.ifindex] = endpoint
                self.add_endpoint(endpoint)

    def labels_of(self, identity: Identity) -> tuple[str, ...]:
        """Labels of an identity; reserved ones name themselves."""
        if (known := self.labels.get(identity)) is not None:
            return known
        reserved = RESERVED_NAMES.get(identity)
        return (reserved,) if reserved else ()


def identity_labels(subject: Subject) -> tuple[str, ...]:
    """A subject's labels as Cilium spells them, so that Hubble's filters work unchanged."""
    return (
        *(f"k8s:{key}={value}" if value else f"k8s:{key}" for key, value in subject.labels),
        f"k8s:io.cilium.k8s.policy.serviceaccount={subject.service_account}",
        f"k8s:io.kubernetes.pod.namespace={subject.namespace}",
    )


def domain_labels(patterns: Iterable[str]) -> tuple[str, ...]:
    """Labels of an identity of domain patterns, as Cilium spells them."""
    return (*(f"fqdn:{one}" for one in sorted(patterns)), RESERVED_NAMES[WORLD])


def cidr_labels(network: object) -> tuple[str, ...]:
    """Labels of a local CIDR identity: the block, and that it lies outside."""
    return (f"cidr:{network}", RESERVED_NAMES[WORLD])


def peer_at(names: Names, address: IPAddress, port: int) -> Peer:
    """Whoever has an address, or had it last; else the world."""
    owner = names.owners.get(address)
    if owner is None:
        known = names.domains.get(address, ())
        return Peer(address, port, WORLD, labels=names.labels_of(WORLD), names=known)
    return Peer(
        address,
        port,
        owner.identity,
        owner.namespace,
        owner.pod,
        owner.workload,
        names.labels_of(owner.identity),
        owner.endpoint_id,
    )
