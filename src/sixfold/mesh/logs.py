"""What Envoy tells the agent of connections and requests: logs by name; see ``observe.access``.

Pure.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from envoy.extensions.access_loggers.grpc.v3 import als_pb2

from sixfold.mesh.messages import extension
from sixfold.model.mesh import CLIENT_PORT, DESTINATION

OUTBOUND, INBOUND, LISTENER, REQUESTS = "outbound", "inbound", "listener", "requests"
GATEWAY = "gateway"  # requests of clients of a Gateway
OUTWARD = "outward"  # connections to the world: those that were not passed, or came to nothing
EXTERNAL = "external"  # requests to services outside, for which TLS is begun here
SENT = "sent"  # requests that the client's side answered itself
# Requests that are not over; told when somebody asks.
OPEN, OPEN_AT_GATEWAY = "open", "open at a gateway"
RUNTIME_LAYER = "asked"  # resource: what is asked, by the keys of ``asks``
LOOK = timedelta(milliseconds=400)  # so often each open request looks whether somebody asks
FOREIGN = "foreign"  # connections to services of other trust domains
NAMED = "named"  # connections to a service with a TLSRoute or TCPRoute that lead to nobody
ABROAD = "abroad"  # requests to them
DOOR = "door"  # connections of other trust domains to a name that is none
# Nobody healthy, not connected, overflow, no route, rate limited, fault, no cluster, timeout.
ABROAD_PREFIX = "foreign "  # of what a request says that it wants, where that is a name
_NOT_PASSED_ON = ("UH", "UF", "UO", "NR", "RL", "FI", "NC", "UT")
XDS_CLUSTER = "xds"  # of the bootstrap: the agent
FLUSH, BUFFER = timedelta(milliseconds=200), 1 << 16  # bytes; Envoy's 16 kB are ten requests
_IS_TUNNEL = {"name": ":method", "string_match": {"exact": "CONNECT"}}
_IS_REQUEST = {"header_filter": {"header": {**_IS_TUNNEL, "invert_match": True}}}


def to_agent(kind: type[Any], name: str, *states: str) -> dict[str, Any]:
    """A log to the agent, over the connection that it already has."""
    common = {
        "log_name": name,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": XDS_CLUSTER}},
        "buffer_flush_interval": FLUSH,
        "buffer_size_bytes": {"value": BUFFER},
        "filter_state_objects_to_log": states,
    }
    if kind is als_pb2.HttpGrpcAccessLogConfig:
        headers = ["forwarded", DESTINATION, CLIENT_PORT]
        config = kind(common_config=common, additional_request_headers_to_log=headers)
        return extension("envoy.access_loggers.http_grpc", config)
    return extension("envoy.access_loggers.tcp_grpc", kind(common_config=common))


def failures(log: dict[str, Any]) -> dict[str, Any]:
    """What went well is told at the other end."""
    return {**log, "filter": {"response_flag_filter": {}}}


def led_nowhere(log: dict[str, Any]) -> dict[str, Any]:
    """What there is no cluster for; all else is told by the connection that the pod then makes."""
    return {**log, "filter": {"response_flag_filter": {"flags": ["NC"]}}}


def made_or_failed(log: dict[str, Any]) -> dict[str, Any]:
    """A tunnel whose other end is no proxy of ours: nobody else tells of it."""
    made = {"log_type_filter": {"types": ["TcpUpstreamConnected"]}}
    return {**log, "filter": {"or_filter": {"filters": [made, {"response_flag_filter": {}}]}}}


def answered_here(log: dict[str, Any]) -> dict[str, Any]:
    """Requests that no backend answered; all others are told where they arrive."""
    return {**log, "filter": {"response_flag_filter": {"flags": _NOT_PASSED_ON}}}


def sent_abroad(log: dict[str, Any]) -> dict[str, Any]:
    """Requests to services of other trust domains: nobody else tells of them."""
    named = {"name": DESTINATION, "string_match": {"prefix": ABROAD_PREFIX}}
    return {**log, "filter": {"header_filter": {"header": named}}}


def tunnels(log: dict[str, Any]) -> dict[str, Any]:
    """Each tunnel when it is made, and when it is over or was refused: by one log, in order."""
    either = _of_type("DownstreamTunnelSuccessfullyEstablished", "DownstreamEnd")
    return {**log, "filter": _all({"header_filter": {"header": _IS_TUNNEL}}, either)}


def requests(log: dict[str, Any]) -> dict[str, Any]:
    """Each request when it is over, whatever became of it."""
    return {**log, "filter": _all(_IS_REQUEST, _of_type("DownstreamEnd"))}


def asks(pod: str) -> str:
    """The key under which a pod's open requests are asked for."""
    return f"open|{pod}"


def open_requests(log: dict[str, Any], pod: str) -> dict[str, Any]:
    """Each request to a pod that is still under way, while it is asked for."""
    asked = {"runtime_key": asks(pod), "percent_sampled": {}, "use_independent_randomness": True}
    wanted = _all(_of_type("DownstreamPeriodic"), {"runtime_filter": asked}, _IS_REQUEST)
    return {**log, "filter": wanted}


def _all(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": list(filters)}}


def _of_type(*names: str) -> dict[str, Any]:
    return {"log_type_filter": {"types": names}}
