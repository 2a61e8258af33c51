from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest

from sixfold.model.meta import Key
from sixfold.model.workload import Pod, Probe
from sixfold.workloads import events as ev
from sixfold.workloads.lifecycle import PodLifecycle
from sixfold.workloads.pod_state import format_time, parse_time, pending
from sixfold.workloads.pod_status import pod_state, pod_status

NETWORK = ev.Network(
    IPv4Address("10.244.0.2"), IPv6Address("fd00::2"), 7, "sf7", "/run/netns/x", 77
)


def make_life(*, init=False, **spec):
    owner = {"kind": "Deployment", "name": "web", "uid": "d", "controller": True}
    raw = {
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "u",
            "labels": {"pod-template-hash": "abc"},
            "ownerReferences": [{"apiVersion": "apps/v1", **owner}],
        },
        "spec": {"containers": [{"name": "main", "command": ["x"]}], **spec},
    }
    if init:
        raw["spec"]["initContainers"] = [{"name": "prepare", "command": ["x"]}]
    life = PodLifecycle(msgspec.convert(raw, Pod), 1000.0)
    life.handle(ev.Tick(), 1000.0)
    return life


def attach(life):
    life.handle(ev.Attached(NETWORK), 1001.0)
    life.handle(ev.Activated(), 1001.0)


def conditions(life):
    return {each["type"]: each for each in pod_status(life)["conditions"]}


def test_status_of_a_new_pod():
    life = make_life()
    status = pod_status(life, ("10.244.0.1",))
    assert status["phase"] == "Pending"
    assert status["hostIP"] == "10.244.0.1"
    assert "podIP" not in status
    (container,) = status["containerStatuses"]
    assert container["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert conditions(life)["PodScheduled"]["status"] == "True"
    assert conditions(life)["Ready"]["reason"] == "ContainersNotReady"


def test_status_of_a_running_pod():
    life = make_life()
    attach(life)
    life.handle(ev.Started("main", 0, 1002.0), 1002.0)
    status = pod_status(life)
    assert status["phase"] == "Running"
    assert status["podIP"] == "10.244.0.2"
    (container,) = status["containerStatuses"]
    assert container["ready"] is True
    assert container["state"] == {"running": {"startedAt": format_time(1002)}}
    assert {each["status"] for each in status["conditions"]} == {"True"}
    assert conditions(life)["Ready"]["lastTransitionTime"] == format_time(1002)


def test_containers_wait_for_init_containers_by_name():
    life = make_life(init=True)
    attach(life)
    (container,) = pod_status(life)["containerStatuses"]
    assert container["state"]["waiting"]["reason"] == "PodInitializing"
    assert conditions(life)["Initialized"]["message"].endswith("[prepare]")
    assert pod_state(life).reason == "PodInitializing"


def test_crash_loop_shows_the_last_end_and_the_wait():
    life = make_life()
    attach(life)
    for attempt in range(2):
        life.handle(ev.Started("main", attempt, 1002.0), 1002.0)
        life.handle(ev.Exited("main", attempt, ev.Termination(3, 1002.0, 1003.0)), 1003.0)
    (container,) = pod_status(life)["containerStatuses"]
    assert container["restartCount"] == 1
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert "back-off 10s" in container["state"]["waiting"]["message"]
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert pod_state(life).reason == "CrashLoopBackOff"
    assert pod_status(life)["phase"] == "Running"


def test_restarted_container_keeps_the_end_before():
    life = make_life()
    attach(life)
    life.handle(ev.Started("main", 0, 1002.0), 1002.0)
    life.handle(ev.Exited("main", 0, ev.Termination(137, 1002.0, 1003.0, 9)), 1003.0)
    life.handle(ev.Started("main", 1, 1004.0), 1004.0)
    (container,) = pod_status(life)["containerStatuses"]
    assert container["lastState"]["terminated"]["signal"] == 9
    assert "running" in container["state"]


@pytest.mark.parametrize(
    ("code", "phase", "reason"), [(0, "Succeeded", ""), (2, "Failed", "Error")]
)
def test_status_of_a_finished_pod(code, phase, reason):
    life = make_life(restartPolicy="Never")
    attach(life)
    life.handle(ev.Started("main", 0, 1002.0), 1002.0)
    life.handle(ev.Exited("main", 0, ev.Termination(code, 1002.0, 1009.0)), 1009.0)
    life.handle(ev.Detached(), 1010.0)
    status, state = pod_status(life), pod_state(life)
    assert status["phase"] == state.phase == phase
    assert status["podIP"] == "10.244.0.2"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code
    assert state.finished_s == 1009.0
    assert state.reason == reason
    assert state.ifindex == 0
    assert conditions(life)["Initialized"]["status"] == "True"


def test_pod_that_has_no_network_says_why():
    life = make_life()
    life.handle(ev.AttachFailed("NetworkError", "pool pod_ipv4: exhausted"), 1001.0)
    assert pod_status(life)["message"] == "pool pod_ipv4: exhausted"
    assert conditions(life)["PodReadyToStartContainers"]["reason"] == "NetworkError"
    assert pod_state(life).reason == "NetworkError"


def test_failing_probe_speaks_in_the_condition():
    life = make_life()
    run = life.runs[0]
    run.container.readiness_probe = msgspec.convert({"tcpSocket": {"port": 1}}, Probe)
    attach(life)
    life.handle(ev.Started("main", 0, 1002.0), 1002.0)
    life.handle(ev.Probed("main", 0, "readiness", False, "tcp 10.244.0.2:1: refused"), 1002.0)
    assert (
        "main: readiness probe: tcp 10.244.0.2:1: refused" in conditions(life)["Ready"]["message"]
    )
    assert pod_state(life).message == "readiness probe: tcp 10.244.0.2:1: refused"


def test_terminating_pod_says_so():
    life = make_life()
    attach(life)
    life.handle(ev.Started("main", 0, 1002.0), 1002.0)
    life.handle(ev.StopRequested(30), 1003.0)
    state = pod_state(life)
    assert (state.reason, state.ready, state.terminating) == ("Terminating", False, True)
    assert conditions(life)["Ready"]["reason"] == "PodTerminating"


def test_pod_of_the_store_and_of_the_runner_agree_on_what_both_know():
    life = make_life()
    ours, stores = pod_state(life), pending(life.pod)
    assert ours.owner == stores.owner == Key("Deployment", "shop", "web")
    assert ours.template_hash == stores.template_hash == "abc"
    assert (ours.key, ours.uid) == (stores.key, stores.uid)


def test_times_are_rfc3339_both_ways():
    assert format_time(0) == "1970-01-01T00:00:00Z"
    assert parse_time(format_time(1700000000)) == 1700000000
    assert parse_time("yesterday") is None
    assert parse_time(None) is None
