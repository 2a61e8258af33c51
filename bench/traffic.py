"""Traffic side by side: every peer in every round, in random order, compared within the round.

A ratio is the median over rounds of (peer's figure / other's figure in that round): what a
noisy minute does to one it does to its neighbour too. A round whose plain-veth figure is far
from the median is measured again.
"""

from __future__ import annotations

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
SECONDS = 0.12  # short, and many: the machine itself has slow and fast moments
ROUNDS, ROUNDS_MAX = 45, 60
OFF = 0.15  # a round's plain-veth figure may be that far from the median
READY_TRIES, READY_WAIT_S = 100, 0.02
LIMIT = "veth"


@dataclass
class Traffic:
    """Figures by metric, then peer, then round."""

    figures: dict[str, dict[str, list[float]]]
    skipped: dict[str, str] = field(default_factory=dict)
    again: int = 0  # rounds that were measured again

    def median(self, metric: str, peer: str) -> float:
        return statistics.median(self.figures[metric][peer])

    def ratio(self, metric: str, peer: str, to: str) -> float | None:
        """Median of the rounds' ratios; None when either was skipped."""
        mine, theirs = (self.figures[metric].get(name) for name in (peer, to))
        if not mine or not theirs:
            return None
        return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))


def measure(lab: Lab, chance: random.Random) -> Traffic:
    peers, skipped = _peers(lab)
    for peer in peers:
        lab.spawn(peer.server, *alone(str(lab.load), "server", str(PORT)))
        _await(lab, peer)
    traffic = Traffic({}, skipped)
    for metric in METRICS:
        traffic.figures[metric], again = _rounds(lab, peers, metric, chance)
        traffic.again += again
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


def _await(lab: Lab, peer: Peer) -> None:
    """Until the server answers: the policy that lets it may be a moment old."""
    command = inside(peer.client, str(lab.load), "crr", peer.address, str(peer.port), "0")
    for _ in range(READY_TRIES):
        if subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0:
            return
        time.sleep(READY_WAIT_S)
    raise LabError(f"{peer.name}: no answer from {peer.address}:{peer.port}")


def _rounds(
    lab: Lab, peers: Sequence[Peer], metric: str, chance: random.Random
) -> tuple[dict[str, list[float]], int]:
    """Good rounds, or the best of ROUNDS_MAX; and how many were measured again."""
    rounds: list[dict[str, float]] = []
    for number in range(1, ROUNDS_MAX + 1):
        order = chance.sample(peers, len(peers))
        rounds.append({peer.name: _figure(lab, peer, metric) for peer in order})
        if number >= ROUNDS and len(good := _steady(rounds)) >= ROUNDS:
            break
    else:
        good = sorted(rounds, key=lambda each: _distance(each, rounds))[:ROUNDS]
    return {peer.name: [each[peer.name] for each in good] for peer in peers}, number - ROUNDS


def _distance(one: dict[str, float], rounds: Sequence[dict[str, float]]) -> float:
    return abs(one[LIMIT] / statistics.median(each[LIMIT] for each in rounds) - 1)


def _steady(rounds: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [each for each in rounds if _distance(each, rounds) <= OFF]


def _figure(lab: Lab, peer: Peer, metric: str) -> float:
    command = alone(str(lab.load), metric, peer.address, str(peer.port), str(SECONDS))
    return float(run(inside(peer.client, *command))) * METRICS[metric][2]
