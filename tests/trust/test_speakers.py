"""For whom a pod's proxy speaks."""

import pytest

from sixfold.manifest import loads, offline
from sixfold.model.clusterspiffeid import TEMPLATE
from sixfold.model.config import Config
from sixfold.model.mesh import SPEAKERS_MAX
from sixfold.trust.speakers import owner_of, plan_speakers

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {0}, namespace: shop, labels: {{app: {0}}}}}
spec: {{containers: [{{name: main, command: ["true"]}}]}}
"""


def spiffe_id(name, *selectors):
    return f"""
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {{name: {name}}}
spec:
  spiffeIDTemplate: "{TEMPLATE}"
  namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: shop}}}}
  podSelector: {{matchLabels: {{app: web}}}}
  workloadSelectorTemplates: {list(selectors)}
"""


def planned(*documents, mtls="strict"):
    objects = loads("---".join([POD.format("web"), POD.format("db"), *documents]))
    return [one.owners for one in plan_speakers(offline(objects, Config(mtls=mtls)))]


def test_each_object_that_picks_a_pod_adds_whom_it_names():
    assert planned() == []
    assert planned(spiffe_id("user", "unix:uid:1000")) == [((1000, None),)]
    both = spiffe_id("both", "unix:uid:0", "unix:gid:5", "unix:path:/usr/bin/web")
    assert planned(spiffe_id("user", "unix:uid:1000"), both) == [((0, 5), (1000, None))]


def test_a_program_alone_is_not_for_the_kernel_to_tell():
    program = spiffe_id("program", "unix:path:/usr/bin/web")
    assert planned(program) == []
    assert planned(spiffe_id("user", "unix:uid:1000"), program) == []


def test_without_a_mesh_nobody_speaks_for_a_pod():
    assert planned(spiffe_id("user", "unix:uid:1000"), mtls="disabled") == []


def test_of_more_than_there_is_room_for_the_rest_may_not_speak():
    ((*owners,),) = planned(*(spiffe_id(f"u{n}", f"unix:uid:{n}") for n in range(40)))
    assert len(owners) == SPEAKERS_MAX


@pytest.mark.parametrize(
    "selectors",
    [("unix:uid:1", "unix:uid:2"), ("unix:gid:1", "unix:gid:2"), (f"unix:uid:{2**32}",)],
)
def test_nobody_has_two_users_or_one_that_there_is_not(selectors):
    assert owner_of(selectors) is None
