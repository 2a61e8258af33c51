from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.model.meta import Key
from sixfold.model.workload import Deployment, ReplicaSet
from sixfold.workloads.changes import first_to_go, scaled
from sixfold.workloads.pod_state import PodState


def test_deployment_makes_its_replicas_and_reports_them_as_kubectl_expects(cluster):
    shop = cluster(Deployment, replicas=3)
    shop.settle()
    assert len(shop.names) == 3
    status = shop.last.status
    for count in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"):
        assert status[count] == 3, count
    assert status["unavailableReplicas"] == 0
    assert status["observedGeneration"] == 3
    conditions = {each["type"]: each for each in status["conditions"]}
    assert conditions["Available"]["status"] == "True"
    assert conditions["Progressing"]["reason"] == "NewReplicaSetAvailable"


def test_pod_is_named_and_labelled_by_its_template_and_owned(cluster):
    shop = cluster(Deployment, replicas=1)
    (pod,) = shop.step().create
    revision = pod.metadata.labels["pod-template-hash"]
    base, middle, suffix = pod.metadata.name.rsplit("-", 2)
    assert (base, middle, len(suffix)) == ("web", revision, 5)
    assert pod.metadata.labels["app"] == "web"
    assert pod.metadata.owner_references == [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": "web",
            "uid": "u-1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    (state,) = shop.pods.values()
    assert state.owner == Key("Deployment", "shop", "web")
    assert state.template_hash == revision


def test_asking_twice_asks_for_nothing_more(cluster):
    shop = cluster(Deployment, replicas=3)
    shop.settle()
    first, second = shop.reconcile(), shop.reconcile()
    assert [*first.create, *first.delete, *second.create, *second.delete] == []
    assert first.status == second.status


def test_long_name_leaves_room_for_the_suffix(cluster):
    shop = cluster(ReplicaSet, replicas=2)
    shop.controller.metadata.name = "x" * 70
    shop.step()
    assert all(len(name) == 63 for name in shop.names)


@pytest.mark.parametrize("kind", [Deployment, ReplicaSet])
def test_finished_pod_is_replaced(cluster, kind):
    shop = cluster(kind, replicas=2)
    shop.settle()
    lost = next(iter(shop.pods))
    shop.fail(lost)
    shop.settle()
    assert lost not in shop.pods
    assert len(shop.names) == 2


def test_scale_down_takes_what_serves_least():
    pods = [
        PodState("a/old", "1", phase="Running", ready=True, ready_since_s=10, created_s=1),
        PodState("a/new", "2", phase="Running", ready=True, ready_since_s=20, created_s=2),
        PodState("a/unready", "3", phase="Running", created_s=0),
        PodState("a/pending", "4", created_s=0),
        PodState("a/crashing", "5", phase="Running", restarts=4, created_s=0),
    ]
    order = [pod.name for pod in first_to_go(pods)]
    assert order == ["pending", "crashing", "unready", "new", "old"]


def test_rolling_update_keeps_to_its_bounds_and_replaces_all(cluster):
    shop = cluster(Deployment, replicas=4)
    shop.settle()
    before = set(shop.names)
    shop.change_template()
    for _ in range(20):
        shop.step()
        assert len(shop.names) <= 5  # maxSurge 25 %
        assert sum(pod.ready for pod in shop.pods.values()) >= 3  # maxUnavailable 25 %
    assert len(shop.names) == 4
    assert not before & set(shop.names)


def test_update_that_never_gets_ready_leaves_the_old_pods_serving(cluster):
    shop = cluster(Deployment, replicas=4, progressDeadlineSeconds=5)
    shop.settle()
    before = set(shop.names)
    shop.change_template()
    shop.broken = lambda pod: pod.name not in before
    for _ in range(12):
        shop.step()
    assert sum(pod.ready for pod in shop.pods.values()) == 3
    progressing = shop.last.status["conditions"][1]
    assert progressing["reason"] == "ProgressDeadlineExceeded"
    assert progressing["status"] == "False"


def test_roll_back_after_a_broken_update_ends_with_the_old_template(cluster):
    shop = cluster(Deployment, replicas=3)
    shop.settle()
    good, before = shop.controller.spec, set(shop.names)
    shop.change_template()
    shop.broken = lambda pod: pod.name not in before
    for _ in range(5):
        shop.step()
    shop.change(template=good.template)
    shop.broken = lambda pod: False
    shop.settle()
    assert len(shop.names) == 3
    assert len(before & set(shop.names)) >= 2
    assert len({pod.template_hash for pod in shop.pods.values()}) == 1


def test_recreate_waits_until_the_old_pods_are_gone(cluster):
    shop = cluster(Deployment, replicas=2, strategy={"type": "Recreate"})
    shop.settle()
    before = set(shop.pods)
    shop.change_template()
    first = shop.reconcile()
    assert set(first.delete) == before
    assert not first.create
    assert not shop.reconcile().create  # still terminating
    shop.settle()
    assert len(shop.names) == 2


def test_paused_deployment_scales_but_does_not_roll(cluster):
    shop = cluster(Deployment, replicas=2)
    shop.settle()
    before = set(shop.names)
    shop.change_template(paused=True)
    shop.settle()
    assert set(shop.names) == before


def test_ready_pod_is_available_only_after_min_ready_seconds(cluster):
    shop = cluster(Deployment, replicas=1, minReadySeconds=10)
    shop.step()
    shop.step()
    assert shop.last.status["readyReplicas"] == 1
    assert shop.last.status["availableReplicas"] == 0
    assert shop.last.wake_s == shop.now_s + 10
    shop.step(10)
    assert shop.last.status["availableReplicas"] == 1


def test_replicaset_keeps_pods_of_an_older_template(cluster):
    shop = cluster(ReplicaSet, replicas=2)
    shop.settle()
    before = shop.names
    shop.change_template()
    shop.settle()
    assert shop.names == before


@pytest.mark.parametrize(
    ("value", "up", "expected"),
    [
        pytest.param("25%", True, 1, id="percent-up"),
        pytest.param("25%", False, 0, id="percent-down"),
        pytest.param(None, True, 2, id="default"),
        pytest.param(3, True, 3, id="number"),
        pytest.param("2", False, 2, id="number-as-text"),
    ],
)
def test_int_or_percent(value, up, expected):
    assert scaled(value, "50%", 3, up=up) == expected


@given(
    replicas=st.integers(0, 7),
    surge=st.sampled_from([0, 1, 3, "25%", "100%"]),
    unavailable=st.sampled_from([0, 1, 2, "25%", "100%"]),
    crashes=st.lists(st.integers(0, 30), max_size=3),
    rescale=st.integers(0, 7),
)
@settings(max_examples=60)
def test_any_update_with_crashes_keeps_its_bounds_and_ends(
    cluster, replicas, surge, unavailable, crashes, rescale
):
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    shop = cluster(Deployment, replicas=replicas, strategy={"rollingUpdate": rolling})
    shop.settle()
    shop.change_template()
    most = replicas + scaled(surge, "", replicas, up=True)
    for step in range(40):
        if step in crashes and shop.pods:
            shop.fail(min(shop.pods))
        shop.step()
        assert len(shop.names) <= max(most, replicas)
    shop.change(replicas=rescale)
    shop.settle()
    assert len(shop.names) == rescale
    hashes = {pod.template_hash for pod in shop.pods.values()}
    assert len(hashes) <= 1
    assert all(pod.ready for pod in shop.pods.values())
