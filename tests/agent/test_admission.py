"""What may enter the store a second time."""

from __future__ import annotations

from pathlib import Path

import pytest

from sixfold.agent.addresses import Addresses
from sixfold.agent.admission import admit
from sixfold.errors import ManifestError
from sixfold.manifest import decode, loads
from sixfold.model.config import Config
from sixfold.model.meta import Key
from sixfold.store import Database, Objects

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, command: [sleep, inf]}]}
"""
SAME = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: other}, uid: u, resourceVersion: "1"}
spec:
  nodeName: vm
  restartPolicy: Always
  containers: [{name: c, command: [sleep, inf], ports: []}]
status: {phase: Running}
"""


@pytest.fixture
def apply(tmp_path: Path):
    database = Database(tmp_path / "state.db")
    objects = Objects(database, lambda raw: decode(raw).object)
    addresses = Addresses(database, Config())

    def put(text: str) -> list[str]:
        admitted = admit(loads(text).objects, objects, addresses, 0)
        return [f"{r.key} {r.action}" for r in objects.put(admitted, lambda: "uid", "now")]

    put.objects = objects
    return put


def test_a_pod_as_get_shows_it_may_be_applied_again(apply):
    apply(POD)
    assert apply(SAME) == ["pod default/web configured"]


def test_the_program_of_a_pod_may_not_change(apply):
    apply(POD)
    with pytest.raises(ManifestError, match=r"^-:2: spec: is immutable; delete pod default/web"):
        apply(POD.replace("inf", "1s"))


def drained(apply) -> str | None:
    """The annotation of the pod, as it is stored."""
    pod = apply.objects.get(Key("Pod", "default", "web")).raw
    return pod["metadata"].get("annotations", {}).get("sixfold.dev/lb-drain")


def with_drain(value: str) -> str:
    note = f'annotations: {{sixfold.dev/lb-drain: "{value}"}}'
    return POD.replace("labels: {app: web}", f"labels: {{app: web}}, {note}")


def test_a_manifest_that_is_applied_again_ends_no_drain(apply):
    apply(POD)
    apply(with_drain("true"))
    assert apply(POD) == ["pod default/web unchanged"]
    assert drained(apply) == "true"
    apply(with_drain("false"))
    assert drained(apply) is None
    apply(POD)
    assert drained(apply) is None
