"""The catalogue: who serves what, as Consul tells it, and since which index.

Pure. Instances are the endpoints of every Service's slices, and what registered itself. A service
has an index of its own: the number of the last change that touched it, so that a blocking query
wakes for its own service and no other (consul #3890). Numbers only grow, over restarts too, as
long as each agent is given a higher first one.

Theory of operation of ``Catalogue``. Services, slices and registrations are compared with the last
ones by object identity; what changed is built again, and counts when it is really another value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sixfold.balancing.changes import changes
from sixfold.balancing.members import cluster_addresses
from sixfold.discovery.registration import Health, Registration, Status, worst
from sixfold.discovery.vouched import SpiffeIds
from sixfold.model.service import (
    MANAGER_LABEL,
    REGISTRATIONS,
    EndpointSlice,
    Service,
    SliceEndpoint,
)
from sixfold.model.world import World

TAGS = "consul.hashicorp.com/service-tags"  # annotation of a Service, as consul-k8s reads it
META = "consul.hashicorp.com/service-meta-"

Slices = Mapping[str, tuple[EndpointSlice, ...]]


@dataclass(frozen=True, slots=True)
class CheckState:
    """One check of an instance, as it is shown."""

    id: str
    name: str
    status: Status
    output: str = ""
    notes: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One that serves. ``address`` "" is the node's."""

    service: str  # namespace/name
    id: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
    checks: tuple[CheckState, ...] = ()
    virtual: tuple[str, int] | None = None  # the Service's address and port

    @property
    def status(self) -> Status:
        return worst(check.status for check in self.checks)


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration and how its checks fare, in their order."""

    registration: Registration
    health: tuple[Health, ...]
    maintenance: str | None = None  # why; None: it is not

    @property
    def status(self) -> Status:
        if self.maintenance is not None:
            return "maintenance"
        return worst(health.status for health in self.health)


Registrations = Mapping[str, tuple[Registered, ...]]


class Catalogue:
    """What is known now; ``index`` is the number of the last change."""

    def __init__(self, first_index: int = 1) -> None:
        self.index = first_index
        self.instances: dict[str, tuple[Instance, ...]] = {}
        self._indexes: dict[str, int] = {}
        self._left = first_index  # when the last service vanished
        self._services: Mapping[str, Service] = {}
        self._ids = SpiffeIds(World())
        self._slices: Slices = {}
        self._registered: Registrations = {}

    def index_of(self, service: str) -> int:
        """The last change of a service; of one that is not there, the last that vanished."""
        return self._indexes.get(service, self._left)

    def update(self, world: World, slices: Slices, registered: Registrations) -> set[str]:
        """Take what is there now; returns the services whose instances changed."""
        services, self._ids = world.services, SpiffeIds(world)
        pairs = (
            (self._services, services),
            (self._slices, slices),
            (self._registered, registered),
        )
        dirty = {key for old, new in pairs for keys in changes(old, new) for key in keys}
        self._services, self._slices, self._registered = services, slices, registered
        changed = set()
        for key in sorted(dirty):
            built = self._build(key)
            if built != self.instances.get(key, ()):
                changed.add(key)
                self._put(key, built)
        return changed

    def _put(self, key: str, built: tuple[Instance, ...]) -> None:
        self.index += 1
        if built:
            self.instances[key] = built
            self._indexes[key] = self.index
        else:
            del self.instances[key], self._indexes[key]
            self._left = self.index

    def _build(self, key: str) -> tuple[Instance, ...]:
        service = self._services.get(key)
        slices = self._slices.get(key, ())
        found = list(_of_slices(service, slices, self._ids)) if service else []
        found += (_of_registration(one) for one in self._registered.get(key, ()))
        return tuple(found)


def _of_slices(
    service: Service, slices: Iterable[EndpointSlice], ids: SpiffeIds
) -> Iterator[Instance]:
    """Endpoints that are no registrations, each once: under the first address that it has."""
    meta = service.metadata
    tags = tuple(tag for tag in meta.annotations.get(TAGS, "").split(",") if tag)
    own_meta = {
        name.removeprefix(META): value
        for name, value in meta.annotations.items()
        if name.startswith(META)
    }
    addresses = cluster_addresses(service)
    first = service.spec.ports[0] if service.spec.ports else None
    virtual = (str(addresses[0]), first.port) if addresses and first else None
    seen = set()
    for slice_ in slices:
        if slice_.metadata.labels.get(MANAGER_LABEL) == REGISTRATIONS or (
            slice_.address_type == "FQDN"
        ):
            continue
        names = {port.name or "": port.port or 0 for port in slice_.ports}
        name = next(iter(names), "")
        ports = {f"port-{each}": str(number) for each, number in names.items() if each}
        for endpoint in slice_.endpoints:
            pod = endpoint.target_ref.name if endpoint.target_ref else ""
            called = pod or endpoint.addresses[0]
            if called in seen:
                continue
            seen.add(called)
            facts = {
                "external-source": "kubernetes",
                "k8s-namespace": meta.namespace,
                **({"pod-name": pod} if pod else {}),
                **({"spiffe-id": spiffe} if (spiffe := ids.of(meta.namespace, endpoint)) else {}),
                **({"port-name": name} if name else {}),
                **ports,
                **own_meta,
            }
            id_ = f"{meta.name}.{meta.namespace}:{called}"
            yield Instance(
                service=f"{meta.namespace}/{meta.name}",
                id=id_,
                address=endpoint.addresses[0],
                port=names.get(name, 0),
                tags=tuple(dict.fromkeys((*((name,) if name else ()), *tags))),
                meta=facts,
                checks=(_readiness(id_, endpoint),),
                virtual=virtual,
            )


def _readiness(id_: str, endpoint: SliceEndpoint) -> CheckState:
    ready = endpoint.conditions.ready and not endpoint.conditions.terminating
    why = "terminating" if endpoint.conditions.terminating else "not ready"
    return CheckState(
        f"service:{id_}",
        "Kubernetes Readiness Check",
        "passing" if ready else "critical",
        "ready" if ready else why,
        type="kubernetes-readiness",
    )


def _of_registration(one: Registered) -> Instance:
    asked = one.registration
    checks = [
        CheckState(check.id, check.name, health.status, health.output, check.notes, check.type)
        for check, health in zip(asked.checks, one.health, strict=True)
    ]
    if one.maintenance is not None:
        checks.append(
            CheckState(
                f"_service_maintenance:{asked.id}",
                "Service Maintenance Mode",
                "critical",
                notes=one.maintenance,
                type="maintenance",
            )
        )
    return Instance(
        service=asked.service,
        id=asked.id,
        address=asked.address,
        port=asked.port,
        tags=asked.tags,
        meta=asked.meta,
        weight=asked.weight,
        checks=tuple(checks),
    )
