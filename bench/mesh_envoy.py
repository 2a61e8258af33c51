"""The Envoy that Sixfold runs, configured by hand: what is to be had without Sixfold.

One process of one thread is both ends, with sockets in the client's and in the server's namespace,
as the node's proxy is. Either a connection has a handshake of its own, in full, or requests are
read at both ends by the very filters that Sixfold's listeners have, and share HTTP/2 between. Both
ends verify the chain and one SPIFFE ID, and RBAC lets one caller in. Of requests the process sees
the client's address and who it proved to be, and each is told in the same log to a process that
takes it as the agent does; of connections nothing is logged, and it sees the proxy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from google.protobuf import json_format

from bench.lab import Lab, inside, ip, run
from bench.mesh_peers import NEAR, TUNNEL, Certificates, Running, certificates
from bench.peers import PORT, SERVER, Peer, routed
from bench.schedule import alone
from sixfold.host.envoy import binary
from sixfold.mesh import conditions, kept_headers, logs
from sixfold.mesh.http_filters import http_filters
from sixfold.model.mesh import ORIGINAL_SOURCE_MARK

HANDSHAKES, BARE = "Envoy, a handshake each", "Envoy, HTTP by hand"
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
Json = dict[str, Any]


def envoys(lab: Lab) -> Iterator[Running]:
    """A handshake for each connection; requests, read at both ends."""
    shown = certificates(lab)
    yield _running(lab, HANDSHAKES, "handshakes", shown, [_tcp("far")], [_rbac(), _tcp("app")])
    http1, http2 = _http("far", _near_filters()), _http("app", _far_filters())
    http2["typed_config"] |= {
        "access_log": _logged(),
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
    }
    yield _running(lab, BARE, "bare", shown, [http1], [http2], http2=True)


def _running(
    lab: Lab,
    name: str,
    word: str,
    shown: Certificates,
    near: list[Json],
    far: list[Json],
    *,
    http2: bool = False,
) -> Running:
    peer = routed(lab, f"mesh-{word}")
    listeners = [
        _listener("near", peer.client, "127.0.0.1", NEAR, {"filters": near}),
        _listener(
            "far",
            peer.server,
            "0.0.0.0",
            TUNNEL,
            {"filters": far, "transport_socket": _server_tls(shown, http2=http2)},
        ),
    ]
    to_far = _cluster("far", peer.client, SERVER, TUNNEL)
    to_far["transport_socket"] = _client_tls(shown, http2=http2)
    clusters = [to_far, _cluster("app", peer.server, SERVER if http2 else "127.0.0.1", PORT)]
    if http2:
        to_far["typed_extension_protocol_options"] = HTTP2
        clusters.append(_log_taken(lab))
        _keep_source(peer.server, listeners[1])
    path = lab.directory / f"mesh-{word}.json"
    path.write_text(
        json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}})
    )
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


def _logged() -> list[Json]:
    log = logs.requests(logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.REQUESTS))
    message = hcm.HttpConnectionManager(access_log=[log])
    found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return list(found["access_log"])


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
    message = hcm.HttpConnectionManager(http_filters=filters)
    found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return list(found["http_filters"])


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
