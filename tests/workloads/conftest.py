"""A tiny cluster in memory: controllers make pods, time passes, pods become ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import msgspec
import pytest

from sixfold.model.workload import Controller
from sixfold.workloads.controllers import Changes, reconcile
from sixfold.workloads.pod_state import PodState, pending


@dataclass
class Cluster:
    """Runs one controller; ``step`` is one pass, as the agent would make it."""

    controller: Controller
    ready_after_s: float = 1.0
    broken: Callable[[PodState], bool] = lambda pod: False
    now_s: float = 1000.0
    pods: dict[str, PodState] = field(default_factory=dict)
    chance: Random = field(default_factory=lambda: Random(7))
    uids: int = 0
    last: Changes = field(default_factory=Changes)

    def step(self, seconds: float = 1.0) -> Changes:
        self.now_s += seconds
        for key, pod in list(self.pods.items()):
            if pod.terminating:
                del self.pods[key]
            elif self.now_s - pod.created_s >= self.ready_after_s and self.comes_up(pod):
                self.set(key, phase="Running", ready=True, ready_since_s=self.now_s)
        return self.reconcile()

    def comes_up(self, pod: PodState) -> bool:
        return pod.active and not pod.ready and not self.broken(pod)

    def reconcile(self) -> Changes:
        self.last = reconcile(self.controller, list(self.pods.values()), self.now_s, self.chance)
        self.controller = msgspec.structs.replace(self.controller, status=self.last.status)
        for key in self.last.delete:
            self.set(key, terminating=True, ready=False)
        for pod in self.last.create:
            self.uids += 1
            state = replace(pending(pod), uid=f"uid-{self.uids}", created_s=self.now_s)
            assert state.key not in self.pods, f"{state.key} exists"
            self.pods[state.key] = state
        return self.last

    def settle(self, steps: int = 60) -> None:
        for _ in range(steps):
            before = dict(self.pods)
            changes = self.step()
            if before == self.pods and not changes.create and not changes.delete:
                return
        raise AssertionError(f"not settled after {steps} steps: {list(self.pods)}")

    def set(self, key: str, **changes: Any) -> None:
        self.pods[key] = replace(self.pods[key], **changes)

    def fail(self, key: str) -> None:
        self.set(key, phase="Failed", ready=False, finished_s=self.now_s)

    def succeed(self, key: str) -> None:
        self.set(key, phase="Succeeded", ready=False, finished_s=self.now_s)

    @property
    def names(self) -> list[str]:
        return sorted(pod.name for pod in self.pods.values() if pod.active)

    def change_template(self, **spec: Any) -> None:
        """A new revision: another command, and whatever else of the spec is given."""
        old = self.controller.spec
        container = msgspec.structs.replace(
            old.template.spec.containers[0], command=[f"v{self.now_s}"]
        )
        pod_spec = msgspec.structs.replace(old.template.spec, containers=[container])
        template = msgspec.structs.replace(old.template, spec=pod_spec)
        spec = msgspec.structs.replace(old, template=template, **spec)
        self.controller = msgspec.structs.replace(self.controller, spec=spec)

    def change(self, **spec: Any) -> None:
        changed = msgspec.structs.replace(self.controller.spec, **spec)
        self.controller = msgspec.structs.replace(self.controller, spec=changed)


CONTAINER = {"name": "main", "command": ["/bin/true"]}


def make_cluster(kind: type, **spec: Any) -> Cluster:
    """Spec fields as in YAML."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [CONTAINER]}}
    raw = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", "generation": 3},
        "spec": {"template": template, **spec},
    }
    if kind.__name__ != "Job":
        raw["spec"]["selector"] = {"matchLabels": {"app": "web"}}
    return Cluster(msgspec.convert(raw, kind))


@pytest.fixture(scope="session")
def cluster():
    """Make a cluster: ``cluster(Deployment, replicas=3, …)``."""
    return make_cluster
