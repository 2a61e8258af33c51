"""What Envoy is told of connections that nobody reads: on to a service, as the pod would dial it.

Pure.
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from sixfold.mesh import resources as parts
from sixfold.mesh.http_routes import NOWHERE
from sixfold.mesh.member import Member
from sixfold.mesh.messages import Resource, extension
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.streams import ServiceStream, StreamWay
from sixfold.model.datapath import IPAddress

CONNECT_ATTEMPTS = 3


def stream_cluster(port: ServicePort) -> str:
    return f"stream|{port}"


def service(port: ServicePort, address: IPAddress) -> Resource:
    """A service as a process of the pod would dial it: the kernel picks the backend."""
    return parts.plain(stream_cluster(port), address, port.port)


def passed_on(member: Member, way: StreamWay) -> list[dict[str, Any]]:
    """The share of a backend that is none is closed."""
    weighted = [
        {"name": stream_cluster(one.to) if one.to else NOWHERE, "weight": one.weight}
        for one in way.backends
    ]
    where = {"weighted_clusters": {"clusters": weighted}} if weighted else {"cluster": NOWHERE}
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix="gateway", max_connect_attempts={"value": CONNECT_ATTEMPTS}, **where
    )
    return [
        parts.set_states([parts.state(parts.NETNS_STATE, member.netns)]),
        extension("envoy.filters.network.tcp_proxy", proxy),
    ]


def chain(member: Member, stream: ServiceStream) -> dict[str, Any]:
    """Of connections that were captured on their way to a service."""
    ranges = [
        {"address_prefix": str(one), "prefix_len": {"value": one.max_prefixlen}}
        for one in stream.addresses
    ]
    where = {"destination_port": {"value": stream.port.port}, "prefix_ranges": ranges}
    return {
        "name": str(stream.port),
        "filter_chain_match": where,
        "filters": passed_on(member, stream.way),
    }
