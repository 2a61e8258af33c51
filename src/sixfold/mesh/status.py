"""``status`` of routes, Gateways and their classes, as the Gateway API writes it.

Pure. Conditions hold since the object was made: what the agent computes has no other time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sixfold.mesh.condition import CONTROLLER, Condition, told
from sixfold.mesh.listeners import (
    PARENTS,
    AnyRoute,
    ListenerPlan,
    attach,
    bare_listeners,
    let_in,
    plan_listeners,
)
from sixfold.mesh.routes import attachments, resolved
from sixfold.model.datapath import IPAddress
from sixfold.model.gateway import GATEWAY_CONTROLLER, GROUP, Gateway, GatewayClass
from sixfold.model.listenerset import ListenerSet
from sixfold.model.meta import ObjectMeta
from sixfold.model.world import World


def status_of(world: World, route: AnyRoute) -> dict[str, Any]:
    """Of a route: one entry for each parent."""
    refs = resolved(world, route)
    accepted = {id(one.parent): one.accepted for one in attachments(world, route)}
    gateways = bare_listeners(world)
    parents = []
    for parent in route.spec.parent_refs:
        of_gateway = (parent.group, parent.kind) in PARENTS
        said = attach(world, gateways, route, parent)[1] if of_gateway else accepted[id(parent)]
        parents.append(
            {
                "parentRef": msgspec.to_builtins(parent),
                "controllerName": GATEWAY_CONTROLLER if of_gateway else CONTROLLER,
                "conditions": told(route.metadata, (said, refs)),
            }
        )
    return {"parents": parents}


def status_of_class(one: GatewayClass) -> dict[str, Any]:
    if one.spec.controller_name != GATEWAY_CONTROLLER:
        return {}
    said = Condition("Accepted", True, "Accepted", "Gateways of it are served here")
    return {"conditions": told(one.metadata, (said,))}


def status_of_gateway(
    world: World, gateway: Gateway, addresses: Sequence[IPAddress], lacks: str, lacking: str
) -> dict[str, Any]:
    """Of a Gateway.

    addresses  that it has
    lacks      why it has no more of them
    lacking    why the proxy does not serve it yet; "" when it does
    """
    if not world.is_ours(gateway):
        return {}
    planned = plan_listeners(world)[gateway.key]
    listeners = [one for one in planned if one.set is None]
    sets = {one.set.key for one in planned if one.set is not None and one.served}
    served = [one for one in listeners if one.served]
    wrong = len(served) < len(listeners)
    accepted = Condition(
        "Accepted",
        bool(served),
        "ListenersNotValid" if wrong else "Accepted",
        "see its listeners" if wrong else "served here",
    )
    if not served:
        programmed = Condition("Programmed", False, "Invalid", "no listener is served")
    elif lacking:
        programmed = Condition("Programmed", False, "Pending", lacking)
    elif not addresses or (lacks and gateway.spec.addresses):
        reason = "AddressNotUsable" if gateway.spec.addresses else "AddressNotAssigned"
        programmed = Condition("Programmed", False, reason, lacks or "it has no address yet")
    else:
        programmed = Condition("Programmed", True, "Programmed", "the proxy serves it")
    return {
        "addresses": [{"type": "IPAddress", "value": str(one)} for one in addresses],
        "conditions": told(gateway.metadata, (accepted, programmed)),
        "listeners": [_listener(gateway.metadata, one, lacking) for one in listeners],
        **({"attachedListenerSets": len(sets)} if world.listener_sets else {}),
    }


def status_of_set(world: World, one: ListenerSet, lacking: str, parent: str = "") -> dict[str, Any]:
    """Of a ListenerSet.

    lacking  why the proxy does not serve its Gateway yet
    parent   why that is not programmed
    """
    gateway = world.gateways.get(one.gateway)
    if gateway is None or not world.is_ours(gateway):
        return {}
    planned = plan_listeners(world)[gateway.key]
    listeners = [it for it in planned if it.set is not None and it.set.key == one.key]
    served = [it for it in listeners if it.served]
    wrong = len(served) < len(listeners)
    if one.key not in {it.key for it in let_in(world, gateway)}:
        text = f"gateway {gateway.key} lets no sets of this namespace in: allowedListeners"
        accepted = Condition("Accepted", False, "NotAllowed", text)
        programmed = Condition("Programmed", False, "Invalid", text)
    elif not listeners:
        text = f"gateway {gateway.key} serves no listener of its own"
        accepted = Condition("Accepted", False, "ParentNotAccepted", text)
        programmed = Condition("Programmed", False, "ParentNotProgrammed", text)
    else:
        reason, text = ("ListenersNotValid", "see its listeners") if wrong else ("Accepted", "")
        accepted = Condition("Accepted", bool(served), reason, text)
        if not served:
            programmed = Condition("Programmed", False, "ListenersNotValid", text)
        elif lacking or parent:
            programmed = Condition("Programmed", False, "ParentNotProgrammed", lacking or parent)
        else:
            programmed = Condition("Programmed", True, "Programmed", "the proxy serves it")
    return {
        "conditions": told(one.metadata, (accepted, programmed)),
        "listeners": [_listener(one.metadata, it, lacking) for it in listeners],
    }


def _listener(meta: ObjectMeta, one: ListenerPlan, lacking: str) -> dict[str, Any]:
    conflict, wrong = one.conflict, one.wrong
    if conflict is not None:
        accepted = Condition("Accepted", False, conflict.reason, conflict.message)
        programmed = Condition("Programmed", False, "Invalid", conflict.message)
    else:
        accepted = Condition("Accepted", True, "Accepted", "")
        programmed = Condition("Programmed", True, "Programmed", "")
        if wrong is not None and not one.served:
            programmed = Condition("Programmed", False, "Invalid", wrong.message)
        elif lacking:
            programmed = Condition("Programmed", False, "Pending", lacking)
    none = Condition("Conflicted", False, "NoConflicts", "")
    refs = wrong or Condition("ResolvedRefs", True, "ResolvedRefs", "")
    return {
        "name": one.listener.name,
        "supportedKinds": [{"group": GROUP, "kind": kind} for kind in one.kinds],
        "attachedRoutes": len(one.attached),
        "conditions": told(meta, (accepted, conflict or none, refs, programmed)),
    }
