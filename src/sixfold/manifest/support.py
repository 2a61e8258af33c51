"""The page ``docs/support.md``: every field of every kind of ours, and what we do with it.

Made from the structs and from ``fields``; ``python -m sixfold.manifest.support`` prints it, and
``tests/manifest/test_support.py`` holds page, tables and behaviour together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from msgspec import inspect

from sixfold.manifest.document import ALIASED_NODES_MAX, DEPTH_MAX, NODES_MAX
from sixfold.manifest.fields import NO_EFFECT, REFUSED
from sixfold.manifest.shape import struct_type
from sixfold.manifest.sources import TOTAL_BYTES_MAX
from sixfold.model.authorizationpolicy import (
    AuthorizationPolicySpec,
    AuthorizationRule,
    Operation,
    Source,
    When,
)
from sixfold.model.backendtls import BackendTLSPolicySpec, BackendValidation
from sixfold.model.ciliumpolicy import (
    CIDRRule,
    CiliumEgressRule,
    CiliumIngressRule,
    CiliumPort,
    CiliumPortRule,
    CiliumSpec,
    FQDNSelector,
    HTTPRequestRule,
    ICMPField,
    L7Rules,
)
from sixfold.model.clusternetworkpolicy import (
    AdminNetworkPolicySpec,
    ClusterEgressPeer,
    ClusterNetworkPolicySpec,
    ClusterProtocol,
)
from sixfold.model.clusterspiffeid import TEMPLATE, ClusterSPIFFEIDSpec
from sixfold.model.federation import BundleEndpointProfile, ClusterFederatedTrustDomainSpec
from sixfold.model.gateway import AllowedRoutes, GatewayClassSpec, GatewaySpec, Listener
from sixfold.model.httproute import (
    BackendReference,
    GRPCRouteSpec,
    HTTPRouteSpec,
    HTTPRule,
    ParentReference,
    SessionPersistence,
    ValueMatch,
)
from sixfold.model.kinds import KINDS
from sixfold.model.listenerset import ListenerSetSpec
from sixfold.model.meta import Object, ObjectMeta
from sixfold.model.peerauthentication import MutualTLS, PeerAuthenticationSpec
from sixfold.model.policy import IPBlock, NetworkPolicyPeer, NetworkPolicyPort
from sixfold.model.pool import PoolBlock, PoolSpec
from sixfold.model.posture import PostureSpec, Relaxation
from sixfold.model.requestauthentication import JWTRule, RequestAuthenticationSpec
from sixfold.model.service import (
    ClientIPConfig,
    EndpointConditions,
    EndpointSlice,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)
from sixfold.model.serviceentry import (
    ClientTLS,
    DestinationRuleSpec,
    ServiceEntrySpec,
    WorkloadEntry,
)
from sixfold.model.streamroute import TLSRouteSpec
from sixfold.model.trafficpolicy import (
    Abort,
    CircuitBreaker,
    ConsistentHash,
    FaultInjection,
    HashedCookie,
    OutlierDetection,
    PolicyRetry,
    PolicyTimeouts,
    RateLimit,
    RetryBudget,
    TargetReference,
    TrafficPolicySpec,
)
from sixfold.model.workload import (
    Container,
    ContainerPort,
    ContainerSecurityContext,
    DeploymentSpec,
    EnvVarSource,
    HTTPGetAction,
    ObjectFieldSelector,
    PodSpec,
    Probe,
    SecurityContext,
    Strategy,
)

Status = Literal["enforced", "refused", "accepted, no effect"]


class Row(NamedTuple):
    """One line of a table."""

    field: str
    status: Status
    note: str


_NOTES: Mapping[type[Object], Mapping[str, str]] = {
    ObjectMeta: {
        "name": "required; DNS name. In a pod template: no effect",
        "namespace": '"default", or what -n says, when absent',
        "annotations": "kept, shown; 256 KiB at most. `sixfold.dev/enforcement` of a policy or "
        "Namespace: enforce, or audit (what it would deny passes and is told). "
        "`sixfold.dev/acceleration` of a Namespace or pod: sockmap (its TCP with others that ask "
        "goes from socket to socket), or none. "
        "`sixfold.dev/redirect-retired` of a Namespace or pod: true (its dials of addresses that "
        "DNS has retired go to who serves now), or false. "
        "`sixfold.dev/placement` of a Namespace or pod: workload (pods that start from then on "
        "have a proxy of their own), or node. "
        "`sixfold.dev/discovery` of a Namespace: reachable (its services are named to those only "
        "who may reach them), or open (to everybody). Of a Service: "
        "`sixfold.dev/lb-algorithm` (random, round-robin, least-connections, maglev, source-hash; "
        "`service.cilium.io/lb-algorithm` is read too), `sixfold.dev/lb-maglev-table-size`, "
        "`sixfold.dev/lb-failover` (locality, or places in order), "
        "`sixfold.dev/lb-overprovisioning` (100 to 1000 percent; 140), "
        "`sixfold.dev/lb-failback-seconds` (0 to 3600; 30), "
        "`lbipam.cilium.io/ips`, "
        "`sixfold.dev/registration` (open: its namespace's pods may register themselves), "
        "`external-dns.alpha.kubernetes.io/hostname` (names in zones of `up --dns-edge-zone`), "
        "`sixfold.dev/dns-sd-path`, `consul.hashicorp.com/service-tags`, "
        "`consul.hashicorp.com/service-meta-KEY`, "
        "`sixfold.dev/lb-health-check` (a Probe, for backends that are no pods), "
        "`sixfold.dev/lb-slow-start` (a duration), `sixfold.dev/lb-panic-threshold` (percent of "
        "healthy ones below which all are used, or fail). Of a pod: "
        "`sixfold.dev/lb-weight` (0 to 100, 0 is maintenance; of an EndpointSlice, too), "
        "`sixfold.dev/lb-drain`",
    },
    PodSpec: {
        "initContainers": "with restartPolicy Always: sidecars",
        "serviceAccount": "old name of serviceAccountName; two that differ are refused",
        "dnsPolicy": "ClusterFirst only",
        "containers": "one network namespace for all; a port name means one port",
    },
    Container: {
        "image": "none, or host: the command runs from the host's files. Others are refused "
        "where they would have to run, and taken offline",
        "command": "required without an image",
        "workingDir": "absolute",
        "restartPolicy": "on init containers: Always makes a sidecar",
    },
    ContainerPort: {"name": "IANA service name; what policies and services may refer to"},
    EnvVarSource: {"fieldRef": "the only source"},
    ObjectFieldSelector: {
        "fieldPath": "metadata.{name,namespace,uid,labels['KEY'],annotations['KEY']}, "
        "spec.{nodeName,serviceAccountName}, status.{hostIP,hostIPs,podIP,podIPs}"
    },
    HTTPGetAction: {"host": "absent: the pod; else the node dials that host"},
    Probe: {"successThreshold": "above 1 on readiness probes only"},
    SecurityContext: {"runAsNonRoot": "with root as user: refused"},
    ContainerSecurityContext: {"allowPrivilegeEscalation": "false sets no_new_privs"},
    DeploymentSpec: {
        "selector": "must match the template, and select something",
        "progressDeadlineSeconds": "above minReadySeconds; shown in the status",
    },
    Strategy: {"type": "RollingUpdate; Recreate (Deployment); OnDelete (StatefulSet, DaemonSet)"},
    ServiceSpec: {
        "type": "ClusterIP, NodePort, LoadBalancer, ExternalName",
        "externalName": "a DNS name: answered as CNAME, with what upstream says of it; such a "
        "service has no address, and nothing is balanced",
        "selector": "absent: the endpoints of EndpointSlices that somebody wrote, or none",
        "clusterIP": "an address of the service range, or None for headless",
        "ipFamilyPolicy": "absent: SingleStack; RequireDualStack for a headless one without "
        "selector; of a service that is there, as it was. SingleStack lets the second address go",
        "ipFamilies": "the first stays",
        "sessionAffinity": "ClientIP: a client is a pod, or the host; its backend is kept while it "
        "is one",
        "internalTrafficPolicy": "Local: endpoints of this node only: its pods, and written ones "
        "with its nodeName",
        "trafficDistribution": "PreferSameNode; PreferSameZone, and its old name PreferClose: as "
        "kube-proxy, by hints; where the node is, `up --node-labels` says",
        "externalIPs": "not announced; an address and port belong to one service",
        "externalTrafficPolicy": "to pods under the client's own address, always; Cluster: to "
        "written endpoints elsewhere, too, under the node's",
        "healthCheckNodePort": "absent, where it is wanted: one of the node ports is given",
        "loadBalancerIP": "an address of a pool that selects the service, or none",
        "loadBalancerSourceRanges": "of that address, for clients outside",
        "allocateLoadBalancerNodePorts": "absent: true",
    },
    ParentReference: {
        "kind": "Gateway; or Service, with group: ''",
        "port": "absent: all TCP ports of the service, all listeners of the Gateway",
        "sectionName": "of a Gateway: the listener",
        "namespace": "absent: the route's. Of another's service: for clients of the route's own",
    },
    HTTPRouteSpec: {"hostnames": "of a Gateway; requests for a Service are all meant"},
    GRPCRouteSpec: {"hostnames": "of a Gateway; requests for a Service are all meant"},
    TLSRouteSpec: {"hostnames": "what a handshake names; of a Service, all else is closed"},
    GatewayClassSpec: {"controllerName": "sixfold.dev/gateway is ours; others are left alone"},
    GatewaySpec: {
        "addresses": "of pools that select its service (IPAddress), or none",
        "listeners": "of equal port and host none is served; their status says so",
        "allowedListeners": "absent: no ListenerSet",
    },
    ListenerSetSpec: {
        "parentRef": "a Gateway, which says in allowedListeners whose sets it takes",
        "listeners": "as a Gateway's, but HBONE; those of the Gateway and of older sets go first",
    },
    Listener: {
        "protocol": "HTTP, HTTPS, TLS, TCP; HBONE: of other trust domains",
        "hostname": "the most specific has the request",
    },
    BackendTLSPolicySpec: {
        "targetRefs": "Services; of requests that a route leads there, or of another trust domain",
        "options": "sixfold.dev/endpoints: where another trust domain lets us in; others refused",
    },
    BackendValidation: {
        "caCertificateRefs": "ConfigMaps with ca.crt; one that is not there: nothing is sent (502)",
        "wellKnownCACertificates": "System: whom the host trusts; sixfold.dev/federated: who "
        "vouches for the trust domain of subjectAltNames",
    },
    AllowedRoutes: {
        "kinds": "HTTPRoute, GRPCRoute; TLS: TLSRoute, and TCPRoute where it ends; TCP: TCPRoute; "
        "HBONE: TLSRoute"
    },
    BackendReference: {
        "kind": "Service; others, or one that is not there, are answered 500",
        "namespace": "of another with a ReferenceGrant, else answered 500",
        "port": "required",
    },
    HTTPRule: {
        "retry": "of methods that may be repeated; without it what was not sent is tried again",
        "timeouts": "absent: none",
        "backendRefs": "pods in the mesh; none: answered 500",
        "sessionPersistence": "within one backend",
    },
    SessionPersistence: {
        "sessionName": "absent: made of the rule",
        "absoluteTimeout": "of permanent cookies, and required there",
        "type": "the value says which pod it was; one that is gone is replaced by another",
    },
    ValueMatch: {"type": "of equal names the first counts; regular expressions match all of it"},
    CiliumPortRule: {
        "serverNames": "of egress to the world; TLS that names none of them is closed by the "
        "proxy, and so is all that is no TLS; patterns as matchPattern",
    },
    ServiceEntrySpec: {
        "hosts": "*. is one label or more; of protocols HTTPS, TLS, TCP. It opens nothing: toFQDNs "
        "of a CiliumNetworkPolicy does",
        "location": "others have a Service",
        "resolution": "DNS, NONE: where servers are, pods ask for themselves; STATIC: endpoints, "
        "under hosts that no other object answers",
        "addresses": "of resolution STATIC: what is dialled, translated by the kernel; absent: the "
        "names lead to the endpoints. None of the cluster's, none of another entry or Service",
        "endpoints": "of resolution STATIC; balanced as `sixfold.dev/lb-algorithm` of the entry "
        "says; policy is asked about them, and toFQDNs of the host means them",
        "ports": "HTTP: TLS is begun as a DestinationRule says; HTTPS, TLS: handshakes must name "
        "a host; TCP: nobody looks",
    },
    WorkloadEntry: {
        "address": "an IP address, not a service's",
        "ports": "by name of the entry's port, of protocol TCP, dialled at one of its addresses",
        "weight": "0 to 100; absent: 1; 0 is maintenance",
    },
    DestinationRuleSpec: {
        "host": "a host of a ServiceEntry; of several rules that of its namespace, then the oldest",
    },
    ClientTLS: {
        "mode": "of ports with protocol HTTP of a ServiceEntry",
        "credentialName": "a Secret of the same namespace: ca.crt or cacert (absent: whom the host "
        "trusts), of MUTUAL tls.crt and tls.key",
        "subjectAltNames": "absent: the sni, or the host",
    },
    L7Rules: {
        "http": "of ingress; such a port takes nothing else than HTTP, and from pods only",
        "dns": "of egress, to port 53 of the cluster resolver (kube-dns); other names are REFUSED",
    },
    HTTPRequestRule: {
        "path": "without what follows a question mark",
        "host": "with or without a port",
        "headers": '"Name", or "Name: value"',
    },
    PoolSpec: {
        "serviceSelector": "io.kubernetes.service.name and .namespace are labels, too",
        "disabled": "gives nothing new; what it gave stays",
    },
    PoolBlock: {"cidr": "alone", "stop": "absent: the one address of start"},
    ClientIPConfig: {"timeoutSeconds": "since the client last dialled; 1 to 86400"},
    ServicePort: {
        "nodePort": "30000 to 32767, on every address of the node; absent: allocated, and kept",
        "protocol": "TCP, UDP; SCTP of headless services only: the kernel has no hook where such "
        "sockets connect; *offline: taken*",
        "targetPort": "number, or name of a containerPort; absent: same as port",
        "appProtocol": "HTTP of a service of another trust domain: its requests go one by one. "
        "Chooses the algorithm, as the name does: long-lived connections get "
        "least-connections",
    },
    EndpointSlice: {
        "metadata": "required: label kubernetes.io/service-name; slices of a service add up, and "
        "stand beside the pods that it selects. Those of Kubernetes's controllers (by label "
        "endpointslice.kubernetes.io/managed-by) are refused; *offline: ignored*",
        "addressType": "IPv4, IPv6; FQDN is refused, *offline: ignored*",
        "endpoints": "at most 1000",
        "ports": "found by the name and protocol of the service's port",
    },
    SliceEndpoint: {
        "addresses": "one, of a pod, the host or the world; not a service's",
        "hostname": "its name below a headless service",
        "nodeName": "for internalTrafficPolicy and trafficDistribution",
        "zone": "absent: label topology.kubernetes.io/zone of the slice; region: its label "
        "topology.kubernetes.io/region",
        "targetRef": "what `lb list` and `explain` call it",
    },
    EndpointConditions: {
        "ready": "absent: true",
        "serving": "absent: as ready",
        "terminating": "used, while it serves, when nobody else is left",
    },
    SlicePort: {"port": "required"},
    IPBlock: {
        "cidr": "matches pod addresses too",
        "except": "strictly inside cidr",
    },
    NetworkPolicyPeer: {"ipBlock": "alone; an empty peer is refused"},
    ClusterNetworkPolicySpec: {
        "tier": "Admin; Baseline",
        "priority": "0 to 1000, lower first; of equals the policy whose name comes first",
        "subject": "namespaces or pods",
    },
    AdminNetworkPolicySpec: {
        "priority": "0 to 1000, lower first; of equals the policy whose name comes first"
    },
    ClusterEgressPeer: {
        "networks": "pod addresses match too",
        "domainNames": "*. is one label or more; in Accept rules; opened when a pod asks the "
        "cluster resolver; never pods or the host",
    },
    ClusterProtocol: {"destinationNamedPort": "whatever the port's protocol; pods only"},
    CiliumSpec: {
        "endpointSelector": "never beyond the namespace of a CiliumNetworkPolicy; this or "
        "nodeSelector",
        "nodeSelector": "of a CiliumClusterwideNetworkPolicy only: the host, if its node has these "
        "labels (up --node-labels)",
        "ingressDeny": "beats every allow of CiliumNetworkPolicy and NetworkPolicy",
        "egressDeny": "beats every allow of CiliumNetworkPolicy and NetworkPolicy",
        "enableDefaultDeny": "absent: true for a direction that has rules",
        "log": "at most 32 characters; shown with the flow",
    },
    CiliumIngressRule: {
        "fromEndpoints": "labels with k8s: or any: before them, or nothing; "
        "io.kubernetes.pod.namespace, io.cilium.k8s.namespace.labels.KEY, "
        "io.cilium.k8s.policy.serviceaccount; reserved:NAME means the entity",
        "fromEntities": "remote-node, kube-apiserver, ingress, init, health, unmanaged: "
        "nobody is behind them on one host",
        "fromCIDR": "never pods or the host",
        "fromCIDRSet": "never pods or the host",
        "icmps": "not beside toPorts; replies belong to their request",
    },
    CiliumEgressRule: {
        "toEndpoints": "as fromEndpoints",
        "toEntities": "as fromEntities",
        "toCIDR": "never pods or the host",
        "toCIDRSet": "never pods or the host",
        "toServices": "the pods that the services select; of EndpointSlices that somebody wrote "
        "the addresses, unless they are pods or the host",
        "toFQDNs": "opened when a pod asks the cluster resolver; never pods or the host",
        "icmps": "not beside toPorts; replies belong to their request",
    },
    PeerAuthenticationSpec: {
        "selector": "workloads of its own namespace; of several that select one the oldest is read",
        "mtls": "without a selector for its namespace, in sixfold-system or istio-system for all; "
        "what no PeerAuthentication says, up --mtls does",
        "portLevelMtls": "by the workload's port; needs a selector",
    },
    AuthorizationPolicySpec: {
        "selector": "workloads of its own namespace; in sixfold-system or istio-system of all",
        "targetRefs": "Gateways of its own namespace: what clients outside ask of them. Listeners "
        "of TLS and TCP, where nobody reads requests, are closed meanwhile",
        "action": "DENY before ALLOW; AUDIT is told with the flow; CUSTOM is refused",
        "rules": "without any nothing matches: ALLOW then allows nothing. It narrows what other "
        "policies let in; its workloads take nothing that proves no identity, the host's probes "
        "apart",
    },
    AuthorizationRule: {
        "from": "any of them",
        "to": "any of them",
        "when": "all of them",
    },
    Source: {
        "principals": "as Istio's texts: exact, prefix*, *suffix, *; cluster.local is the trust "
        "domain, whatever its name",
        "serviceAccounts": "NAME or NAMESPACE/NAME; without principals and namespaces",
        "requestPrincipals": "ISSUER/SUBJECT of the token; HTTP only",
        "ipBlocks": "of the pod that connects",
    },
    Operation: {
        "hosts": "HTTP only; whatever their case. With a port it is another host",
        "ports": "of the workload",
        "methods": "HTTP only; of gRPC always POST",
        "paths": "HTTP only, without the query; {*} is a segment, {**} any number. Of gRPC "
        "/package.Service/Method",
    },
    When: {
        "key": "source.ip, source.namespace, source.principal, source.serviceAccount, "
        "destination.port; HTTP only: request.headers[NAME], request.auth.principal, "
        "request.auth.audiences, request.auth.presenter, request.auth.claims[NAME][NAME]. Others "
        "are refused",
    },
    RequestAuthenticationSpec: {
        "selector": "workloads of its own namespace; in sixfold-system or istio-system of all",
        "targetRefs": "Gateways of its own namespace: tokens of clients outside",
        "jwtRules": "a token that is not good: 401; none: passes, unless an AuthorizationPolicy "
        "asks for requestPrincipals. HTTP ports only; its workloads take no TCP that proves no "
        "identity",
    },
    JWTRule: {
        "issuer": "exactly the token's iss; without jwks and jwksUri it is asked for its keys",
        "audiences": "one of them; absent: any",
        "jwks": "inline; RSA, EC, OKP, secrets (oct) are left out",
        "jwksUri": "http or https, fetched by the agent from the node, every 20 minutes; what was "
        "never fetched makes no token good, and `status` says why",
        "fromHeaders": "none of from…: Authorization: Bearer, and access_token of the query",
        "forwardOriginalToken": "absent: the workload does not see it",
        "outputPayloadToHeader": "base64url; what clients say in it is removed",
        "outputClaimToHeaders": "what clients say in it is removed",
        "timeout": "of a fetch; 5s",
    },
    MutualTLS: {"mode": "UNSET is what the next wider scope says"},
    ClusterFederatedTrustDomainSpec: {
        "trustDomain": "its bundles are given to every workload, apart from ours",
        "bundleEndpointURL": "https; asked again when its refresh hint is over, and not redirected",
        "trustDomainBundle": "until the endpoint has been heard; required with https_spiffe",
    },
    BundleEndpointProfile: {
        "type": "https_web: a certificate for the host; https_spiffe: an SVID of the trust domain",
        "endpointSPIFFEID": "with https_spiffe",
    },
    ClusterSPIFFEIDSpec: {
        "spiffeIDTemplate": f"`{TEMPLATE}` only: policy goes by it",
        "namespaceSelector": "absent: every namespace",
        "podSelector": "absent: every pod",
        "workloadSelectorTemplates": "`unix:uid:`, `gid`, `path`, `sha256`: who of the pod's "
        "processes may fetch its identity by the Workload API, and of uid and gid (32 pairs of a "
        "pod) dial through the mesh; all must hold, of one object",
    },
    PostureSpec: {
        "base": "zero-trust, kubernetes; absent: what up --posture says",
        "relaxations": "each ends by itself; `audit` lists them until then",
    },
    Relaxation: {
        "name": "once in the object; named by verdicts that it brings about",
        "until": "RFC 3339 with a zone; in the past: taken, said by apply, relaxes nothing",
        "reason": "required",
        "podSelector": "absent: the whole namespace",
        "ports": "of these workloads, for who connects to them; absent: all, in both directions. "
        "A port that has rules about requests keeps those",
        "enforcement": "audit: what policy denies passes, and is told with verdict AUDIT",
        "mtls": "permissive or disabled, where it would be stricter; not of ports that have rules "
        "about requests",
        "discovery": "open: everybody is told of the namespace's services; without podSelector and "
        "ports",
    },
    TrafficPolicySpec: {
        "targetRefs": "of its own namespace; requests to these ports are looked at, and balanced "
        "one by one, also without a route. Of several about one port the oldest holds",
        "outlierDetection": "absent: nobody is ejected",
        "circuitBreaker": "on this node, of all clients together",
        "consistentHash": "of Services; ring hash, or Maglev if the Service's annotation says so",
        "rateLimits": "all of them hold, those of a route and of the Service that was dialled; "
        "answers 429, gRPC: ResourceExhausted. Not of redirects",
        "faultInjection": "of a route before that of the Service that was dialled",
    },
    TargetReference: {
        "kind": "Service; HTTPRoute or GRPCRoute with their group",
        "sectionName": "name of a port of a Service; absent: all TCP ports. Of a route: name of a "
        "rule; absent: those that no other policy names",
    },
    ConsistentHash: {
        "header": "this or cookie; who has none is told by its pod, or address",
        "cookie": "of who has one",
    },
    HashedCookie: {"ttl": "who has none is given one, for so long; absent: nobody is"},
    PolicyTimeouts: {
        "connect": "of Services; to the other end's proxy; 10s",
        "request": "where the route's rule has none",
        "backendRequest": "of each try, where the route's rule has none",
    },
    PolicyRetry: {
        "budget": "of Services",
        "methods": "of whose requests answers with a route's `retry.codes` are tried again; "
        "absent: those that may be repeated (RFC 9110)",
    },
    RetryBudget: {
        "percent": "of the requests under way; 20",
        "minConcurrent": "so many in any case; 3",
    },
    RateLimit: {
        "requests": "in one go at most, and so many in every `per`; more are answered 429",
        "per": "50 ms or longer; 1s",
        "each": "Identity: the client's SPIFFE ID, at a Gateway its address; Namespace: clients "
        "of one together, at a Gateway all. Counted on this node, for what the policy is attached "
        "to; anew when a route of that namespace changes",
    },
    FaultInjection: {"headers": "of requests that have all of these; absent: of all"},
    Abort: {"status": "this or grpcStatus"},
    OutlierDetection: {
        "consecutiveErrors": "answers of 500 and above, or none; 5",
        "interval": "how often who may come back is asked; 10s",
        "baseEjectionTime": "times how often it was ejected already; 30s",
        "maxEjectionTime": "5m",
        "maxEjectionPercent": "of the backends; one in any case; 50",
    },
    CircuitBreaker: {
        "maxConnections": "of the proxy to the pods' processes, HTTP/1.1; one for each pod and "
        "thread of the proxy in any case",
        "maxPendingRequests": "waiting for such a connection; more are answered 503",
        "maxRequests": "sent, and not answered yet; more are answered 503",
        "maxRetries": "at once; absent: a fifth of the requests under way, and three",
    },
    FQDNSelector: {
        "matchName": "the name that is asked for, whatever its CNAMEs",
        "matchPattern": "* stands for characters of one label, **. before it for one label or "
        "more, * alone for every name",
    },
    CiliumPort: {
        "port": 'a number in quotes, "0" is all; or name of a containerPort of the destination',
        "endPort": "inclusive; needs a number in port",
        "protocol": "absent, ANY: TCP, UDP and SCTP",
    },
    ICMPField: {"type": "number, or one of Cilium's names"},
    CIDRRule: {"except": "inside cidr; of a group, the parts of its CIDRs"},
    NetworkPolicyPort: {
        "port": "number, or name of a containerPort of the destination; absent: all",
        "endPort": "inclusive; needs a number in port",
    },
}

_HEAD = """# Supported fields

Every field of every kind that Sixfold reads, and what it does with it. This page is made from the
code that decides (`python -m sixfold.manifest.support > docs/support.md`), and a test holds both
together.

- **enforced**: it does what Kubernetes says.
- **refused**: the manifest is not taken; the message says why. Values that ask for what happens
  anyway (in the note) are taken. Fields marked *offline: taken* concern only a process that runs
  here: `explain -f`, `reach -f`, `verify -f`, `diff` and `lint -f` take them and look at the rest.
- **accepted, no effect**: taken, kept, shown; nothing else happens.

A field that is not on this page is unknown and refused. `null` is the same as absent.

## Kinds

| kind | apiVersion | |
|---|---|---|
"""

_TAIL = f"""
Every other kind (ServiceAccount, Role, custom resources…) is ignored: counted and named
by `apply`, never an error. A policy of another dialect (Linkerd's, Calico's kinds…)
is ignored in the same way: it is **not** in force, and `apply` says so. `kind: List` is unpacked.

Offline, manifests of other projects and dumps of clusters can be judged as they are:

- CronJob and ReplicationController are workloads too; a pod goes by its controller's name as well,
  as its ownerReferences have it; what a cluster derives (Endpoints, EndpointSlice) is ignored;
- versions that servers have dropped are taken: extensions/v1beta1, apps/v1beta1 and apps/v1beta2 of
  workloads, extensions/v1beta1 of NetworkPolicy, batch/v1beta1 of CronJob;
- of a workload or Service, what no policy depends on may be missing or unknown, unless it looks
  like a slip of the pen.

## Images

Containers run commands from the host's file system: `image: host`, or none, and a `command`. Images
are refused by `up` and `apply`, and taken by offline commands, which run nothing. Containers with
images belong to a container runtime, which attaches them to Sixfold as a CNI plugin: designed, and
not part of this version yet.

## Bounds

At most {TOTAL_BYTES_MAX >> 20} MiB of manifests in one command, {NODES_MAX:,} values in one file,
{DEPTH_MAX} levels of nesting, {ALIASED_NODES_MAX:,} values repeated by aliases. Files are UTF-8.

## Stricter than Kubernetes

- a key twice in one mapping is refused, and an object twice in one command (offline: unless both
  are alike); a CIDR with host bits (10.0.0.1/24) too, of NetworkPolicy and the ordered kinds
  (offline: taken);
- an unknown field is refused, never dropped;
- one port name with one protocol means one port in the whole pod, not per container;
- a `null` in a list is refused; `generateName` needs a `name`;
- probe times and thresholds of 0 are refused, not replaced by the default.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "\n".join(_kinds()) + "\n" + _TAIL + "\n".join(_sections()) + "\n"


def rows(struct: type[Object]) -> list[Row]:
    """One row per field of a struct and per upstream field that it lacks."""
    refused, no_effect = REFUSED.get(struct, {}), NO_EFFECT.get(struct, {})
    notes = {
        name: note
        for base in reversed(struct.__mro__)
        for name, note in _NOTES.get(base, {}).items()
    }
    table = []
    known = {field.encode_name: field.type for field in struct_type(struct).fields}
    for name in [*known, *(name for name in refused if name not in known)]:
        if name in ("apiVersion", "kind"):
            continue
        if name in refused:
            table.append(Row(name, "refused", _refusal_note(struct, name)))
        elif name in no_effect:
            table.append(Row(name, "accepted, no effect", no_effect[name]))
        else:
            table.append(Row(name, "enforced", notes.get(name) or _see(known[name])))
    return table


def structs() -> dict[type[Object], list[str]]:
    """Every struct of our kinds with the paths where it stands, in order of reading."""
    places: dict[type[Object], list[str]] = {}
    for kind in KINDS.values():
        if kind.struct is not None and not kind.derived:
            _visit(struct_type(kind.struct), kind.name, places)
    return places


def _visit(wanted: inspect.Type, path: str, places: dict[type[Object], list[str]]) -> None:
    match wanted:
        case inspect.StructType(cls=cls):
            assert issubclass(cls, Object)
            places.setdefault(cls, []).append(path)
            for field in wanted.fields:
                _visit(field.type, f"{path}.{field.encode_name}", places)
        case inspect.ListType(item_type=item):
            _visit(item, f"{path}[]", places)
        case inspect.UnionType(types=types):
            for one in types:
                _visit(one, path, places)


def _see(wanted: inspect.Type) -> str:
    """A link to the section of the struct that stands in a field."""
    match wanted:
        case inspect.StructType(cls=cls):
            return f"see [{cls.__name__}](#{cls.__name__.lower()})"
        case inspect.ListType(item_type=item):
            return _see(item)
        case inspect.UnionType(types=types):
            return next((text for one in types if (text := _see(one))), "")
        case inspect.LiteralType(values=values):
            return ", ".join(map(str, values))
    return ""


def _refusal_note(struct: type[Object], name: str) -> str:
    refusal = REFUSED[struct][name]
    taken = ", ".join(f"`{_yaml(value)}`" for value in refusal.harmless)
    parts = [refusal.why, f"{taken} is taken" if taken else ""]
    parts.append("*offline: taken*" if refusal.local else "")
    return "; ".join(part for part in parts if part)


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(part)}" for key, part in value.items()) + "}"
    return str(value)


def _kinds() -> Iterator[str]:
    for kind in KINDS.values():
        what = (
            "derived, shown by `get`; written by users: refused, give an EndpointSlice"
            if kind.derived
            else "ours"
        )
        what += f", also {', '.join(kind.older)}" if kind.older else ""
        yield f"| {kind.name} | {kind.api_version} | {what} |"


def _sections() -> Iterator[str]:
    for struct, places in structs().items():
        yield f"\n## {struct.__name__}\n"
        yield ", ".join(f"`{place}`" for place in _short(places)) + "\n"
        yield "| field | | note |"
        yield "|---|---|---|"
        for row in rows(struct):
            yield f"| {row.field} | {row.status} | {row.note} |"


def _short(places: list[str]) -> list[str]:
    """Where a struct stands, pod templates said once: they are alike in all kinds."""
    template = ".spec.template."
    shown = [place for place in places if template not in place]
    templated = {place.partition(template)[2] for place in places if template in place}
    covered = {place.removeprefix("Pod.") for place in shown}
    return shown + [f"…spec.template.{rest}" for rest in sorted(templated - covered)]


if __name__ == "__main__":
    print(page(), end="")
