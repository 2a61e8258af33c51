"""Balancing at scale: connects and round trips beside peers, loading, a change, spread."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from bench import balancers, packages, services
from bench.balancers import PORTS
from bench.lab import Lab
from bench.peers import SERVER, Peer
from bench.schedule import alone
from bench.spread import Spread, spread
from bench.traffic import Traffic, await_server, rotate

SERVICES = (1, 100, 10_000, 30_000)
ROUNDS = {"crr": 60, "rr": 40}
METRICS: Mapping[str, tuple[str, str, float]] = {
    "crr": ("connect, request, response", "1000/s", 1e-3),
    "rr": ("TCP_RR", "1000/s", 1e-3),
}


@dataclass
class Balancing:
    """Traffic by way and number of services, milliseconds of changes, spread by algorithm."""

    traffic: Traffic
    changes: dict[str, float]
    spread: Spread
    versions: dict[str, str]


def measure(lab: Lab, chance: random.Random) -> Balancing:
    missing = packages.missing(balancers.PACKAGES)
    installed = [package for binary, package in balancers.PACKAGES.items() if binary not in missing]
    return Balancing(
        _traffic(lab, missing, chance),
        services.measure(lab),
        spread(lab, chance),
        packages.versions(" ".join(installed).split()),
    )


def _traffic(lab: Lab, missing: Mapping[str, str], chance: random.Random) -> Traffic:
    ways: list[tuple[str, Callable[[], Peer]]] = []
    for count in SERVICES:
        ways += [
            ("", partial(balancers.sixfold, lab, count)),
            ("nft", partial(balancers.nftables, lab, count)),
            ("iptables-legacy-restore", partial(balancers.iptables, lab, count)),
        ]
    ways += [("haproxy", partial(balancers.haproxy, lab)), ("nginx", partial(balancers.nginx, lab))]
    peers = [make() for binary, make in ways if binary not in missing]
    for peer in peers:
        for port in PORTS:
            lab.spawn(peer.server, *alone(str(lab.load), "server", str(port)))
            await_server(lab, replace(peer, address=SERVER, port=port))
        await_server(lab, peer)
    figures = {
        metric: rotate(lab, peers, metric, rounds, METRICS[metric][2], chance)
        for metric, rounds in ROUNDS.items()
    }
    return Traffic(figures, dict(missing))
