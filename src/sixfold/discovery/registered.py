"""Registrations as endpoints: one EndpointSlice each, beside those that somebody wrote.

Pure. So balancing, names and policy treat what registered itself like any other endpoint. A pod's
own registration counts while the Service says that it takes such; that of the operator always.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address

from sixfold.balancing.members import families
from sixfold.discovery.catalog import Registered, Registrations
from sixfold.model.algorithm import WEIGHT
from sixfold.model.config import Config
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import (
    MANAGER_LABEL,
    REGISTRATIONS,
    SERVICE_LABEL,
    EndpointConditions,
    EndpointSlice,
    IPFamily,
    ObjectReference,
    Service,
    SliceEndpoint,
    SlicePort,
)

REGISTRATION = "sixfold.dev/registration"  # on a Service: pods may register themselves behind it
OPEN = "open"

Slices = Mapping[str, EndpointSlice]


def takes_pods(service: Service | None) -> bool:
    """Whether pods may register themselves behind this Service."""
    return service is not None and service.metadata.annotations.get(REGISTRATION) == OPEN


class RegisteredSlices:
    """Slices of registrations; of those that did not change, the same objects, and the same
    mapping of all."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._made: dict[str, tuple[Registered, Service, EndpointSlice]] = {}
        self._identities: dict[str, int] = {}
        self._slices: Slices = {}

    def take(self, registrations: Registrations, services: Mapping[str, Service]) -> Slices:
        """By ``namespace/name`` of the slice."""
        made: dict[str, tuple[Registered, Service, EndpointSlice]] = {}
        for key, group in registrations.items():
            service = services.get(key)
            for one in group if service is not None else ():
                assert service is not None
                if one.registration.own and not takes_pods(service):
                    continue
                name = f"{key}-registration-{sha256(one.registration.id.encode()).hexdigest()[:10]}"
                known = self._made.get(name)
                if known is None or known[0] is not one or known[1] is not service:
                    known = (one, service, slice_of(name, one, service, self._config))
                made[name] = known
        if {key: id(one[2]) for key, one in made.items()} != self._identities:
            self._identities = {key: id(one[2]) for key, one in made.items()}
            self._slices = {name: slice_ for name, (_, _, slice_) in made.items()}
        self._made = made
        return self._slices


def slice_of(name: str, one: Registered, service: Service, config: Config) -> EndpointSlice:
    """The slice of one registration: its port is that of the service's first."""
    asked = one.registration
    if asked.address:
        address = ip_address(asked.address)
        family: IPFamily = "IPv4" if address.version == 4 else "IPv6"
    else:
        family = families(service)[0]
        address = config.host_ipv4 if family == "IPv4" else config.host_ipv6
    first = service.spec.ports[0] if service.spec.ports else None
    number = asked.port or (first.port if first else None)
    ready = one.status in ("passing", "warning")
    namespace, _, label = name.partition("/")
    pod = ObjectReference("Pod", namespace, asked.owner.partition("/")[2])
    return EndpointSlice(
        metadata=ObjectMeta(
            name=label,
            namespace=namespace,
            labels={SERVICE_LABEL: service.metadata.name, MANAGER_LABEL: REGISTRATIONS},
            annotations={WEIGHT: str(asked.weight)},
        ),
        address_type=family,
        endpoints=[
            SliceEndpoint(
                addresses=[str(address)],
                conditions=EndpointConditions(ready=ready, serving=ready),
                node_name=config.node,
                target_ref=pod
                if asked.owner
                else ObjectReference("Registration", namespace, asked.id),
            )
        ],
        ports=[
            SlicePort(
                name=first.name if first else None,
                port=number,
                protocol=first.protocol if first else "TCP",
            )
        ],
    )
