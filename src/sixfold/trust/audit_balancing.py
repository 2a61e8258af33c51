"""Rules about balancing: does the algorithm suit the connections?"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.balancing.choice import choose, long_lived_word
from sixfold.balancing.lifetimes import LONG_S
from sixfold.model.algorithm import ALGORITHM, Algorithm
from sixfold.model.seen import NOTHING_SEEN
from sixfold.trust.audit_finding import Evidence, Finding, Object, Path, PortSeen

ROTATIONS = (Algorithm.RANDOM.title, Algorithm.ROUND_ROBIN.title)
LIVE_MIN = 8.0  # live connections of a backend on average: of fewer, chance says most
IMBALANCE = 1.5
FIX = f"""metadata:
  annotations: {{{ALGORITHM}: least-connections}}"""


def long_lived_on_a_rotation(evidence: Evidence) -> Iterator[Finding]:
    """Z23. A rotation spreads connections when they are opened, not while they last."""
    seen = {}
    if evidence.live is not None:
        seen = {(one.service, one.port, one.protocol): one for one in evidence.live.ports}
    world = evidence.view.world
    for key, service in sorted(world.services.items()):
        for at, port in enumerate(service.spec.ports):
            choice = choose(service, port, world.seen.get(key, NOTHING_SEEN))
            live = seen.get((key, port.port, port.protocol))
            algorithm = live.algorithm if live else choice.algorithm.title
            if service.spec.headless or algorithm not in ROTATIONS:
                continue
            word = long_lived_word(port)
            proof = _proof(live) or (f"{word[1]} means {word[0]}" if word else "")
            if proof:
                meta = service.metadata
                path: Path = ("spec", "ports", at)
                if ALGORITHM in meta.annotations:
                    path = ("metadata", "annotations", ALGORITHM)
                yield Finding(
                    "Z23",
                    "medium",
                    Object("Service", meta.namespace, meta.name),
                    f"port {port.port}/{port.protocol}: {algorithm}, for connections that live "
                    f"long ({live.why if live else choice.why})",
                    proof,
                    FIX,
                    path,
                )


def _proof(live: PortSeen | None) -> str:
    if live is None:
        return ""
    if live.lifetime_s >= LONG_S:
        return f"they last {live.lifetime_s:.0f} s on average"
    mean = sum(live.connections) / max(1, len(live.connections))
    if mean >= LIVE_MIN and max(live.connections) >= IMBALANCE * mean:
        return (
            f"the busiest backend has {max(live.connections):.0f} live connections, "
            f"{mean:.0f} are the mean"
        )
    return ""
