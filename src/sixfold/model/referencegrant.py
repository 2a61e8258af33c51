"""gateway.networking.k8s.io/v1beta1 ReferenceGrant: who of another namespace may refer to what."""

from __future__ import annotations

import msgspec

from sixfold.model.meta import Object, ObjectMeta, written


class ReferenceGrantFrom(Object):
    group: str
    kind: str
    namespace: str


class ReferenceGrantTo(Object):
    """``name`` empty: all of the kind."""

    group: str
    kind: str
    name: str = ""


class ReferenceGrantSpec(Object):
    from_: list[ReferenceGrantFrom] = msgspec.field(name="from")
    to: list[ReferenceGrantTo]


class ReferenceGrant(Object):
    metadata: ObjectMeta
    spec: ReferenceGrantSpec
    api_version: str = written("gateway.networking.k8s.io/v1beta1")
    kind: str = written("ReferenceGrant")
