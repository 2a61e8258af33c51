"""Endpoints by their labels: a service finds its own without looking at all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        selector, namespace = service.spec.selector, service.metadata.namespace
        if not selector or service.spec.type == "ExternalName":
            return []
        each = [self.members.get((namespace, *pair), {}) for pair in selector.items()]
        return [
            endpoint
            for key, endpoint in sorted(min(each, key=len).items())
            if len(each) == 1 or all(key in those for those in each)
        ]
