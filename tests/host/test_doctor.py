import os
import subprocess
import sys
import uuid

import pytest

from sixfold.host import doctor, netns
from sixfold.host.doctor import examine
from sixfold.host.paths import Paths
from sixfold.model.config import Config

NAMES = {
    "kernel", "acceleration", "refusals", "privileges", "BTF", "libbpf", "bpffs", "cgroup v2",
    "namespaces, veth, nf_tables",
    "tc filters",
    "pools", "resolver address", "IPv6", "forwarding", "other filters", "uplinks",
    "mtu", "clock", "instance",
}  # fmt: skip


def check(name, paths=None, config=None):
    return next(item for item in examine(paths or Paths("t4-none"), config) if item.name == name)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def test_every_check_has_an_answer_and_every_trouble_a_fix():
    checks = examine(Paths("t4-none"))
    assert {item.name for item in checks} == NAMES
    assert all(item.detail for item in checks)
    assert all(item.fix for item in checks if item.state != "ok")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")
def test_without_root_it_says_what_it_cannot_tell():
    program = (
        "import os; os.setgroups([]); os.setresuid(65534, 65534, 65534)\n"
        "from sixfold.host.doctor import examine\n"
        "from sixfold.host.paths import Paths\n"
        "for item in examine(Paths('t4-none')): print(item.name, item.state, item.detail, sep='|')"
    )
    result = subprocess.run(
        [sys.executable, "-c", "import sixfold.host.doctor\n" + program],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = {line.split("|")[0]: line.split("|")[1:] for line in result.stdout.splitlines()}
    assert set(rows) == NAMES
    assert rows["privileges"][0] == "fail"
    assert "CAP_BPF" in rows["privileges"][1]
    assert "cannot tell" in rows["namespaces, veth, nf_tables"][1]


@pytest.mark.parametrize(
    ("release", "state"),
    [
        pytest.param("6.5.0-13-generic", "fail", id="below"),
        pytest.param("6.6", "ok", id="floor"),
        pytest.param("6.12-rc1+", "ok", id="candidate"),
        pytest.param("10.0.1", "ok", id="future"),
    ],
)
def test_kernel_floor(monkeypatch, release, state):
    monkeypatch.setattr(doctor.os, "uname", lambda: os.uname_result(("", "", release, "", "")))
    assert check("kernel").state == state


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="making links needs root")
def test_host_with_other_networks_is_told_what_is_in_the_way():
    def work():
        netns.leave()
        ip("link", "set", "lo", "up")
        ip("link", "add", "up0", "mtu", "1400", "type", "veth", "peer", "name", "up1")
        ip("link", "set", "up0", "up")
        ip("addr", "add", "192.0.2.1/24", "dev", "up0")
        ip("route", "add", "default", "via", "192.0.2.9")
        ip("route", "add", "10.244.0.0/24", "dev", "up0")
        ip("addr", "add", "169.254.20.10/32", "dev", "up0")
        found = {name: check(name) for name in ("pools", "resolver address", "mtu")}
        return {**found, "too big": check("mtu", config=Config(mtu=1500))}

    found = netns.in_thread(work)
    assert found["pools"].state == "fail"
    assert "10.244.0.0/24 dev up0" in found["pools"].detail
    assert found["resolver address"].state == "fail"
    assert (found["mtu"].state, found["mtu"].detail) == ("ok", "pods get 1400, from up0")
    assert found["too big"].state == "warn"
    assert found["too big"].fix == "sixfold up --mtu 1400"


def test_other_pools_may_be_examined():
    config = Config(instance="t4-none", mtu=68)
    assert check("mtu", config=config).state == "ok"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_leftovers_of_a_killed_agent_are_named():
    paths = Paths(f"t4-{uuid.uuid4().hex[:8]}")
    netns.create(paths.netns("shop/web"), lambda: None)
    try:
        found = check("instance", paths)
    finally:
        netns.delete(paths.netns("shop/web"))
    assert found.state == "warn"
    assert f"1 network namespaces {paths.instance}.*" in found.detail
    assert "sixfold down" in found.fix
