"""What Envoy is told of a Gateway: its listeners, in the namespace of the Gateway's pod.

Pure. From a listener on, a request of a client outside goes as one of a pod does: the route picks
the backend, and it is sent in mTLS to the backend's pod under the identity of the Gateway. What
the client says of itself and of the way that it came is not believed: those headers are written
here. Routes change without their listener; an updated listener would cut connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    header_mutation_pb2 as early,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from sixfold.mesh import conditions, copies, kept_headers, logs, on_demand, tokens
from sixfold.mesh import resources as parts
from sixfold.mesh.certificates import Shown
from sixfold.mesh.hosts import Hosts
from sixfold.mesh.http_filters import CLIENT, CLIENTS, filters_of_host, http_filters
from sixfold.mesh.http_routes import Front, routes_of
from sixfold.mesh.listeners import EVERY_HOST, ListenerPlan
from sixfold.mesh.member import Member
from sixfold.mesh.messages import ADS, Resource, extension, resource
from sixfold.mesh.stream_resources import passed_on
from sixfold.mesh.streams import Stream
from sixfold.model.mesh import CLIENT_PORT, COPIES, COPY_TO, DESTINATION

HEADERS_S, IDLE_S, STREAM_IDLE_S = 10, 3600, 300  # Envoy's advice for edges, but for the first
STREAMS_MAX, WINDOW, CONNECTION_WINDOW = 100, 1 << 16, 1 << 20  # likewise
BUFFER_MAX = 1 << 15
# Of a client's word nothing is left; x-envoy-* and the client's certificate Envoy removes itself.
FORGED = (
    *("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"),
    *("x-real-ip", DESTINATION, CLIENT_PORT, COPY_TO),
)


Chain = dict[str, Any]


def listener_name(member: Member, port: int) -> str:
    return f"gateway|{member.pod}|{port}"


def table_name(member: Member, port: int, section: str = "") -> str:
    """Of routes: of one listener, or of all of a port."""
    return "|".join(filter(None, (listener_name(member, port), section)))


def secret_name(name: str) -> str:
    return f"gateway|{name}"


def http(member: Member, table: str) -> Chain:
    """Plaintext HTTP of any version."""
    return {"name": table, "filters": _http(member, table)}


def https(member: Member, table: str, one: ListenerPlan) -> Chain:
    """What a client names in its handshake picks the chain, and so the certificate."""
    return {
        "name": table,
        "filter_chain_match": _named([one.host]),
        "filters": _http(member, table),
        "transport_socket": extension(
            "envoy.transport_sockets.tls", _shows(one.certs, ["h2", "http/1.1"])
        ),
    }


def streams(
    member: Member, table: str, one: ListenerPlan, found: Iterable[Stream]
) -> Iterator[Chain]:
    """Connections that are passed on as they are, or without the TLS that ends here."""
    for at, stream in enumerate(found):
        chain: Chain = {"name": f"{table}|{at}", "filters": passed_on(member, stream.way)}
        if one.listener.protocol == "TLS":
            chain["filter_chain_match"] = _named(stream.hosts)
        if one.certs:
            context = _shows(one.certs)
            chain["transport_socket"] = extension("envoy.transport_sockets.tls", context)
        yield chain


def listener(member: Member, port: int, chains: Sequence[Chain], *, door: bool = False) -> Resource:
    """``chains`` that want to know what a handshake names get it.

    door  for other trust domains: whoever names nothing of ours is told
    """
    looked_into = door or any("filter_chain_match" in one for one in chains)
    listener = listener_pb2.Listener(
        name=listener_name(member, port),
        traffic_direction="OUTBOUND",
        listener_filters=[parts.HANDSHAKE] if looked_into else [],
        listener_filters_timeout=timedelta(seconds=HEADERS_S),
        per_connection_buffer_limit_bytes={"value": BUFFER_MAX},
        filter_chains=chains,
        access_log=[logs.failures(logs.to_agent(als_pb2.TcpGrpcAccessLogConfig, logs.DOOR))]
        if door
        else [],
        **parts.listen_at(
            [parts.socket_at(str(one), port, member.netns) for one in member.addresses]
        ),
    )
    return resource(listener.name, listener)


def certificate(name: str, shown: Shown) -> Resource:
    return parts.certificate(secret_name(name), shown.chain, shown.key)


def _http(member: Member, table: str) -> list[dict[str, Any]]:
    """Filters of a connection whose requests are looked up in a table."""
    states = [
        parts.state(parts.NETNS_STATE, member.netns),
        parts.state(parts.SVID_STATE, parts.client_secret(member.id)),
    ]
    counted = {CLIENT: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", CLIENTS: member.pod}
    forged = early.HeaderMutation(
        mutations=[
            *({"remove": name} for name in FORGED),
            *(parts.set_header(name, text) for name, text in counted.items()),
            parts.set_header(COPIES, copies.cluster_name(member)),
        ]
    )
    manager = hcm.HttpConnectionManager(
        stat_prefix="gateway",
        codec_type="AUTO",
        rds={"route_config_name": table, "config_source": ADS},
        early_header_mutation_extensions=[
            extension("envoy.http.early_header_mutation.header_mutation", forged)
        ],
        http_filters=[
            tokens.discovered(member.pod, ADS),
            *conditions.filters(),
            kept_headers.filter_,
            *http_filters(),
        ],
        access_log=[
            logs.requests(logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.GATEWAY)),
            logs.open_requests(
                logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.OPEN_AT_GATEWAY), member.pod
            ),
        ],
        access_log_options={"access_log_flush_interval": logs.LOOK},
        upgrade_configs=[{"upgrade_type": "websocket"}],
        common_http_protocol_options={"idle_timeout": timedelta(seconds=IDLE_S)},
        http2_protocol_options={
            "max_concurrent_streams": {"value": STREAMS_MAX},
            "initial_stream_window_size": {"value": WINDOW},
            "initial_connection_window_size": {"value": CONNECTION_WINDOW},
        },
        stream_idle_timeout=timedelta(seconds=STREAM_IDLE_S),
        request_headers_timeout=timedelta(seconds=HEADERS_S),
        use_remote_address={"value": True},
        generate_request_id={"value": False},
        server_header_transformation="PASS_THROUGH",
        normalize_path={"value": True},
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
    )
    return [
        parts.set_states(states),
        extension("envoy.filters.network.http_connection_manager", manager),
    ]


def _named(hosts: Sequence[str]) -> dict[str, Any]:
    names = [one for one in hosts if one != EVERY_HOST]
    return {"transport_protocol": "tls", "server_names": names}


def _shows(secrets: Iterable[str], protocols: Sequence[str] = ()) -> tls_pb2.DownstreamTlsContext:
    return tls_pb2.DownstreamTlsContext(
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": protocols,
            "tls_certificate_sds_secret_configs": [
                {"name": secret_name(one), "sds_config": ADS} for one in secrets
            ],
        }
    )


def table(
    name: str,
    hosts: Hosts,
    front: Front,
    elsewhere: Iterable[str] = (),
    narrowed: Mapping[str, Any] = MappingProxyType({}),
) -> Resource:
    """A host that is not in it is answered 404, as is a request that no way is for.

    elsewhere  hosts of other listeners of this port: 421
    narrowed   by AuthorizationPolicies: what their filters are told
    """
    again = [{"match": {"prefix": "/"}, "direct_response": {"status": 421}}]
    found: list[dict[str, Any]] = [
        *(
            {
                "name": host,
                "domains": [host],
                "routes": routes_of(ways, front),
                "typed_per_filter_config": filters_of_host(ways),
            }
            for host, ways in sorted(hosts.items())
        ),
        *({"name": host, "domains": [host], "routes": again} for host in sorted(elsewhere)),
    ]
    table = route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=found,
        ignore_port_in_host_matching=True,
        typed_per_filter_config={**on_demand.of_table, **narrowed},
        request_headers_to_remove=["x-envoy-external-address", CLIENT, CLIENTS],
    )
    return resource(name, table)
