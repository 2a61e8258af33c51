from __future__ import annotations

from sixfold.model.workload import StatefulSet


def test_pods_are_made_in_order_each_after_the_one_before_is_ready(cluster):
    store = cluster(StatefulSet, replicas=3, serviceName="store")
    seen = []
    for _ in range(10):
        store.step()
        seen.append(store.names)
    assert seen[:3] == [["web-0"], ["web-0", "web-1"], ["web-0", "web-1", "web-2"]]
    assert seen[-1] == seen[2]


def test_pod_that_does_not_get_ready_holds_back_the_next(cluster):
    store = cluster(StatefulSet, replicas=3)
    store.broken = lambda pod: pod.name == "web-1"
    for _ in range(5):
        store.step()
    assert store.names == ["web-0", "web-1"]


def test_pod_has_stable_names_and_labels(cluster):
    store = cluster(StatefulSet, replicas=1, serviceName="store")
    (pod,) = store.step().create
    assert pod.spec.hostname == "web-0"
    assert pod.spec.subdomain == "store"
    assert pod.metadata.labels["statefulset.kubernetes.io/pod-name"] == "web-0"
    assert pod.metadata.labels["apps.kubernetes.io/pod-index"] == "0"


def test_parallel_makes_all_at_once(cluster):
    store = cluster(StatefulSet, replicas=3, podManagementPolicy="Parallel")
    assert len(store.step().create) == 3


def test_scale_down_takes_the_highest_ordinal_one_at_a_time(cluster):
    store = cluster(StatefulSet, replicas=3)
    store.settle()
    store.change(replicas=1)
    assert store.reconcile().delete == ("shop/web-2",)
    assert store.reconcile().delete == ()  # not before web-2 is gone
    assert store.step().delete == ("shop/web-1",)
    store.settle()
    assert store.names == ["web-0"]


def test_name_is_reused_only_when_its_pod_is_gone(cluster):
    store = cluster(StatefulSet, replicas=1)
    store.settle()
    store.set("shop/web-0", terminating=True, ready=False)
    assert store.reconcile().create == ()
    assert len(store.step().create) == 1


def test_rolling_update_goes_from_the_highest_one_at_a_time(cluster):
    store = cluster(StatefulSet, replicas=3)
    store.settle()
    store.change_template()
    deleted = []
    for _ in range(20):
        deleted += store.step().delete
        assert sum(pod.ready for pod in store.pods.values()) >= 2
    assert deleted == ["shop/web-2", "shop/web-1", "shop/web-0"]
    assert store.last.status["currentRevision"] == store.last.status["updateRevision"]


def test_partition_keeps_lower_ordinals_on_the_old_revision(cluster):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    store = cluster(StatefulSet, replicas=3, updateStrategy=strategy)
    store.settle()
    store.change_template()
    deleted = []
    for _ in range(10):
        deleted += store.step().delete
    assert deleted == ["shop/web-2"]
    assert store.last.status["updatedReplicas"] == 1


def test_on_delete_replaces_only_what_somebody_deletes(cluster):
    store = cluster(StatefulSet, replicas=2, updateStrategy={"type": "OnDelete"})
    store.settle()
    old = store.pods["shop/web-1"].template_hash
    store.change_template()
    store.settle()
    assert store.pods["shop/web-1"].template_hash == old
    store.set("shop/web-1", terminating=True, ready=False)
    store.settle()
    assert store.pods["shop/web-1"].template_hash != old


def test_broken_update_can_be_repaired_by_another(cluster):
    store = cluster(StatefulSet, replicas=2)
    store.settle()
    store.change_template()
    bad = None
    store.broken = lambda pod: pod.template_hash == bad
    store.reconcile()
    store.step()
    bad = store.pods["shop/web-1"].template_hash
    for _ in range(3):
        store.step()
    assert not store.pods["shop/web-1"].ready
    store.change_template()
    store.settle()
    assert all(pod.ready for pod in store.pods.values())
    assert len({pod.template_hash for pod in store.pods.values()}) == 1


def test_finished_pod_is_replaced_under_its_name(cluster):
    store = cluster(StatefulSet, replicas=1)
    store.settle()
    uid = store.pods["shop/web-0"].uid
    store.fail("shop/web-0")
    store.settle()
    assert store.pods["shop/web-0"].uid != uid
    assert store.pods["shop/web-0"].ready
