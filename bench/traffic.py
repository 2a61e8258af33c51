"""Traffic side by side: every peer in every round, in random order, compared within the round.

A ratio is the median over rounds of (peer's figure / other's figure in that round), with the
interval that holds the true median in 95 of 100 runs. A turn is short: what a noisy moment
does to one it does to its neighbour too.
"""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.instance import sixfold
from bench.lab import Lab, LabError, inside, run
from bench.peers import PORT, Peer, nftables, routed, veth, why_no_nftables
from bench.schedule import alone

METRICS = {
    "stream": ("one TCP stream", "Gb/s", 1e-9),
    "rr": ("TCP_RR", "1000/s", 1e-3),
    "crr": ("connect, request, response", "1000/s", 1e-3),
}
SERVICES = (10, 10_000)
TURN_S = 0.02
ROUNDS = {"stream": 600, "rr": 300, "crr": 150}  # the more a metric wanders, the more
ROTATION_TIMEOUT_S = 120.0
READY_TRIES, READY_WAIT_S = 500, 0.02
LIMIT = "veth"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median of ratios, and its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass
class Traffic:
    """Figures by metric, then peer, then round."""

    figures: dict[str, dict[str, list[float]]]
    skipped: dict[str, str] = field(default_factory=dict)

    def median(self, metric: str, peer: str) -> float:
        return statistics.median(self.figures[metric][peer])

    def ratio(self, metric: str, peer: str, to: str) -> Ratio | None:
        """Over the rounds; None when either was skipped."""
        mine, theirs = (self.figures[metric].get(name) for name in (peer, to))
        if not mine or not theirs:
            return None
        ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
        # By ranks: how many of n values are below the median is binomial.
        spread = round(0.98 * math.sqrt(len(ratios)))
        middle = len(ratios) // 2
        return Ratio(
            statistics.median(ratios),
            ratios[max(middle - spread, 0)],
            ratios[min(middle + spread, len(ratios) - 1)],
        )


def measure(lab: Lab, chance: random.Random) -> Traffic:
    peers, skipped = _peers(lab)
    for peer in peers:
        lab.spawn(peer.server, *alone(str(lab.load), "server", str(PORT)))
        await_server(lab, peer)
    traffic = Traffic({}, skipped)
    for metric in METRICS:
        rounds, scale = ROUNDS[metric], METRICS[metric][2]
        traffic.figures[metric] = rotate(lab, peers, metric, rounds, scale, chance)
    return traffic


def _peers(lab: Lab) -> tuple[list[Peer], dict[str, str]]:
    peers, skipped = [veth(lab), routed(lab)], {}
    reason = why_no_nftables()
    for services in SERVICES:
        try:
            if reason:
                raise LabError(reason)
            peers.append(nftables(lab, services))
        except LabError as error:
            skipped[f"nftables, {services:,} services"] = str(error)
    return [*peers, *(sixfold(lab, services) for services in SERVICES)], skipped


def await_server(lab: Lab, peer: Peer, metric: str = "rr") -> None:
    """Until the server answers: the policy that lets it may be a moment old."""
    command = inside(peer.client, str(lab.load), metric, peer.address, str(peer.port), "0")
    for _ in range(READY_TRIES):
        if subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0:
            return
        time.sleep(READY_WAIT_S)
    raise LabError(f"{peer.name}: no answer from {peer.address}:{peer.port}")


def rotate(
    lab: Lab,
    peers: Sequence[Peer],
    metric: str,
    rounds: int,
    scale: float,
    chance: random.Random,
    turn_s: float = TURN_S,
) -> dict[str, list[float]]:
    """Everybody's figures by round; ``metric`` is one of load.c's."""
    places = [str(part) for peer in peers for part in (peer.client, peer.address, peer.port)]
    settings = (metric, str(turn_s), str(rounds), str(chance.getrandbits(16)))
    lines = run(alone(str(lab.load), "rotate", *settings, *places), timeout_s=ROTATION_TIMEOUT_S)
    figures = [[float(figure) for figure in line.split()] for line in lines.splitlines()]
    return {
        peer.name: [each[number] * scale for each in figures] for number, peer in enumerate(peers)
    }
