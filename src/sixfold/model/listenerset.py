"""gateway.networking.k8s.io/v1 ListenerSet: more listeners for a Gateway that lets them in.

Source: Gateway API 1.5, GEP-1713.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sixfold.model.gateway import GROUP, Gateway, Listener
from sixfold.model.meta import Object, ObjectMeta, written


class GatewayReference(Object):
    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""  # "": the set's own


class ListenerSetSpec(Object):
    parent_ref: GatewayReference
    listeners: list[Listener]


class ListenerSet(Object):
    metadata: ObjectMeta
    spec: ListenerSetSpec
    api_version: str = written("gateway.networking.k8s.io/v1")
    kind: str = written("ListenerSet")
    status: dict[str, Any] = {}

    @property
    def key(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def gateway(self) -> str:
        """``namespace/name`` of its parent."""
        parent = self.spec.parent_ref
        return f"{parent.namespace or self.metadata.namespace}/{parent.name}"


def sets_of(
    gateway: Gateway, sets: Iterable[ListenerSet], namespaces: Mapping[str, Mapping[str, str]]
) -> list[ListenerSet]:
    """Those that a Gateway lets in, by precedence: the oldest first, then by name.

    namespaces  labels of each
    """
    found = [it for it in sets if it.gateway == gateway.key and _lets_in(gateway, it, namespaces)]
    return sorted(found, key=lambda it: (it.metadata.creation_timestamp or "9", it.key))


def _lets_in(
    gateway: Gateway, one: ListenerSet, namespaces: Mapping[str, Mapping[str, str]]
) -> bool:
    allowed, theirs = gateway.spec.allowed_listeners.namespaces, one.metadata.namespace
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return theirs == gateway.metadata.namespace
        case "Selector":
            assert allowed.selector is not None
            return allowed.selector.matches(namespaces.get(theirs, {}))
        case "None":
            return False
