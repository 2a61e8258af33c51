"""What a gRPC client is told that balances for itself (``xds:///``), without a proxy.

Pure. The same services, routes and backends as a proxy is told of, in the subset that gRPC reads
(gRFC A27, A28, A29): one listener by the name that was dialled, its routes inside, a cluster for
each service's port, and the backends' own addresses. With xDS credentials the client shows its SVID
and takes only the SPIFFE IDs of the backends; where to find its certificates its bootstrap says.
What gRPC would pass over in silence is not told: such a name does not resolve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from sixfold.mesh.http import Backend
from sixfold.mesh.http_routes import cluster_of
from sixfold.mesh.messages import ADS, Resource, extension, packed, resource
from sixfold.mesh.resources import socket_at
from sixfold.mesh.routes import GRPC, ServicePort, Way
from sixfold.model.httproute import HTTPMatch, ValueMatch
from sixfold.model.mesh import PROVIDER
from sixfold.model.world import World


def port_named(world: World, name: str, namespace: str) -> ServicePort | None:
    """The service's port that a client means: ``web``, ``web.shop.svc:80``; None: none is it.

    Without a port it is the service's only one. The service may be written as for DNS.
    """
    host, _, digits = name.partition(":")
    labels = host.removesuffix(".").removesuffix(f".svc.{world.config.cluster_domain}")
    service, _, where = labels.removesuffix(".svc").partition(".")
    found = world.services.get(f"{where or namespace}/{service}")
    ports = [] if found is None else [it.port for it in found.spec.ports if it.protocol == "TCP"]
    wanted = int(digits) if digits.isdigit() else ports[0] if len(ports) == 1 else 0
    return ServicePort(f"{where or namespace}/{service}", wanted) if wanted in ports else None


def why_not(ways: Iterable[Way]) -> str:
    """What of these routes gRPC would pass over; "": nothing."""
    for way in ways:
        steps = (*way.filters, *(step for one in way.backends for step in one.filters))
        parts = {
            "filters": steps,
            "timeouts": way.timeout_s or way.try_s,
            "a retry": way.retry,
            "session persistence": way.session,
            "hashes": way.hashes,
            "limits": way.limits,
            "a fault": way.fault,
            "query parameters": way.match.query_params,
            "a backend that is not there": any(one.to is None for one in way.backends),
        }
        if found := [name for name, said in parts.items() if said]:
            return f"{way.name} has {', '.join(found)}"
    return ""


def listener(name: str, ways: Sequence[Way]) -> Resource:
    """By the name that the client dialled."""
    manager = hcm.HttpConnectionManager(
        route_config=route_pb2.RouteConfiguration(
            name=name,
            virtual_hosts=[
                {"name": name, "domains": ["*"], "routes": [_route(way) for way in ways]}
            ],
        ),
        http_filters=[extension("envoy.filters.http.router", router_pb2.Router())],
    )
    api = listener_pb2.Listener(name=name, api_listener={"api_listener": packed(manager)})
    return resource(name, api)


def cluster(port: ServicePort, backends: Sequence[Backend]) -> Resource:
    """gRPC goes round the backends, whatever the service's algorithm is."""
    provider = {"instance_name": PROVIDER}
    ids = sorted({one.member.id for one in backends})
    tls = tls_pb2.UpstreamTlsContext(
        common_tls_context={
            "tls_certificate_provider_instance": provider,
            "combined_validation_context": {
                "default_validation_context": {
                    "ca_certificate_provider_instance": provider,
                    "match_subject_alt_names": [{"exact": one} for one in ids],
                }
            },
        }
    )
    name = cluster_of(port)
    found = cluster_pb2.Cluster(
        name=name,
        type="EDS",
        eds_cluster_config={"eds_config": ADS},
        lb_policy="ROUND_ROBIN",
        transport_socket=extension("envoy.transport_sockets.tls", tls),
    )
    return resource(name, found)


def endpoints(port: ServicePort, backends: Sequence[Backend]) -> Resource:
    """Where they really are: no proxy is on the way that one would have to know of."""
    name = cluster_of(port)
    places = [
        {
            "endpoint": {"address": socket_at(str(one.address), one.port)},
            "load_balancing_weight": {"value": one.weight},
        }
        for one in backends
        if one.weight
    ]
    here = {"locality": {"zone": "here"}, "load_balancing_weight": {"value": 1}}
    found = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name, endpoints=[{**here, "lb_endpoints": places}] if places else []
    )
    return resource(name, found)


def ports_of(ways: Iterable[Way]) -> set[ServicePort]:
    """All that these routes lead to."""
    return {one.to for way in ways for one in way.backends if one.to is not None}


def _route(way: Way) -> dict[str, Any]:
    total = [(one.to, one.weight) for one in way.backends if one.to is not None]
    weighted = [{"name": cluster_of(to), "weight": {"value": weight}} for to, weight in total]
    return {
        "match": _match(way.match),
        "route": {"weighted_clusters": {"clusters": weighted}}
        if sum(weight for _, weight in total)
        else {"cluster": "none"},
    }


def _match(match: HTTPMatch) -> dict[str, Any]:
    path, value = match.path, match.path.value
    found: dict[str, Any] = {"headers": [_header(one) for one in match.headers if one != GRPC]}
    if path.type == "Exact":
        return found | {"path": value}
    if path.type == "RegularExpression":
        return found | {"safe_regex": {"regex": value}}
    return found | {"prefix": f"{value.rstrip('/')}/" if value.strip("/") else ""}


def _header(one: ValueMatch) -> Mapping[str, Any]:
    exact = one.type == "Exact"
    said = {"exact": one.value} if exact else {"safe_regex": {"regex": one.value}}
    return {"name": one.name.lower(), "string_match": said}
