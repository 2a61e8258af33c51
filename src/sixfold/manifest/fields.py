"""Every field of our kinds that is not simply enforced: refused, or accepted without effect.

Not in either table: enforced. ``docs/support.md`` is made from these tables (``support``), the
refusals are made from them too, so page and behaviour cannot differ. Source: the Kubernetes API
as of 1.34; a field that is in neither our structs nor here is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sixfold.model.authorizationpolicy import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    Source,
)
from sixfold.model.ciliumpolicy import (
    CiliumClusterwideNetworkPolicy,
    CiliumEgressRule,
    CiliumIngressRule,
    CiliumNetworkPolicy,
    CiliumPortRule,
    CiliumSpec,
    HeaderMatch,
    L7Rules,
)
from sixfold.model.clusternetworkpolicy import (
    AdminEgressRule,
    AdminIngressRule,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterEgressPeer,
    ClusterEgressRule,
    ClusterIngressRule,
    ClusterNetworkPolicy,
)
from sixfold.model.gateway import GatewayClassSpec, GatewaySpec, Infrastructure, ListenerTLS
from sixfold.model.httproute import (
    Filter,
    GRPCRouteSpec,
    HTTPRouteSpec,
    SessionPersistence,
)
from sixfold.model.meta import LabelSelector, Namespace, Object, ObjectMeta
from sixfold.model.policy import NetworkPolicy
from sixfold.model.pool import CiliumLoadBalancerIPPool
from sixfold.model.posture import Posture
from sixfold.model.requestauthentication import (
    RequestAuthentication,
    RequestAuthenticationSpec,
)
from sixfold.model.service import (
    EndpointHints,
    EndpointSlice,
    ForNode,
    ForZone,
    ObjectReference,
    Service,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)
from sixfold.model.serviceentry import (
    ClientTLS,
    DestinationRuleSpec,
    DestinationTrafficPolicy,
    PortTrafficPolicy,
    ServiceEntrySpec,
    WorkloadEntry,
)
from sixfold.model.streamroute import TCPRouteSpec, TLSRouteSpec
from sixfold.model.workload import (
    Container,
    ContainerPort,
    ContainerSecurityContext,
    CronJobSpec,
    DaemonSet,
    DaemonSetSpec,
    Deployment,
    DeploymentSpec,
    EnvVar,
    EnvVarSource,
    Job,
    JobSpec,
    JobTemplateSpec,
    Pod,
    PodSecurityContext,
    PodSpec,
    PodTemplateSpec,
    Probe,
    ReplicaSet,
    ReplicaSetSpec,
    ReplicationControllerSpec,
    RollingUpdate,
    StatefulSet,
    StatefulSetSpec,
    Strategy,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is refused, and when it is not.

    harmless  values that ask for what we do anyway
    local     matters only to a pod that runs here: offline tools take it
    """

    why: str
    harmless: tuple[Any, ...] = ()
    local: bool = False

    def tolerates(self, value: Any, *, offline: bool) -> bool:
        """Whether this value may stand: nothing asked, nothing ignored."""
        if value is None or (offline and self.local):
            return True
        if isinstance(value, list | dict | str) and not value:
            return True
        return any(type(value) is type(good) and value == good for good in self.harmless)


def _local(why: str, *harmless: Any) -> Refusal:
    return Refusal(why, harmless, local=True)


_UNCONFINED = "this confinement is not applied, the pod would run without it"
_NO_VOLUMES = "containers see the host's files, volumes are not mounted"
_WINDOWS = "Linux only"

_TLS_ELSEWHERE = "the mesh has TLS of its own, the application's is not opened"
_EXPORTED = "it holds in every namespace; policy says who goes there"
_TRAFFIC_ELSEWHERE = "of Services a TrafficPolicy says it; external ones are taken as they are"
_NO_FILES = "files of a sidecar; give credentialName"
_NO_GATEWAY = "no Gateway is a default; name it in parentRefs"
_NO_PARAMETERS = "there is nothing to set beyond the API"
_ONE_HOST = "there is one node, and it is the entity host"
_NAMED_BY_PLACE = "kept; verdicts name a rule by its place"

_TENANTS = "the API has removed it; give a policy for each tenant"

_AUTHENTICATION = Refusal("mutual authentication comes with the mesh", ({"mode": "disabled"},))

_SECURITY: dict[str, Refusal] = {
    "seLinuxOptions": _local(_UNCONFINED),
    "windowsOptions": _local(_WINDOWS),
    "seccompProfile": _local(_UNCONFINED, {"type": "Unconfined"}),
    "appArmorProfile": _local(_UNCONFINED, {"type": "Unconfined"}),
}

REFUSED: Mapping[type[Object], Mapping[str, Refusal]] = {
    ClusterEgressPeer: {
        "nodes": Refusal(f"{_ONE_HOST}, without labels; give networks"),
    },
    LabelSelector: {
        "sameLabels": Refusal(_TENANTS),
        "notSameLabels": Refusal(_TENANTS),
        "namespaceSelector": Refusal(
            "of AdminNetworkPolicy an old form; give its matchLabels and matchExpressions here"
        ),
    },
    CiliumIngressRule: {
        "fromRequires": Refusal("Cilium has removed it; write it into the selectors"),
        "fromGroups": Refusal("there is no cloud to ask; give fromCIDR"),
        "fromNodes": Refusal(_ONE_HOST),
        "authentication": _AUTHENTICATION,
    },
    CiliumEgressRule: {
        "toRequires": Refusal("Cilium has removed it; write it into the selectors"),
        "toGroups": Refusal("there is no cloud to ask; give toCIDR"),
        "toNodes": Refusal(_ONE_HOST),
        "authentication": _AUTHENTICATION,
    },
    CiliumPortRule: {
        "listener": Refusal("there is one proxy, and it is ours"),
        "originatingTLS": Refusal(_TLS_ELSEWHERE),
        "terminatingTLS": Refusal(_TLS_ELSEWHERE),
    },
    L7Rules: {
        "kafka": Refusal("Cilium has removed it"),
        "l7": Refusal("Cilium has removed it"),
        "l7proto": Refusal("Cilium has removed it"),
    },
    ServiceEntrySpec: {
        "workloadSelector": Refusal("external services have no workloads; give a Service"),
        "exportTo": Refusal(_EXPORTED, (["*"],)),
        "subjectAltNames": Refusal("give it to tls of a DestinationRule"),
    },
    WorkloadEntry: {
        "labels": Refusal("they are for subsets, and external services have none"),
        "network": Refusal("there is one"),
        "locality": Refusal("servers outside are all alike; give weights"),
        "serviceAccount": Refusal("servers outside have none; give subjectAltNames"),
    },
    DestinationRuleSpec: {
        "subsets": Refusal("of external services there are none; give an HTTPRoute"),
        "exportTo": Refusal(_EXPORTED, (["*"],)),
        "workloadSelector": Refusal("it is for all clients; policy says which may go there"),
    },
    DestinationTrafficPolicy: {
        "loadBalancer": Refusal(_TRAFFIC_ELSEWHERE),
        "connectionPool": Refusal(_TRAFFIC_ELSEWHERE),
        "outlierDetection": Refusal(_TRAFFIC_ELSEWHERE),
        "tunnel": Refusal("there is no proxy to ask beyond ours"),
        "proxyProtocol": Refusal("servers outside are told no addresses of pods"),
        "retryBudget": Refusal(_TRAFFIC_ELSEWHERE),
    },
    PortTrafficPolicy: {
        "loadBalancer": Refusal(_TRAFFIC_ELSEWHERE),
        "connectionPool": Refusal(_TRAFFIC_ELSEWHERE),
        "outlierDetection": Refusal(_TRAFFIC_ELSEWHERE),
    },
    ClientTLS: {
        "caCertificates": Refusal(_NO_FILES),
        "clientCertificate": Refusal(_NO_FILES),
        "privateKey": Refusal(_NO_FILES),
        "insecureSkipVerify": Refusal("a server that is not verified is nobody", (False,)),
        "caCrl": Refusal(_NO_FILES),
    },
    AuthorizationPolicySpec: {
        "targetRef": Refusal("is older; give targetRefs, a list"),
        "provider": Refusal("of action CUSTOM, which is refused"),
    },
    Source: {
        "remoteIpBlocks": Refusal("no proxy in front is known; give ipBlocks, of who connects"),
        "notRemoteIpBlocks": Refusal("no proxy in front is known; give notIpBlocks"),
    },
    RequestAuthenticationSpec: {
        "targetRef": Refusal("is older; give targetRefs, a list"),
    },
    HeaderMatch: {
        "mismatch": Refusal("a request without the header is denied, not mended"),
        "secret": Refusal("policy reads no Secrets"),
    },
    GatewayClassSpec: {"parametersRef": Refusal(_NO_PARAMETERS)},
    Infrastructure: {"parametersRef": Refusal(_NO_PARAMETERS)},
    GatewaySpec: {
        "defaultScope": Refusal(_NO_GATEWAY),
        "tls": Refusal("clients outside show no certificates"),
    },
    ListenerTLS: {"options": Refusal(_NO_PARAMETERS)},
    HTTPRouteSpec: {"useDefaultGateways": Refusal(_NO_GATEWAY)},
    TLSRouteSpec: {"useDefaultGateways": Refusal(_NO_GATEWAY)},
    TCPRouteSpec: {"useDefaultGateways": Refusal(_NO_GATEWAY)},
    GRPCRouteSpec: {"useDefaultGateways": Refusal(_NO_GATEWAY)},
    SessionPersistence: {"idleTimeout": Refusal("nobody keeps count; give absoluteTimeout")},
    Filter: {
        "extensionRef": Refusal("there are no filters of other kinds"),
        "externalAuth": Refusal("nobody else is asked; policy and SPIFFE IDs say who may"),
    },
    PodSpec: {
        "volumes": _local(_NO_VOLUMES),
        "ephemeralContainers": _local("use sixfold exec"),
        "activeDeadlineSeconds": _local("the pod would run on; a Job has it"),
        "hostNetwork": _local("every pod has its own network here", False),
        "hostPID": _local("every container sees its own processes only", False),
        "hostIPC": _local("pods share the host's IPC anyway; remove it", False),
        "hostUsers": _local("pods run in the host's user namespace", True),
        "shareProcessNamespace": _local("every container sees its own processes only", False),
        "hostAliases": _local("the names would not resolve; make a Service"),
        "dnsConfig": _local("names are answered by the cluster resolver only"),
        "readinessGates": _local("nobody sets such conditions here"),
        "schedulingGates": _local("nothing is scheduled, the pod would start at once"),
        "runtimeClassName": _local("commands run directly on the host's kernel"),
        "overhead": _local("there are no runtime classes"),
        "setHostnameAsFQDN": _local("the hostname is the short name", False),
        "hostnameOverride": _local("use hostname"),
        "os": _local(_WINDOWS, {"name": "linux"}),
        "resourceClaims": _local("devices are not allocated"),
        "resources": _local("limits per pod are not applied"),
        "workloadRef": _local("gangs are not scheduled"),
    },
    PodSecurityContext: {
        **_SECURITY,
        "supplementalGroupsPolicy": _local("groups of the image are never merged", "Strict"),
        "fsGroup": _local(_NO_VOLUMES),
        "fsGroupChangePolicy": _local(_NO_VOLUMES),
        "seLinuxChangePolicy": _local(_UNCONFINED),
        "sysctls": _local("they would not be set"),
    },
    ContainerSecurityContext: {
        **_SECURITY,
        "capabilities": _local("capabilities are not changed, root would keep all"),
        "privileged": _local("nobody is given the host", False),
        "readOnlyRootFilesystem": _local(
            "the host's files are read-only; /tmp, /var/tmp and workingDir are not", False
        ),
        "procMount": _local(_UNCONFINED),
    },
    Container: {
        "envFrom": _local("no pod is given ConfigMaps or Secrets; write env"),
        "volumeMounts": _local(_NO_VOLUMES),
        "volumeDevices": _local(_NO_VOLUMES),
        "lifecycle": _local("hooks would not run"),
        "resizePolicy": _local("limits are not applied"),
        "restartPolicyRules": _local("use restartPolicy of the pod"),
    },
    ContainerPort: {
        "hostPort": _local("ports of the node are not opened; make a Service", 0),
        "hostIP": _local("ports of the node are not opened; make a Service"),
    },
    EnvVarSource: {
        "configMapKeyRef": _local("no pod is given ConfigMaps; write value"),
        "secretKeyRef": _local("no pod is given Secrets; write value"),
        "resourceFieldRef": _local("limits are not applied; write value"),
        "fileKeyRef": _local("volumes are not mounted; write value"),
    },
    StatefulSetSpec: {
        "volumeClaimTemplates": _local(_NO_VOLUMES),
        "persistentVolumeClaimRetentionPolicy": _local(_NO_VOLUMES),
        "ordinals": _local("ordinals start at 0", {"start": 0}),
    },
    JobSpec: {
        "podFailurePolicy": _local("every failure counts"),
        "successPolicy": _local("all completions count"),
        "backoffLimitPerIndex": _local("jobs are not indexed"),
        "maxFailedIndexes": _local("jobs are not indexed"),
        "selector": _local("a job finds its pods by itself"),
        "manualSelector": _local("a job finds its pods by itself", False),
        "completionMode": _local("jobs are not indexed", "NonIndexed"),
        "suspend": _local("the job would run at once", False),
        "podReplacementPolicy": _local("a pod is replaced when it has ended", "Failed"),
        "managedBy": _local("the agent runs all jobs", "kubernetes.io/job-controller"),
    },
    SliceEndpoint: {
        "deprecatedTopology": Refusal("not of this version of the API; give zone and nodeName"),
    },
    ServiceSpec: {
        "loadBalancerClass": _local(
            "nobody else announces addresses here", "io.cilium/l2-announcer"
        ),
    },
}

# What a pod would need to run, and nobody who only asks about policies.
OPTIONAL_OFFLINE: Mapping[type[Object], frozenset[str]] = {
    PodSpec: frozenset({"containers"}),
    **dict.fromkeys(
        (DeploymentSpec, ReplicaSetSpec, StatefulSetSpec, DaemonSetSpec), frozenset({"selector"})
    ),
}

# Offline, fields that these have and we do not know are not looked at: no policy depends on them.
ONLY_RUN: frozenset[type[Object]] = frozenset(
    {
        *(ObjectMeta, PodTemplateSpec, PodSpec, PodSecurityContext, Container, ContainerPort),
        *(ContainerSecurityContext, EnvVar, EnvVarSource, Probe, DeploymentSpec, ReplicaSetSpec),
        *(StatefulSetSpec, DaemonSetSpec, Strategy, RollingUpdate, JobSpec, JobTemplateSpec),
        *(CronJobSpec, ReplicationControllerSpec, ServiceSpec, ServicePort),
        *(EndpointSlice, SliceEndpoint, SlicePort, ObjectReference, EndpointHints),
        *(ForNode, ForZone),
    }
)

_SERVER = "kept as written; the API server's"
_STATUS = {"status": "kept as written; the agent reports its own"}
_ONE_NODE = "one node: nothing to choose"
_NO_HISTORY = "no old revisions are kept"

NO_EFFECT: Mapping[type[Object], Mapping[str, str]] = {
    ObjectMeta: {
        "generateName": "a name is required",
        "uid": _SERVER,
        "resourceVersion": _SERVER,
        "generation": _SERVER,
        "creationTimestamp": _SERVER,
        "deletionTimestamp": _SERVER,
        "deletionGracePeriodSeconds": _SERVER,
        "selfLink": _SERVER,
        "finalizers": "deletion waits for nobody",
        "ownerReferences": "as written; the agent sets its own",
        "managedFields": _SERVER,
    },
    Namespace: {"spec": "holds finalizers only", **_STATUS},
    Pod: {"status": "offline: podIP, podIPs and phase are used; else the agent reports its own"},
    **dict.fromkeys((Deployment, ReplicaSet, StatefulSet, DaemonSet, Job), _STATUS),
    Service: _STATUS,
    CiliumLoadBalancerIPPool: _STATUS,
    NetworkPolicy: _STATUS,
    ClusterNetworkPolicy: _STATUS,
    AdminNetworkPolicy: _STATUS,
    BaselineAdminNetworkPolicy: _STATUS,
    CiliumNetworkPolicy: _STATUS,
    CiliumClusterwideNetworkPolicy: _STATUS,
    AuthorizationPolicy: _STATUS,
    RequestAuthentication: _STATUS,
    Posture: _STATUS,
    ClusterIngressRule: {"name": _NAMED_BY_PLACE},
    ClusterEgressRule: {"name": _NAMED_BY_PLACE},
    AdminIngressRule: {"name": _NAMED_BY_PLACE},
    AdminEgressRule: {"name": _NAMED_BY_PLACE},
    CiliumSpec: {"labels": "kept, shown", "description": "kept, shown"},
    PodSpec: {
        "nodeName": _ONE_NODE,
        "nodeSelector": _ONE_NODE,
        "affinity": _ONE_NODE,
        "topologySpreadConstraints": _ONE_NODE,
        "tolerations": _ONE_NODE,
        "schedulerName": _ONE_NODE,
        "priorityClassName": "nothing is preempted",
        "priority": "nothing is preempted",
        "preemptionPolicy": "nothing is preempted",
        "imagePullSecrets": "no image is pulled",
        "enableServiceLinks": "no variables are made for services; use names",
        "automountServiceAccountToken": "no token is mounted, whatever it says",
    },
    Container: {
        "imagePullPolicy": "no image is pulled",
        "resources": "requests and limits are not applied: not a security boundary here",
        "terminationMessagePath": "the message is not read",
        "terminationMessagePolicy": "the message is not read",
        "stdin": "standard input is empty",
        "stdinOnce": "standard input is empty",
        "tty": "no terminal; sixfold exec -t has one",
    },
    SlicePort: {"appProtocol": "kept, shown; that of the Service counts"},
    DeploymentSpec: {"revisionHistoryLimit": _NO_HISTORY},
    StatefulSetSpec: {"revisionHistoryLimit": _NO_HISTORY},
    DaemonSetSpec: {"revisionHistoryLimit": _NO_HISTORY},
}
