"""What holds for requests, in words: for ``explain``, ``describe`` and ``lb list``.

Pure, and without Envoy's messages: who has no mesh asks, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from sixfold.mesh.routes import Routed, RuleName, ServicePort, Way
from sixfold.mesh.traffic import Traffic, name_of, plan_requests
from sixfold.model.algorithm import Algorithm
from sixfold.model.httproute import SessionPersistence
from sixfold.model.trafficpolicy import ConsistentHash, FaultInjection, TrafficPolicySpec
from sixfold.model.world import World

PICKED = {
    Algorithm.RANDOM: "random",
    Algorithm.ROUND_ROBIN: "round-robin",
    Algorithm.LEAST_CONNECTIONS: "least-requests",
    Algorithm.MAGLEV: "maglev",
    Algorithm.SOURCE_HASH: "ring-hash",
}


def algorithm_of(algorithm: Algorithm, spec: TrafficPolicySpec) -> Algorithm:
    """Of requests: as the service has it, unless what is hashed is to stay together."""
    if spec.consistent_hash is None or algorithm is Algorithm.MAGLEV:
        return algorithm
    return Algorithm.SOURCE_HASH


def session_name(session: SessionPersistence, rule: RuleName) -> str:
    """What nobody named is called after its rule: two rules have two sessions."""
    if session.session_name:
        return session.session_name
    text = f"{rule.kind} {rule.namespace}/{rule.route} {rule.place}"
    return f"session-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def picked(algorithm: Algorithm, spec: TrafficPolicySpec) -> str:
    """How a backend is picked for each request."""
    name = PICKED[algorithm_of(algorithm, spec)]
    return name if spec.consistent_hash is None else f"{name} on {_hashed(spec.consistent_hash)}"


def of_way(way: Way) -> Iterator[str]:
    """What a request of this way meets before its backend."""
    for limit in way.limits:
        rate = limit.rate
        whose = "each identity" if rate.each == "Identity" else "all clients of a namespace"
        yield f"{rate.requests} in {rate.per} of {whose}"
    if way.fault is not None:
        yield _fault(way.fault)
    if way.timeout_s:
        yield f"timeout {way.timeout_s:g} s"
    if way.try_s:
        yield f"timeout of a try {way.try_s:g} s"
    if way.retry is not None:
        codes = ", ".join(map(str, way.retry.codes))
        yield f"{way.retry.attempts} more tries at {codes} of {', '.join(way.repeatable)}"
    if way.session is not None and way.rule is not None:
        kind = way.session.type.lower()
        yield f"session by {kind} {session_name(way.session, way.rule)}"


def of_backends(spec: TrafficPolicySpec) -> Iterator[str]:
    """What holds for the backends of a service."""
    if (limits := spec.circuit_breaker) is not None:
        named = {
            "connections": limits.max_connections,
            "pending requests": limits.max_pending_requests,
            "requests": limits.max_requests,
            "retries": limits.max_retries,
        }
        most = ", ".join(f"{most} {what}" for what, most in named.items() if most is not None)
        yield f"at once at most {most}"
    if (outliers := spec.outlier_detection) is not None:
        times, lasts = outliers.consecutive_errors, outliers.base_ejection_time
        yield f"ejected after {times} errors for {lasts}"


def policies(traffic: Traffic, way: Way, port: ServicePort | None) -> list[str]:
    """Names of those that say something about requests of a way, and about its backends."""
    about = list(traffic.about(way, port))
    about += [
        traffic.by_port[one.to]
        for one in way.backends
        if one.to is not None and one.weight and one.to in traffic.by_port
    ]
    return list(dict.fromkeys(f"TrafficPolicy {name_of(one)}" for one in about))


def requests_to(world: World) -> Mapping[ServicePort, Routed]:
    """Ports whose requests are looked at; none without routes and policies."""
    if not (world.routes or world.traffic):
        return {}
    return plan_requests(world, Traffic(world))


def with_requests(
    world: World, frontends: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Frontends as ``lb list`` shows them, each with what the proxy does with requests to it."""
    looked_at = requests_to(world)
    for one in frontends:
        port = ServicePort(one["service"], one["port"])
        read = one["type"] == "ClusterIP" and one["protocol"] == "TCP" and port in looked_at
        yield {**one, "requests": shown(world, one, port) if read else {}}


def shown(world: World, frontend: Mapping[str, Any], port: ServicePort) -> dict[str, str]:
    """What the proxy does with requests to a frontend."""
    traffic = Traffic(world)
    spec = traffic.spec(port)
    algorithm = Algorithm[frontend["algorithm"].upper().replace("-", "_")]
    own = [f"by TrafficPolicy {name_of(traffic.by_port[port])}"] if port in traffic.by_port else []
    return {"algorithm": picked(algorithm, spec), "carried": "; ".join([*of_backends(spec), *own])}


def _hashed(given: ConsistentHash) -> str:
    if given.header is not None:
        return f"header {given.header}"
    assert given.cookie is not None
    return f"cookie {given.cookie.name}"


def _fault(fault: FaultInjection) -> str:
    parts = []
    if (delay := fault.delay) is not None:
        parts.append(f"{delay.percent} % delayed by {delay.duration}")
    if (abort := fault.abort) is not None:
        code = abort.status if abort.grpc_status is None else f"gRPC {abort.grpc_status}"
        parts.append(f"{abort.percent} % answered {code}")
    only = ", ".join(f"{one.name}: {one.value}" for one in fault.headers)
    return f"fault: {' and '.join(parts)}{f', with {only}' if only else ''}"
