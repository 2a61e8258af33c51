"""Which TrafficPolicy holds for requests to a port of a service, and is it in force?

Pure. Of several about one port, or one rule of a route, the oldest holds, whole, as the Gateway
API orders policies (GEP-713); the others say in their status that they do not. Where a rule and
the port that was dialled have one each, the rule's words come first, but limits of rates add up: a
consumer cannot lift what the producer wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sixfold.mesh.condition import Condition, told_of_targets
from sixfold.mesh.kept import Kept
from sixfold.mesh.route_tables import RouteTables
from sixfold.mesh.routes import (
    Backend,
    Limit,
    Routed,
    ServicePort,
    Way,
)
from sixfold.model.duration import seconds
from sixfold.model.httproute import GRPCRule, HTTPMatch, HTTPRule
from sixfold.model.trafficpolicy import TargetReference, TrafficPolicy, TrafficPolicySpec
from sixfold.model.world import World

NOTHING = TrafficPolicySpec([])


class Traffic:
    """The policies of a world: at most one about a port of a service, or about a rule of a route.

    by_port  of Services
    by_rule  of routes: by kind, "namespace/name", name of the rule; "" is all other rules
    """

    def __init__(self, world: World) -> None:
        self.by_port: dict[ServicePort, TrafficPolicy] = {}
        self.by_rule: dict[tuple[str, str, str], TrafficPolicy] = {}
        for policy in sorted(world.traffic.values(), key=_age) if world.has_mesh else ():
            for target in policy.spec.target_refs:
                for port in ports_of(world, policy, target):
                    self.by_port.setdefault(port, policy)
                for rule in rules_of(world, policy, target):
                    self.by_rule.setdefault(rule, policy)

    def spec(self, port: ServicePort) -> TrafficPolicySpec:
        policy = self.by_port.get(port)
        return NOTHING if policy is None else policy.spec

    def about(self, way: Way, port: ServicePort | None = None) -> list[TrafficPolicy]:
        """Those that hold for requests of a way to a port: that of its rule before the port's."""
        return [one for _, one in self._about(way, port)]

    def _about(self, way: Way, port: ServicePort | None) -> Iterator[tuple[str, TrafficPolicy]]:
        """With what each is attached to."""
        if (rule := way.rule) is not None:
            route = rule.kind, f"{rule.namespace}/{rule.route}"
            for key in ((*route, rule.name), (*route, "")):
                if (policy := self.by_rule.get(key)) is not None:
                    yield " ".join(key).rstrip(), policy
                    break
        if port is not None and port in self.by_port:
            yield str(port), self.by_port[port]

    def carried(self, way: Way, port: ServicePort | None = None) -> Way:
        """A way as policies have it; what its own rule says stands before what they say.

        port  of the service that was asked; None: it was a Gateway
        """
        about = list(self._about(way, port))
        specs = [one.spec for _, one in about]
        backends = (self.spec(one.to).consistent_hash for one in way.backends if one.to is not None)
        hashes = tuple(one for one in backends if one is not None)
        if not (specs or hashes):
            return way
        methods = next((one.retry.methods for one in specs if one.retry.methods is not None), None)
        return replace(
            way,
            timeout_s=way.timeout_s or _first_s(one.timeouts.request for one in specs),
            try_s=way.try_s or _first_s(one.timeouts.backend_request for one in specs),
            repeatable=way.repeatable if methods is None else tuple(methods),
            hashes=hashes,
            limits=tuple(
                Limit(owner, rate) for owner, one in about for rate in one.spec.rate_limits
            ),
            fault=next((one.fault_injection for one in specs if one.fault_injection), None),
        )


class RequestTables:
    """Of world after world, each with its policies."""

    def __init__(self) -> None:
        self._routes = RouteTables()
        self._kept = Kept()

    def follow(self, world: World, traffic: Traffic) -> Mapping[ServicePort, Routed]:
        """Every port whose requests are looked at: some route is attached to it, or a policy."""
        routes = self._routes.follow(world)
        if not (traffic.by_port or traffic.by_rule):
            return routes
        found = {}
        for port in (*routes, *(traffic.by_port.keys() - routes.keys())):
            parts = routes.get(port), traffic
            found[port] = self._kept.of(port, parts, partial(_carried, port, *parts))
        self._kept.forget()
        return found


def plan_requests(world: World, traffic: Traffic) -> Mapping[ServicePort, Routed]:
    """The same of one world."""
    return RequestTables().follow(world, traffic)


def _carried(port: ServicePort, routed: Routed | None, traffic: Traffic) -> Routed:
    routed = routed or Routed()
    if routed.producer is None and port in traffic.by_port:
        routed = replace(routed, producer=(straight_to(port),))
    return Routed(
        routed.producer and tuple(traffic.carried(way, port) for way in routed.producer),
        {
            namespace: tuple(traffic.carried(way, port) for way in ways)
            for namespace, ways in routed.consumers.items()
        },
    )


def _first_s(texts: Iterable[str | None]) -> float:
    return next((seconds(text) for text in texts if text is not None), 0.0)


def straight_to(port: ServicePort) -> Way:
    """What no route is about goes to the service itself."""
    return Way(str(port), HTTPMatch(), (), (Backend(port, 1),))


def ports_of(world: World, policy: TrafficPolicy, target: TargetReference) -> Iterator[ServicePort]:
    """Of the Service that is meant; nobody's when it is not there, or there is no mesh."""
    name = f"{policy.metadata.namespace}/{target.name}"
    service = world.services.get(name) if target.kind == "Service" else None
    if service is None:
        return
    for port in service.spec.ports:
        if port.protocol == "TCP" and target.section_name in ("", port.name):
            yield ServicePort(name, port.port)


def rules_of(
    world: World, policy: TrafficPolicy, target: TargetReference
) -> Iterator[tuple[str, str, str]]:
    """Of the route that is meant, as ``Traffic`` names them."""
    name = f"{policy.metadata.namespace}/{target.name}"
    route = world.routes.get(f"{target.kind} {name}")
    if route is None:
        return
    rules: Sequence[HTTPRule | GRPCRule] = route.spec.rules
    if not target.section_name or any(rule.name == target.section_name for rule in rules):
        yield target.kind, name, target.section_name


def status_of(world: World, policy: TrafficPolicy) -> dict[str, Any]:
    """``status``, as the Gateway API's policies have it (PolicyStatus)."""
    holding = Traffic(world)
    return told_of_targets(
        policy.metadata,
        (
            (target, [_accepted(world, policy, target, holding)])
            for target in policy.spec.target_refs
        ),
    )


def _accepted(
    world: World,
    policy: TrafficPolicy,
    target: TargetReference,
    holding: Traffic,
) -> Condition:
    if not world.has_mesh:
        message = "there is no mesh to carry requests: sixfold up --mtls strict"
        return Condition("Accepted", False, "NoMesh", message)
    ports, rules = ports_of(world, policy, target), rules_of(world, policy, target)
    holders = [(str(port), holding.by_port[port]) for port in ports]
    holders += [(" ".join(rule).rstrip(), holding.by_rule[rule]) for rule in rules]
    if not holders:
        part = "TCP port" if target.kind == "Service" else "rule"
        section = f" with a {part} {target.section_name}" if target.section_name else ""
        message = f"there is no {target.kind} {policy.metadata.namespace}/{target.name}{section}"
        return Condition("Accepted", False, "TargetNotFound", message)
    for what, other in holders:
        if other is not policy:
            message = f"TrafficPolicy {name_of(other)} is older, and about {what}, too"
            return Condition("Accepted", False, "Conflicted", message)
    return Condition("Accepted", True, "Accepted", "in force")


def name_of(policy: TrafficPolicy) -> str:
    return f"{policy.metadata.namespace}/{policy.metadata.name}"


def _age(policy: TrafficPolicy) -> tuple[str, str]:
    return policy.metadata.creation_timestamp or "9", name_of(policy)
