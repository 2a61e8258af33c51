"""Copies of requests (RequestMirror): sent again by the pod's own proxy, as if the pod had asked.

Pure. What Envoy copies is a request of its own: nothing of its connection goes along, neither the
namespace that it would be sent from nor the identity that it would prove. So a copy goes to one
more listener on the pod's loopback, whose connections have both; which service it is for stands
in a header. Only while some route makes copies.
"""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from sixfold.mesh import on_demand
from sixfold.mesh import resources as parts
from sixfold.mesh.http_routes import SERVICES
from sixfold.mesh.member import Member
from sixfold.mesh.messages import Resource, extension, packed, resource
from sixfold.model.mesh import COPIES_PORT, COPY_TO


def cluster_name(member: Member) -> str:
    return f"copies|{member.pod}"


def resources_of(member: Member) -> tuple[Resource, Resource]:
    """Where a pod's copies are sent from, and the way there."""
    any4 = any(one.version == 4 for one in member.addresses)
    loopback = IPv4Address("127.0.0.1") if any4 else IPv6Address("::1")
    states = [
        parts.state(parts.NETNS_STATE, member.netns),
        parts.state(parts.SVID_STATE, parts.client_secret(member.id)),
    ]
    # A process of the pod may ask, too: as the pod, of services, and of no other cluster.
    service = {"name": COPY_TO, "string_match": {"prefix": SERVICES}}
    route = {
        "match": {"prefix": "/", "headers": [service]},
        "route": {"cluster_header": COPY_TO},
    }
    manager = hcm.HttpConnectionManager(
        stat_prefix="copies",
        codec_type="HTTP2",
        route_config={
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
            "typed_per_filter_config": on_demand.of_table,
        },
        http_filters=[on_demand.filter_, parts.ROUTER],
        generate_request_id={"value": False},
        skip_xff_append=True,
        server_header_transformation="PASS_THROUGH",
    )
    listener = listener_pb2.Listener(
        name=cluster_name(member),
        traffic_direction="OUTBOUND",
        filter_chains=[
            {
                "filters": [
                    parts.set_states(states),
                    extension("envoy.filters.network.http_connection_manager", manager),
                ]
            }
        ],
        **parts.listen_at([parts.socket_at(str(loopback), COPIES_PORT, member.netns)]),
    )
    options = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": {}},
        common_http_protocol_options={"idle_timeout": timedelta(minutes=1)},
    )
    here = {
        "address": str(loopback),
        "port_value": 0,
        "network_namespace_filepath": member.netns,
    }
    cluster = cluster_pb2.Cluster(
        name=cluster_name(member),
        **parts.fixed(cluster_name(member), [(loopback, COPIES_PORT)]),
        connect_timeout=parts.CONNECT_TIMEOUT,
        upstream_bind_config={"source_address": here},
        typed_extension_protocol_options={parts.OPTIONS: packed(options)},
    )
    return resource(listener.name, listener), resource(cluster.name, cluster)
