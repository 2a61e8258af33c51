"""What all Kubernetes objects share: metadata, selectors, keys.

Source: the meta/v1 API. Structs refuse unknown fields, because a field that is ignored in
silence is a security bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec


class Object(msgspec.Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Base of all Kubernetes structs: camelCase on the wire, unknown fields refused."""


def written(value: str) -> Any:
    """A default that is encoded all the same: msgspec omits constants, not what a factory makes."""
    return msgspec.field(default_factory=lambda: value)


class ObjectMeta(Object):
    """meta/v1 ObjectMeta. What the API server owns is accepted and not acted on."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    generate_name: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    self_link: str = ""
    finalizers: list[str] = []
    owner_references: list[dict[str, Any]] = []
    managed_fields: list[dict[str, Any]] = []


class Key(NamedTuple):
    """What names one object: kind, namespace ("" when cluster-scoped) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.lower()} {where}{self.name}"


class LabelSelectorRequirement(Object):
    """One matchExpressions line. In needs the key; NotIn and DoesNotExist match without it."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether one line holds for these labels."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values if self.key in labels else False
            case "NotIn":
                return self.key not in labels or labels[self.key] not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(Object):
    """meta/v1 LabelSelector: every label and every expression must hold; empty selects all."""

    match_labels: dict[str, str] = {}
    match_expressions: list[LabelSelectorRequirement] = []

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether all lines hold for these labels."""
        if self.match_labels and not self.match_labels.items() <= labels.items():
            return False
        return not self.match_expressions or all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class Namespace(Object):
    """core/v1 Namespace. Its name is always the label ``kubernetes.io/metadata.name``."""

    metadata: ObjectMeta
    api_version: str = written("v1")
    kind: str = written("Namespace")
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


NAME_LABEL = "kubernetes.io/metadata.name"


def namespace_labels(name: str, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that namespace selectors see: the object's own and the name label."""
    return {**labels, NAME_LABEL: name}
