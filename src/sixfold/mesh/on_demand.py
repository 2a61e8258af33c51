"""Clusters that Envoy asks for when something leads to one of which it has not been told yet.

Pure. A proxy that has just begun serves before it knows of every service: what leads to a cluster
that is not there waits until Envoy has asked for it; those that nobody asks for follow (see
``serve.xds``). Envoy asks for a name once in its life, so a name that means nobody must not be
asked for: whoever asks again would wait in vain. Source: Envoy's API,
extensions.filters.http.on_demand, and ``on_demand`` of TcpProxy.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2

from sixfold.mesh.messages import ADS, asleep, extension, packed

FILTER = "envoy.filters.http.on_demand"
WAIT = timedelta(seconds=5)
# Of every listener of requests. A table wakes it: whom no table knows is answered at once.
filter_ = asleep(extension(FILTER, on_demand_pb2.OnDemand()))
of_table = {FILTER: packed(on_demand_pb2.PerRouteConfig(odcds={"source": ADS, "timeout": WAIT}))}
never = {FILTER: packed(on_demand_pb2.PerRouteConfig())}  # where there is no such cluster
of_connections: dict[str, Any] = {"on_demand": {"odcds_config": ADS, "timeout": WAIT}}
