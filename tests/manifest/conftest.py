"""Manifests for the tests: valid objects to break, and what is said about broken ones."""

from __future__ import annotations

import copy

import pytest

from sixfold.errors import ManifestError
from sixfold.manifest import decode, loads


def container(**more):
    return {"name": "main", "command": ["sleep", "60"], **more}


def pod(spec=None, **more):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"containers": [container()], **(spec or {})},
        **more,
    }


def deployment(spec=None, kind="Deployment"):
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container()]},
            },
            **(spec or {}),
        },
    }


def job(spec=None):
    template = {"spec": {"restartPolicy": "Never", "containers": [container()]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once"},
        "spec": {"template": template, **(spec or {})},
    }


def service(spec=None):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **(spec or {})},
    }


def endpoint_slice(**more):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {}, "targetRef": {}}],
        "ports": [{"port": 80}],
        **more,
    }


def pool(spec=None):
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": "link"},
        "spec": {"blocks": [{"cidr": "192.0.2.0/24"}], "serviceSelector": {}, **(spec or {})},
    }


def peer_authentication(spec=None):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "mtls": {"mode": "STRICT"},
            "portLevelMtls": {"8080": {"mode": "DISABLE"}},
            **(spec or {}),
        },
    }


def authorization_policy(*rules, **spec):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "action": "DENY",
            "rules": list(rules)
            or [
                {
                    "from": [{"source": {"namespaces": ["shop"]}}],
                    "to": [{"operation": {"methods": ["GET"]}}],
                    "when": [{"key": "request.headers[x-team]", "values": ["red"]}],
                }
            ],
            **spec,
        },
    }


def request_authentication(**rule):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "web"},
        "spec": {
            "jwtRules": [
                {
                    "issuer": "https://issuer.example",
                    "fromHeaders": [{"name": "x-token", "prefix": "Token "}],
                    "outputClaimToHeaders": [{"header": "x-team", "claim": "team"}],
                    **rule,
                }
            ],
        },
    }


def policy(spec=None):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "allow"},
        "spec": {"podSelector": {}, **(spec or {})},
    }


def cluster_policy(spec=None, kind="ClusterNetworkPolicy"):
    """An object of an ordered kind; ``spec`` replaces parts of a valid one."""
    older = kind != "ClusterNetworkPolicy"
    head = {"tier": "Admin"} if not older else {}
    head |= {"priority": 10} if kind != "BaselineAdminNetworkPolicy" else {}
    action = "Allow" if older else "Accept"
    return {
        "apiVersion": f"policy.networking.k8s.io/v1alpha{1 if older else 2}",
        "kind": kind,
        "metadata": {"name": "default"},
        "spec": {
            **head,
            "subject": {"namespaces": {}},
            "ingress": [{"action": action, "from": [{"namespaces": {}}]}],
            "egress": [{"action": action, "to": [{"namespaces": {}}]}],
            **(spec or {}),
        },
    }


def cilium_policy(spec=None, kind="CiliumNetworkPolicy"):
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}]}]
    requests = [{**ports[0], "rules": {"http": [{"headerMatches": [{"name": "x"}]}]}}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": kind,
        "metadata": {"name": "allow"},
        "spec": {
            "endpointSelector": {},
            "ingress": [{"fromEndpoints": [{}], "toPorts": requests}],
            "egress": [{"toEndpoints": [{}], "toPorts": ports}],
            **(spec or {}),
        },
    }


def cidr_group(cidrs=("192.0.2.0/24",), version="v2"):
    return {
        "apiVersion": f"cilium.io/{version}",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "partners"},
        "spec": {"externalCIDRs": list(cidrs)},
    }


def http_route(spec=None, rule=None, kind="HTTPRoute"):
    match = {} if kind == "HTTPRoute" else {"method": {"service": "shop.Cart"}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [
                {
                    "matches": [match],
                    "filters": [
                        {
                            "type": "RequestHeaderModifier",
                            "requestHeaderModifier": {"set": [{"name": "x", "value": "1"}]},
                        }
                    ],
                    "backendRefs": [{"name": "web", "port": 80}],
                    "sessionPersistence": {"sessionName": "basket"},
                    **(rule or {}),
                }
            ],
            **(spec or {}),
        },
    }


def grant():
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "routes"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "a"}],
            "to": [{"group": "", "kind": "Service"}],
        },
    }


def traffic_policy(spec=None):
    return {
        "apiVersion": "sixfold.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "web"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "web"}],
            "outlierDetection": {"consecutiveErrors": 3},
            "circuitBreaker": {"maxRequests": 100},
            "consistentHash": {"cookie": {"name": "user", "ttl": "1h"}},
            "timeouts": {"connect": "1s", "request": "10s", "backendRequest": "0s"},
            "retry": {"budget": {"percent": 5}, "methods": ["GET", "POST"]},
            "rateLimits": [{"requests": 10}],
            "faultInjection": {
                "delay": {"duration": "1s"},
                "abort": {"status": 503, "percent": 50},
                "headers": [{"name": "x", "value": "1"}],
            },
            **(spec or {}),
        },
    }


def federated_trust_domain(spec=None):
    return {
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": "partner"},
        "spec": {
            "trustDomain": "partner.example",
            "bundleEndpointURL": "https://partner.example:8443/bundle",
            "bundleEndpointProfile": {"type": "https_web"},
            **(spec or {}),
        },
    }


def spiffe_id(spec=None):
    return {
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": {"name": "web"},
        "spec": {
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/"
            "{{ .PodSpec.ServiceAccountName }}",
            **(spec or {}),
        },
    }


def gateway_class():
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "sixfold"},
        "spec": {"controllerName": "sixfold.dev/gateway"},
    }


def gateway(*listeners, **spec):
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    listener["allowedRoutes"] = {"namespaces": {"from": "All"}, "kinds": [{"kind": "HTTPRoute"}]}
    listener |= {"protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "shop"}]}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "front"},
        "spec": {
            "gatewayClassName": "sixfold",
            "listeners": list(listeners) or [listener],
            "addresses": [{"value": "192.0.2.7"}],
            "infrastructure": {"labels": {"tier": "edge"}},
            **spec,
        },
    }


def stream_route(kind="TLSRoute", **spec):
    hosts = {"hostnames": ["shop.example.com"]} if kind == "TLSRoute" else {}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "db"},
        "spec": {
            "parentRefs": [{"name": "front"}],
            "rules": [{"backendRefs": [{"name": "db", "port": 5432}]}],
            **hosts,
            **spec,
        },
    }


def backend_tls(**validation):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "web"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "web"}],
            "validation": {
                "hostname": "web.example.com",
                "caCertificateRefs": [{"name": "ca"}],
                "subjectAltNames": [{"type": "Hostname", "hostname": "a.example.com"}],
                **validation,
            },
        },
    }


def service_entry(**spec):
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "api"},
        "spec": {
            "hosts": ["api.example.com"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 443}],
            "resolution": "DNS",
            **spec,
        },
    }


def destination_rule(**tls):
    wanted = {"mode": "MUTUAL", "credentialName": "api", **tls}
    each = {"port": {"number": 8080}, "tls": {"mode": "DISABLE"}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "api"},
        "spec": {
            "host": "api.example.com",
            "trafficPolicy": {"tls": wanted, "portLevelSettings": [each]},
        },
    }


def secret(**fields):
    meta = {"name": "shop"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"a": "Yg=="}, **fields}


def config_map(**fields):
    meta = {"name": "shop"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}, **fields}


def posture(relaxation=None, **spec):
    return {
        "apiVersion": "sixfold.dev/v1",
        "kind": "Posture",
        "metadata": {"name": "default"},
        "spec": {
            "base": "zero-trust",
            "relaxations": [
                {
                    "name": "legacy",
                    "namespace": "shop",
                    "until": "2126-12-24T18:00:00Z",
                    "reason": "a client that speaks no TLS",
                    "podSelector": {"matchLabels": {"app": "web"}},
                    "ports": [{"port": 8080}],
                    "mtls": "permissive",
                    **(relaxation or {}),
                }
            ],
            **spec,
        },
    }


def namespace():
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}


class Make:
    """Builders of valid objects; each call gives a fresh one."""

    container = staticmethod(container)
    pod = staticmethod(pod)
    deployment = staticmethod(deployment)
    job = staticmethod(job)
    service = staticmethod(service)
    endpoint_slice = staticmethod(endpoint_slice)
    policy = staticmethod(policy)
    pool = staticmethod(pool)
    peer_authentication = staticmethod(peer_authentication)
    authorization_policy = staticmethod(authorization_policy)
    request_authentication = staticmethod(request_authentication)
    cluster_policy = staticmethod(cluster_policy)
    cilium_policy = staticmethod(cilium_policy)
    cidr_group = staticmethod(cidr_group)
    http_route = staticmethod(http_route)
    grant = staticmethod(grant)
    traffic_policy = staticmethod(traffic_policy)
    federated_trust_domain = staticmethod(federated_trust_domain)
    spiffe_id = staticmethod(spiffe_id)
    gateway = staticmethod(gateway)
    secret = staticmethod(secret)
    backend_tls = staticmethod(backend_tls)
    stream_route = staticmethod(stream_route)
    config_map = staticmethod(config_map)
    posture = staticmethod(posture)
    namespace = staticmethod(namespace)

    @staticmethod
    def all():
        kinds = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")
        objects = [namespace(), pod(), job(), service(), endpoint_slice(), policy(), pool()]
        objects += [peer_authentication(), authorization_policy()]
        objects.append(request_authentication())
        ordered = ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
        objects += [cluster_policy(kind=kind) for kind in ordered]
        clusterwide = cilium_policy(kind="CiliumClusterwideNetworkPolicy")
        objects += [cilium_policy(), clusterwide, cidr_group()]
        objects += [http_route(), http_route(kind="GRPCRoute"), grant()]
        objects.append(traffic_policy())
        objects += [federated_trust_domain(), spiffe_id(), posture()]
        objects += [gateway_class(), gateway(), secret(), config_map()]
        objects += [
            backend_tls(),
            service_entry(),
            destination_rule(),
            stream_route(),
            stream_route(kind="TCPRoute"),
        ]
        return copy.deepcopy(objects + [deployment(kind=kind) for kind in kinds])


@pytest.fixture
def make():
    return Make


@pytest.fixture
def said():
    """``path: message`` of every problem of one object; empty when it is valid."""

    def check(raw, **options):
        try:
            decode(raw, **options)
        except ManifestError as error:
            return [f"{problem.path}: {problem.message}" for problem in error.problems]
        return []

    return check


@pytest.fixture
def told():
    """The lines that a user reads about one text; empty when it is valid."""

    def check(text, source="shop.yaml", **options):
        try:
            loads(text, source, **options)
        except ManifestError as error:
            return str(error).splitlines()
        return []

    return check
