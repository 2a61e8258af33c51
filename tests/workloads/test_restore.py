from __future__ import annotations

from ipaddress import IPv4Address

import msgspec
import pytest

from sixfold.model.workload import Pod
from sixfold.workloads import events as ev
from sixfold.workloads.lifecycle import PodLifecycle
from sixfold.workloads.restore import FoundContainer, PodRecord, record, restore

NETWORK = ev.Network(IPv4Address("10.244.0.2"), None, 7, "sf7", "/run/netns/x", 77)
PROBE = {"tcpSocket": {"port": 1}}
MAIN = {"name": "main", "command": ["x"]}


def make_pod(*, container=None, init=False, **spec):
    raw = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
        "spec": {"containers": [{**MAIN, **(container or {})}], **spec},
    }
    if init:
        raw["spec"]["initContainers"] = [{"name": "init", "command": ["x"]}]
    return msgspec.convert(raw, Pod)


def running(pod, *, ready=True):
    life = PodLifecycle(pod, 1000.0)
    life.handle(ev.Tick(), 1000.0)
    life.handle(ev.Attached(NETWORK), 1000.0)
    life.handle(ev.Activated(), 1000.0)
    life.handle(ev.Started("main", 0, 1001.0), 1001.0)
    if ready:
        life.handle(ev.Probed("main", 0, "readiness", True), 1002.0)
    return life


def again(life, *found, network=NETWORK, now_s=2000.0, last=True):
    """Through the file, as a successor gets it."""
    kept = msgspec.json.decode(msgspec.json.encode(record(life)), type=PodRecord)
    return restore(life.pod, now_s, network, found, kept if last else None)


def test_ready_pod_stays_ready_since_it_was():
    before = running(make_pod(container={"readinessProbe": PROBE}))
    after = again(before, FoundContainer("main", 0, 1001.0))
    assert after.ready
    assert after.ready_since_s == before.ready_since_s == 1002.0
    assert after.handle(ev.Tick(), 2000.0) == []


def test_pod_that_was_not_ready_is_probed_at_once():
    before = running(make_pod(container={"readinessProbe": PROBE}), ready=False)
    after = again(before, FoundContainer("main", 0, 1001.0))
    assert not after.ready
    (probe,) = after.handle(ev.Tick(), 2000.0)
    assert isinstance(probe, ev.RunProbe)


def test_probes_of_ready_pods_start_spread_over_their_period():
    before = running(make_pod(container={"readinessProbe": {**PROBE, "periodSeconds": 10}}))
    kept = record(before)
    found = (FoundContainer("main", 0, 1001.0),)
    deadlines = [
        restore(before.pod, 2000.0, NETWORK, found, kept, lambda share=share: share).next_deadline()
        for share in (0.0, 0.5, 0.9)
    ]
    assert deadlines == [2000.0, 2005.0, 2009.0]


def test_readiness_of_an_earlier_attempt_is_not_believed():
    before = running(make_pod(container={"readinessProbe": PROBE}))
    after = again(before, FoundContainer("main", 1, 1500.0))
    assert not after.ready
    assert after.runs[0].attempt == 1


def test_startup_probe_that_passed_is_not_asked_again():
    both = {"startupProbe": PROBE, "readinessProbe": PROBE}
    before = running(make_pod(container=both), ready=False)
    before.handle(ev.Probed("main", 0, "startup", True), 1002.0)
    before.handle(ev.Probed("main", 0, "readiness", True), 1003.0)
    assert before.ready
    after = again(before, FoundContainer("main", 0, 1001.0))
    assert after.ready
    assert after.runs[0].started


def test_container_that_ended_meanwhile_is_restarted_with_its_back_off():
    before = running(make_pod())
    end = ev.Termination(1, 1001.0, 1990.0)
    after = again(before, FoundContainer("main", 0, 1001.0, end))
    assert not after.ready
    assert after.handle(ev.Tick(), 2000.0) == [ev.StartContainer("main", 1)]


def test_end_that_was_seen_already_is_not_counted_twice():
    before = running(make_pod())
    first = ev.Termination(1, 1001.0, 1990.0)
    before.handle(ev.Exited("main", 0, first), 1990.0)
    before.handle(ev.Started("main", 1, 1991.0), 1991.0)
    second = ev.Termination(1, 1991.0, 1995.0)
    before.handle(ev.Exited("main", 1, second), 1995.0)
    after = again(before, FoundContainer("main", 1, 1991.0, second))
    assert after.next_deadline() == before.next_deadline() == 2005.0
    assert after.runs[0].attempt == 1
    assert after.handle(ev.Tick(), 2005.0) == [ev.StartContainer("main", 2)]


def test_container_without_a_trace_counts_as_killed():
    after = again(running(make_pod(restartPolicy="Never")))
    assert after.phase == "Failed"
    assert after.runs[0].end.reason == "ContainerStatusUnknown"


def test_container_whose_start_was_cut_short_is_started_not_lost():
    life = PodLifecycle(make_pod(restartPolicy="Never"), 1000.0)
    life.handle(ev.Tick(), 1000.0)
    life.handle(ev.Attached(NETWORK), 1000.0)
    assert life.handle(ev.Activated(), 1000.0) == [ev.StartContainer("main", 0)]
    after = again(life)
    assert after.handle(ev.Tick(), 2000.0) == [ev.StartContainer("main", 0)]


def test_init_containers_are_not_run_again_when_containers_run():
    pod = make_pod(init=True)
    after = restore(pod, 2000.0, NETWORK, [FoundContainer("main", 0, 1001.0)], None)
    assert after.initialized
    assert after.ready
    assert after.handle(ev.Tick(), 2000.0) == []


def test_init_container_that_was_done_is_not_run_again():
    life = PodLifecycle(make_pod(init=True), 1000.0)
    life.handle(ev.Tick(), 1000.0)
    life.handle(ev.Attached(NETWORK), 1000.0)
    life.handle(ev.Activated(), 1000.0)
    life.handle(ev.Started("init", 0, 1000.0), 1000.0)
    end = ev.Termination(0, 1000.0, 1001.0)
    after = again(life, FoundContainer("init", 0, 1000.0, end))
    assert after.handle(ev.Tick(), 2000.0) == [ev.StartContainer("main", 0)]


def test_without_its_network_a_pod_begins_again_and_counts_on():
    after = again(running(make_pod()), network=None)
    assert not after.initialized
    assert after.handle(ev.Tick(), 2000.0) == [ev.Attach()]
    after.handle(ev.Attached(NETWORK), 2000.0)
    assert after.handle(ev.Activated(), 2000.0) == [ev.StartContainer("main", 1)]


@pytest.mark.parametrize("network", [NETWORK, None])
def test_pod_that_was_over_stays_over(network):
    before = running(make_pod(restartPolicy="Never"))
    before.handle(ev.Exited("main", 0, ev.Termination(0, 1001.0, 1100.0)), 1100.0)
    after = again(before, network=network)
    assert after.phase == "Succeeded"
    assert after.ips == ("10.244.0.2",)
    assert after.handle(ev.Tick(), 2000.0) == ([ev.Detach()] if network else [])


def test_adopted_pod_can_be_stopped():
    after = again(running(make_pod()), FoundContainer("main", 0, 1001.0))
    assert after.handle(ev.StopRequested(5), 2000.0) == [ev.StopContainer("main", 0, 5.0)]
    assert after.handle(ev.Exited("main", 0, ev.Termination(143, 1.0, 2.0)), 2001.0) == [
        ev.Remove()
    ]
