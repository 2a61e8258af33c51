"""The kinds that are ours: their API, their struct, and what users call them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.backendtls import BackendTLSPolicy
from sixfold.model.ciliumpolicy import (
    CiliumCIDRGroup,
    CiliumClusterwideNetworkPolicy,
    CiliumNetworkPolicy,
)
from sixfold.model.clusternetworkpolicy import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from sixfold.model.clusterspiffeid import ClusterSPIFFEID
from sixfold.model.federation import ClusterFederatedTrustDomain
from sixfold.model.gateway import Gateway, GatewayClass
from sixfold.model.globalname import GlobalName
from sixfold.model.httproute import GRPCRoute, HTTPRoute
from sixfold.model.listenerset import ListenerSet
from sixfold.model.meta import Key, Namespace, Object
from sixfold.model.peerauthentication import PeerAuthentication
from sixfold.model.policy import NetworkPolicy
from sixfold.model.pool import CiliumLoadBalancerIPPool
from sixfold.model.posture import Posture
from sixfold.model.referencegrant import ReferenceGrant
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.secret import ConfigMap, Secret
from sixfold.model.service import EndpointSlice, Service
from sixfold.model.serviceentry import DestinationRule, ServiceEntry
from sixfold.model.streamroute import TCPRoute, TLSRoute
from sixfold.model.trafficpolicy import TrafficPolicy
from sixfold.model.workload import (
    CronJob,
    DaemonSet,
    Deployment,
    Job,
    Pod,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
)

Resource = (
    Namespace
    | Pod
    | Deployment
    | ReplicaSet
    | StatefulSet
    | DaemonSet
    | Job
    | CronJob
    | ReplicationController
    | Service
    | EndpointSlice
    | NetworkPolicy
    | ClusterNetworkPolicy
    | AdminNetworkPolicy
    | BaselineAdminNetworkPolicy
    | CiliumNetworkPolicy
    | CiliumClusterwideNetworkPolicy
    | CiliumCIDRGroup
    | GlobalName
    | CiliumLoadBalancerIPPool
    | PeerAuthentication
    | AuthorizationPolicy
    | RequestAuthentication
    | HTTPRoute
    | GRPCRoute
    | ReferenceGrant
    | TrafficPolicy
    | GatewayClass
    | Gateway
    | ListenerSet
    | BackendTLSPolicy
    | ServiceEntry
    | DestinationRule
    | TLSRoute
    | TCPRoute
    | Secret
    | ConfigMap
    | ClusterFederatedTrustDomain
    | ClusterSPIFFEID
    | Posture
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. ``struct`` None and ``derived`` True: shown by ``get``, never written.

    older     further versions of the API in which it is the same
    formerly  versions that no server has any more; offline they are taken, too
    """

    name: str
    api_version: str
    struct: type[Object] | None
    plural: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    derived: bool = False
    older: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()

    @property
    def aliases(self) -> tuple[str, ...]:
        """What ``get`` takes, lower case: singular, plural, short names."""
        return (self.name.lower(), self.plural, *self.short)

    @property
    def group(self) -> str:
        """API group, "" for core."""
        return self.api_version.rpartition("/")[0]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("Namespace", "v1", Namespace, "namespaces", ("ns",), namespaced=False),
            Kind("Pod", "v1", Pod, "pods", ("po",)),
            Kind(
                "Deployment",
                "apps/v1",
                Deployment,
                "deployments",
                ("deploy",),
                formerly=("apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"),
            ),
            Kind(
                "ReplicaSet",
                "apps/v1",
                ReplicaSet,
                "replicasets",
                ("rs",),
                formerly=("apps/v1beta2", "extensions/v1beta1"),
            ),
            Kind(
                "StatefulSet",
                "apps/v1",
                StatefulSet,
                "statefulsets",
                ("sts",),
                formerly=("apps/v1beta2", "apps/v1beta1"),
            ),
            Kind(
                "DaemonSet",
                "apps/v1",
                DaemonSet,
                "daemonsets",
                ("ds",),
                formerly=("apps/v1beta2", "extensions/v1beta1"),
            ),
            Kind("Job", "batch/v1", Job, "jobs"),
            Kind("Service", "v1", Service, "services", ("svc",)),
            Kind(
                "NetworkPolicy",
                "networking.k8s.io/v1",
                NetworkPolicy,
                "networkpolicies",
                ("netpol",),
                formerly=("extensions/v1beta1",),
            ),
            Kind(  # upstream's short name is cnp as well; that is Cilium's here
                "ClusterNetworkPolicy",
                "policy.networking.k8s.io/v1alpha2",
                ClusterNetworkPolicy,
                "clusternetworkpolicies",
                namespaced=False,
            ),
            Kind(
                "AdminNetworkPolicy",
                "policy.networking.k8s.io/v1alpha1",
                AdminNetworkPolicy,
                "adminnetworkpolicies",
                ("anp",),
                namespaced=False,
            ),
            Kind(
                "BaselineAdminNetworkPolicy",
                "policy.networking.k8s.io/v1alpha1",
                BaselineAdminNetworkPolicy,
                "baselineadminnetworkpolicies",
                ("banp",),
                namespaced=False,
            ),
            Kind(
                "CiliumNetworkPolicy",
                "cilium.io/v2",
                CiliumNetworkPolicy,
                "ciliumnetworkpolicies",
                ("cnp", "ciliumnp"),
            ),
            Kind(
                "CiliumClusterwideNetworkPolicy",
                "cilium.io/v2",
                CiliumClusterwideNetworkPolicy,
                "ciliumclusterwidenetworkpolicies",
                ("ccnp",),
                namespaced=False,
            ),
            Kind(
                "CiliumCIDRGroup",
                "cilium.io/v2",
                CiliumCIDRGroup,
                "ciliumcidrgroups",
                ("ccg",),
                namespaced=False,
                older=("cilium.io/v2alpha1",),
            ),
            Kind(
                "GlobalName",
                "sixfold.dev/v1",
                GlobalName,
                "globalnames",
                ("gn",),
                namespaced=False,
            ),
            Kind(
                "CiliumLoadBalancerIPPool",
                "cilium.io/v2",
                CiliumLoadBalancerIPPool,
                "ciliumloadbalancerippools",
                ("ippool", "ippools", "lbippool", "lbippools"),
                namespaced=False,
                older=("cilium.io/v2alpha1",),
            ),
            Kind(
                "PeerAuthentication",
                "security.istio.io/v1",
                PeerAuthentication,
                "peerauthentications",
                ("pa",),
                older=("security.istio.io/v1beta1",),
            ),
            Kind(
                "AuthorizationPolicy",
                "security.istio.io/v1",
                AuthorizationPolicy,
                "authorizationpolicies",
                ("ap",),
                older=("security.istio.io/v1beta1",),
            ),
            Kind(
                "RequestAuthentication",
                "security.istio.io/v1",
                RequestAuthentication,
                "requestauthentications",
                ("ra",),
                older=("security.istio.io/v1beta1",),
            ),
            Kind(
                "HTTPRoute",
                "gateway.networking.k8s.io/v1",
                HTTPRoute,
                "httproutes",
                older=("gateway.networking.k8s.io/v1beta1",),
            ),
            Kind("GRPCRoute", "gateway.networking.k8s.io/v1", GRPCRoute, "grpcroutes"),
            Kind(
                "ReferenceGrant",
                "gateway.networking.k8s.io/v1beta1",
                ReferenceGrant,
                "referencegrants",
                ("refgrant",),
            ),
            Kind("TrafficPolicy", "sixfold.dev/v1", TrafficPolicy, "trafficpolicies", ("tp",)),
            Kind(
                "GatewayClass",
                "gateway.networking.k8s.io/v1",
                GatewayClass,
                "gatewayclasses",
                ("gc",),
                namespaced=False,
                older=("gateway.networking.k8s.io/v1beta1",),
            ),
            Kind(
                "Gateway",
                "gateway.networking.k8s.io/v1",
                Gateway,
                "gateways",
                ("gtw",),
                older=("gateway.networking.k8s.io/v1beta1",),
            ),
            Kind(
                "ListenerSet",
                "gateway.networking.k8s.io/v1",
                ListenerSet,
                "listenersets",
                ("lset",),
            ),
            Kind(
                "TLSRoute",
                "gateway.networking.k8s.io/v1",
                TLSRoute,
                "tlsroutes",
                older=("gateway.networking.k8s.io/v1alpha3", "gateway.networking.k8s.io/v1alpha2"),
            ),
            Kind(
                "TCPRoute",
                "gateway.networking.k8s.io/v1",
                TCPRoute,
                "tcproutes",
                older=("gateway.networking.k8s.io/v1alpha2",),
            ),
            Kind(
                "ServiceEntry",
                "networking.istio.io/v1",
                ServiceEntry,
                "serviceentries",
                ("se",),
                older=("networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"),
            ),
            Kind(
                "DestinationRule",
                "networking.istio.io/v1",
                DestinationRule,
                "destinationrules",
                ("dr",),
                older=("networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"),
            ),
            Kind(
                "BackendTLSPolicy",
                "gateway.networking.k8s.io/v1",
                BackendTLSPolicy,
                "backendtlspolicies",
                ("btlspolicy",),
                older=("gateway.networking.k8s.io/v1alpha3",),
            ),
            Kind("Secret", "v1", Secret, "secrets"),
            Kind("ConfigMap", "v1", ConfigMap, "configmaps", ("cm",)),
            Kind(
                "ClusterFederatedTrustDomain",
                "spire.spiffe.io/v1alpha1",
                ClusterFederatedTrustDomain,
                "clusterfederatedtrustdomains",
                ("cftd",),
                namespaced=False,
            ),
            Kind(
                "ClusterSPIFFEID",
                "spire.spiffe.io/v1alpha1",
                ClusterSPIFFEID,
                "clusterspiffeids",
                ("csid",),
                namespaced=False,
            ),
            Kind("Posture", "sixfold.dev/v1", Posture, "postures", namespaced=False),
            Kind("Endpoints", "v1", None, "endpoints", ("ep",), derived=True),
            Kind("EndpointSlice", "discovery.k8s.io/v1", EndpointSlice, "endpointslices", ("eps",)),
        )
    }
)

# Kinds that no agent runs, and offline tools know: workloads of other clusters.
OFFLINE_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind(
                "CronJob",
                "batch/v1",
                CronJob,
                "cronjobs",
                ("cj",),
                formerly=("batch/v1beta1", "batch/v2alpha1"),
            ),
            Kind(
                "ReplicationController",
                "v1",
                ReplicationController,
                "replicationcontrollers",
                ("rc",),
            ),
        )
    }
)

ALIASES: Mapping[str, Kind] = MappingProxyType(
    {alias: kind for kind in KINDS.values() for alias in kind.aliases}
)

# Core kinds that are not ours, so that a typo is told from a kind to ignore.
_OTHER_KINDS = frozenset(
    {
        *("Binding", "ComponentStatus", "ControllerRevision", "CronJob", "Event"),
        *("Ingress", "IngressClass", "IPAddress", "LimitRange", "Node", "PersistentVolume"),
        *("PersistentVolumeClaim", "PodTemplate", "ReplicationController", "ResourceQuota"),
        *("ServiceAccount", "ServiceCIDR"),
    }
)
_OLD_GROUPS = frozenset({"extensions"})
_TYPO_CUTOFF = 0.8


def find(word: str) -> Kind | None:
    """The kind that a user means by ``po``, ``deployments``, ``NetworkPolicy``…"""
    return ALIASES.get(word.lower().partition(".")[0])


def key_of(obj: Object) -> Key:
    """What names this object; its namespace is filled in already."""
    meta = obj.metadata  # type: ignore[attr-defined]
    name = type(obj).__name__
    kind = KINDS.get(name) or OFFLINE_KINDS[name]
    return Key(name, meta.namespace if kind.namespaced else "", meta.name)


def classify(api_version: str, kind: str, *, offline: bool = False) -> Kind | str | None:
    """The kind; or what is wrong; or None when it is not ours and to be ignored."""
    group = api_version.rpartition("/")[0]
    known = KINDS.get(kind) or (OFFLINE_KINDS.get(kind) if offline else None)
    if known:
        former = known.formerly if offline else ()
        if api_version in (known.api_version, *known.older, *former):
            return known
    groups = {k.group for k in KINDS.values()}
    if known and (group in groups or group in _OLD_GROUPS):
        return f'{kind} is not in "{api_version}"; give apiVersion: {known.api_version}'
    if kind in _OTHER_KINDS or group not in groups:
        return None
    ours = {name.lower(): name for name in KINDS}
    close = difflib.get_close_matches(kind.lower(), ours, 1, _TYPO_CUTOFF)
    return f'"{kind}" is no kind; did you mean {ours[close[0]]}?' if close else None
