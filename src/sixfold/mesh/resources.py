"""What Envoy is told of one pod: listeners, the tunnel to it, and who may use that.

Pure. Outbound, a captured connection still says where it wanted to go (``original_dst``): the
address picks the cluster, both are the authority of an HTTP/2 CONNECT in TLS (HBONE), and the
pod's own SVID is presented. Inbound, the peer has proved who it is before anything else; RBAC
judges the CONNECT before the application is dialled, so that a server that speaks first says
nothing to those who are denied. All sockets live in the pods' namespaces.

What changes while a pod lives is in routes and secrets: an updated listener would drain, and cut
its connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.rbac.v3 import rbac_pb2 as rbac
from envoy.config.route.v3 import route_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.local_address_selectors.filter_state_override.v3 import (
    config_pb2 as local_address,
)
from envoy.extensions.transport_sockets.tls.v3 import (
    secret_pb2,
    tls_pb2,
    tls_spiffe_validator_config_pb2,
)
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from sixfold.mesh import conditions, kept_headers, logs, on_demand, tokens
from sixfold.mesh.member import Member
from sixfold.mesh.messages import (
    ADS,
    OnDemandSecret,
    Resource,
    SecretOfFilterState,
    extension,
    packed,
    resource,
)
from sixfold.model.datapath import IPAddress
from sixfold.model.mesh import (
    ORIGINAL_SOURCE_MARK,
    OUTBOUND_PORT,
    SHARE_ENFORCED,
    TUNNEL_PORT,
    TUNNEL_PROTOCOL,
)

APPLICATION = "application"  # cluster: whatever the authority of a tunnel says, in the pod itself
BUNDLE = "bundle"  # secret: who signs
RBAC_FILTER = "envoy.filters.http.rbac"

CLUSTER_STATE = "envoy.tcp_proxy.cluster"
NETNS_STATE = "envoy.network.upstream_bind_override.network_namespace"
PROTOCOLS_STATE = "envoy.network.application_protocols"
SVID_STATE = "envoy.tls.certificate_mappers.on_demand_secret"
CONNECT_TIMEOUT = timedelta(seconds=10)  # Envoy and Istio have it so; a busy host needs it
TUNNEL_IDLE = timedelta(minutes=5)  # without a stream
STREAMS_MAX = 1000  # of one tunnel, then there is another
# Bytes of a stream that its reader may leave in the proxy of his side. At the server's end this is
# what may wait for the other's window, too, and is lost where a server closes first and that window
# is shut at this very moment: little of it, and a wide window, make that a rare one.
UNREAD_BY_SERVER, UNREAD_BY_CLIENT = 1 << 17, 1 << 25
# Of tunnels only, which nobody but a proxy may dial: Envoy calls oghttp2 work in progress. nghttp2,
# the other codec, ends a connection with more than a thousand streams that were reset, and 33 more
# each second: every connection that its client breaks off is one.
AT_SERVER, AT_CLIENT = (
    {
        "max_concurrent_streams": {"value": STREAMS_MAX},
        "initial_stream_window_size": {"value": unread},
        "initial_connection_window_size": {"value": (1 << 31) - 1},  # none waits for another's
        "use_oghttp2_codec": {"value": True},
    }
    for unread in (UNREAD_BY_SERVER, UNREAD_BY_CLIENT)
)
UNLIMITED = 2**32 - 1
ORIGINAL_DESTINATION = extension(  # of listeners that connections are captured at
    "envoy.filters.listener.original_dst", original_dst_pb2.OriginalDst()
)
HANDSHAKE = extension(  # what it names, and whether there is one
    "envoy.filters.listener.tls_inspector", tls_inspector_pb2.TlsInspector()
)
ROUTER = extension("envoy.filters.http.router", router_pb2.Router(suppress_envoy_headers=True))
TLS13 = {
    "tls_minimum_protocol_version": "TLSv1_3",
    "tls_maximum_protocol_version": "TLSv1_3",
}


def cluster_name(address: IPAddress) -> str:
    return f"pod|{address}"


def client_secret(spiffe_id: str) -> str:
    """Envoy hangs when one name is asked for both on demand and beforehand."""
    return f"client|{spiffe_id}"


def outbound(member: Member, connections_max: int = 0) -> Resource:
    """Where connections of a pod's processes are captured, on its loopback.

    connections_max  what is more is closed; 0: no limit
    """
    states = [
        state(NETNS_STATE, member.netns),
        state(SVID_STATE, client_secret(member.id)),
        {
            "object_key": PROTOCOLS_STATE,  # requests go to the same cluster, without saying so
            "format_string": _text(f"h2,{TUNNEL_PROTOCOL}"),
            "shared_with_upstream": "ONCE",
        },
        {
            "object_key": CLUSTER_STATE,
            "format_string": _text("pod|%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"),
        },
    ]
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix="outbound",
        cluster="none",  # of an address that is no pod's
        **on_demand.of_connections,
        tunneling_config={
            "hostname": "%DOWNSTREAM_LOCAL_ADDRESS%",
            "headers_to_add": [_header("forwarded", 'for="_pod:%DOWNSTREAM_REMOTE_PORT%"')],
        },
        idle_timeout=timedelta(0),
        access_log=[
            logs.failures(logs.to_agent(als_pb2.TcpGrpcAccessLogConfig, logs.OUTBOUND, NETNS_STATE))
        ],
    )
    listener = listener_pb2.Listener(
        name=f"outbound|{member.pod}",
        traffic_direction="OUTBOUND",
        listener_filters=[ORIGINAL_DESTINATION],
        filter_chains=[
            {
                "filters": [
                    *at_most(connections_max),
                    set_states(states),
                    extension("envoy.filters.network.tcp_proxy", proxy),
                ]
            }
        ],
        **listen_at(on_loopback(member, OUTBOUND_PORT)),
    )
    return resource(listener.name, listener)


def inbound(member: Member) -> Resource:
    """Where tunnels to a pod end, and requests arrive that are in none.

    Who says that it is a tunnel may send nothing else, and costs nothing while it is silent: only
    requests are looked at again and again, whether somebody asks for those that are open.
    """
    judging = extension(RBAC_FILTER, http_rbac.RBAC(rules={"action": "ALLOW"}))  # nobody
    tunnels = _arriving(member, [_only_tunnels(), judging, *conditions.filters()])
    requests = _arriving(
        member,
        [judging, tokens.discovered(member.pod, ADS), *conditions.filters(), kept_headers.filter_],
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
    )
    looked_for = logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.OPEN)
    requests.access_log.add(**logs.open_requests(looked_for, member.pod))
    requests.access_log_options.access_log_flush_interval.FromTimedelta(logs.LOOK)
    match = {"application_protocols": [TUNNEL_PROTOCOL]}
    listener = listener_pb2.Listener(
        name=f"inbound|{member.pod}",
        traffic_direction="INBOUND",
        ignore_global_conn_limit=True,  # few, and each carries many
        listener_filters=[
            HANDSHAKE,
            extension(
                "envoy.filters.listener.original_src",
                original_src_pb2.OriginalSrc(mark=ORIGINAL_SOURCE_MARK),
            ),
        ],
        filter_chains=[
            {"name": "tunnels", "filter_chain_match": match, **_proved(member, tunnels)},
            {"name": "requests", **_proved(member, requests)},
        ],
        access_log=[logs.to_agent(als_pb2.TcpGrpcAccessLogConfig, logs.LISTENER)],
        **listen_at(
            [socket_at(str(address), TUNNEL_PORT, member.netns) for address in member.addresses]
        ),
    )
    return resource(listener.name, listener)


def _proved(member: Member, manager: hcm.HttpConnectionManager) -> dict[str, Any]:
    """What a chain says whose peers have proved who they are."""
    return {
        "transport_socket": extension("envoy.transport_sockets.tls", _server_tls(member)),
        "filters": [
            set_states([state(NETNS_STATE, member.netns)]),
            extension("envoy.filters.network.http_connection_manager", manager),
        ],
    }


def _arriving(
    member: Member, filters: Sequence[dict[str, Any]], **more: Any
) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix="inbound",
        codec_type="HTTP2",
        rds={"route_config_name": routes_name(member), "config_source": ADS},
        http_filters=[*filters, ROUTER],
        http2_protocol_options={"allow_connect": True, **AT_SERVER},
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        stream_idle_timeout=timedelta(0),
        generate_request_id={"value": False},
        skip_xff_append=True,
        server_header_transformation="PASS_THROUGH",
        normalize_path={"value": True},  # what policy reads is what the application is asked
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        access_log=[
            logs.tunnels(logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.INBOUND)),
            logs.requests(logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.REQUESTS)),
        ],
        access_log_options={"flush_log_on_tunnel_successfully_established": True},
        **more,
    )


def _only_tunnels() -> dict[str, Any]:
    """Refuses requests that come as a tunnel: those that are open there would not be found."""
    tunnel = {"name": ":method", "string_match": {"exact": "CONNECT"}, "invert_match": True}
    other = rbac.Policy(permissions=[{"header": tunnel}], principals=[{"any": True}])
    rules = rbac.RBAC(action="DENY", policies={"no tunnel": other})
    return extension("sixfold.tunnels", http_rbac.RBAC(rules=rules, rules_stat_prefix="tunnels_"))


END = "inbound|"  # so begin the names of tables at the end of a tunnel


def routes_name(member: Member) -> str:
    return f"{END}{member.pod}"


def routes(
    member: Member,
    rules: rbac.RBAC,
    requests: Sequence[dict[str, Any]] = (),
    narrowed: Mapping[str, Any] = MappingProxyType({}),
    foreign: Sequence[dict[str, Any]] = (),
) -> Resource:
    """What tunnels to a pod may carry: whatever the authority says, for whom RBAC lets.

    requests  routes of what is no tunnel
    narrowed  by AuthorizationPolicies: what their filters are told of tunnels
    foreign   by names by which other trust domains know the pod: these are asked first
    """
    only = http_rbac.RBACPerRoute(rbac={"rules": rules})
    route = {
        "name": "tunnel",
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": APPLICATION,
            "timeout": timedelta(0),
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
        "typed_per_filter_config": {RBAC_FILTER: packed(only), **narrowed},
    }
    name = routes_name(member)
    host = {"name": "tunnel", "domains": ["*"], "routes": [*foreign, route, *requests]}
    return resource(name, route_pb2.RouteConfiguration(name=name, virtual_hosts=[host]))


def tunnel_to(member: Member, address: IPAddress, lifetime: timedelta) -> Resource:
    """The way to a pod, for every other: its end must prove to be the pod that was meant.

    lifetime  of a connection: what was proved must not be much older than an SVID
    """
    http2 = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": AT_CLIENT},
        common_http_protocol_options={
            "idle_timeout": TUNNEL_IDLE,
            "max_connection_duration": lifetime,
        },
    )
    name = cluster_name(address)
    cluster = cluster_pb2.Cluster(
        name=name,
        **fixed(name, [(address, TUNNEL_PORT)]),
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=no_limits(),
        upstream_bind_config=from_the_pod(),
        transport_socket=extension("envoy.transport_sockets.tls", client_tls(member.id)),
        typed_extension_protocol_options={OPTIONS: packed(http2)},
    )
    return resource(name, cluster, on_demand=True)


def anew(cluster: Resource, succession: str) -> Resource:
    """The same cluster under another version: new connections are made, the old ones drain."""
    message = cluster_pb2.Cluster.FromString(cluster.body.value)
    message.metadata.filter_metadata["sixfold"].update({"succession": succession})
    return resource(cluster.name, message, on_demand=cluster.on_demand)


def application(connections_max: int = 0) -> Resource:
    """The last step: from the end of a tunnel to the pod's process, under the client's address.

    connections_max  what is more waits: Envoy aborts when it has no file left for one
    """
    cluster = cluster_pb2.Cluster(
        name=APPLICATION,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        original_dst_lb_config={"use_http_header": True, "http_header_name": ":authority"},
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=no_limits(connections_max=connections_max),
        upstream_bind_config=from_the_pod(),
    )
    return resource(APPLICATION, cluster)


def certificate(name: str, chain_pem: bytes, key_pem: bytes) -> Resource:
    secret = secret_pb2.Secret(
        name=name,
        tls_certificate={
            "certificate_chain": {"inline_bytes": chain_pem},
            "private_key": {"inline_bytes": key_pem},
        },
    )
    return resource(name, secret)


def bundle(roots_pem: Mapping[str, bytes]) -> Resource:
    """By trust domain: none vouches for another's workloads."""
    validator = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig(
        trust_domains=[
            {"name": name, "trust_bundle": {"inline_bytes": pem}}
            for name, pem in sorted(roots_pem.items())
        ]
    )
    context = {"custom_validator_config": extension("envoy.tls.cert_validator.spiffe", validator)}
    return resource(BUNDLE, secret_pb2.Secret(name=BUNDLE, validation_context=context))


# --- parts ----------------------------------------------------------------------------------------

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def _server_tls(member: Member) -> tls_pb2.DownstreamTlsContext:
    return tls_pb2.DownstreamTlsContext(
        common_tls_context={
            "tls_params": TLS13,
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [{"name": member.id, "sds_config": ADS}],
            "validation_context_sds_secret_config": {"name": BUNDLE, "sds_config": ADS},
        },
        require_client_certificate={"value": True},
    )


def client_tls(*spiffe_ids: str, host: str = "") -> tls_pb2.UpstreamTlsContext:
    """Shows the SVID that the connection's filter state names; takes these peers and no other.

    host  named in the handshake
    """
    peers = [{"san_type": "URI", "matcher": {"exact": one}} for one in spiffe_ids]
    mapper = extension(
        "envoy.tls.certificate_mappers.filter_state_override",
        SecretOfFilterState(default_value="none"),
    )
    selector = OnDemandSecret(config_source=ADS, certificate_mapper=mapper)
    return tls_pb2.UpstreamTlsContext(
        sni=host,
        common_tls_context={
            "tls_params": TLS13,
            "alpn_protocols": ["h2"],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": peers},
                "validation_context_sds_secret_config": {"name": BUNDLE, "sds_config": ADS},
            },
            "custom_tls_certificate_selector": extension(
                "envoy.tls.certificate_selectors.on_demand_secret", selector
            ),
        },
    )


def on_loopback(member: Member, port: int) -> list[dict[str, Any]]:
    """A port of a pod's own loopback, in each version that the pod has."""
    return [
        socket_at("127.0.0.1" if address.version == 4 else "::1", port, member.netns)
        for address in member.addresses
    ]


def fixed(name: str, places: Iterable[tuple[IPAddress, int]]) -> dict[str, Any]:
    """What a cluster says that has these endpoints (address, port), and no others."""
    endpoints = [{"endpoint": {"address": socket_at(str(at), port)}} for at, port in places]
    return {
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def plain(name: str, address: IPAddress, port: int) -> Resource:
    """A cluster of one place, dialled from the pod's namespace as its processes would."""
    cluster = cluster_pb2.Cluster(
        name=name,
        **fixed(name, [(address, port)]),
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=no_limits(),
        upstream_bind_config=from_the_pod(),
    )
    return resource(name, cluster)


def from_the_pod() -> dict[str, Any]:
    """Sockets of a cluster are made in the namespace that the connection's filter state names."""
    return {
        "source_address": {"address": "0.0.0.0", "port_value": 0},
        "extra_source_addresses": [{"address": {"address": "::", "port_value": 0}}],
        "local_address_selector": extension(
            "envoy.upstream.local_address_selector.filter_state_override", local_address.Config()
        ),
    }


def from_namespace(path: str) -> dict[str, Any]:
    """Likewise, always in this one."""
    here = {"port_value": 0, "network_namespace_filepath": path}
    return {
        "source_address": {"address": "0.0.0.0", **here},
        "extra_source_addresses": [{"address": {"address": "::", **here}}],
    }


def no_limits(retries: dict[str, Any] | None = None, *, connections_max: int = 0) -> dict[str, Any]:
    """But for how many may be tried again at once, and may be connected, where that is said."""
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    found: dict[str, Any] = {limit: {"value": UNLIMITED} for limit in limits}
    if connections_max:
        found["max_connections"] = {"value": connections_max}
    return {"thresholds": [found | ({"retry_budget": retries} if retries else {})]}


def at_most(connections_max: int) -> list[dict[str, Any]]:
    """A pod's share of what the proxy can carry, by listener; told in its statistics."""
    if not connections_max:
        return []
    limit = connection_limit_pb2.ConnectionLimit(
        stat_prefix="share",
        max_connections={"value": connections_max},
        runtime_enabled={"default_value": {"value": True}, "runtime_key": SHARE_ENFORCED},
    )
    return [extension("envoy.filters.network.connection_limit", limit)]


def socket_at(address: str, port: int, netns: str = "") -> dict[str, Any]:
    place = {"address": address, "port_value": port, "network_namespace_filepath": netns}
    return {"socket_address": place}


def listen_at(addresses: list[dict[str, Any]]) -> dict[str, Any]:
    first, *more = addresses
    return {"address": first, "additional_addresses": [{"address": one} for one in more]}


def _text(value: str) -> dict[str, Any]:
    return {"text_format_source": {"inline_string": value}}


def state(key: str, value: str) -> dict[str, Any]:
    """Of a connection, and of those that are made for it: pools are kept apart by it."""
    return {
        "object_key": key,
        "factory_key": "envoy.hashable_string",
        "format_string": _text(value),
        "shared_with_upstream": "ONCE",
    }


def set_states(states: list[dict[str, Any]]) -> dict[str, Any]:
    return extension(
        "envoy.filters.network.set_filter_state",
        set_filter_state_pb2.Config(on_new_connection=states),
    )


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}}


def set_header(name: str, value: str) -> dict[str, Any]:
    """A mutation of a request's headers."""
    return {"append": {**_header(name, value), "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
