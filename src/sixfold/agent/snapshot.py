"""The snapshot: one frozen World out of the store and what runs.

Objects that did not change are the same Python objects as in the last snapshot, so planners
can tell by ``is`` what to plan again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sixfold.agent.balancers import Balancers
from sixfold.agent.ledger import Ledger
from sixfold.agent.registrations import Registrations
from sixfold.discovery.registered import RegisteredSlices
from sixfold.model.acceleration import asks_for_acceleration
from sixfold.model.algorithm import is_drained, weight_of
from sixfold.model.backendtls import BACKEND_TLS
from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress
from sixfold.model.discovery import asks_for_redirects, is_open
from sixfold.model.endpoint import Endpoint
from sixfold.model.enforcement import in_audit
from sixfold.model.entries import entry_domains, entry_services, entry_slices, merged
from sixfold.model.federation import FEDERATED_DOMAIN
from sixfold.model.httproute import ROUTE_KINDS
from sixfold.model.layers import Layers
from sixfold.model.locality import locality_of
from sixfold.model.meta import ObjectMeta, namespace_labels
from sixfold.model.peerauthentication import PEER_AUTHENTICATION
from sixfold.model.placement import Placement, placed_as
from sixfold.model.policies import POLICY_KINDS, policy_key
from sixfold.model.pool import POOL_KIND
from sixfold.model.posture import POSTURE, Posture, Relaxation, in_force
from sixfold.model.service import EndpointSlice
from sixfold.model.serviceentry import DESTINATION_RULE, SERVICE_ENTRY
from sixfold.model.streamroute import STREAM_KINDS
from sixfold.model.subject import container_ports, probe_ports, subject_of
from sixfold.model.trafficpolicy import TRAFFIC_POLICY
from sixfold.model.world import World
from sixfold.store import Objects, Stored
from sixfold.workloads.pod_state import PodState

T = TypeVar("T")


class Snapshots:
    """Takes Worlds; keeps what it built for the next one."""

    def __init__(
        self,
        config: Config,
        objects: Objects,
        ledger: Ledger,
        registrations: Registrations,
        balancers: Balancers,
    ) -> None:
        self._balancers = balancers
        self._given = self._config = config
        self._objects = objects
        self._ledger = ledger
        self._endpoints: dict[str, tuple[Stored, PodState, Endpoint]] = {}
        self._taken: Layers[str, Endpoint] = Layers()
        self._version = -1
        self._known: dict[str, tuple[list[int], Any]] = {}  # what was made, by name
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._audited: frozenset[str] = frozenset()
        self._accelerated: frozenset[str] = frozenset()  # namespaces
        self._redirected: frozenset[str] = frozenset()
        self._placed: dict[str, Placement] = {}
        self._told: frozenset[str] = frozenset()
        self._posture: Posture | None = None
        self._relaxations: tuple[Relaxation, ...] = ()
        self._services: Mapping[str, Any] = {}
        self._slices: dict[str, Any] = {}
        self._registrations = registrations
        self._combined: tuple[Any, Any, Mapping[str, Any]] = (None, None, {})
        self._registered = RegisteredSlices(config)
        self._policies: dict[str, Any] = {}
        self._cidr_groups: dict[str, Any] = {}
        self._peer_authentications: dict[str, Any] = {}
        self._routes: dict[str, Any] = {}
        self._grants: dict[str, Any] = {}
        self._traffic: dict[str, Any] = {}
        self._gateways: dict[str, Any] = {}
        self._gateway_classes: dict[str, Any] = {}
        self._listener_sets: dict[str, Any] = {}
        self._secrets: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}
        self._backend_tls: dict[str, Any] = {}
        self._service_entries: dict[str, Any] = {}
        self._entry_domains: dict[str, frozenset[IPAddress]] = {}
        self._named: tuple[Any, Any, Mapping[str, frozenset[IPAddress]]] = (None, None, {})
        self._destination_rules: dict[str, Any] = {}
        self._config_maps: dict[str, Any] = {}
        self._federated: frozenset[str] = frozenset()
        self._spiffe_ids: dict[str, Any] = {}

    def take(
        self,
        states: Mapping[str, PodState],
        domains: Mapping[str, frozenset[IPAddress]],
        now_s: float,
    ) -> World:
        """The world now; ``states`` by pod key, ``domains`` as resolved."""
        if self._version != self._objects.version:
            self._refresh()
            self._version = self._objects.version
        if (relaxations := in_force(self._posture, now_s)) != self._relaxations:
            self._relaxations = relaxations
        registered = self._registered.take(self._registrations.by_service, self._services)
        return World(
            config=self._config,
            namespaces=self._namespaces,
            endpoints=self._take_endpoints(states),
            services=self._services,
            slices=self._with_registered(registered),
            policies=self._policies,
            routes=self._routes,
            grants=self._grants,
            traffic=self._traffic,
            gateways=self._gateways,
            gateway_classes=self._gateway_classes,
            listener_sets=self._listener_sets,
            secrets=self._secrets,
            streams=self._streams,
            backend_tls=self._backend_tls,
            service_entries=self._service_entries,
            destination_rules=self._destination_rules,
            config_maps=self._config_maps,
            federated=self._federated,
            spiffe_ids=self._spiffe_ids,
            cidr_groups=self._cidr_groups,
            peer_authentications=self._peer_authentications,
            audited=self._audited,
            told=self._told,
            relaxations=self._relaxations,
            domains=self.with_entries(domains),
        )

    def with_entries(
        self, domains: Mapping[str, frozenset[IPAddress]]
    ) -> Mapping[str, frozenset[IPAddress]]:
        """What names have resolved to, and where entries say that hosts are; the same mapping as
        long as nothing is another."""
        if not self._entry_domains:
            return domains
        resolved, said, found = self._named
        if resolved is not domains or said is not self._entry_domains:
            found = merged(domains, self._entry_domains)
            self._named = domains, self._entry_domains, found
        return found

    def _with_registered(self, registered: Mapping[str, EndpointSlice]) -> Mapping[str, Any]:
        """All written slices; the same mapping as long as nothing is another."""
        written, before, combined = self._combined
        if written is not self._slices or before is not registered:
            combined = {**self._slices, **registered} if registered else self._slices
            self._combined = (self._slices, registered, combined)
        return combined

    def _refresh(self) -> None:
        self._made("Namespace", ("Namespace",), self._take_namespaces)
        self._follow_posture()
        of_services = "Service", POOL_KIND, SERVICE_ENTRY
        self._services = self._made("services", of_services, self._take_services)
        self._slices = self._made("slices", ("EndpointSlice", SERVICE_ENTRY), self._take_slices)
        self._policies = self._made("policies", POLICY_KINDS, self._take_policies)
        self._peer_authentications = self._by_name(PEER_AUTHENTICATION)
        self._routes = self._made("routes", ROUTE_KINDS, lambda: self._by_kind(ROUTE_KINDS))
        self._streams = self._made("streams", STREAM_KINDS, lambda: self._by_kind(STREAM_KINDS))
        self._grants = self._by_name("ReferenceGrant")
        self._traffic = self._by_name(TRAFFIC_POLICY)
        self._gateways = self._by_name("Gateway")
        self._listener_sets = self._by_name("ListenerSet")
        self._secrets = self._by_name("Secret")
        self._backend_tls = self._by_name(BACKEND_TLS)
        self._config_maps = self._by_name("ConfigMap")
        self._federated = self._made(FEDERATED_DOMAIN, (FEDERATED_DOMAIN,), self._take_federated)
        self._service_entries = self._by_name(SERVICE_ENTRY)
        self._entry_domains = self._made(
            "domains", (SERVICE_ENTRY,), lambda: entry_domains(self._service_entries)
        )
        self._destination_rules = self._by_name(DESTINATION_RULE)
        self._gateway_classes = self._of_cluster("GatewayClass")
        self._cidr_groups = self._of_cluster("CiliumCIDRGroup")
        self._spiffe_ids = self._of_cluster("ClusterSPIFFEID")

    def _made(self, name: str, kinds: Sequence[str], make: Callable[[], T]) -> T:
        """What is made of the objects of some kinds; the same while each of them is."""
        turns = [self._objects.turn(kind) for kind in kinds]
        known = self._known.get(name)
        if known is None or known[0] != turns:
            known = self._known[name] = turns, make()
        found: T = known[1]
        return found

    def _take_namespaces(self) -> None:
        self._namespaces = {
            key.name: self._labels_of(key.name, stored)
            for key, stored in self._objects.of("Namespace").items()
        }
        self._audited = self._namespaces_where(in_audit)
        self._told = self._namespaces_where(is_open)
        self._follow_defaults()

    def _take_services(self) -> Mapping[str, Any]:
        pools = self._objects.of(POOL_KIND).values()
        written = self._balancers.take(
            _by_name(self._objects, "Service"),
            sorted((it.object for it in pools), key=lambda pool: str(pool.metadata.name)),
        )
        outside = entry_services(self._by_name(SERVICE_ENTRY))
        return {**written, **outside} if outside else written

    def _take_slices(self) -> dict[str, Any]:
        outside = entry_slices(self._by_name(SERVICE_ENTRY))
        written = self._by_name("EndpointSlice")
        return {**written, **outside} if outside else written

    def _take_federated(self) -> frozenset[str]:
        given = self._objects.of(FEDERATED_DOMAIN).values()
        return frozenset(stored.object.spec.trust_domain for stored in given)

    def _take_policies(self) -> dict[str, Any]:
        return {
            policy_key(stored.object): stored.object
            for kind in POLICY_KINDS
            for stored in self._objects.of(kind).values()
            if not stored.deleting
        }

    def _by_name(self, kind: str) -> dict[str, Any]:
        return self._made(kind, (kind,), lambda: _by_name(self._objects, kind))

    def _of_cluster(self, kind: str) -> dict[str, Any]:
        """Of a kind that has no namespaces."""
        objects = self._objects.of(kind)
        return self._made(
            kind, (kind,), lambda: {key.name: it.object for key, it in objects.items()}
        )

    def _by_kind(self, kinds: Iterable[str]) -> dict[str, Any]:
        return {
            f"{kind} {name}": route for kind in kinds for name, route in self._by_name(kind).items()
        }

    def _follow_posture(self) -> None:
        """The base that the object names is everybody's, instead of the one of ``up``."""
        stored = next(iter(self._objects.of(POSTURE).values()), None)
        self._posture = stored.object if stored is not None else None
        base = (self._posture.spec.base if self._posture is not None else None) or (
            self._given.posture
        )
        if base != self._config.posture:
            self._config = replace(self._given, posture=base)

    def _follow_defaults(self) -> None:
        """Endpoints of namespaces that ask, or no longer ask, for something are made anew."""
        accelerated = self._namespaces_where(asks_for_acceleration)
        redirected = self._namespaces_where(asks_for_redirects)
        placed = {
            key.name: placed_as(stored.object.metadata, self._config.placement)
            for key, stored in self._objects.of("Namespace").items()
        }
        moved = {name for name, _ in placed.items() ^ self._placed.items()}
        if changed := (accelerated ^ self._accelerated) | (redirected ^ self._redirected) | moved:
            self._endpoints = {
                key: known
                for key, known in self._endpoints.items()
                if known[2].namespace not in changed
            }
        self._accelerated, self._redirected = accelerated, redirected
        self._placed = placed

    def _namespaces_where(self, holds: Callable[[ObjectMeta], bool]) -> frozenset[str]:
        return frozenset(
            key.name
            for key, stored in self._objects.of("Namespace").items()
            if holds(stored.object.metadata)
        )

    def _labels_of(self, name: str, stored: Stored) -> Mapping[str, str]:
        labels = namespace_labels(name, stored.object.metadata.labels)
        known = self._namespaces.get(name)
        return known if known == labels else labels

    def _take_endpoints(self, states: Mapping[str, PodState]) -> Mapping[str, Endpoint]:
        """The same mapping as long as nothing is another: planners then look no further."""
        fresh: dict[str, Endpoint] = {}
        kept: dict[str, tuple[Stored, PodState, Endpoint]] = {}
        for stored in self._objects.of("Pod").values():
            key = f"{stored.key.namespace}/{stored.key.name}"
            state = states.get(key)
            if state is None or state.finished or not state.ifindex or state.uid != stored.uid:
                continue
            known = self._endpoints.get(key)
            same = known is not None and (known[1] is state or known[1] == state)
            if known is None or known[0] is not stored or not same:
                known = (stored, state, self._endpoint(stored, state))
                fresh[key] = known[2]
            kept[key] = known
        self._taken = self._taken.changed(fresh, self._taken.keys() - kept.keys())
        self._endpoints = kept
        return self._taken

    def _endpoint(self, stored: Stored, state: PodState) -> Endpoint:
        pod = stored.object
        subject = subject_of(stored.key.namespace, pod.metadata, pod.spec)
        owner = state.owner
        terminating = state.terminating or stored.deleting
        return Endpoint(
            namespace=stored.key.namespace,
            pod=stored.key.name,
            workload=f"{owner.kind}/{owner.name}" if owner else f"Pod/{stored.key.name}",
            subject=subject,
            id=self._ledger.endpoint_id(stored.uid),
            identity=self._ledger.identity(subject),
            ipv4=state.ipv4,
            ipv6=state.ipv6,
            ifindex=state.ifindex,
            netns=state.netns,
            netns_cookie=state.cookie,
            node=self._config.node,
            ready=state.ready and not terminating,
            terminating=terminating,
            serving=state.serving,
            hostname=pod.spec.hostname or stored.key.name,
            subdomain=pod.spec.subdomain,
            weight=weight_of(pod.metadata.annotations),
            locality=locality_of(pod.metadata.labels),
            drained=is_drained(pod.metadata.annotations),
            accelerated=asks_for_acceleration(
                pod.metadata, default=stored.key.namespace in self._accelerated
            ),
            redirected=asks_for_redirects(
                pod.metadata, default=stored.key.namespace in self._redirected
            ),
            placement=placed_as(
                pod.metadata, self._placed.get(stored.key.namespace, self._config.placement)
            ),
            probe_ports=probe_ports(pod.spec),
            publish_ports=container_ports(pod.spec),
        )


def _by_name(objects: Objects, kind: str) -> dict[str, Any]:
    return {
        f"{key.namespace}/{key.name}": stored.object
        for key, stored in objects.of(kind).items()
        if not stored.deleting
    }
