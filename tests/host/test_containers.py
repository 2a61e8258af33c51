"""How containers live and die: real process trees under real shims."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from sixfold.host import cgroup
from sixfold.host.containers import SHIM, Container, Containers
from sixfold.host.process import Process

pytestmark = pytest.mark.root

# Forks away from its parent and its session, as a daemon does, and outlives it by far.
DAEMONIZE = "setsid sh -c 'trap \"\" TERM; echo $$ > {pids}; sleep 300' & sleep 0.2;"


def finish(containers: Containers, spec):
    async def main():
        return await containers.wait(await containers.start(spec))

    return asyncio.run(main())


GRACE_S = 20.0


async def until(condition, what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


def lives(word: str) -> bool:
    """Whether any process of the host has it in its command; numbers are the container's own."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word in path.read_text(errors="replace") and path.parent.name != str(os.getpid()):
                return True
    return False


def test_exit_code_is_reported(containers, make_spec):
    status = finish(containers, make_spec("sh", "-c", "exit 7"))
    assert (status.code, status.signal, status.reason) == (7, 0, "Error")
    assert status.started_at is not None
    assert status.started_at <= status.finished_at <= time.time()


def test_a_command_that_ends_well_is_completed(containers, make_spec):
    status = finish(containers, make_spec("true"))
    assert (status.code, status.reason) == (0, "Completed")


def test_a_signal_is_reported_as_128_plus_its_number(containers, make_spec):
    status = finish(containers, make_spec("sh", "-c", "kill -9 $$"))
    assert (status.code, status.signal, status.reason) == (137, 9, "Error")


@pytest.mark.parametrize(
    ("argv", "fields", "code", "message"),
    [
        pytest.param(
            ["no-such-command"], {}, 127, "exec no-such-command: No such file", id="no command"
        ),
        pytest.param(
            ["/etc/passwd"], {}, 126, "exec /etc/passwd: Permission denied", id="no program"
        ),
        pytest.param(
            ["true"],
            {"workdir": "/no/such"},
            128,
            "change directory to /no/such: No such file",
            id="no working directory",
        ),
        pytest.param(
            ["true"],
            {"netns": Path("/run/netns/no-such")},
            128,
            "open /run/netns/no-such: No such file",
            id="no network namespace",
        ),
        pytest.param(
            ["true"],
            {"resolv_conf": Path("/no/such")},
            128,
            "bind /no/such:/etc/resolv.conf: No such file",
            id="no resolv.conf",
        ),
    ],
)
def test_a_command_that_cannot_run_says_why(containers, make_spec, argv, fields, code, message):
    status = finish(containers, make_spec(*argv, **fields))
    assert (status.code, status.reason, status.started_at) == (code, "StartError", None)
    assert status.message.startswith(message)


def test_stop_ends_a_container_that_heeds_sigterm_at_once(containers, make_spec):
    async def main():
        container = await containers.start(
            make_spec("sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")
        )
        await until(lambda: "up" in container.log.read_text(), "the trap is set")
        return await asyncio.wait_for(containers.stop(container, GRACE_S), GRACE_S / 2)

    assert asyncio.run(main()).code == 3


def test_stop_kills_after_the_grace_period(containers, make_spec):
    async def main():
        container = await containers.start(
            make_spec("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done")
        )
        await until(lambda: "up" in container.log.read_text(), "the trap is set")
        begin = time.monotonic()
        return await containers.stop(container, 0.3), time.monotonic() - begin

    status, took_s = asyncio.run(main())
    assert (status.code, status.signal) == (137, 9)
    assert took_s >= 0.3


def test_kill_takes_daemons_along(containers, make_spec, tmp_path):
    pids = tmp_path / "pids"

    async def main():
        container = await containers.start(
            make_spec("sh", "-c", DAEMONIZE.format(pids=pids) + "sleep 300")
        )
        await until(lambda: pids.exists() and pids.read_text().strip(), "the daemon runs")
        assert lives(str(pids))
        await containers.kill(container)
        assert not cgroup.populated(container.cgroup)

    asyncio.run(main())
    assert not lives(str(pids))


def test_the_end_of_the_first_process_ends_its_daemons(containers, make_spec, tmp_path):
    pids = tmp_path / "pids"
    status = finish(containers, make_spec("sh", "-c", DAEMONIZE.format(pids=pids) + "exit 0"))
    assert status.reason == "Completed"
    assert not lives(str(pids))


def test_orphans_are_reaped(containers, make_spec):
    script = "for i in 1 2 3 4 5; do (sleep 0.05 &); done; echo made; sleep 300"

    async def main():
        container = await containers.start(make_spec("sh", "-c", script))

        def alone() -> bool:
            init, *others = children_of(container.shim.pid)
            return others == [container.process.pid] and children_of(init) == []

        await until(lambda: "made" in container.log.read_text(), "its orphans are made")
        await until(alone, "they are reaped")
        await containers.kill(container)

    asyncio.run(main())


def children_of(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def test_killing_the_shim_kills_the_container_and_its_daemons(containers, make_spec, tmp_path):
    pids = tmp_path / "pids"

    async def main():
        container = await containers.start(
            make_spec("sh", "-c", DAEMONIZE.format(pids=pids) + "sleep 300", uid=65534, gid=65534)
        )
        tmp_path.chmod(0o777)
        await asyncio.sleep(0.05)
        container.shim.send(signal.SIGKILL)
        status = await containers.wait(container)
        await until(lambda: not container.process.alive, "the death signal arrived")
        assert not cgroup.populated(container.cgroup)
        return status

    status = asyncio.run(main())
    assert (status.code, status.reason) == (137, "ContainerStatusUnknown")
    assert "shim was killed" in status.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_shim_does_not_heed_polite_signals(containers, make_spec, number):
    async def main():
        container = await containers.start(make_spec("sleep", "300"))
        container.shim.send(number)
        await asyncio.sleep(0.05)
        assert container.running
        await containers.kill(container)

    asyncio.run(main())


STARTER = """
import asyncio, os, signal, sys
import msgspec
from pathlib import Path
from sixfold.host.containers import Containers, ContainerSpec
from sixfold.host.paths import Paths

async def main():
    spec = msgspec.json.decode(
        sys.argv[2], type=ContainerSpec, dec_hook=lambda kind, value: Path(value)
    )
    await Containers(Paths(sys.argv[1])).start(spec)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def start_and_die(instance_paths, spec) -> None:
    """Start a container from an agent that is killed right after."""
    encoded = msgspec.json.encode(spec, enc_hook=str)
    agent = subprocess.run(
        [sys.executable, "-c", STARTER, instance_paths.instance, encoded], check=False
    )
    assert agent.returncode == -signal.SIGKILL


UNTIL_TOLD = "until test -e go; do sleep 0.02; done;"  # in its directory


def test_a_container_outlives_its_agent_and_is_adopted(
    containers, make_spec, instance_paths, tmp_path
):
    spec = make_spec("sh", "-c", f"{UNTIL_TOLD} echo after; exit 5", workdir=str(tmp_path))
    start_and_die(instance_paths, spec)
    [container] = containers.observe()
    assert container.spec == spec
    assert container.running
    assert containers.observe() == [container]
    (tmp_path / "go").touch()
    status = asyncio.run(containers.wait(container))
    assert status.code == 5
    assert "stdout F after" in container.log.read_text()


def test_what_ended_while_no_agent_ran_is_still_known(containers, make_spec, instance_paths):
    start_and_die(instance_paths, make_spec("sh", "-c", "exit 6"))
    [container] = containers.observe()
    assert asyncio.run(containers.wait(container)).code == 6
    assert not container.running


def test_a_start_that_never_finished_is_given_up_and_cannot_come_late(
    containers, make_spec, instance_paths
):
    async def main():
        ended = await containers.start(make_spec("true"))
        await containers.wait(ended)
        for name in ("shim", "pid", "started", "status"):  # as before the shim spoke
            (ended.state / name).unlink(missing_ok=True)
        [lost] = containers.observe()
        assert (await containers.wait(lost)).reason == "ContainerStatusUnknown"
        late = subprocess.run(
            [
                *[str(SHIM), "run", f"--state={lost.state}", f"--log={lost.log}"],
                *[f"--cgroup={lost.cgroup}", f"--shims={instance_paths.cgroup / 'shims'}"],
                *[f"--netns={lost.spec.netns}", "--workdir=/", "--", "sleep", "300"],
            ],
            capture_output=True,
            check=False,
        )
        assert late.returncode != 0
        assert b"claim shim: File exists" in late.stderr
        assert not cgroup.populated(lost.cgroup)

    asyncio.run(main())


STARTERS = """
import asyncio, sys, msgspec
from pathlib import Path
from sixfold.host.containers import Containers, ContainerSpec
from sixfold.host.paths import Paths

spec = msgspec.json.decode(
    sys.argv[2], type=ContainerSpec, dec_hook=lambda kind, value: Path(value)
)
print("ready", flush=True)
asyncio.run(Containers(Paths(sys.argv[1])).start(spec))
"""


def test_an_agent_killed_at_any_moment_of_a_start_leaves_one_truth(
    containers, make_spec, instance_paths
):
    async def adopt(attempt: int) -> None:
        """What an agent does next: believe what is there, or make it end and go on."""
        for container in containers.observe():
            assert container.running or (await containers.wait(container)).reason
            assert containers.observe() == [container]
            # The attempt before may be on its way out: its killer died, the kill did not.
            if container.running and container.spec.attempt == attempt:
                members = cgroup.processes(container.cgroup)
                assert members == [container.process.pid]
                assert container.started_at is not None
        after = await containers.start(make_spec("sleep", "300", attempt=attempt + 1))
        await asyncio.sleep(0.05)
        assert cgroup.processes(after.cgroup) == [after.process.pid]
        assert [c.spec.attempt for c in containers.observe()] == [attempt + 1]

    for attempt in range(0, 24, 2):
        spec = make_spec("sleep", "300", attempt=attempt)
        agent = subprocess.Popen(
            [
                *[sys.executable, "-c", STARTERS, instance_paths.instance],
                msgspec.json.encode(spec, enc_hook=str),
            ],
            stdout=subprocess.PIPE,
        )
        with agent:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"ready\n"
            time.sleep(attempt / 24 * 0.02)
            agent.kill()
        asyncio.run(adopt(attempt))


def test_looking_around_does_not_disturb_starts_under_way(containers, make_spec):
    async def look() -> None:
        for number in range(200):
            containers.observe()
            await containers.remove(f"none-{number}")
            await asyncio.sleep(0)

    async def main():
        looking = asyncio.create_task(look())
        specs = [make_spec("sleep", "300", name=f"c{n}", pod_uid=f"u{n}") for n in range(20)]
        started = await asyncio.gather(*map(containers.start, specs))
        await looking
        assert all(container.running for container in started)
        assert len(containers.observe()) == 20

    asyncio.run(main())


def test_a_reused_pid_is_not_taken_for_the_container(containers, make_spec):
    async def main():
        container = await containers.start(make_spec("sleep", "300"))
        await containers.kill(container)
        impostor = Process(os.getpid(), container.process.start)
        stranger = Container(
            **{
                **{name: getattr(container, name) for name in Container.__slots__},
                "process": impostor,
            }
        )
        assert not containers.signal(stranger, signal.SIGKILL)  # else this test is no more
        return (await containers.wait(stranger)).code

    assert asyncio.run(main()) == 137


def test_starting_the_next_attempt_ends_what_is_left_of_the_last(containers, make_spec):
    async def main():
        first = await containers.start(make_spec("sleep", "300"))
        second = await containers.start(make_spec("sleep", "300", attempt=1))
        assert not first.process.alive
        assert cgroup.processes(second.cgroup) == [second.process.pid]
        assert [c.spec.attempt for c in containers.observe()] == [1]
        await containers.kill(second)

    asyncio.run(main())


def test_the_end_of_one_attempt_does_not_hit_the_next(containers, make_spec):
    async def main():
        for attempt in range(20):
            container = await containers.start(make_spec("sleep", "300", attempt=attempt))
        await asyncio.sleep(0.05)
        assert container.process.alive
        return await containers.kill(container)

    assert asyncio.run(main()).reason == "Error"


def test_containers_start_after_somebody_killed_all_shims(containers, make_spec, instance_paths):
    """Linux 6.14 to 6.18 kill what is cloned into a cgroup with another count of kills."""

    async def main():
        first = await containers.start(make_spec("sleep", "300"))
        (instance_paths.cgroup / "shims" / "cgroup.kill").write_text("1")
        assert (await containers.wait(first)).reason == "ContainerStatusUnknown"
        second = await containers.start(make_spec("sh", "-c", "exit 9", attempt=1))
        return await containers.wait(second)

    assert asyncio.run(main()).code == 9


def test_an_attempt_that_is_over_cannot_be_killed_any_more(containers, make_spec):
    async def main():
        first = await containers.start(make_spec("sleep", "300"))
        first.shim.send(signal.SIGKILL)
        second = await containers.start(make_spec("sleep", "300", attempt=1))
        assert (await containers.kill(first)).reason == "ContainerStatusUnknown"
        assert (await containers.stop(first, 0.1)).reason == "ContainerStatusUnknown"
        assert second.process.alive
        await containers.kill(second)

    asyncio.run(main())


def test_logs_of_the_attempt_before_are_kept_and_no_more(containers, make_spec):
    for attempt in range(4):
        finish(containers, make_spec("echo", "hello", attempt=attempt))
    directory = containers.log_directory("shop/web", "5f9a") / "app"
    assert sorted(path.name for path in directory.iterdir()) == ["2.log", "3.log"]
    assert [c.spec.attempt for c in containers.observe()] == [3]


def test_remove_leaves_nothing_of_a_pod_and_all_of_the_others(
    containers, make_spec, instance_paths
):
    async def main():
        await containers.start(make_spec("sleep", "300"))
        await containers.start(make_spec("sleep", "300", name="side"))
        other = await containers.start(make_spec("sleep", "300", pod_key="a/b", pod_uid="77"))
        await containers.remove("5f9a")
        await containers.remove("5f9a")
        assert containers.observe() == [other]
        assert other.running
        assert not (instance_paths.cgroup / "pods" / "5f9a").exists()
        assert not (instance_paths.run / "pods" / "5f9a").exists()
        assert [p.name for p in (instance_paths.state / "logs").iterdir()] == ["a_b_77"]

    asyncio.run(main())


def test_many_containers_start_and_end_side_by_side(containers, make_spec):
    async def one(number: int) -> int:
        spec = make_spec("sh", "-c", f"exit {number}", name=f"c{number}")
        return (await containers.wait(await containers.start(spec))).code

    async def main():
        return await asyncio.gather(*map(one, range(30)))

    assert asyncio.run(main()) == list(range(30))


def test_a_cancelled_wait_leaves_the_container_alone(containers, make_spec):
    async def main():
        container = await containers.start(make_spec("sleep", "300"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await containers.wait(container)
        assert container.running
        before = len(os.listdir("/proc/self/fd"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await containers.wait(container)
        assert len(os.listdir("/proc/self/fd")) == before
        await containers.kill(container)

    asyncio.run(main())
