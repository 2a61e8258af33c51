"""Acceleration beside plain veth and beside the same pods without it, in one run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from bench.instance import Instance, pod, policy
from bench.lab import Lab, settle
from bench.peers import PORT, Peer, veth
from bench.schedule import alone
from bench.traffic import Traffic, await_server, rotate
from sixfold.model.acceleration import ACCELERATION, SOCKMAP

METRICS: Mapping[str, tuple[str, str, float]] = {
    "rr": ("TCP_RR", "1000/s", 1e-3),
    "bulk": ("1 MB, then its answer", "Gb/s", 1e-9),
    "stream": ("a stream that outruns its reader", "Gb/s", 1e-9),
    "crr": ("connect, request, response", "1000/s", 1e-3),
}
ROUNDS = {"rr": 100, "bulk": 100, "stream": 50, "crr": 50}
PLAIN, FAST = "packets", "accelerated"


def measure(lab: Lab, chance: random.Random) -> Traffic:
    peers = [veth(lab), *_pods(lab)]
    for peer in peers:
        lab.spawn(peer.server, *alone(str(lab.load), "server", str(PORT)))
        await_server(lab, peer)
    return Traffic(
        {name: rotate(lab, peers, name, ROUNDS[name], METRICS[name][2], chance) for name in METRICS}
    )


def _pods(lab: Lab) -> list[Peer]:
    """Two pairs of pods of one instance, of which one asks for acceleration."""
    instance = Instance(lab, "fast")
    ends = ("client", "server")
    objects = [pod(f"{name}-{end}") for name in (PLAIN, FAST) for end in ends]
    for one in objects[2:]:
        one["metadata"]["annotations"] = {ACCELERATION: SOCKMAP}
    everyone = policy("all", ingress=[{}], egress=[{}])
    everyone["spec"]["podSelector"] = {}
    instance.apply([*objects, everyone])
    peers = []
    for name in (PLAIN, FAST):
        client, server = (instance.pod(f"{name}-{end}") for end in ends)
        for end in (client, server):
            settle(Path(end["netns"]))
        peers.append(Peer(name, Path(client["netns"]), Path(server["netns"]), server["ips"][0]))
    return peers
