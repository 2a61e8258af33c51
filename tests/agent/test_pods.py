from __future__ import annotations

import asyncio
import functools
from ipaddress import ip_address

import pytest

from sixfold.errors import HostError, UnavailableError

ADDRESSES = ip_address("10.244.0.2"), ip_address("fd00:5f:244::2")
PROBE = {"httpGet": {"port": 80}, "periodSeconds": 1}


def run(test):
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def wrapped(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 20))

    return wrapped


@run
async def test_endpoint_is_in_force_before_the_first_process_starts(host, pod):
    host.gate = asyncio.Event()
    async with host.agent():
        await host.start(pod())
        await host.until(lambda: host.state().ifindex != 0)
        await asyncio.sleep(0.02)
        assert host.network.calls == [("attach", "shop/web")]
        assert host.containers.calls == []
        host.gate.set()
        await host.until(lambda: host.state().ready)
    assert host.network.calls == [("attach", "shop/web"), ("activate", "shop/web")]
    assert host.containers.calls == [("start", "main")]


@run
async def test_state_tells_what_planners_need(host, pod):
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().ready)
        state = host.state()
        attachment = host.network.attached["shop/web"]
        assert (state.ifindex, state.cookie) == (attachment.ifindex, attachment.cookie)
        assert str(state.ipv4) == "10.244.0.2"
        status = runner.status("shop/web")
        assert status["phase"] == "Running"
        assert status["podIPs"] == [{"ip": "10.244.0.2"}, {"ip": "fd00:5f:244::2"}]
        assert runner.status("shop/nobody") is None


@run
async def test_pod_gets_resolv_conf_and_hosts(host, pod):
    async with host.agent():
        web = pod()
        await host.start(web)
        await host.until(lambda: host.state().ready)
        directory = host.root / "run" / "pods" / web.metadata.uid
        assert "nameserver 169.254.20.10" in (directory / "resolv.conf").read_text()
        assert "10.244.0.2\tweb" in (directory / "hosts").read_text()


@run
async def test_failing_attachment_is_shown_undone_and_tried_again(host, pod):
    host.network.refusals.append(UnavailableError("pool pod_ipv4: full", retry_s=0.05))
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().reason == "NetworkError")
        assert runner.status("shop/web")["message"] == "pool pod_ipv4: full"
        assert host.state().ifindex == 0
        await host.until(lambda: host.state().ready)
        assert "message" not in runner.status("shop/web")


@run
async def test_exhausted_pool_is_shown_and_asked_again(host, pod):
    answers = iter([HostError("pool pod_ipv4: no address is free"), ADDRESSES])

    def allocate():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with host.agent() as runner:
        await runner.start(pod(), allocate, host.admit)
        await host.until(lambda: host.state().reason == "NetworkError")
        assert "no address is free" in runner.status("shop/web")["message"]
        await host.until(lambda: host.state().ready)
        assert host.state().ipv4 == ADDRESSES[0]


@run
async def test_pod_that_is_not_admitted_is_never_active(host, pod):
    host.refuse_admission = HostError("attach: EPERM")
    async with host.agent():
        await host.start(pod())
        await host.until(lambda: host.state().reason == "NetworkError")
        assert ("activate", "shop/web") not in host.network.calls
        assert host.network.attached == {}
        assert host.containers.calls == []


@run
async def test_stop_returns_when_nothing_is_left(host, pod):
    async with host.agent() as runner:
        web = pod()
        await host.start(web)
        await host.until(lambda: host.state().ready)
        await runner.stop("shop/web", 5)
        assert runner.states() == []
        assert not host.containers.running("main")
    assert host.network.attached == {}
    assert host.containers.calls[-2:] == [("stop", "main"), ("remove", web.metadata.uid)]
    assert list((host.root / "state" / "pods").iterdir()) == []


@run
async def test_pod_that_is_stopping_is_not_ready_from_the_first_moment(host, pod):
    host.containers.deaf.add("main")
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().ready)
        host.changes.clear()
        stopping = asyncio.create_task(runner.stop("shop/web", 0.1))
        await asyncio.sleep(0)
        assert (host.state().ready, host.state().terminating) == (False, True)
        assert host.changes == ["shop/web"]
        await stopping


@run
async def test_deaf_container_is_killed_after_its_grace(host, pod):
    host.containers.deaf.add("main")
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().ready)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await runner.stop("shop/web", 0.2)
        assert 0.2 <= loop.time() - began < 1


@run
async def test_shorter_grace_of_a_second_stop_holds(host, pod):
    host.containers.deaf.add("main")
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().ready)
        first = asyncio.create_task(runner.stop("shop/web", 600))
        await asyncio.sleep(0.01)
        await asyncio.wait_for(runner.stop("shop/web", 0), 1)
        await first


@pytest.mark.parametrize("moment", ["at once", "while it waits for admission"])
def test_pod_can_be_stopped_while_it_is_being_attached(host, pod, moment):
    @run
    async def stopped():
        host.gate = asyncio.Event()
        async with host.agent() as runner:
            await host.start(pod())
            if moment != "at once":
                await host.until(lambda: host.state().ifindex != 0)
            await asyncio.wait_for(runner.stop("shop/web", 5), 1)
            assert runner.states() == []
        assert host.network.attached == {}
        assert host.containers.calls[:-1] == []

    stopped()


@run
async def test_stopping_a_stranger_is_fine(host, pod):
    async with host.agent() as runner:
        await runner.stop("shop/nobody", 5)


@run
async def test_probe_makes_ready_and_unready_at_once(host, pod):
    probed = {"name": "main", "command": ["x"], "readinessProbe": {**PROBE, "failureThreshold": 1}}
    host.prober.well = False
    async with host.agent():
        await host.start(pod(containers=[probed]))
        await host.until(lambda: host.prober.asked > 0)
        assert not host.state().ready
        host.prober.well = True
        await host.until(lambda: host.state().ready)
        host.changes.clear()
        host.prober.well = False
        await host.until(lambda: not host.state().ready)
        assert host.changes == ["shop/web"]


@run
async def test_probe_that_says_the_same_again_changes_nothing(host, pod):
    probed = {"name": "main", "command": ["x"], "readinessProbe": PROBE}
    async with host.agent():
        await host.start(pod(containers=[probed]))
        await host.until(lambda: host.state().ready)
        host.changes.clear()
        asked = host.prober.asked
        await host.until(lambda: host.prober.asked > asked)
        await asyncio.sleep(0.01)
        assert host.changes == []


@run
async def test_crashed_container_is_started_again_and_waits_the_second_time(host, pod):
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().ready)
        host.containers.exit("main", 3)
        await host.until(lambda: host.state().restarts == 1 and host.state().ready)
        host.containers.exit("main", 3)
        await host.until(lambda: host.state().reason == "CrashLoopBackOff")
        (container,) = runner.status("shop/web")["containerStatuses"]
        assert container["lastState"]["terminated"]["exitCode"] == 3
        assert container["restartCount"] == 1


@run
async def test_finished_pod_gives_its_network_back_and_keeps_its_result(host, pod):
    async with host.agent() as runner:
        await host.start(pod(restartPolicy="Never"))
        await host.until(lambda: host.state().ready)
        host.containers.exit("main", 0)
        await host.until(lambda: host.network.attached == {})
        assert host.state().phase == "Succeeded"
        assert host.state().ifindex == 0
        assert runner.status("shop/web")["podIP"] == "10.244.0.2"


@run
async def test_container_that_cannot_be_made_is_reported_and_tried_again(host, pod):
    host.containers.refusals.append(HostError("container shop/web/main: no shim"))
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().reason == "RunContainerError")
        (container,) = runner.status("shop/web")["containerStatuses"]
        assert "no shim" in container["state"]["waiting"]["message"]
        assert container["restartCount"] == 0


@run
async def test_wrong_configuration_is_told_from_trouble_of_the_host(host, pod):
    strict = {"name": "main", "command": ["x"], "securityContext": {"runAsNonRoot": True}}
    async with host.agent():
        await host.start(pod(containers=[strict]))
        await host.until(lambda: host.state().reason == "CreateContainerConfigError")
        assert host.containers.calls == []


@run
async def test_exec_and_logs_name_the_container_that_is_missing(host, pod):
    async with host.agent() as runner:
        await host.start(pod())
        await host.until(lambda: host.state().ready)
        assert runner.exec_target("shop/web")["uid"] == 0
        with pytest.raises(Exception, match=r"no container 'side'; one of main"):
            runner.exec_target("shop/web", "side")
        with pytest.raises(UnavailableError, match="does not run here yet"):
            runner.log("shop/nobody")
