"""The Envoy that Sixfold runs, configured by hand: what is to be had without Sixfold.

One process of one thread is both ends, with sockets in the client's and in the server's namespace,
as the node's proxy is. Either a connection has a handshake of its own, in full, or requests are
read at both ends by the very filters that Sixfold's listeners have, and share HTTP/2 between. Both
ends verify the chain and one SPIFFE ID, and RBAC lets one caller in. Nothing is logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from google.protobuf import json_format

from bench.lab import Lab
from bench.mesh_peers import NEAR, TUNNEL, Certificates, Running, certificates
from bench.peers import PORT, SERVER, Peer, routed
from bench.schedule import alone
from sixfold.host.envoy import binary
from sixfold.mesh import conditions, kept_headers
from sixfold.mesh.http_filters import http_filters

HANDSHAKES, BARE = "Envoy, a handshake each", "Envoy, HTTP by hand"
TYPES = "type.googleapis.com/envoy"
CLIENT_ID, SERVER_ID = "spiffe://bench/client", "spiffe://bench/server"
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
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
    if http2:
        to_far["typed_extension_protocol_options"] = HTTP2
    clusters = [to_far, _cluster("app", peer.server, "127.0.0.1", PORT)]
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
    """Sixfold's have one more, which waits for what it is told; where no tokens are, it is idle."""
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
