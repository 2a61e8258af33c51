"""What Envoy is told of ports whose requests are looked at: routed ones, and those of L7 policy.

Pure. On the client's side requests are read where they were captured, on a listener of their own
beside the one for opaque connections: a route picks the backend for each request, and it travels
as it is, over HTTP/2 in TLS, to the tunnel port of the backend's pod. On the server's side it is
judged, and goes to the application as HTTP/1.1, or HTTP/2 when it is a call of gRPC. So each side
reads a request once, and only on ports that need it.

Where a request wants to go is a header between the two proxies: of the sender's word, since the
rules of the port that it names hold for it.

Each service has a table of routes of its own, which the address that was dialled picks (a scope),
and in it a host for each port, and for each namespace of clients that has routes of its own. So a
change of one route has Envoy build one table, whatever else is routed, and no table is there twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    header_mutation_pb2 as early,
)
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import struct_pb2

from sixfold.mesh import copies, kept_headers, logs, on_demand, resilience
from sixfold.mesh import resources as parts
from sixfold.mesh.backend_tls import Tls, Verified, context
from sixfold.mesh.foreign import Foreign
from sixfold.mesh.foreign_resources import chain as foreign_chain
from sixfold.mesh.http_filters import CLIENT, CLIENTS, filters_of_host, http_filters
from sixfold.mesh.http_routes import cluster_of, routes_of
from sixfold.mesh.member import Member, authority
from sixfold.mesh.messages import ADS, Resource, extension, packed, resource
from sixfold.mesh.routes import Routed, ServicePort, Way
from sixfold.mesh.stream_resources import chains
from sixfold.mesh.streams import ServiceStreams
from sixfold.model.algorithm import TABLE_SIZE_DEFAULT, Algorithm
from sixfold.model.datapath import IPAddress
from sixfold.model.locality import OVERPROVISIONING_DEFAULT
from sixfold.model.mesh import (
    CLIENT_PORT,
    COPIES,
    COPY_TO,
    DESTINATION,
    HTTP_PORT,
    TUNNEL_PORT,
)
from sixfold.model.trafficpolicy import TrafficPolicySpec

POD = "x-sixfold-pod"  # what was dialled: picks the table, and is the cluster without a route
METADATA = "sixfold"
APPLICATION, APPLICATION_HTTP2 = "requests", "calls"  # clusters: where a request wants to go
# Calls that rules are about have a connection each: so one can be cut without the others.
EACH_CALL = f"{APPLICATION_HTTP2}|each"
REQUESTS_PART = 2  # of what a proxy may pass on as it is
TOLD = "policy_"  # before what the filter says of rules that are told only


class Backend(NamedTuple):
    """A backend of a service: the pod, and the port behind the service's.

    priority  0: has its share; more: when too many of those before it are ejected
    """

    member: Member
    address: IPAddress
    port: int
    weight: int = 1
    priority: int = 0


PODS = "requests"  # table of what is dialled at a pod's own address


def routes_name(service: str) -> str:
    return f"requests|{service}"


def clients(namespace: str, port: int | str) -> str:
    """Of a namespace, who dialled a port."""
    return f"{namespace}:{port}"


def outbound(
    member: Member,
    connections_max: int = 0,
    streams: Sequence[ServiceStreams] = (),
    foreign: Sequence[tuple[Member | None, Foreign]] = (),
) -> Resource:
    """Where requests of a pod's processes are captured, on its loopback; and connections to
    services that a TCPRoute is about, or that are of other trust domains. Another chain cuts
    nobody in this one.

    foreign  each with the Gateway's pod by which it is reached
    """
    states = [
        parts.state(parts.NETNS_STATE, member.netns),
        parts.state(parts.SVID_STATE, parts.client_secret(member.id)),
    ]
    said = [
        parts.set_header(POD, "pod|%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"),
        parts.set_header(CLIENT, member.id),
        parts.set_header(CLIENTS, clients(member.pod.partition("/")[0], "%DOWNSTREAM_LOCAL_PORT%")),
        parts.set_header(CLIENT_PORT, "%DOWNSTREAM_REMOTE_PORT%"),
        parts.set_header(COPIES, copies.cluster_name(member)),
    ]
    manager = hcm.HttpConnectionManager(
        stat_prefix="requests",
        codec_type="AUTO",
        scoped_routes={
            "name": "requests",
            "scope_key_builder": {
                "fragments": [{"header_value_extractor": {"name": POD, "index": 0}}]
            },
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
        },
        early_header_mutation_extensions=[
            extension(
                "envoy.http.early_header_mutation.header_mutation",
                early.HeaderMutation(mutations=said),
            )
        ],
        http_filters=http_filters(),
        upgrade_configs=[{"upgrade_type": "websocket"}],
        http2_protocol_options={"allow_connect": False},
        access_log=[
            logs.answered_here(
                logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.SENT, parts.NETNS_STATE)
            ),
            logs.sent_abroad(
                logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.ABROAD, parts.NETNS_STATE)
            ),
        ],
        stream_idle_timeout=timedelta(0),
        generate_request_id={"value": False},
        skip_xff_append=True,
        server_header_transformation="PASS_THROUGH",
        normalize_path={"value": True},
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
    )
    listener = listener_pb2.Listener(
        name=f"requests|{member.pod}",
        traffic_direction="OUTBOUND",
        listener_filters=[parts.ORIGINAL_DESTINATION],
        filter_chains=[
            *(it for one in streams if one.addresses for it in chains(member, one)),
            *(foreign_chain(member, by, one) for by, one in foreign if one.addresses),
            {
                "name": "requests",
                "filters": [
                    *parts.at_most(connections_max),
                    parts.set_states(states),
                    extension("envoy.filters.network.http_connection_manager", manager),
                ],
            },
        ],
        **parts.listen_at(parts.on_loopback(member, HTTP_PORT)),
    )
    return resource(listener.name, listener)


def scope(address: IPAddress, table: str) -> Resource:
    """What is dialled at an address is looked up in a table."""
    key = {"fragments": [{"string_key": parts.cluster_name(address)}]}
    found = scoped_route_pb2.ScopedRouteConfiguration(
        name=str(address), route_configuration_name=table, key=key
    )
    return resource(found.name, found)


def routes(service: str, ports: Iterable[tuple[ServicePort, Routed]]) -> Resource:
    """Of a service, by port and by its clients' namespace: each routed port has a producer."""
    hosts = [
        _host(f"{port} of {namespace}", clients(namespace, port.port), ways)
        for port, routed in ports
        for namespace, ways in (("*", routed.producer or ()), *sorted(routed.consumers.items()))
    ]
    return _table(routes_name(service), hosts)


def pods() -> Resource:
    """What no route is about goes where it was dialled to."""
    rest = {
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": POD,
            "timeout": timedelta(0),
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        },
        "request_headers_to_add": [
            parts.set_header(DESTINATION, "%DOWNSTREAM_LOCAL_ADDRESS%")["append"]
        ],
    }
    return _table(PODS, [{"name": "pods", "domains": ["*"], "routes": [rest]}])


def _host(name: str, clients: str, ways: Sequence[Way]) -> dict[str, Any]:
    """``*:80`` is whoever dialled that port."""
    filters = filters_of_host(ways)
    routes = routes_of(ways)
    return {
        "name": name,
        "domains": [clients],
        "routes": routes,
        "typed_per_filter_config": filters,
    }


def _table(name: str, hosts: Sequence[dict[str, Any]]) -> Resource:
    table = route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=hosts,
        vhost_header=CLIENTS,
        typed_per_filter_config=on_demand.of_table,
        request_headers_to_remove=[POD, CLIENT, CLIENTS],
    )
    return resource(name, table)


def service(
    port: ServicePort,
    algorithm: Algorithm,
    ids: Iterable[str],
    spec: TrafficPolicySpec,
    lifetime: timedelta,
    table_size: int = TABLE_SIZE_DEFAULT,
    panic: int = 0,
) -> Resource:
    """The backends of a port, picked for each request; who they are is told apart (EDS).

    ids        SPIFFE IDs of the backends: each proves to be the one that is meant
    spec       what a policy says of requests to it
    lifetime   of a connection, as of tunnels
    panic      percent: with fewer that are not ejected, all are used
    """
    matches = [
        {
            "name": one,
            "match": {"id": one},
            "transport_socket": extension("envoy.transport_sockets.tls", parts.client_tls(one)),
        }
        for one in sorted(ids)
    ]
    name = cluster_of(port)
    cluster = cluster_pb2.Cluster(
        name=name,
        type="EDS",
        eds_cluster_config={"eds_config": ADS},
        **resilience.picking(algorithm, table_size, spec),
        common_lb_config={"healthy_panic_threshold": {"value": panic}},
        connect_timeout=resilience.connect_timeout(spec),
        circuit_breakers=resilience.of_service(spec),
        outlier_detection=resilience.outliers(spec),
        upstream_bind_config=parts.from_the_pod(),
        transport_socket_matches=matches,
        typed_extension_protocol_options={
            parts.OPTIONS: packed(
                over_http2(
                    [
                        parts.set_header(
                            DESTINATION, f'%UPSTREAM_METADATA(["{METADATA}","destination"])%'
                        )
                    ],
                    lifetime,
                )
            )
        },
    )
    return resource(name, cluster, on_demand=True)


def endpoints(
    port: ServicePort, backends: Sequence[Backend], overprovisioning: int = OVERPROVISIONING_DEFAULT
) -> Resource:
    """Who is behind a port now; nobody is answered 503."""
    name = cluster_of(port)
    places: dict[int, list[dict[str, Any]]] = {}
    for one in backends:
        if one.weight:
            places.setdefault(one.priority, []).append(_endpoint(one))
    found = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[
            {"priority": priority, "lb_endpoints": those}
            for priority, (_, those) in enumerate(sorted(places.items()))
        ],
        policy={"overprovisioning_factor": {"value": overprovisioning}},
    )
    return resource(name, found)


def _endpoint(one: Backend) -> dict[str, Any]:
    return {
        "endpoint": {
            "address": parts.socket_at(str(one.address), TUNNEL_PORT),
            # Two ports of a pod are two endpoints of one address.
            "hostname": authority(one.address, one.port),
        },
        "load_balancing_weight": {"value": one.weight},
        "metadata": {
            "filter_metadata": {
                METADATA: _struct(destination=authority(one.address, one.port)),
                "envoy.transport_socket_match": _struct(id=one.member.id),
            }
        },
    }


def applications(
    limited: Mapping[ServicePort, TrafficPolicySpec],
    secured: Mapping[ServicePort, Tls],
    carried_max: int = 0,
) -> tuple[Resource, ...]:
    """The last step of a request: from the proxy to the pod's process.

    limited      services whose pods get so many connections at most
    secured      services whose pods speak TLS themselves
    carried_max  connections that one proxy may pass on as they are; 0: no limit
    """
    # HTTP/2 of a client is one connection, and may ask for as many to processes as it has requests.
    bounds = parts.no_limits(connections_max=carried_max // REQUESTS_PART)
    free = (_application(name, bounds) for name in common_applications())
    bound = (
        _application(_limited(port), resilience.of_application(spec))
        for port, spec in limited.items()
        if port not in secured
    )
    checked = (
        _application(
            _secured_cluster(name, port),
            resilience.of_application(limited[port]) if port in limited else bounds,
            tls,
            http2=name == APPLICATION_HTTP2,
        )
        for port, tls in secured.items()
        if isinstance(tls, Verified)
        for name in (APPLICATION, APPLICATION_HTTP2)
    )
    return (*free, *bound, *checked)


def common_applications() -> tuple[str, ...]:
    """Clusters of the last step that every pod has."""
    return APPLICATION, APPLICATION_HTTP2, EACH_CALL


def applications_of(port: ServicePort) -> tuple[str, ...]:
    """Those that there may be for pods behind a service's port."""
    secured = (_secured_cluster(name, port) for name in (APPLICATION, APPLICATION_HTTP2))
    return (_limited(port), *secured)


def _limited(port: ServicePort) -> str:
    return f"{APPLICATION}|{port}"


def _secured_cluster(name: str, port: ServicePort) -> str:
    return f"{name}|TLS|{port}"


def _application(
    name: str, breakers: dict[str, Any], tls: Verified | None = None, *, http2: bool = False
) -> Resource:
    http2 = http2 or name in (APPLICATION_HTTP2, EACH_CALL)
    options = over_http2() if http2 else _http1()
    if name == EACH_CALL:
        options.explicit_http_config.http2_protocol_options.max_concurrent_streams.value = 1
    secured = {}
    if tls is not None:
        checked = context(tls, "h2" if http2 else "http/1.1")
        secured["transport_socket"] = extension("envoy.transport_sockets.tls", checked)
    cluster = cluster_pb2.Cluster(
        name=name,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        original_dst_lb_config={"metadata_key": kept_headers.PLACE},
        connect_timeout=parts.CONNECT_TIMEOUT,
        circuit_breakers=breakers,
        upstream_bind_config=parts.from_the_pod(),
        typed_extension_protocol_options={parts.OPTIONS: packed(options)},
        **secured,
    )
    return resource(name, cluster)


def judged(
    rules: rbac_pb2.RBAC,
    told: rbac_pb2.RBAC | None,
    limited: Mapping[str, ServicePort],
    narrowed: Mapping[str, Any],
    secured: Mapping[str, tuple[ServicePort, Tls]],
    looked_into: Iterable[str] = (),
    headers: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Routes of what arrives at a pod as a request, for whom RBAC lets.

    told      what would be allowed, if what is in audit was in force; None: the same
    limited   places of the pod that get so many connections at most, as a policy of a service says
    narrowed  by AuthorizationPolicies: what their filters are told
    secured   places of the pod that speak TLS; what cannot be checked there is answered 502
    looked_into  places of the pod that rules about requests are about
    headers   that those look at
    """
    shadow = {} if told is None else {"shadow_rules": told, "shadow_rules_stat_prefix": TOLD}
    kept = kept_headers.of_route({CLIENT_PORT, DESTINATION, *headers})
    only = configured(rules, narrowed, kept, **shadow)
    found = ways(secured, looked_into, limited)
    return [judged_route(cluster, matches, only) for cluster, matches in found]


def configured(
    rules: rbac_pb2.RBAC, narrowed: Mapping[str, Any], kept: Mapping[str, Any], **shadow: Any
) -> dict[str, Any]:
    """What filters are told of requests that are judged."""
    network = http_rbac.RBACPerRoute(rbac={"rules": rules, **shadow})
    return {parts.RBAC_FILTER: packed(network), **narrowed, **kept}


def ways(
    secured: Mapping[str, tuple[ServicePort, Tls]],
    looked_into: Iterable[str],
    limited: Mapping[str, ServicePort],
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Clusters of the last step, and what of a request's headers leads there; the first counts."""
    here = {"name": DESTINATION, "present_match": True}
    call = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    yield from _secured(secured, call)
    yield from ((EACH_CALL, [_exactly(place), call]) for place in sorted(looked_into))
    yield APPLICATION_HTTP2, [here, call]
    yield from ((_limited(port), [_exactly(place)]) for place, port in sorted(limited.items()))
    yield APPLICATION, [here]


def judged_route(
    cluster: str, headers: list[dict[str, Any]], only: Mapping[str, Any], name: str = ""
) -> dict[str, Any]:
    return {
        "name": name or cluster or "unverified",
        "match": {"prefix": "/", "headers": headers},
        **(_sent_to(cluster) if cluster else {"direct_response": {"status": 502}}),
        "typed_per_filter_config": only,
        "request_headers_to_remove": [DESTINATION, CLIENT_PORT, COPIES, COPY_TO],
    }


def _sent_to(cluster: str) -> dict[str, Any]:
    upgrades = [{"upgrade_type": "websocket"}]
    return {"route": {"cluster": cluster, "timeout": timedelta(0), "upgrade_configs": upgrades}}


def _secured(
    places: Mapping[str, tuple[ServicePort, Tls]], call: dict[str, Any]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Clusters and matches; "": nothing is sent there."""
    for place, (port, tls) in sorted(places.items()):
        if isinstance(tls, Verified):
            yield _secured_cluster(APPLICATION_HTTP2, port), [_exactly(place), call]
            yield _secured_cluster(APPLICATION, port), [_exactly(place)]
        else:
            yield "", [_exactly(place)]


def _exactly(place: str) -> dict[str, Any]:
    return {"name": DESTINATION, "string_match": {"exact": place}}


def _http1() -> http_protocol_options_pb2.HttpProtocolOptions:
    return http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http_protocol_options": {}}
    )


def over_http2(
    mutations: Sequence[dict[str, Any]] = (), lifetime: timedelta | None = None
) -> http_protocol_options_pb2.HttpProtocolOptions:
    return http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": {}},
        common_http_protocol_options={
            "idle_timeout": parts.TUNNEL_IDLE,
            "max_connection_duration": lifetime,
        },
        http_filters=_mutating(mutations) if mutations else [],
    )


def _mutating(mutations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Headers that depend on the backend are changed when it has been picked."""
    change = header_mutation_pb2.HeaderMutation(mutations={"request_mutations": mutations})
    return [
        extension("envoy.filters.http.header_mutation", change),
        extension("envoy.filters.http.upstream_codec", upstream_codec_pb2.UpstreamCodec()),
    ]


def _struct(**fields: str) -> struct_pb2.Struct:
    found = struct_pb2.Struct()
    found.update(fields)
    return found
