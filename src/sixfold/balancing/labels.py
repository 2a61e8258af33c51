"""Endpoints by their labels: a service finds its own without looking at all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sixfold.balancing.members import selects
from sixfold.model.endpoint import Endpoint
from sixfold.model.service import Service

LabelKey = tuple[str, str, str]  # namespace, label, value


@dataclass(slots=True)
class LabelIndex:
    """Endpoints by each of their labels."""

    members: dict[LabelKey, dict[str, Endpoint]] = field(default_factory=dict)

    @classmethod
    def of(cls, endpoints: Mapping[str, Endpoint]) -> LabelIndex:
        index = cls()
        for key, endpoint in endpoints.items():
            index.add(key, endpoint)
        return index

    def add(self, key: str, endpoint: Endpoint) -> None:
        for label, value in endpoint.subject.labels:
            self.members.setdefault((endpoint.namespace, label, value), {})[key] = endpoint

    def remove(self, key: str, endpoint: Endpoint) -> None:
        for label, value in endpoint.subject.labels:
            index = (endpoint.namespace, label, value)
            self.members[index].pop(key, None)
            if not self.members[index]:
                del self.members[index]

    def selected_by(self, service: Service) -> list[Endpoint]:
        """In order of their keys."""
        if not service.spec.selector:
            return []
        namespace = service.metadata.namespace
        candidates = min(
            (self.members.get((namespace, *pair), {}) for pair in service.spec.selector.items()),
            key=len,
        )
        return [
            endpoint
            for _, endpoint in sorted(candidates.items())
            if selects(service, endpoint.namespace, endpoint.labels)
        ]
