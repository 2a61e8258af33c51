"""What Envoy is told of other trust domains: tunnels to their workloads, and from them to ours.

Pure. See ``foreign``. A client's tunnel is made in the namespace of the Gateway's pod, so that its
packets are that pod's; the certificate is the client's own. At the other end the Gateway's
listener reads the name in the handshake, and nothing more, and passes the connection on to the
tunnel port of a pod that serves it: that is where it ends, and is judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from sixfold.mesh import logs, resilience
from sixfold.mesh import resources as parts
from sixfold.mesh.foreign import Export, Foreign
from sixfold.mesh.http_routes import NOWHERE, cluster_of
from sixfold.mesh.member import Member, authority
from sixfold.mesh.messages import ADS, Resource, extension, packed, resource
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.streams import Stream
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import IPAddress
from sixfold.model.trafficpolicy import TrafficPolicySpec

CLIENT_STATE = "sixfold.client"  # namespace of the pod that dials
CONNECT_ATTEMPTS = 3
ROUTE = "foreign "  # before the place that a tunnel of another trust domain leads to


def cluster_name(port: ServicePort) -> str:
    return f"foreign|{port}"


def chain(member: Member, gateway: Member | None, one: Foreign) -> dict[str, Any]:
    """Of a client's connections that were captured on their way to a foreign service."""
    ranges = [
        {"address_prefix": str(at), "prefix_len": {"value": at.max_prefixlen}}
        for at in one.addresses
    ]
    is_open = gateway is not None and not one.closed
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix="foreign",
        cluster=cluster_name(one.port) if is_open else NOWHERE,
        tunneling_config={"hostname": f"{one.host}:{one.port.port}"},
        max_connect_attempts={"value": len(one.places)},  # a refusal is not asked for again
        idle_timeout=timedelta(0),
        access_log=[
            logs.made_or_failed(
                logs.to_agent(als_pb2.TcpGrpcAccessLogConfig, logs.FOREIGN, CLIENT_STATE)
            )
        ],
        access_log_options={"flush_access_log_on_connected": True},
    )
    states = [
        parts.state(parts.NETNS_STATE, gateway.netns if gateway is not None else ""),
        parts.state(parts.SVID_STATE, parts.client_secret(member.id)),
        {**parts.state(CLIENT_STATE, member.netns), "shared_with_upstream": "NONE"},
    ]
    return {
        "name": cluster_name(one.port),
        "filter_chain_match": {
            "destination_port": {"value": one.port.port},
            "prefix_ranges": ranges,
        },
        "filters": [
            parts.set_states(states if is_open else states[2:]),
            extension("envoy.filters.network.tcp_proxy", proxy),
        ],
    }


def tunnel(one: Foreign, lifetime: timedelta) -> Resource:
    """The way to a foreign service; ``lifetime`` as of other tunnels."""
    name = cluster_name(one.port)
    http2 = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": parts.AT_CLIENT},
        common_http_protocol_options={
            "idle_timeout": parts.TUNNEL_IDLE,
            "max_connection_duration": lifetime,
        },
    )
    cluster = cluster_pb2.Cluster(
        name=name,
        **parts.fixed(name, one.places),
        lb_policy="RANDOM",
        connect_timeout=parts.CONNECT_TIMEOUT,
        circuit_breakers=parts.no_limits(),
        upstream_bind_config=parts.from_the_pod(),
        transport_socket=extension(
            "envoy.transport_sockets.tls", parts.client_tls(*one.ids, host=one.host)
        ),
        typed_extension_protocol_options={parts.OPTIONS: packed(http2)},
    )
    return resource(name, cluster)


def passed_in(member: Member, table: str, found: Iterable[Stream]) -> Iterator[dict[str, Any]]:
    """Chains of a Gateway's listener: a name, and the pods that it means. Others are closed."""
    for at, stream in enumerate(found):
        clusters = [
            {"name": pods_name(one.to) if one.to else NOWHERE, "weight": one.weight}
            for one in stream.way.backends
        ]
        where = {"weighted_clusters": {"clusters": clusters}} if clusters else {"cluster": NOWHERE}
        proxy = tcp_proxy_pb2.TcpProxy(
            stat_prefix="foreign", max_connect_attempts={"value": CONNECT_ATTEMPTS}, **where
        )
        yield {
            "name": f"{table}|{at}",
            "filter_chain_match": {"transport_protocol": "tls", "server_names": stream.hosts},
            "filters": [
                parts.set_states([parts.state(parts.NETNS_STATE, member.netns)]),
                extension("envoy.filters.network.tcp_proxy", proxy),
            ],
        }


def pods_name(port: ServicePort) -> str:
    return f"tunnels|{port}"


def pods(
    port: ServicePort, algorithm: Algorithm, table_size: int, spec: TrafficPolicySpec
) -> Resource:
    """The tunnel ports of a service's pods: those that requests are sent to, as they are."""
    name = pods_name(port)
    cluster = cluster_pb2.Cluster(
        name=name,
        type="EDS",
        eds_cluster_config={"eds_config": ADS, "service_name": cluster_of(port)},
        **resilience.picking(algorithm, table_size, spec),
        connect_timeout=parts.CONNECT_TIMEOUT,
        circuit_breakers=parts.no_limits(),
        upstream_bind_config=parts.from_the_pod(),
    )
    return resource(name, cluster)


def end_name(address: IPAddress, port: int) -> str:
    return f"end|{authority(address, port)}"


def end(address: IPAddress, port: int) -> Resource:
    """The last step: from the end of a tunnel to a pod's process."""
    return parts.plain(end_name(address, port), address, port)


def said(host: str) -> str:
    """As proxies tell each other of a request where it wants to go, by name."""
    return f"{ROUTE}{host}"


def named(header: str, host: str, more: str = "") -> dict[str, Any]:
    """That a header names a host, or one below it; ``more``: and what may come after."""
    regex = re.escape(host).replace(r"\*", ".+") + more
    return {"name": header, "string_match": {"safe_regex": {"regex": regex}}}


def route(
    one: Export, policies: Mapping[str, rbac_pb2.Policy], narrowed: Mapping[str, Any]
) -> dict[str, Any]:
    """What others' tunnels to a name of ours lead to, for whom both filters let.

    policies  of network policy: the Gateway may come to that port
    narrowed  by AuthorizationPolicies: whom they name
    """
    only = http_rbac.RBACPerRoute(
        rbac={"rules": rbac_pb2.RBAC(action="ALLOW", policies=dict(policies))}
    )
    return {
        "name": f"{ROUTE}{authority(one.address, one.port)}",
        "match": {
            "connect_matcher": {},
            "headers": [named(":authority", one.host, r"(:\d+)?")],  # their port is theirs
        },
        "route": {
            "cluster": end_name(one.address, one.port),
            "timeout": timedelta(0),
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
        "typed_per_filter_config": {parts.RBAC_FILTER: packed(only), **narrowed},
    }


def of_gateway(addresses: Sequence[IPAddress], domains: Iterable[str]) -> dict[str, Any]:
    """Principal: anybody of these trust domains, by a Gateway's pod."""
    anybody = [
        {"authenticated": {"principal_name": {"prefix": f"spiffe://{one}/"}}}
        for one in sorted(domains)
    ]
    here = [
        {"direct_remote_ip": {"address_prefix": str(one), "prefix_len": {"value": length}}}
        for one in addresses
        for length in [one.max_prefixlen]
    ]
    both = [{"or_ids": {"ids": anybody}}, {"or_ids": {"ids": here}}]
    return {"and_ids": {"ids": both}}
