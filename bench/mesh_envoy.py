"""The Envoy that Sixfold runs, configured by hand: what is to be had without Sixfold.

One process of one thread is both ends, with sockets in the client's and in the server's namespace,
as the node's proxy is. Either a connection has a handshake of its own, in full, or requests are
read at both ends, and share HTTP/2 between. Both ends verify the chain and one SPIFFE ID, and RBAC
lets one caller in. The process sees the client's address, and of requests who it proved to be; what
is made and ended is told in the same log to a process that takes it as the agent does.

HANDSHAKES  one for each connection, in full
BARE        requests by the least that does this for two pods: of filters only RBAC is awake
SAME        by the filters that are awake at Sixfold's ends, each with as much to do: one
            configuration for all pods, so namespaces are states of the connection, and headers
            say who asks and where to; but no tables by address, and nothing comes by xDS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_components_pb2 import FilterChain
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from bench.lab import Lab, inside, ip, run
from bench.mesh_peers import NEAR, TUNNEL, Certificates, Running
from bench.peers import PORT, SERVER, Peer, routed
from bench.schedule import alone
from sixfold.host.envoy import binary
from sixfold.mesh import conditions, http, kept_headers, logs
from sixfold.mesh import resources as parts
from sixfold.mesh.http_filters import http_filters
from sixfold.mesh.http_routes import UNSENT, UNSENT_TRIES
from sixfold.mesh.messages import extension, packed
from sixfold.model.mesh import CLIENT_PORT, COPIES, DESTINATION, ORIGINAL_SOURCE_MARK

HANDSHAKES = "Envoy, a handshake each"
BARE, SAME = "Envoy, HTTP by hand", "Envoy, the same filters by hand"
TYPES = "type.googleapis.com/envoy"
CLIENT_ID, SERVER_ID = "spiffe://bench/client", "spiffe://bench/server"
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
KEPT_SOURCE = "filters.listener.original_src.v3.OriginalSrc"
RULES = {
    "action": "ALLOW",
    "policies": {
        "client": {
            "permissions": [{"any": True}],
            "principals": [{"authenticated": {"principal_name": {"exact": CLIENT_ID}}}],
        }
    },
}
ASKS, VIA, POD = "x-bench-client", "x-bench-clients", "x-bench-pod"
Json = dict[str, Any]
GET: Json = {"header": {"name": ":method", "string_match": {"safe_regex": {"regex": "GET"}}}}


def envoys(lab: Lab, shown: Certificates) -> Iterator[Running]:
    """A handshake for each connection; requests, read at both ends."""
    log = _log_taken(lab)
    connections = routed(lab, "mesh-handshakes")
    ends = _ends(shown, connections, [_tcp("far")], [_rbac(), _told(_tcp("app"))])
    yield _running(lab, HANDSHAKES, connections, ends, log)
    for name, word in ((BARE, "bare"), (SAME, "same")):
        peer = routed(lab, f"mesh-{word}")
        http1, http2 = _http("far", _near_filters()), _http("app", _far_filters())
        http2["typed_config"] |= {
            "access_log": _requests_told(),
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"uri": True},
            "http2_protocol_options": _json(
                hcm.HttpConnectionManager(http2_protocol_options=parts.HTTP2)
            )["http2_protocol_options"],
        }
        ends = _ends(shown, peer, [http1], [http2], http2=True)
        if name == SAME:
            _awake(ends, peer)
        yield _running(lab, name, peer, ends, log)


class _Ends(NamedTuple):
    """Listeners, with one chain each, and where those lead."""

    near: Json
    far: Json
    to_far: Json
    to_app: Json


def _ends(
    shown: Certificates, peer: Peer, near: list[Json], far: list[Json], *, http2: bool = False
) -> _Ends:
    secured = {"filters": far, "transport_socket": _server_tls(shown, http2=http2)}
    found = _Ends(
        _listener("near", peer.client, "127.0.0.1", NEAR, {"filters": near}),
        _listener("far", peer.server, "0.0.0.0", TUNNEL, secured),
        _cluster("far", peer.client, SERVER, TUNNEL),
        _cluster("app", peer.server, SERVER, PORT),
    )
    found.to_far["transport_socket"] = _client_tls(shown, http2=http2)
    if http2:
        found.to_far["typed_extension_protocol_options"] = HTTP2
    return found


def _running(lab: Lab, name: str, peer: Peer, ends: _Ends, log: Json) -> Running:
    _keep_source(peer.server, ends.far)
    found = {"listeners": [ends.near, ends.far], "clusters": [ends.to_far, ends.to_app, log]}
    path = lab.directory / f"{peer.name}.json"
    path.write_text(json.dumps({"static_resources": found}))
    options = ["-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    pid = lab.spawn(peer.client, *alone(str(binary()), *options))
    return Peer(name, peer.client, peer.server, "127.0.0.1", NEAR), [pid]


def _listener(name: str, netns: Path, address: str, port: int, chain: Json) -> Json:
    place = _place(address, port)
    place["socket_address"]["network_namespace_filepath"] = str(netns)
    return {"name": name, "address": place, "filter_chains": [chain]}


def _cluster(name: str, netns: Path, address: str, port: int) -> Json:
    endpoint = {"endpoint": {"address": _place(address, port)}}
    inside = {**_place("0.0.0.0", 0)["socket_address"], "network_namespace_filepath": str(netns)}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "upstream_bind_config": {"source_address": inside},
    }


def _log_taken(lab: Lab) -> Json:
    """Where the log goes: a process, and the cluster that leads to it."""
    path = str(lab.directory / "access-log.sock")
    lab.spawn(Path("/proc/self/ns/net"), sys.executable, "-m", "bench.access_log", path)
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": logs.XDS_CLUSTER,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": logs.XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": HTTP2,
    }


def _requests_told(*more: Json) -> list[Json]:
    log = logs.requests(logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.REQUESTS))
    return list(_json(hcm.HttpConnectionManager(access_log=[log, *more]))["access_log"])


def _told(tcp: Json) -> Json:
    """A connection when it is made, and when it is over, as of tunnels."""
    log = logs.to_agent(als_pb2.TcpGrpcAccessLogConfig, logs.INBOUND)
    told = _json(tcp_proxy_pb2.TcpProxy(access_log=[log]))
    told["access_log_options"] = {"flush_access_log_on_connected": True}
    return {**tcp, "typed_config": tcp["typed_config"] | told}


def _awake(ends: _Ends, peer: Peer) -> None:
    """What Sixfold's filters do for each request, beside what is there."""
    near, far = (it["filter_chains"][0]["filters"] for it in (ends.near, ends.far))
    http1, http2 = near[0]["typed_config"], far[0]["typed_config"]
    to_far, to_app = (it["route_config"]["virtual_hosts"][0]["routes"][0] for it in (http1, http2))
    said = {
        **{ASKS: "spiffe://bench/client", VIA: "port:%DOWNSTREAM_LOCAL_PORT%"},
        **{CLIENT_PORT: "%DOWNSTREAM_REMOTE_PORT%", COPIES: "copies"},
        POD: "pod|%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    }
    early = header_mutation_pb2.HeaderMutation(
        mutations=[parts.set_header(name, text) for name, text in said.items()]
    )
    mutation = extension("envoy.http.early_header_mutation.header_mutation", early)
    http1 |= _json(hcm.HttpConnectionManager(early_header_mutation_extensions=[mutation]))
    to_far["request_headers_to_remove"] = [ASKS, VIA, POD]
    to_far["route"]["retry_policy"] = {"retry_on": UNSENT, "num_retries": UNSENT_TRIES}
    place = f"{SERVER}:{PORT}"
    meant = [parts.set_header(DESTINATION, '%UPSTREAM_METADATA(["bench","destination"])%')]
    (endpoint,) = ends.to_far["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["metadata"] = {"filter_metadata": {"bench": {"destination": place}}}
    options = {parts.OPTIONS: packed(http.over_http2(meant))}
    ends.to_far.update(_json(Cluster(typed_extension_protocol_options=options)))
    for chain, to, netns in ((near, ends.to_far, peer.client), (far, ends.to_app, peer.server)):
        states = parts.set_states([parts.state(parts.NETNS_STATE, str(netns))])
        chain[:0] = _json(FilterChain(filters=[states]))["filters"]
        to.update(_json(Cluster(upstream_bind_config=parts.from_the_pod())))
    to_app["request_headers_to_remove"] = [DESTINATION, CLIENT_PORT, COPIES]
    to_app["typed_per_filter_config"] = _json(
        Route(typed_per_filter_config=kept_headers.of_route({CLIENT_PORT, DESTINATION}))
    )["typed_per_filter_config"]
    rules = http2["http_filters"][0]["typed_config"]["rules"]["policies"]["client"]
    rules["permissions"] = [{"and_rules": {"rules": [_exactly(DESTINATION, place), GET]}}]
    tokens = extension("tokens", jwt_pb2.JwtAuthentication())
    http2["http_filters"][1:1] = _json(hcm.HttpConnectionManager(http_filters=[tokens]))[
        "http_filters"
    ]
    looked_for = logs.open_requests(logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.OPEN), "x")
    http2["access_log"] = _requests_told(looked_for)
    http2["access_log_options"] = {"access_log_flush_interval": "0.4s"}
    del ends.to_app["load_assignment"]
    lookup = {"metadata_key": kept_headers.PLACE}
    ends.to_app.update(
        type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", original_dst_lb_config=lookup
    )


def _exactly(name: str, text: str) -> Json:
    return {"header": {"name": name, "string_match": {"exact": text}}}


def _keep_source(netns: Path, listener: Json) -> None:
    """The process is dialled under the client's address, whose packets stay inside."""
    mark = ORIGINAL_SOURCE_MARK
    run(inside(netns, "sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=1"))
    ip(netns, f"rule add fwmark {mark} lookup 95", "route add local default dev lo table 95")
    typed = {"@type": f"{TYPES}.extensions.{KEPT_SOURCE}", "mark": mark}
    listener["listener_filters"] = [{"name": "original_src", "typed_config": typed}]


def _place(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _tls(shown: Certificates, own: Path, peer: str, *, http2: bool) -> Json:
    files = {"certificate_chain": {"filename": str(own)}, "private_key": {"filename": str(own)}}
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",  # a client's is 1.2 else
        },
        "alpn_protocols": ["h2"] if http2 else [],
        "tls_certificates": [files],
        "validation_context": {
            "trusted_ca": {"filename": str(shown.authority)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    }


def _client_tls(shown: Certificates, *, http2: bool) -> Json:
    common = _tls(shown, shown.client, SERVER_ID, http2=http2)
    return _socket("UpstreamTlsContext", {"common_tls_context": common, "max_session_keys": 0})


def _server_tls(shown: Certificates, *, http2: bool) -> Json:
    common = _tls(shown, shown.server, CLIENT_ID, http2=http2)
    must = {"require_client_certificate": True, "disable_stateless_session_resumption": True}
    return _socket("DownstreamTlsContext", {"common_tls_context": common, **must})


def _socket(kind: str, config: Json) -> Json:
    typed = {"@type": f"{TYPES}.extensions.transport_sockets.tls.v3.{kind}", **config}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _tcp(cluster: str) -> Json:
    config = {"stat_prefix": cluster, "cluster": cluster, "idle_timeout": "0s"}
    return _filter("network.tcp_proxy.v3.TcpProxy", config)


def _rbac() -> Json:
    return _filter("network.rbac.v3.RBAC", {"stat_prefix": "rbac", "rules": RULES})


def _near_filters() -> list[Json]:
    return _as_json(http_filters())


def _far_filters() -> list[Json]:
    """Sixfold's have one more, which looks for tokens; where none are, it has nothing to do."""
    idle = _as_json([*conditions.filters(), kept_headers.filter_])
    router = _near_filters()[-1]
    return [_filter("http.rbac.v3.RBAC", {"rules": RULES}), *idle, router]


def _as_json(filters: list[Json]) -> list[Json]:
    return list(_json(hcm.HttpConnectionManager(http_filters=filters))["http_filters"])


def _json(message: Message) -> Json:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _http(cluster: str, filters: list[Json]) -> Json:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    config = {
        "stat_prefix": cluster,
        "route_config": {"virtual_hosts": [{"name": cluster, "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
        "stream_idle_timeout": "0s",
        "generate_request_id": False,
        "skip_xff_append": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "server_header_transformation": "PASS_THROUGH",
    }
    name = "network.http_connection_manager.v3.HttpConnectionManager"
    return _filter(name, config)


def _filter(kind: str, config: Json) -> Json:
    return {
        "name": kind,
        "typed_config": {"@type": f"{TYPES}.extensions.filters.{kind}", **config},
    }
