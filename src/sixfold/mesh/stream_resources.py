"""What Envoy is told of connections that nobody reads: on to a service, as the pod would dial it.

Pure. Those of TLSRoutes have a listener of their own beside the one for requests, since it waits
for what a client says first: who waits for the server's word would wait there in vain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from sixfold.mesh import logs
from sixfold.mesh import resources as parts
from sixfold.mesh.http_routes import NOWHERE
from sixfold.mesh.listeners import EVERY_HOST
from sixfold.mesh.member import Member
from sixfold.mesh.messages import Resource, extension, resource
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.streams import ServiceStreams, StreamWay
from sixfold.model.datapath import IPAddress
from sixfold.model.mesh import NAMED_PORT

CONNECT_ATTEMPTS = 3
SILENCE = timedelta(seconds=10)  # of a client whose handshake is waited for
LED_STATE = "sixfold.led"  # of a connection: the service that was dialled, and by which route


def stream_cluster(port: ServicePort) -> str:
    return f"stream|{port}"


def service(port: ServicePort, address: IPAddress) -> Resource:
    """A service as a process of the pod would dial it: the kernel picks the backend."""
    return parts.plain(stream_cluster(port), address, port.port)


def passed_on(
    member: Member, way: StreamWay, dialled: ServicePort | None = None
) -> list[dict[str, Any]]:
    """The share of a backend that is none is closed; told, where a service was ``dialled``."""
    weighted = [
        {"name": stream_cluster(one.to) if one.to else NOWHERE, "weight": one.weight}
        for one in way.backends
    ]
    where = {"weighted_clusters": {"clusters": weighted}} if weighted else {"cluster": NOWHERE}
    states, told = [parts.state(parts.NETNS_STATE, member.netns)], []
    if dialled is not None:
        states.append(parts.state(LED_STATE, f"{dialled} {way.name}"))
        to = logs.to_agent(als_pb2.TcpGrpcAccessLogConfig, logs.NAMED, parts.NETNS_STATE, LED_STATE)
        told.append(logs.led_nowhere(to))
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix="streams",
        max_connect_attempts={"value": CONNECT_ATTEMPTS},
        access_log=told,
        **where,
    )
    return [
        parts.set_states(states),
        extension("envoy.filters.network.tcp_proxy", proxy),
    ]


def chains(member: Member, one: ServiceStreams) -> Iterator[dict[str, Any]]:
    """Of connections that were captured on their way to a service."""
    ranges = [
        {"address_prefix": str(at), "prefix_len": {"value": at.max_prefixlen}}
        for at in one.addresses
    ]
    where = {"destination_port": {"value": one.port.port}, "prefix_ranges": ranges}
    for at, stream in enumerate(one.streams):
        names = [host for host in stream.hosts if host != EVERY_HOST]
        by_name = {"transport_protocol": "tls", "server_names": names} if names else {}
        yield {
            "name": f"{one.port}|{at}",
            "filter_chain_match": {**where, **by_name},
            "filters": passed_on(member, stream.way, one.port),
        }
    if not any(EVERY_HOST in stream.hosts for stream in one.streams):
        yield {
            "name": f"{one.port}|closed",
            "filter_chain_match": where,
            "filters": passed_on(member, StreamWay(""), one.port),
        }


def listener_name(pod: str) -> str:
    return f"named|{pod}"


def listener(
    member: Member, streams: Sequence[ServiceStreams], connections_max: int = 0
) -> Resource:
    """Where connections to services with a TLSRoute are captured, on a pod's loopback.

    connections_max  what is more is closed; 0: no limit
    """
    found = [one for it in streams if it.addresses for one in chains(member, it)]
    for one in found:
        one["filters"] = [*parts.at_most(connections_max), *one["filters"]]
    listener = listener_pb2.Listener(
        name=listener_name(member.pod),
        traffic_direction="OUTBOUND",
        listener_filters=[parts.ORIGINAL_DESTINATION, parts.HANDSHAKE],
        listener_filters_timeout=SILENCE,
        continue_on_listener_filters_timeout=True,  # who says nothing names nothing
        filter_chains=found,
        **parts.listen_at(parts.on_loopback(member, NAMED_PORT)),
    )
    return resource(listener.name, listener)
