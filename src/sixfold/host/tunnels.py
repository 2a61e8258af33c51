"""Tunnels that are open between the proxy's ends: which, since when, and their end.

A tunnel is closed at its client's end, in the pod's namespace: the proxy there ends all that is in
it, and the other end learns of it at once. Where the client's pod is gone, at the server's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.sockets import TCP, End, close_ends
from sixfold.model.datapath import IPAddress
from sixfold.model.mesh import TUNNEL_PORT


class Tunnel(NamedTuple):
    """From the client's pod to the server's; ``age_s``: since it was dialled."""

    client: IPAddress
    client_port: int
    server: IPAddress
    age_s: float


def tunnels(opened: Map) -> list[Tunnel]:
    """Of the map of that name."""
    now_ns = time.monotonic_ns()
    found = []
    for key, value in opened.items():
        *ends, _, _ = layout.CONNTRACK_KEY.unpack(key)
        first, second = ((ends[0], ends[2]), (ends[1], ends[3]))
        if layout.unpack_port(first[1]) == TUNNEL_PORT:
            first, second = second, first
        age_s = (now_ns - layout.U64.unpack(value)[0]) / 1e9
        client, server = layout.unpack_address(first[0]), layout.unpack_address(second[0])
        found.append(Tunnel(client, layout.unpack_port(first[1]), server, age_s))
    return found


def close_tunnels(those: Iterable[Tunnel], namespaces: Mapping[IPAddress, Path]) -> int:
    """``namespaces`` by address of the pod; returns how many were closed."""
    ends: defaultdict[Path, list[End]] = defaultdict(list)
    for one in those:
        if one.client not in namespaces:
            if one.server in namespaces:
                end = (TCP, one.server, TUNNEL_PORT, one.client, one.client_port)
                ends[namespaces[one.server]].append(end)
        else:
            end = (TCP, one.client, one.client_port, one.server, TUNNEL_PORT)
            ends[namespaces[one.client]].append(end)
    return sum(close_ends(those, namespace) for namespace, those in ends.items())
