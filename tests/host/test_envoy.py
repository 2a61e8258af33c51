"""The proxy's process: a real Envoy, without configuration but for where its agent would be."""

import asyncio
import contextlib
import os
import signal

import pytest

from sixfold.host import cgroup, envoy
from sixfold.host.envoy import Envoy, group_of
from sixfold.host.proxy_home import home_of_node
from sixfold.mesh.bootstrap import bootstrap

pytestmark = pytest.mark.root


@pytest.fixture
def configured(instance_paths):
    """A proxy's process of an instance of its own; nothing stays."""
    if os.geteuid() != 0:
        pytest.skip("control groups need root")
    instance_paths.run.mkdir(parents=True)
    instance_paths.state.mkdir(parents=True)
    group, home = group_of(instance_paths), home_of_node(instance_paths)
    cgroup.create(group)

    def make(node="node"):
        text = bootstrap("test", node, str(home.xds_socket), str(home.admin_socket), 100)
        return Envoy(group, home, text, concurrency=1)

    yield make
    asyncio.run(envoy.stop(instance_paths))
    instance_paths.cgroup.rmdir()


def test_it_runs_in_its_group_and_only_root_reaches_its_admin_socket(configured, instance_paths):
    one = configured()
    asyncio.run(one.start_or_adopt())
    assert cgroup.processes(group_of(instance_paths)) == [one.pid]
    assert home_of_node(instance_paths).admin_socket.stat().st_mode & 0o777 == 0o600


def test_the_next_agent_finds_the_one_that_runs(configured):
    first, second = configured(), configured()
    asyncio.run(first.start_or_adopt())
    asyncio.run(second.start_or_adopt())
    assert (second.pid, second.starts) == (first.pid, 0)


def test_one_of_another_configuration_is_replaced(configured, instance_paths):
    first, second = configured(), configured(node="other")
    asyncio.run(first.start_or_adopt())
    asyncio.run(second.start_or_adopt())
    assert second.pid != first.pid
    assert second.pid in cgroup.processes(
        group_of(instance_paths)
    )  # the first one may still be draining


def test_one_that_is_killed_is_told_of_and_started_anew(configured):
    async def work():
        one, ended = configured(), asyncio.Event()
        await one.start_or_adopt()
        first = one.pid
        keeping = asyncio.create_task(one.keep(ended.set))
        os.kill(first, signal.SIGKILL)
        await ended.wait()
        while one.starts < 2 or not one.up.is_set():
            await asyncio.sleep(0.01)
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        assert one.pid not in (0, first)

    asyncio.run(asyncio.wait_for(work(), 60))
