"""What Envoy is told on its command line: where the agent is; everything else it asks that for.

Pure. JSON, not YAML: a cluster named ``y`` would become a boolean.
"""

from __future__ import annotations

import json
from typing import Any

from sixfold.mesh.logs import RUNTIME_LAYER, XDS_CLUSTER
from sixfold.mesh.messages import PREFIX
from sixfold.model.mesh import SHARE_ENFORCED

ADMIN_MODE = 0o600
TABLES = [{"prefix": "http.requests.rds."}]  # their counters: one table for each service


def bootstrap(
    instance: str,
    node: str,
    xds_socket: str,
    admin_socket: str,
    connections_max: int,
    *,
    shared: bool = True,
) -> str:
    """Canonical text: another one means another process.

    shared  by several pods, so that each has its share only
    """
    limit = {
        "@type": f"{PREFIX}envoy.extensions.resource_monitors.downstream_connections.v3."
        "DownstreamConnectionsConfig",
        "max_active_downstream_connections": connections_max,
    }
    monitor = {"name": "envoy.resource_monitors.global_downstream_max_connections"}
    http2 = {
        "@type": f"{PREFIX}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    agent = {
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": xds_socket}}}}]}
            ],
        },
    }
    stream = {
        "envoy_grpc": {
            "cluster_name": XDS_CLUSTER,
            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
        }
    }
    ads = {"ads": {}, "resource_api_version": "V3"}
    config: dict[str, Any] = {
        "node": {"id": node, "cluster": instance},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": ADMIN_MODE}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [stream],
                "set_node_on_first_message_only": True,
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "layered_runtime": {
            "layers": [{"name": "agent", "rtds_layer": {"name": RUNTIME_LAYER, "rtds_config": ads}}]
        },
        "overload_manager": {"resource_monitors": [{**monitor, "typed_config": limit}]},
        "static_resources": {"clusters": [agent]},
        # Counters cost as much as all else: of a cluster when it is used, of tables none.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "stats_config": {"stats_matcher": {"exclusion_list": {"patterns": TABLES}}},
    }
    if not shared:
        layer = {"name": "alone", "static_layer": {SHARE_ENFORCED: False}}
        config["layered_runtime"]["layers"].append(layer)
    return json.dumps(config, indent=1)
