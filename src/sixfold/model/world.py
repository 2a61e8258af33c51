"""The world: one frozen snapshot of everything that planners may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.backendtls import BackendTLSPolicy
from sixfold.model.ciliumpolicy import CiliumCIDRGroup, is_about_servers
from sixfold.model.clusterspiffeid import ClusterSPIFFEID
from sixfold.model.config import DEFAULTS, Config
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.gateway import GATEWAY_CONTROLLER, Gateway, GatewayClass
from sixfold.model.httproute import Route
from sixfold.model.listenerset import ListenerSet
from sixfold.model.peerauthentication import PeerAuthentication
from sixfold.model.policies import Policy
from sixfold.model.posture import Relaxation
from sixfold.model.referencegrant import ReferenceGrant
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.secret import ConfigMap, Secret
from sixfold.model.seen import Seen
from sixfold.model.service import EndpointSlice, Service
from sixfold.model.serviceentry import DestinationRule, ServiceEntry
from sixfold.model.streamroute import StreamRoute
from sixfold.model.trafficpolicy import TrafficPolicy


@dataclass(frozen=True, slots=True)
class World:
    """Keys are ``namespace/name``; namespace labels include the name label.

    ``endpoints`` holds pods that have (or, offline, would have) an address and are not in a
    terminal phase. Service objects here have their cluster addresses filled in.

    policies     keys are ``policy_key``'s: those of other kinds have the kind before them
    slices       those that somebody wrote
    cidr_groups  by name
    peer_authentications  by ``namespace/name``
    domains      what names have resolved to, as far as known; lower case, no final dot
    domain_sets  sets of domain patterns that tables are to know besides those that are in use
    seen         what was seen of a service's backends, by service
    audited      names of namespaces whose workloads are in audit
    told         names of namespaces that say that everybody is told of their services
    relaxations  of the posture, those that are in force
    gateway_classes  by name
    routes       keys have the kind before the name: ``HTTPRoute ns/name``
    streams      TLSRoutes and TCPRoutes, likewise
    traffic      TrafficPolicies
    federated    other trust domains whose bundles are asked for
    spiffe_ids   ClusterSPIFFEIDs by name
    on_host      names of workloads with ``hostNetwork``, as offline: to policy they are the node
    """

    config: Config = DEFAULTS
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    slices: Mapping[str, EndpointSlice] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    cidr_groups: Mapping[str, CiliumCIDRGroup] = field(default_factory=dict)
    peer_authentications: Mapping[str, PeerAuthentication] = field(default_factory=dict)
    domains: Mapping[str, frozenset[IPAddress]] = field(default_factory=dict)
    domain_sets: frozenset[frozenset[str]] = frozenset()
    on_host: frozenset[str] = frozenset()
    audited: frozenset[str] = frozenset()
    seen: Mapping[str, Seen] = field(default_factory=dict)
    told: frozenset[str] = frozenset()
    relaxations: tuple[Relaxation, ...] = ()
    routes: Mapping[str, Route] = field(default_factory=dict)
    grants: Mapping[str, ReferenceGrant] = field(default_factory=dict)
    traffic: Mapping[str, TrafficPolicy] = field(default_factory=dict)
    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    gateway_classes: Mapping[str, GatewayClass] = field(default_factory=dict)
    listener_sets: Mapping[str, ListenerSet] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    streams: Mapping[str, StreamRoute] = field(default_factory=dict)
    backend_tls: Mapping[str, BackendTLSPolicy] = field(default_factory=dict)
    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict)
    federated: frozenset[str] = frozenset()
    spiffe_ids: Mapping[str, ClusterSPIFFEID] = field(default_factory=dict)
    service_entries: Mapping[str, ServiceEntry] = field(default_factory=dict)
    destination_rules: Mapping[str, DestinationRule] = field(default_factory=dict)

    @property
    def public(self) -> frozenset[str]:
        """Names of namespaces whose services everybody is told of."""
        return self.told.union(one.namespace for one in self.relaxations if one.discovery)

    @property
    def has_mesh(self) -> bool:
        """Whether anybody wants mTLS: then every pod is in the mesh, as a client at least."""
        given = self.peer_authentications.values()
        return (
            self.config.mtls_mode != "disabled"
            or any(one.wants_mtls for one in given)
            or any(
                isinstance(one, AuthorizationPolicy | RequestAuthentication) and not one.gateways
                for one in self.policies.values()
            )
        )

    @property
    def has_proxy(self) -> bool:
        """Whether there is a mesh, or a Gateway, who speaks to its backends in mTLS, always; or
        anybody whose connections to the world it has to see."""
        return (
            self.has_mesh
            or any(map(self.is_ours, self.gateways.values()))
            or bool(self.service_entries)
            or any(map(is_about_servers, self.policies.values()))
        )

    def is_ours(self, gateway: Gateway) -> bool:
        """Whether its class is one that we run."""
        found = self.gateway_classes.get(gateway.spec.gateway_class_name)
        return found is not None and found.spec.controller_name == GATEWAY_CONTROLLER

    @property
    def gateways_abroad(self) -> Mapping[str, Gateway]:
        """Those by which workloads of other trust domains come and go, by their pod."""
        given = self.gateways.values()
        return {one.made: one for one in given if one.is_federated and self.is_ours(one)}

    @property
    def addresses_abroad(self) -> frozenset[IPAddress]:
        """Of the pods of those."""
        pods = (self.endpoints.get(key) for key in self.gateways_abroad)
        return frozenset(at for one in pods if one is not None for at in one.addresses)
