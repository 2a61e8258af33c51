"""The pod runner on the real host: processes, cgroups, namespaces, veths, probes.

A namespace plays the host. Programs of the datapath are not attached: admission is a no-op.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from sixfold.agent.pods import PodRunner
from sixfold.host import cgroup, netns, probes
from sixfold.host import netlink_route as rt
from sixfold.host.containers import SHIM, Containers
from sixfold.host.netlink import Netlink
from sixfold.host.network import HostNetwork
from sixfold.host.paths import NETNS_ROOT, Paths
from sixfold.model.config import Config
from sixfold.model.workload import Pod

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods need root"),
    pytest.mark.skipif(not SHIM.exists(), reason="shim not built; run python hatch_build.py"),
]

WEB = ip_address("10.244.0.2"), ip_address("fd00:5f:244::2")
SLEEP = ["/bin/sleep", "1000"]


def run(test):
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def wrapped(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 200))

    return wrapped


def make_pod(*containers, name="web", annotations=None, **spec):
    raw = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": str(uuid.uuid4()),
            "labels": {"app": "web"},
            "annotations": annotations or {},
        },
        "spec": {"containers": list(containers), **spec},
    }
    return msgspec.convert(raw, Pod)


def serving(port, **fields):
    """A container that answers HTTP."""
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "::"]
    return {"name": "server", "command": command, "workingDir": "/etc", **fields}


def shell(name, script, **fields):
    return {"name": name, "command": ["/bin/sh", "-c", script], **fields}


class Host:
    """One instance on this machine, and agents that come and go."""

    def __init__(self, paths):
        self.paths = paths
        self.config = Config(instance=paths.instance, node="node-1")
        self.changes = []

    @asynccontextmanager
    async def agent(self):
        network = HostNetwork(self.config, self.paths)
        network.setup()
        containers = Containers(self.paths)
        self.runner = PodRunner(
            network, containers, probes, self.config, self.paths, self.changes.append
        )
        try:
            yield self.runner
        finally:
            await self.runner.close()
            network.close()

    async def start(self, pod):
        async def admit(key, attachment):
            pass

        await self.runner.start(pod, WEB, admit)

    def state(self, key="shop/web"):
        return next(state for state in self.runner.states() if state.key == key)

    async def until(self, holds, timeout_s=50.0):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not holds():
            assert loop.time() < deadline, self.runner.status("shop/web")
            await asyncio.sleep(0.01)

    async def text(self, container="", **options):
        return "".join([line async for line in self.runner.log("shop/web", container=container)])


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SIXFOLD_STATE_DIR", str(tmp_path / "state"))
    paths = Paths(f"t8-{uuid.uuid4().hex[:8]}")
    path = NETNS_ROOT / f"{paths.instance}-host"
    netns.create(path, lambda: None)
    try:
        with netns.inside(path):
            with Netlink() as netlink:
                netlink.batch([rt.link_up(1)])
            yield Host(paths)
            asyncio.run(teardown(paths))
    finally:
        for left in NETNS_ROOT.glob(f"{paths.instance}*"):
            netns.delete(left)
    assert not paths.cgroup.exists()


def alive(pid):
    """Whether a process runs; one that init has not buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def read(path):
    """Nothing, of what is gone meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def teardown(paths):
    await Containers(paths).teardown()
    await cgroup.remove(paths.cgroup)
    shutil.rmtree(paths.run, ignore_errors=True)


@run
async def test_pod_of_two_containers_serves_under_its_address(host):
    ready = {"httpGet": {"port": 8080, "path": "/hostname"}, "periodSeconds": 1}
    client = shell("client", "exec sleep 1000", readinessProbe={"exec": {"command": ["/bin/true"]}})
    async with host.agent():
        await host.start(make_pod(serving(8080, readinessProbe=ready), client))
        await host.until(lambda: host.state().ready)
        for address in WEB:
            _, writer = await asyncio.open_connection(str(address), 8080)
            writer.close()
        ours, theirs = (host.runner.exec_target("shop/web", each)["pid"] for each in SERVER_CLIENT)
        assert os.readlink(f"/proc/{ours}/ns/net") == os.readlink(f"/proc/{theirs}/ns/net")
        await host.runner.stop("shop/web", 1)


SERVER_CLIENT = ("server", "client")


@run
async def test_environment_names_and_files_of_a_pod(host):
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "GREETING", "value": "hello $(POD) $$(POD)"},
    ]
    script = "echo $IP $NODE $APP; echo $GREETING; hostname; id -u; cat /etc/resolv.conf /etc/hosts"
    main = shell("main", script, env=env, securityContext={"runAsUser": 65534})
    async with host.agent():
        await host.start(make_pod(main, restartPolicy="Never"))
        await host.until(lambda: host.state().finished)
        assert host.state().phase == "Succeeded"
        lines = (await host.text()).splitlines()
    assert lines[:4] == ["10.244.0.2 node-1 web", "hello web $(POD)", "web", "65534"]
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local" in lines
    assert "10.244.0.2\tweb" in lines


@run
async def test_init_containers_run_one_after_the_other_before_the_rest(host, tmp_path):
    order = tmp_path / "order"
    first = shell("first", f"sleep 0.1; echo first >> {order}")
    second = shell("second", f"echo second >> {order}")
    main = shell("main", f"echo main >> {order}; exec sleep 1000")
    async with host.agent():
        await host.start(make_pod(main, initContainers=[first, second]))
        await host.until(lambda: host.state().ready)
        await host.until(lambda: order.read_text().count("\n") == 3)
        assert order.read_text().split() == ["first", "second", "main"]
        await host.runner.stop("shop/web", 1)


@run
async def test_liveness_failure_restarts_the_container(host, tmp_path):
    sick = tmp_path / "sick"
    probe = {"exec": {"command": ["/usr/bin/test", "!", "-e", str(sick)]}}
    live = {**probe, "initialDelaySeconds": 1, "periodSeconds": 1, "failureThreshold": 1}
    live["timeoutSeconds"] = 30  # that of an idle machine is a second
    async with host.agent():
        main = shell("main", "exec sleep 1000", livenessProbe=live)
        await host.start(make_pod(main, terminationGracePeriodSeconds=1))
        await host.until(lambda: host.state().ready)
        before = host.runner.exec_target("shop/web")["pid"]
        sick.touch()
        await host.until(lambda: host.state().restarts == 1)
        sick.unlink()
        await host.until(lambda: host.state().ready)
        assert host.runner.exec_target("shop/web")["pid"] != before
        await host.runner.stop("shop/web", 0)


@run
async def test_daemonised_child_dies_with_its_container(host):
    main = shell("main", "setsid sleep 1000.5 & exit 0")
    async with host.agent():
        await host.start(make_pod(main, restartPolicy="Never"))
        await host.until(lambda: host.state().finished)
        commands = Path("/proc").glob("[0-9]*/cmdline")
        assert not [path for path in commands if b"\0001000.5\0" in read(path)]


@run
async def test_stop_leaves_no_process_namespace_link_cgroup_or_file(host):
    async with host.agent():
        pod = make_pod({"name": "main", "command": SLEEP})
        await host.start(pod)
        await host.until(lambda: host.state().ready)
        pid, device = host.runner.exec_target("shop/web")["pid"], host.state().device
        await host.runner.stop("shop/web", 2)
        assert not alive(pid)
        assert not host.paths.netns("shop/web").exists()
        with Netlink() as netlink:
            # given up at once, deleted in the background: the kernel takes its time
            await host.until(lambda: rt.get_link(netlink, name=device) is None)
        assert not (host.paths.cgroup / "pods" / pod.metadata.uid).exists()
        assert not (host.paths.run / "pods" / pod.metadata.uid).exists()
        assert list((host.paths.state / "pods").iterdir()) == []
        assert list((host.paths.state / "logs").iterdir()) == []


@run
async def test_command_that_does_not_exist_is_told_and_tried_again(host):
    async with host.agent():
        await host.start(make_pod({"name": "main", "command": ["/no/such/file"]}))
        await host.until(lambda: host.state().reason == "CrashLoopBackOff")
        (container,) = host.runner.status("shop/web")["containerStatuses"]
        ended = container["lastState"]["terminated"]
        assert (ended["reason"], ended["exitCode"]) == ("StartError", 127)
        assert "No such file" in ended["message"]
        await host.runner.stop("shop/web", 0)


AGENT = """
import asyncio, os, sys
import msgspec
from sixfold.host import netns
from sixfold.model.workload import Pod
sys.path.insert(0, {tests!r})
import test_pods
async def main():
    host = test_pods.Host(test_pods.Paths({instance!r}))
    async with host.agent():
        await host.start(msgspec.json.decode(sys.stdin.buffer.read(), type=Pod))
        await host.until(lambda: host.state().ready)
        print("ready", flush=True)
        await asyncio.sleep(60)
from pathlib import Path
with netns.inside(Path({netns!r})):
    asyncio.run(main())
"""


@run
async def test_pod_outlives_an_agent_that_is_killed_and_is_adopted(host):
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 30}
    pod = make_pod(serving(8080, readinessProbe=ready))
    script = AGENT.format(
        tests=str(Path(__file__).parent),
        instance=host.paths.instance,
        netns=str(NETNS_ROOT / f"{host.paths.instance}-host"),
    )
    agent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with agent:
        agent.stdin.write(msgspec.json.encode(pod))
        agent.stdin.close()
        assert agent.stdout.readline() == b"ready\n"
        agent.send_signal(signal.SIGKILL)
    async with host.agent() as runner:
        await runner.adopt({"shop/web": pod})
        assert host.state().ready
        target = runner.exec_target("shop/web")
        assert Path(f"/proc/{target['pid']}").exists()
        _, writer = await asyncio.open_connection(str(WEB[0]), 8080)
        writer.close()
        os.kill(target["pid"], signal.SIGKILL)
        await host.until(lambda: host.state().restarts == 1 and host.state().ready)
        await runner.stop("shop/web", 0)
        assert runner.states() == []
