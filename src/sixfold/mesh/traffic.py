"""Which TrafficPolicy holds for a port of a service, and is it in force?

Pure. Of several about one port the oldest holds, whole, as the Gateway API orders policies
(GEP-713); the others say in their status that they do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from sixfold.mesh.kept import Kept
from sixfold.mesh.routes import (
    CONTROLLER,
    Backend,
    Condition,
    Routed,
    ServicePort,
    Way,
    plan_routes,
)
from sixfold.model.httproute import HTTPMatch
from sixfold.model.trafficpolicy import TargetReference, TrafficPolicy
from sixfold.model.world import World


def traffic_of(world: World) -> Mapping[ServicePort, TrafficPolicy]:
    """The policy of each port that has one."""
    found: dict[ServicePort, TrafficPolicy] = {}
    for policy in sorted(world.traffic.values(), key=_age):
        for target in policy.spec.target_refs:
            for port in ports_of(world, policy, target):
                found.setdefault(port, policy)
    return found


def plan_requests(
    world: World, traffic: Mapping[ServicePort, TrafficPolicy], kept: Kept | None = None
) -> Mapping[ServicePort, Routed]:
    """Every port whose requests are looked at: some route is attached to it, or a policy."""
    found = dict(plan_routes(world, kept))
    for port in traffic:
        routed = found.get(port, Routed())
        if routed.producer is None:
            found[port] = replace(routed, producer=(straight_to(port),))
    return found


def straight_to(port: ServicePort) -> Way:
    """What no route is about goes to the service itself."""
    return Way(str(port), HTTPMatch(), (), (Backend(port, 1),))


def ports_of(world: World, policy: TrafficPolicy, target: TargetReference) -> Iterator[ServicePort]:
    """Of the Service that is meant; nobody's when it is not there, or there is no mesh."""
    name = f"{policy.metadata.namespace}/{target.name}"
    service = world.services.get(name)
    if service is None or not world.has_mesh:
        return
    for port in service.spec.ports:
        if port.protocol == "TCP" and target.section_name in ("", port.name):
            yield ServicePort(name, port.port)


def status_of(world: World, policy: TrafficPolicy) -> dict[str, Any]:
    """``status``, as the Gateway API's policies have it (PolicyStatus)."""
    since = policy.metadata.creation_timestamp or ""
    holding = traffic_of(world)
    return {
        "ancestors": [
            {
                "ancestorRef": msgspec.to_builtins(target),
                "controllerName": CONTROLLER,
                "conditions": [
                    {
                        "type": one.type,
                        "status": "True" if one.holds else "False",
                        "reason": one.reason,
                        "message": one.message,
                        "observedGeneration": policy.metadata.generation,
                        "lastTransitionTime": since,
                    }
                ],
            }
            for target in policy.spec.target_refs
            for one in (_accepted(world, policy, target, holding),)
        ]
    }


def _accepted(
    world: World,
    policy: TrafficPolicy,
    target: TargetReference,
    holding: Mapping[ServicePort, TrafficPolicy],
) -> Condition:
    if not world.has_mesh:
        message = "there is no mesh to carry requests: sixfold up --mtls strict"
        return Condition("Accepted", False, "NoMesh", message)
    ports = list(ports_of(world, policy, target))
    if not ports:
        what = f"{policy.metadata.namespace}/{target.name}"
        with_port = f" with a TCP port {target.section_name}" if target.section_name else ""
        message = f"there is no service {what}{with_port}"
        return Condition("Accepted", False, "TargetNotFound", message)
    for port in ports:
        if (other := holding[port]) is not policy:
            message = f"TrafficPolicy {name_of(other)} is older, and about {port}, too"
            return Condition("Accepted", False, "Conflicted", message)
    return Condition("Accepted", True, "Accepted", "in force")


def name_of(policy: TrafficPolicy) -> str:
    return f"{policy.metadata.namespace}/{policy.metadata.name}"


def _age(policy: TrafficPolicy) -> tuple[str, str]:
    return policy.metadata.creation_timestamp or "9", name_of(policy)
