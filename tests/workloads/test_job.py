from __future__ import annotations

from sixfold.model.workload import Job
from sixfold.workloads.changes import find_condition


def ended(cluster, kind):
    return find_condition(cluster.last.status, kind).get("reason")


def test_job_is_complete_when_enough_pods_have_succeeded(cluster):
    job = cluster(Job, completions=3, parallelism=2)
    job.step()
    assert len(job.names) == 2
    for _ in range(3):
        job.succeed(next(key for key, pod in job.pods.items() if pod.active))
        job.step()
        assert len(job.names) <= 2
    assert ended(job, "Complete") == "CompletionsReached"
    assert job.last.status["succeeded"] == 3
    assert job.last.status["active"] == 0
    assert "completionTime" in job.last.status
    assert len(job.pods) == 3  # kept for their logs


def test_no_more_pods_than_completions_are_missing(cluster):
    job = cluster(Job, completions=3, parallelism=5)
    job.step()
    assert len(job.names) == 3


def test_failed_pod_is_replaced_after_a_back_off_that_doubles(cluster):
    job = cluster(Job)
    job.step()
    waits = []
    for _ in range(3):
        job.fail(next(key for key, pod in job.pods.items() if pod.active))
        failed_s = job.now_s
        job.reconcile()
        assert not job.last.create
        while not job.names:
            assert job.last.wake_s is not None
            job.step(max(job.last.wake_s - job.now_s, 0))
        waits.append(job.now_s - failed_s)
    assert waits == [10, 20, 40]


def test_too_many_failures_fail_the_job_and_end_its_other_pods(cluster):
    job = cluster(Job, completions=2, parallelism=2, backoffLimit=0)
    job.step()
    job.fail(next(iter(job.pods)))
    changes = job.reconcile()
    assert ended(job, "Failed") == "BackoffLimitExceeded"
    assert len(changes.delete) == 1
    job.step()
    assert job.step().create == ()


def test_restarts_of_a_container_count_as_failures(cluster):
    job = cluster(Job, backoffLimit=2)
    job.step()
    job.set(next(iter(job.pods)), restarts=3)
    job.reconcile()
    assert ended(job, "Failed") == "BackoffLimitExceeded"


def test_deadline_ends_an_active_job(cluster):
    job = cluster(Job, activeDeadlineSeconds=30)
    job.step()
    assert job.last.wake_s == job.now_s + 30
    changes = job.step(30)
    assert ended(job, "Failed") == "DeadlineExceeded"
    assert len(changes.delete) == 1


def test_lower_parallelism_ends_surplus_pods(cluster):
    job = cluster(Job, completions=4, parallelism=3)
    job.step()
    job.change(parallelism=1)
    assert len(job.reconcile().delete) == 2


def test_suspended_by_parallelism_zero(cluster):
    job = cluster(Job, parallelism=0)
    job.step()
    assert job.names == []
    assert ended(job, "Complete") is None


def test_finished_job_goes_after_its_time_to_live(cluster):
    job = cluster(Job, ttlSecondsAfterFinished=60)
    job.step()
    job.succeed(next(iter(job.pods)))
    job.reconcile()
    assert job.last.wake_s == job.now_s + 60
    assert not job.step(59).expired
    assert job.step(1).expired


def test_end_is_told_by_the_pods_also_without_the_last_status(cluster):
    job = cluster(Job, ttlSecondsAfterFinished=60)
    job.step()
    job.succeed(next(iter(job.pods)))
    finished_s = job.now_s
    job.step(20)
    job.controller.status.clear()
    assert job.step(20).wake_s == finished_s + 60
    job.controller.status.clear()
    assert job.step(20).expired


def test_finished_job_is_not_run_again_when_its_pods_are_deleted(cluster):
    job = cluster(Job)
    job.step()
    job.succeed(next(iter(job.pods)))
    job.reconcile()
    job.pods.clear()
    assert job.step().create == ()


def test_pods_are_labelled_with_their_job(cluster):
    job = cluster(Job)
    (pod,) = job.step().create
    assert pod.metadata.labels["batch.kubernetes.io/job-name"] == "web"
    assert pod.metadata.labels["controller-uid"] == "u-1"
