"""Objects that nobody wrote, as ``sixfold get`` shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from sixfold.model.endpoint import Endpoint
from sixfold.model.service import EndpointSlice


def slice_view(item: EndpointSlice) -> dict[str, Any]:
    """As in the API."""
    raw: dict[str, Any] = msgspec.to_builtins(item)
    return {"apiVersion": raw["apiVersion"], "kind": raw["kind"], **raw}  # as people read it


def endpoint_view(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as ``get endpoints`` shows it: the contract for scripts."""
    return {
        "apiVersion": "sixfold.dev/v1",
        "kind": "Endpoint",
        "metadata": {
            "name": endpoint.pod,
            "namespace": endpoint.namespace,
            "labels": endpoint.labels,
        },
        "status": {
            "id": endpoint.id,
            "netns": endpoint.netns,
            "ips": [str(ip) for ip in endpoint.addresses],
            "identity": endpoint.identity,
            "node": endpoint.node,
            "ready": endpoint.ready,
            "terminating": endpoint.terminating,
            "ifindex": endpoint.ifindex,
            "netnsCookie": endpoint.netns_cookie,
            "workload": endpoint.workload,
            "serviceAccount": endpoint.subject.service_account,
            "ports": [
                {"name": port.name, "protocol": port.protocol, "port": port.port}
                for port in endpoint.publish_ports
            ],
            "accelerated": endpoint.accelerated,
            "placement": endpoint.placement,
            "probePorts": sorted(endpoint.probe_ports),
        },
    }
