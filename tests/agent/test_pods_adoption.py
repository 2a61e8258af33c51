"""What an agent finds after its predecessor was killed."""

from __future__ import annotations

import asyncio
import functools


def run(test):
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def wrapped(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 20))

    return wrapped


async def started(host, *pods):
    async with host.agent():
        for pod in pods:
            await host.start(pod)
        for pod in pods:
            await host.until(lambda key=f"shop/{pod.metadata.name}": host.state(key).ready)
    host.changes.clear()
    host.containers.calls.clear()
    host.network.calls.clear()


@run
async def test_running_pod_goes_on_untouched_and_stays_ready(host, pod):
    web = pod()
    await started(host, web)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        assert host.state().ready
        assert host.state().ifindex == host.network.attached["shop/web"].ifindex
        await asyncio.sleep(0.02)
        assert host.state().ready
    assert host.containers.calls == []
    assert host.network.calls == []


@run
async def test_ready_pod_does_not_flap_when_its_probe_is_slow_to_answer(host, pod):
    probed = {"name": "main", "command": ["x"], "readinessProbe": {"httpGet": {"port": 80}}}
    web = pod(containers=[probed])
    await started(host, web)
    host.prober.well = False
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        assert host.state().ready
        await asyncio.sleep(0.05)
        assert host.state().ready  # three failures, ten seconds apart, make it unready


@run
async def test_pod_that_was_not_ready_is_not_ready_before_its_probe_says_so(host, pod):
    probed = {"name": "main", "command": ["x"], "readinessProbe": {"httpGet": {"port": 80}}}
    web = pod(containers=[probed])
    host.prober.well = False
    async with host.agent():
        await host.start(web)
        await host.until(lambda: host.prober.asked > 0)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        assert not host.state().ready
        host.prober.well = True
        await host.until(lambda: host.state().ready)


@run
async def test_container_that_died_meanwhile_is_restarted(host, pod):
    web = pod()
    await started(host, web)
    host.containers.exit("main", 1)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        await host.until(lambda: host.state().restarts == 1 and host.state().ready)
    assert host.containers.calls == [("start", "main")]


@run
async def test_restart_is_seen_also_for_an_adopted_container(host, pod):
    web = pod()
    await started(host, web)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        host.containers.exit("main", 1)
        await host.until(lambda: host.state().restarts == 1 and host.state().ready)


@run
async def test_strays_are_removed(host, pod):
    web, stray = pod(), pod("stray")
    await started(host, web, stray)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        assert [state.key for state in runner.states()] == ["shop/web"]
    assert set(host.network.attached) == {"shop/web"}
    assert host.containers.calls == [("remove", stray.metadata.uid)]
    assert [path.stem for path in (host.root / "state" / "pods").iterdir()] == [web.metadata.uid]


@run
async def test_pod_of_the_same_name_but_another_uid_is_a_stray(host, pod):
    old, new = pod(), pod()
    await started(host, old)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": new})
        assert runner.states() == []
        await host.start(new)
        await host.until(lambda: host.state().ready)
        assert host.state().uid == new.metadata.uid


@run
async def test_finished_pod_stays_finished_also_after_a_reboot(host, pod):
    once = pod(restartPolicy="Never")
    await started(host, once)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": once})
        host.containers.exit("main", 4)
        await host.until(lambda: host.network.attached == {})
    await host.containers.remove(once.metadata.uid)  # /run is empty after a reboot
    host.containers.calls.clear()
    async with host.agent() as runner:
        await runner.adopt({"shop/web": once})
        assert host.state().phase == "Failed"
        (container,) = runner.status("shop/web")["containerStatuses"]
        assert container["state"]["terminated"]["exitCode"] == 4
        await runner.stop("shop/web", 1)
        assert runner.states() == []
    assert ("start", "main") not in host.containers.calls


@run
async def test_after_a_reboot_a_pod_begins_again_and_counts_on(host, pod):
    web = pod(initContainers=[{"name": "prepare", "command": ["x"]}])
    async with host.agent():
        await host.start(web)
        await host.until(lambda: host.containers.running("prepare"))
        host.containers.exit("prepare")
        await host.until(lambda: host.state().ready)
    await host.containers.remove(web.metadata.uid)
    host.network.detach("shop/web")
    host.containers.calls.clear()
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        assert runner.states() == []
        await host.start(web)
        await host.until(lambda: host.containers.running("prepare"))
        assert not host.containers.running("main")
        host.containers.exit("prepare")
        await host.until(lambda: host.state().ready)
        (container,) = runner.status("shop/web")["containerStatuses"]
        assert container["restartCount"] == 1


@run
async def test_stop_of_an_adopted_pod_leaves_nothing(host, pod):
    web = pod()
    await started(host, web)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        await runner.stop("shop/web", 1)
    assert host.network.attached == {}
    assert not host.containers.running("main")


@run
async def test_unreadable_record_makes_the_host_the_only_witness(host, pod):
    web = pod()
    await started(host, web)
    for path in (host.root / "state" / "pods").iterdir():
        path.write_text("{ torn")
    async with host.agent() as runner:
        await runner.adopt({"shop/web": web})
        assert host.state().ready
    assert host.containers.calls == []
