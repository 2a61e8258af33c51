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

LATER = "stream, later"  # the agent has let its sockets go
METRICS: Mapping[str, tuple[str, str, float]] = {
    "rr": ("TCP_RR", "1000/s", 1e-3),
    "bulk": ("1 MB, then its answer", "Gb/s", 1e-9),
    "stream": ("a stream that outruns its reader", "Gb/s", 1e-9),
    LATER: ("the same, ten seconds later", "Gb/s", 1e-9),
    "crr": ("connect, request, response", "1000/s", 1e-3),
}
ROUNDS = {"rr": 100, "bulk": 100, "stream": 220, "crr": 50}
FIRST, LAST = 50, 60  # rounds of a stream: 220 take 13 s, and nobody is let go in the first four
PLAIN, FAST = "packets", "accelerated"


def measure(lab: Lab, chance: random.Random) -> Traffic:
    peers = [veth(lab), *_pods(lab)]
    for peer in peers:
        lab.spawn(peer.server, *alone(str(lab.load), "server", str(PORT)))
        await_server(lab, peer)
    figures = {
        name: rotate(lab, peers, name, rounds, METRICS[name][2], chance)
        for name, rounds in ROUNDS.items()
    }
    streams = figures["stream"]
    figures["stream"] = {name: each[:FIRST] for name, each in streams.items()}
    figures[LATER] = {name: each[-LAST:] for name, each in streams.items()}
    return Traffic({name: figures[name] for name in METRICS})


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
