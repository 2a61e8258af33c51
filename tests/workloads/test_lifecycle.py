"""One pod's life as a transcript: what happens, and what is asked for."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sixfold.model.workload import Pod
from sixfold.workloads import events as ev
from sixfold.workloads.lifecycle import PodLifecycle
from sixfold.workloads.restore import FoundContainer, record, restore

NETWORK = ev.Network(IPv4Address("10.244.0.2"), None, 7, "sf7", "/run/netns/x", 77)
PROBE = {"httpGet": {"port": 80}}


def make_pod(*containers: dict[str, Any], **spec: Any) -> Pod:
    written = [{"command": ["x"], **each} for each in containers or ({"name": "main"},)]
    return msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
            "spec": {"containers": written, **spec},
        },
        Pod,
    )


def sidecar(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "command": ["x"], "restartPolicy": "Always", **fields}


class Transcript:
    """Plays a pod; answers come back as short words, "start main/0"."""

    def __init__(self, pod: Pod, *, attached: bool = True) -> None:
        self.now_s = 1000.0
        self.life = PodLifecycle(pod, self.now_s)
        self.log: list[str] = []
        self.began = self.tell(ev.Tick())
        if attached:
            self.tell(ev.Attached(NETWORK))
            self.began = self.tell(ev.Activated())

    def tell(self, event: ev.Event) -> list[str]:
        words = [self._word(action) for action in self.life.handle(event, self.now_s)]
        self.log += words
        return words

    def wait(self, seconds: float) -> list[str]:
        self.now_s += seconds
        return self.tell(ev.Tick())

    def started(self, name: str = "main") -> list[str]:
        return self.tell(ev.Started(name, self.attempt(name), self.now_s))

    def exited(self, name: str = "main", code: int = 0) -> list[str]:
        began = next(run.started_s for run in self.life.runs if run.name == name)
        end = ev.Termination(code, began, self.now_s)
        return self.tell(ev.Exited(name, self.attempt(name), end))

    def probed(self, kind: ev.ProbeKind, ok: bool, name: str = "main") -> list[str]:
        return self.tell(ev.Probed(name, self.attempt(name), kind, ok, "" if ok else "refused"))

    def attempt(self, name: str = "main") -> int:
        return next(run.attempt for run in self.life.runs if run.name == name)

    @staticmethod
    def _word(action: ev.Action) -> str:
        match action:
            case ev.StartContainer(name, attempt):
                return f"start {name}/{attempt}"
            case ev.StopContainer(name, _, grace_s):
                return f"stop {name} {grace_s:g}"
            case ev.RunProbe(name, _, kind):
                return f"{kind} {name}"
            case _:
                return type(action).__name__.lower()


# --- network ---------------------------------------------------------------------------------


def test_nothing_starts_before_the_network_is_in_force():
    pod = Transcript(make_pod(), attached=False)
    assert pod.began == ["attach"]
    assert pod.tell(ev.Attached(NETWORK)) == []
    assert pod.tell(ev.Activated()) == ["start main/0"]


def test_attachment_is_tried_again_ever_more_slowly():
    pod = Transcript(make_pod(), attached=False)
    waits = []
    for _ in range(9):
        assert pod.tell(ev.AttachFailed("NetworkError", "pool is empty")) == []
        deadline = pod.life.next_deadline()
        assert deadline is not None
        waits.append(deadline - pod.now_s)
        assert pod.wait(waits[-1]) == ["attach"]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


# --- order -----------------------------------------------------------------------------------


def test_init_containers_run_in_order_then_all_containers_at_once():
    inits = [{"name": "a", "command": ["x"]}, {"name": "b", "command": ["x"]}]
    pod = Transcript(make_pod({"name": "one"}, {"name": "two"}, initContainers=inits))
    assert pod.began == ["start a/0"]
    assert pod.started("a") == []
    assert pod.exited("a") == ["start b/0"]
    pod.started("b")
    assert not pod.life.initialized
    assert pod.exited("b") == ["start one/0", "start two/0"]
    assert pod.life.initialized


def test_failed_init_container_is_run_again_before_anything_else():
    pod = Transcript(make_pod(initContainers=[{"name": "a", "command": ["x"]}]))
    pod.started("a")
    assert pod.exited("a", 1) == ["start a/1"]
    pod.started("a")
    assert pod.exited("a", 1) == []
    assert pod.wait(10) == ["start a/2"]


def test_failed_init_container_fails_a_pod_that_never_restarts():
    inits = [{"name": "a", "command": ["x"]}]
    pod = Transcript(make_pod(restartPolicy="Never", initContainers=inits))
    pod.started("a")
    assert pod.exited("a", 1) == ["detach"]
    assert pod.life.phase == "Failed"


def test_sidecar_lets_the_next_start_once_its_startup_probe_passed():
    side = sidecar("side", startupProbe=PROBE)
    pod = Transcript(make_pod(initContainers=[side]))
    assert pod.began == ["start side/0"]
    assert pod.started("side") == ["startup side"]
    assert pod.probed("startup", True, "side") == ["start main/0"]


def test_sidecar_restarts_whatever_the_policy_of_the_pod():
    pod = Transcript(make_pod(restartPolicy="Never", initContainers=[sidecar("side")]))
    pod.started("side")
    pod.started()
    assert pod.exited("side", 0) == ["start side/1"]


def test_sidecars_are_stopped_last_and_in_reverse():
    pod = Transcript(make_pod(initContainers=[sidecar("one"), sidecar("two")]))
    for name in ("one", "two", "main"):
        pod.started(name)
    assert pod.tell(ev.StopRequested(30)) == ["stop main 30"]
    pod.now_s += 10
    assert pod.exited("main") == ["stop two 20"]
    assert pod.exited("two") == ["stop one 20"]
    assert pod.exited("one") == ["remove"]


def test_sidecars_end_when_the_work_is_done():
    pod = Transcript(make_pod(restartPolicy="Never", initContainers=[sidecar("side")]))
    pod.started("side")
    pod.started()
    assert pod.exited("main", 0) == ["stop side 30"]
    assert pod.life.phase == "Succeeded"
    assert pod.exited("side", 143) == ["detach"]
    assert pod.life.phase == "Succeeded"


# --- restarts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("OnFailure", 0, "Succeeded"),
    ],
)
def test_pod_is_over_when_its_policy_asks_for_no_restart(policy, code, phase):
    pod = Transcript(make_pod(restartPolicy=policy))
    pod.started()
    assert pod.exited(code=code) == ["detach"]
    assert pod.life.phase == phase
    assert pod.life.next_deadline() is None


@pytest.mark.parametrize(("policy", "code"), [("Always", 0), ("Always", 1), ("OnFailure", 1)])
def test_container_is_restarted_as_its_policy_says(policy, code):
    pod = Transcript(make_pod(restartPolicy=policy))
    pod.started()
    assert pod.exited(code=code) == ["start main/1"]
    assert pod.life.phase == "Running"


def test_pod_is_over_only_when_all_containers_are():
    pod = Transcript(make_pod({"name": "one"}, {"name": "two"}, restartPolicy="Never"))
    pod.started("one")
    pod.started("two")
    assert pod.exited("one", 3) == []
    assert pod.life.phase == "Running"
    assert pod.exited("two", 0) == ["detach"]
    assert pod.life.phase == "Failed"


def test_back_off_doubles_from_ten_seconds_to_five_minutes():
    pod = Transcript(make_pod())
    waits = []
    for _ in range(9):
        pod.started()
        if pod.exited(code=1) == []:
            deadline = pod.life.next_deadline()
            waits.append(deadline - pod.now_s)
            assert pod.wait(waits[-1] - 0.001) == []
            assert pod.wait(0.001) == [f"start main/{pod.attempt()}"]
        else:
            waits.append(0)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_clock_that_was_set_forward_holds_nothing_up():
    pod = Transcript(make_pod({"name": "main", "readinessProbe": PROBE}))
    hour = 3600.0
    for attempt in range(2):
        pod.tell(ev.Started("main", attempt, pod.now_s + hour))
        assert pod.life.next_deadline() is None  # the first probe is under way
        end = ev.Termination(1, pod.now_s + hour, pod.now_s + hour)
        pod.tell(ev.Exited("main", attempt, end))
    assert pod.life.next_deadline() == pod.now_s + 10


def test_ten_good_minutes_forgive_earlier_crashes():
    pod = Transcript(make_pod())
    for _ in range(3):
        pod.started()
        pod.exited(code=1)
        pod.wait(1000)
    pod.started()
    pod.now_s += 600
    assert pod.exited(code=1) == ["start main/4"]


def test_container_that_could_not_be_made_counts_no_restart():
    pod = Transcript(make_pod())
    assert pod.tell(ev.StartFailed("main", 0, "RunContainerError", "no shim")) == []
    assert pod.wait(10) == ["start main/0"]


# --- probes ----------------------------------------------------------------------------------


def test_without_probes_a_running_container_is_ready():
    pod = Transcript(make_pod())
    assert not pod.life.ready
    pod.started()
    assert pod.life.ready


def test_readiness_follows_its_thresholds():
    probe = {**PROBE, "successThreshold": 2, "failureThreshold": 2, "periodSeconds": 5}
    pod = Transcript(make_pod({"name": "main", "readinessProbe": probe}))
    assert pod.started() == ["readiness main"]
    pod.probed("readiness", True)
    assert not pod.life.ready
    assert pod.wait(5) == ["readiness main"]
    pod.probed("readiness", True)
    assert pod.life.ready
    pod.wait(5)
    pod.probed("readiness", False)
    assert pod.life.ready
    pod.wait(5)
    assert pod.probed("readiness", False) == []
    assert not pod.life.ready
    assert pod.attempt() == 0


def test_container_that_is_not_ready_yet_is_asked_more_often_than_its_period():
    pod = Transcript(make_pod({"name": "main", "readinessProbe": PROBE}))
    pod.started()
    waits = []
    for _ in range(8):
        pod.probed("readiness", False)
        waits.append(pod.life.next_deadline() - pod.now_s)
        assert pod.wait(waits[-1]) == ["readiness main"]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10])


def test_initial_delay_is_kept():
    pod = Transcript(
        make_pod({"name": "main", "readinessProbe": {**PROBE, "initialDelaySeconds": 7}})
    )
    assert pod.started() == []
    assert pod.wait(6.9) == []
    assert pod.wait(0.1) == ["readiness main"]


def test_startup_probe_holds_the_others_back():
    pod = Transcript(
        make_pod(
            {
                "name": "main",
                "startupProbe": PROBE,
                "livenessProbe": PROBE,
                "readinessProbe": PROBE,
            }
        )
    )
    assert pod.started() == ["startup main"]
    assert not pod.life.ready
    assert pod.probed("startup", True) == ["readiness main", "liveness main"]


def test_startup_failures_count_once_per_period():
    startup = {**PROBE, "periodSeconds": 10, "failureThreshold": 3}
    pod = Transcript(make_pod({"name": "main", "startupProbe": startup}))
    pod.started()
    began = pod.now_s
    while not (answer := pod.probed("startup", False)):
        pod.wait(pod.life.next_deadline() - pod.now_s)
    assert answer == ["stop main 30"]
    assert 18 <= pod.now_s - began <= 30


def test_liveness_failure_stops_with_grace_and_starts_anew():
    live = {**PROBE, "periodSeconds": 10, "failureThreshold": 2}
    pod = Transcript(make_pod({"name": "main", "livenessProbe": live}))
    pod.started()
    assert pod.probed("liveness", False) == []
    assert pod.life.ready
    pod.wait(10)
    assert pod.probed("liveness", False) == ["stop main 30"]
    assert not pod.life.ready
    assert pod.exited(code=143) == ["start main/1"]


def test_a_run_that_a_probe_ended_says_so():
    live = {**PROBE, "failureThreshold": 1}
    pod = Transcript(make_pod({"name": "main", "livenessProbe": live}))
    pod.started()
    pod.tell(ev.Probed("main", 0, "liveness", False, "tcp 10.0.0.1:80: ECONNREFUSED"))
    pod.exited(code=143)
    assert pod.life.runs[0].end_before.message == "liveness probe: tcp 10.0.0.1:80: ECONNREFUSED"


def test_liveness_probe_may_bring_its_own_grace():
    live = {**PROBE, "failureThreshold": 1, "terminationGracePeriodSeconds": 3}
    pod = Transcript(make_pod({"name": "main", "livenessProbe": live}))
    pod.started()
    assert pod.probed("liveness", False) == ["stop main 3"]


def test_liveness_restart_happens_also_when_the_container_ends_well():
    live = {**PROBE, "failureThreshold": 1}
    pod = Transcript(make_pod({"name": "main", "livenessProbe": live}, restartPolicy="OnFailure"))
    pod.started()
    pod.probed("liveness", False)
    assert pod.exited(code=0) == ["start main/1"]


def test_container_that_is_being_stopped_is_not_probed():
    probes = {"livenessProbe": {**PROBE, "failureThreshold": 1}, "readinessProbe": PROBE}
    pod = Transcript(make_pod({"name": "main", **probes}))
    pod.started()
    pod.probed("readiness", True)
    pod.probed("liveness", False)
    assert pod.life.next_deadline() is None
    assert pod.wait(100) == []


def test_late_probe_of_an_earlier_attempt_changes_nothing():
    pod = Transcript(make_pod({"name": "main", "readinessProbe": PROBE}))
    pod.started()
    pod.exited(code=1)
    pod.started()
    pod.tell(ev.Probed("main", 0, "readiness", True))
    assert not pod.life.ready


def test_restarted_container_has_to_pass_its_probe_again():
    pod = Transcript(make_pod({"name": "main", "readinessProbe": PROBE}))
    pod.started()
    pod.probed("readiness", True)
    assert pod.life.ready
    pod.exited(code=1)
    assert not pod.life.ready
    pod.started()
    assert not pod.life.ready


def test_pod_is_ready_only_when_all_its_containers_are():
    pod = Transcript(make_pod({"name": "one"}, {"name": "two", "readinessProbe": PROBE}))
    pod.started("one")
    pod.started("two")
    assert not pod.life.ready
    pod.probed("readiness", True, "two")
    assert pod.life.ready
    pod.exited("one", 1)
    assert not pod.life.ready


def test_sidecar_counts_for_readiness():
    side = sidecar("side", readinessProbe=PROBE)
    pod = Transcript(make_pod(initContainers=[side]))
    pod.started("side")
    pod.started()
    assert not pod.life.ready
    pod.probed("readiness", True, "side")
    assert pod.life.ready


# --- end -------------------------------------------------------------------------------------


def test_deletion_makes_unready_at_once_and_removes_when_all_has_ended():
    pod = Transcript(make_pod())
    pod.started()
    assert pod.tell(ev.StopRequested(30)) == ["stop main 30"]
    assert not pod.life.ready
    assert pod.exited(code=143) == ["remove"]
    assert pod.tell(ev.Removed()) == []
    assert pod.life.gone


def test_container_that_is_just_starting_is_stopped_when_it_runs():
    pod = Transcript(make_pod())
    assert pod.tell(ev.StopRequested(30)) == []
    pod.now_s += 5
    assert pod.started() == ["stop main 25"]


def test_second_deletion_with_less_grace_shortens_the_first():
    pod = Transcript(make_pod())
    pod.started()
    pod.tell(ev.StopRequested(30))
    assert pod.tell(ev.StopRequested(0)) == ["stop main 0"]
    assert pod.tell(ev.StopRequested(60)) == []


def test_pod_that_is_attaching_is_removed_after_that():
    pod = Transcript(make_pod(), attached=False)
    assert pod.tell(ev.StopRequested(30)) == []
    assert pod.tell(ev.AttachFailed("Stopped", "")) == ["remove"]


def test_deletion_while_backing_off_removes_at_once():
    pod = Transcript(make_pod())
    pod.started()
    pod.exited(code=1)
    pod.started()
    pod.exited(code=1)
    assert pod.tell(ev.StopRequested(30)) == ["remove"]


def test_deleted_pod_is_not_started_again_by_time():
    pod = Transcript(make_pod())
    pod.started()
    pod.tell(ev.StopRequested(30))
    assert pod.wait(1000) == []
    assert pod.life.next_deadline() is None


# --- whatever happens --------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """A pod whose world answers late, twice, wrongly; three promises hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        live = {**PROBE, "failureThreshold": 1}
        self.pod = Transcript(
            make_pod(
                {"name": "one", "readinessProbe": PROBE, "livenessProbe": live},
                {"name": "two", "startupProbe": live},
                initContainers=[{"name": "init", "command": ["x"]}, sidecar("side")],
                restartPolicy="OnFailure",
            ),
            attached=False,
        )
        self.live: dict[str, int] = {}  # runs that exist, as the host would count them
        self.seen = 0
        self.look()

    def look(self) -> None:
        for word in self.pod.log[self.seen :]:
            verb, _, rest = word.partition(" ")
            if verb == "start":
                name = rest.partition("/")[0]
                assert self.live.get(name, 0) == 0, f"{name} has two runs"
                assert self.pod.life.in_force
                self.live[name] = 1
            if verb in ("remove", "detach"):
                assert not any(self.live.values()), word
        self.seen = len(self.pod.log)

    def pick(self, name: str) -> int:
        return self.pod.attempt(name)

    @rule(kind=st.sampled_from(["attached", "activated", "failed"]))
    def network(self, kind: str) -> None:
        life = self.pod.life
        if not life._attaching:
            return
        if kind == "attached" and life.network is None:
            self.pod.tell(ev.Attached(NETWORK))
        elif kind == "activated" and life.network is not None:
            self.pod.tell(ev.Activated())
        elif kind == "failed":
            self.pod.tell(ev.AttachFailed("NetworkError", ""))
        self.look()

    @rule(steps=st.sampled_from([12, 6, 1]))
    def goes_well(self, steps: int) -> None:
        """The world does for a while what it was asked; else no pod ever gets far."""
        life = self.pod.life
        for _ in range(steps):
            if life._attaching:
                self.network("attached" if life.network is None else "activated")
            for run in life.runs:
                if run.phase.value == "starting":
                    self.starts(run.name, 0)
                elif run.name == "init" and run.phase.value == "running":
                    self.exits("init", 0)
                elif run.phase.value == "running":
                    for kind in ("startup", "readiness", "liveness"):
                        self.probes(run.name, kind, True)
            self.waits(1)

    @rule(name=st.sampled_from(["init", "side", "one", "two"]), late=st.integers(0, 1))
    def starts(self, name: str, late: int) -> None:
        self.pod.tell(ev.Started(name, self.pick(name) - late, self.pod.now_s))
        self.look()

    @rule(name=st.sampled_from(["init", "side", "one", "two"]))
    def start_fails(self, name: str) -> None:
        starting = next(r for r in self.pod.life.runs if r.name == name).phase.value == "starting"
        if starting:
            self.live[name] = 0
        self.pod.tell(ev.StartFailed(name, self.pick(name), "RunContainerError", ""))
        self.look()

    @rule(name=st.sampled_from(["init", "side", "one", "two"]), code=st.sampled_from([0, 1, 137]))
    def exits(self, name: str, code: int) -> None:
        running = next(r for r in self.pod.life.runs if r.name == name).phase.value == "running"
        if running:
            self.live[name] = 0
        end = ev.Termination(code, self.pod.now_s, self.pod.now_s)
        self.pod.tell(ev.Exited(name, self.pick(name), end))
        self.look()

    @rule(
        name=st.sampled_from(["side", "one", "two"]),
        kind=st.sampled_from(["startup", "readiness", "liveness"]),
        ok=st.booleans(),
    )
    def probes(self, name: str, kind: ev.ProbeKind, ok: bool) -> None:
        self.pod.tell(ev.Probed(name, self.pick(name), kind, ok))
        self.look()

    @rule(seconds=st.sampled_from([0.05, 1, 11, 400]))
    def waits(self, seconds: float) -> None:
        self.pod.wait(seconds)
        self.look()

    @rule(grace_s=st.sampled_from([0, 5]), really=st.integers(0, 9))
    def stops(self, grace_s: float, really: int) -> None:
        if really == 0:
            self.pod.tell(ev.StopRequested(grace_s))
            self.look()

    @rule(came_up=st.booleans())
    def agent_dies(self, came_up: bool) -> None:
        """The next agent has the record and the host: nothing may stop, start twice or flap."""
        life = self.pod.life
        if life.gone or (not life.in_force and life.final is None):
            return  # its half-made network is swept, and the pod begins as any other
        kept = record(life)
        found = []
        for run in life.runs:
            if run.phase.value == "starting" and not came_up:
                self.live[run.name] = 0
            if self.live.get(run.name):
                found.append(FoundContainer(run.name, run.attempt, self.pod.now_s))
            elif run.end is not None:
                found.append(FoundContainer(run.name, run.attempt, run.end.started_s, run.end))
        network = life.network
        after = restore(life.pod, self.pod.now_s, network, found if network else (), kept)
        assert after.ready or not life.ready or life.terminating
        assert after.final == life.final
        assert after.initialized or not life.initialized or network is None
        self.pod.life = after
        if life.stop_by_s is not None:
            self.pod.tell(ev.StopRequested(life.stop_by_s - self.pod.now_s))
        self.pod.tell(ev.Tick())
        self.look()

    @invariant()
    def ready_means_that_all_run(self) -> None:
        if self.pod.life.ready:
            assert all(self.live.get(name) for name in ("side", "one", "two"))
            assert self.pod.life.in_force
            assert self.pod.life.stop_by_s is None

    @invariant()
    def a_deadline_is_ahead_or_has_just_come(self) -> None:
        deadline = self.pod.life.next_deadline()
        if deadline is not None and deadline <= self.pod.now_s:
            assert self.pod.wait(0) or self.pod.life.next_deadline() != deadline
            self.look()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=25)
