from __future__ import annotations

import pytest

from sixfold.model.workload import DaemonSet


def test_one_node_gets_one_pod(cluster):
    daemon = cluster(DaemonSet)
    daemon.settle()
    assert len(daemon.names) == 1
    assert daemon.last.status["desiredNumberScheduled"] == 1
    assert daemon.last.status["numberAvailable"] == 1
    assert daemon.last.status["updatedNumberScheduled"] == 1


def test_update_removes_the_old_pod_before_it_makes_the_new(cluster):
    daemon = cluster(DaemonSet)
    daemon.settle()
    old = next(iter(daemon.pods))
    daemon.change_template()
    first = daemon.reconcile()
    assert first.delete == (old,)
    assert not first.create
    assert not daemon.reconcile().create
    assert len(daemon.step().create) == 1


def test_update_with_surge_never_leaves_the_node_without(cluster):
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    daemon = cluster(DaemonSet, updateStrategy=strategy)
    daemon.settle()
    old = next(iter(daemon.pods))
    daemon.change_template()
    for _ in range(6):
        daemon.step()
        assert any(pod.ready for pod in daemon.pods.values())
    assert old not in daemon.pods
    assert len(daemon.names) == 1


def test_on_delete_leaves_the_old_pod(cluster):
    daemon = cluster(DaemonSet, updateStrategy={"type": "OnDelete"})
    daemon.settle()
    before = daemon.names
    daemon.change_template()
    daemon.settle()
    assert daemon.names == before


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_pod_that_ended_is_replaced(cluster, phase):
    daemon = cluster(DaemonSet)
    daemon.settle()
    lost = next(iter(daemon.pods))
    daemon.set(lost, phase=phase, ready=False)
    daemon.settle()
    assert lost not in daemon.pods
    assert len(daemon.names) == 1
