"""One conformance test for hosts: the fake keeps the promises that the real one keeps."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import sys
import uuid
from ipaddress import ip_address
from pathlib import Path

import pytest

from sixfold.host import cgroup, netns
from sixfold.host import netlink_route as rt
from sixfold.host.containers import SHIM, Containers, ContainerSpec
from sixfold.host.fake import FakeContainers, FakeNetwork
from sixfold.host.netlink import Netlink
from sixfold.host.network import HostNetwork
from sixfold.host.paths import NETNS_ROOT, Paths
from sixfold.model.config import Config

WEB = ip_address("10.244.0.2"), ip_address("fd00:5f:244::2")


class Machine:
    """A network, containers, and the files that a container needs."""

    def __init__(self, network, containers, root):
        self.network = network
        self.containers = containers
        self.root = root

    def attach(self, name="shop/web"):
        attachment = self.network.attach(name, *WEB)
        self.network.activate(attachment.ifindex)
        return attachment

    def spec(self, attachment, attempt=0):
        (self.root / "resolv.conf").write_text("")
        (self.root / "hosts").write_text("")
        return ContainerSpec(
            pod_key="shop/web",
            pod_uid="u-1",
            name="main",
            attempt=attempt,
            argv=(sys.executable, "-c", "import time; time.sleep(1000)"),
            netns=attachment.netns,
            resolv_conf=self.root / "resolv.conf",
            hosts=self.root / "hosts",
        )


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def machine(request, tmp_path, monkeypatch):
    if request.param == "fake":
        yield Machine(FakeNetwork(), FakeContainers(tmp_path), tmp_path)
        return
    if os.geteuid() != 0:
        pytest.skip("the real host needs root")
    if not SHIM.exists():
        pytest.skip("shim not built; run python hatch_build.py")
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SIXFOLD_STATE_DIR", str(tmp_path / "state"))
    paths = Paths(f"t8f-{uuid.uuid4().hex[:8]}")
    yield from real_machine(paths, tmp_path)
    assert not paths.cgroup.exists()


def real_machine(paths: Paths, root: Path):
    path = NETNS_ROOT / f"{paths.instance}-host"
    netns.create(path, lambda: None)
    try:
        with netns.inside(path):
            with Netlink() as netlink:
                netlink.batch([rt.link_up(1)])
            network = HostNetwork(Config(instance=paths.instance), paths)
            network.setup()
            yield Machine(network, Containers(paths), root)
            network.close()
            asyncio.run(clean(paths))
    finally:
        for left in NETNS_ROOT.glob(f"{paths.instance}*"):
            netns.delete(left)


async def clean(paths):
    await Containers(paths).teardown()
    await cgroup.remove(paths.cgroup)
    shutil.rmtree(paths.run, ignore_errors=True)


def run(test):
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def wrapped(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 30))

    return wrapped


def test_attachment_is_observed_once_it_is_active(machine):
    attachment = machine.network.attach("shop/web", *WEB)
    assert attachment.addresses == WEB
    assert machine.network.observe() == {}
    machine.network.activate(attachment.ifindex)
    assert machine.network.observe() == {"shop/web": attachment}


def test_detached_pod_is_gone_and_may_come_back(machine):
    first = machine.attach()
    machine.network.detach("shop/web")
    machine.network.detach("shop/web")
    assert machine.network.observe() == {}
    second = machine.attach()
    assert second.ifindex != first.ifindex
    assert second.cookie != first.cookie


def test_attaching_again_replaces_what_was_cut_short(machine):
    machine.network.attach("shop/web", *WEB)
    attachment = machine.attach()
    assert machine.network.observe() == {"shop/web": attachment}


@run
async def test_container_runs_until_it_is_stopped(machine):
    spec = machine.spec(machine.attach())
    container = await machine.containers.start(spec)
    assert container.running
    assert container.spec == spec
    assert container.started_at is not None
    status = await machine.containers.stop(container, 10)
    assert (status.code, status.signal) == (143, 15)
    assert not container.running
    assert (await machine.containers.wait(container)).code == 143


@run
async def test_killing_needs_no_grace_and_may_be_repeated(machine):
    container = await machine.containers.start(machine.spec(machine.attach()))
    status = await machine.containers.kill(container)
    assert (status.code, status.signal) == (137, 9)
    assert (await machine.containers.kill(container)).code == 137


@run
async def test_ended_container_is_observed_until_it_is_removed(machine):
    container = await machine.containers.start(machine.spec(machine.attach()))
    await machine.containers.kill(container)
    (seen,) = machine.containers.observe()
    assert (seen.spec.name, seen.spec.attempt, seen.running) == ("main", 0, False)
    await machine.containers.remove("u-1")
    assert machine.containers.observe() == []
    await machine.containers.remove("u-1")


@run
async def test_latest_attempt_is_the_one_observed(machine):
    attachment = machine.attach()
    first = await machine.containers.start(machine.spec(attachment))
    await machine.containers.kill(first)
    await machine.containers.start(machine.spec(attachment, attempt=1))
    (seen,) = machine.containers.observe()
    assert (seen.spec.attempt, seen.running) == (1, True)
    await machine.containers.remove("u-1")


@run
async def test_removal_ends_what_runs(machine):
    container = await machine.containers.start(machine.spec(machine.attach()))
    await machine.containers.remove("u-1")
    assert not container.running
