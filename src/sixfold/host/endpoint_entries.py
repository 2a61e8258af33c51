"""What endpoints stand for in maps that are not keyed by interface."""

from __future__ import annotations

from collections.abc import Iterable

from sixfold.host import layout
from sixfold.model.datapath import EndpointEntry

ZERO = layout.U32.pack(0)


def addresses(endpoints: Iterable[EndpointEntry]) -> dict[bytes, bytes]:
    return {
        layout.pack_address(address): layout.pack_endpoint(endpoint)
        for endpoint in endpoints
        for address in (endpoint.ipv4, endpoint.ipv6)
        if address is not None
    }


def namespaces(endpoints: Iterable[EndpointEntry]) -> dict[bytes, bytes]:
    return {
        layout.U64.pack(endpoint.netns_cookie): layout.U32.pack(endpoint.id)
        for endpoint in endpoints
        if endpoint.netns_cookie
    }


def host_namespace(cookie: int) -> dict[bytes, bytes]:
    return {layout.U64.pack(cookie): ZERO} if cookie else {}
