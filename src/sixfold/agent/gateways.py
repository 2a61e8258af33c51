"""What is made for Gateways, kept as it should be: a pod and a service for each of our classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sixfold.manifest import Loaded, decode
from sixfold.model.gateway import GATEWAY_CONTROLLER, GATEWAY_LABEL
from sixfold.model.listenerset import sets_of
from sixfold.model.meta import Key, namespace_labels
from sixfold.store import Objects, Stored
from sixfold.workloads.gateway import differs, made_for
from sixfold.workloads.pod_state import controller_of


def follow_gateways(
    objects: Objects, put: Callable[[Sequence[Loaded]], None], delete: Callable[[Key], None]
) -> None:
    """Make what is missing, put right what is otherwise, delete what nobody wants any more.

    A pod cannot be changed: one that should be another is deleted, and made when it is gone. A name
    that is somebody else's is left alone.
    """
    wanted: dict[Key, Stored] = {}
    sets = [one.object for one in objects.of("ListenerSet").values() if not one.deleting]
    labels = {
        key.name: namespace_labels(key.name, one.object.metadata.labels)
        for key, one in (objects.of("Namespace").items() if sets else ())
    }
    for stored in _ours(objects):
        for raw in made_for(stored.object, sets_of(stored.object, sets, labels)):
            key = Key(raw["kind"], stored.key.namespace, raw["metadata"]["name"])
            wanted[key] = stored
            there = objects.get(key)
            if there is None:
                put([decode(raw, f"gateway {stored.key.namespace}/{stored.key.name}")])
            elif _owner(there) != stored.key or there.deleting or not differs(raw, there.raw):
                continue
            elif key.kind == "Pod":
                delete(key)
            else:
                put([decode(raw, f"gateway {stored.key.namespace}/{stored.key.name}")])
    for kind in ("Pod", "Service"):
        for there in list(objects.of(kind).values()):
            owner = _owner(there)
            mine = owner is not None and owner.kind == "Gateway" and not there.deleting
            if mine and there.key not in wanted:
                delete(there.key)


def _ours(objects: Objects) -> Iterator[Stored]:
    classes = {
        key.name
        for key, stored in objects.of("GatewayClass").items()
        if stored.object.spec.controller_name == GATEWAY_CONTROLLER
    }
    for stored in list(objects.of("Gateway").values()):
        if not stored.deleting and stored.object.spec.gateway_class_name in classes:
            yield stored


def _owner(stored: Stored) -> Key | None:
    if GATEWAY_LABEL not in stored.object.metadata.labels:
        return None
    return controller_of(stored.object.metadata)
