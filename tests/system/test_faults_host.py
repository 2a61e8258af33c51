"""What this host lacks or runs out of, a reboot, two instances: clear errors, nothing left."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli.client import Client
from sixfold.host import bpf, layout, netns
from sixfold.host.capabilities import HANDED_ON, NEEDED
from sixfold.host.paths import BPFFS_ROOT, NETNS_ROOT

from .conftest import ROOT, SIXFOLD, System, running
from .places import OPEN, labelled, manifest, place_of, places_of, pod, policy, service

pytestmark = pytest.mark.root


def deployment(name: str, replicas: int) -> dict[str, Any]:
    template = pod(name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }


def left_behind(system: System) -> list[Path]:
    paths = system.paths
    found = [paths.bpffs, paths.cgroup, paths.run, *NETNS_ROOT.glob(f"{paths.netns_prefix}*")]
    links = system.on_host("ip", "-o", "link").stdout.splitlines()
    return [path for path in found if path.exists()] + [Path(line) for line in links[1:]]


# --- pools ------------------------------------------------------------------------------------


def test_an_exhausted_pool_is_said_of_each_pod_and_heals(system: System) -> None:
    small = ("--pod-cidr", "10.9.0.0/29", "--ip-reuse-grace", "1")  # five pods
    system.up(*small, manifest=manifest(deployment("first", 3)))
    said = "pod pool 10.9.0.0/29: all 5 addresses are"
    second = manifest(deployment("second", 3))
    system.apply(second)
    system.eventually(lambda: said in str(system.status()["pods"]["unsettled"]), said)
    more = system.sixfold(
        *("apply", "-f", "-", "--wait", "--timeout", "1"), stdin=second, check=False
    )
    assert more.returncode == 1
    assert said in more.stderr
    waiting = [line for line in system.status()["pods"]["unsettled"] if said in line]
    assert len(waiting) == 1
    assert waiting[0].startswith("pod default/second-")
    system.sixfold("delete", "deployment", "first", "--now")
    system.eventually(lambda: not system.status()["pods"]["unsettled"], "the last pod is ready")


def test_pools_that_cannot_work_are_not_remembered(system: System) -> None:
    done = system.sixfold("up", "--detach", "--pod-cidr", "10.9.0.0/31", check=False)
    assert done.returncode == 1
    assert "pool 10.9.0.0/31: too small" in done.stderr
    assert left_behind(system) == []
    system.up()


# --- full maps ---------------------------------------------------------------------------------


def fill(system: System, name: str) -> None:
    """Every free entry of a map taken, by entries that nobody uses."""
    full = bpf.Map(bpf.get(system.paths.bpffs / "maps" / name), name)
    there = {key for key, _ in full.items()}
    unused = (layout.U32.pack(number) for number in range(2**31, 2**32))
    free = full.definition.max_entries - len(there)
    value = bytes(full.definition.value_size)
    full.update((key, value) for key, _ in zip(unused, range(free), strict=False))
    full.close()


def test_a_full_map_is_said_leaves_the_old_state_in_force_and_heals(system: System) -> None:
    """Two pods alike, of which one is to have a policy more: it cannot keep their table."""
    alike = [pod("web", labels={"own": "yes"}), pod("other", labels={"app": "web"})]
    given = [*alike, pod("friend"), pod("stranger"), policy("out", {}, **OPEN_EGRESS)]
    closed = policy("web", {"app": "web"}, ingress=[{"from": [labelled(app="friend")]}])
    system.up(manifest=manifest(*given, closed))
    web, friend, stranger = places_of(system, "web", "friend", "stranger")
    opened = manifest(policy("more", {"own": "yes"}, ingress=[{}]))
    with web.listen():
        for _ in range(5):  # the agent clears such entries away, now and then before they are met
            fill(system, "policy_tables")
            refused = system.sixfold("apply", "-f", "-", stdin=opened, check=False)
            if refused.returncode:
                break
            system.sixfold("delete", "networkpolicy", "more")
        assert refused.returncode == 1
        assert "put policy_tables: " in refused.stderr
        agent = system.status()["agent"]
        if agent["problem"]:  # not healed yet
            assert "put policy_tables: " in agent["problem"]
            assert agent["applied"] < agent["generation"]
        assert friend.answer(web.ipv4) == "open"
        system.eventually(lambda: not system.status()["agent"]["problem"], "healed")
        assert stranger.answer(web.ipv4) == "open"


OPEN_EGRESS = {"policyTypes": ["Egress"], "egress": [{}]}


# --- capabilities, file systems ----------------------------------------------------------------


def unprivileged(system: System, *dropped: str) -> list[str]:
    """``setpriv`` in front of a command: root without these capabilities."""
    names = ",".join(f"-{name.removeprefix('CAP_').lower()}" for name in dropped)
    return ["setpriv", f"--bounding-set={names}", f"--inh-caps={names}"]


@pytest.mark.parametrize("name", ["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SETUID"])
def test_a_missing_capability_is_named_and_nothing_is_left(system: System, name: str) -> None:
    up = [*SIXFOLD, "up", "--detach"]
    done = system.on_host(*unprivileged(system, name), *up)
    assert done.returncode == 1
    assert f"lacks {name}" in done.stderr
    assert "sixfold doctor" in done.stderr
    assert left_behind(system) == []


@pytest.mark.parametrize(
    ("unmount", "said"),
    [
        pytest.param("umount -l {cgroup}", "cgroup v2: not mounted", id="no-cgroup2"),
        pytest.param("mount -o remount,ro,bind {cgroup}", "writable cgroup v2", id="ro-cgroup2"),
        pytest.param("mount -t tmpfs -o ro none /sys/fs/bpf", "/sys/fs/bpf", id="no-bpffs"),
    ],
)
def test_a_missing_file_system_is_named_and_nothing_is_left(
    system: System, unmount: str, said: str
) -> None:
    """In a mount namespace of its own, so that the machine keeps its own."""
    script = unmount.format(cgroup=system.paths.cgroup.parent)
    argv = " ".join([*SIXFOLD, "up", "--detach", "--timeout", "5", "-f", "-"])
    done = system.on_host(
        *("unshare", "--mount", "sh", "-c", f"{script} && exec {argv}"),
        stdin=manifest(pod("web")),
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if system.sixfold("status", check=False).returncode == 0:
        system.sixfold("down", "--timeout", "0")
    assert left_behind(system) == []


def test_the_systemd_unit_grants_all_that_is_needed_and_no_more(system: System) -> None:
    unit = (ROOT / "packaging" / "sixfold.service").read_text().splitlines()
    (granted,) = [line for line in unit if line.startswith("CapabilityBoundingSet=")]
    names = granted.removeprefix("CapabilityBoundingSet=").split()
    assert sorted(names) == sorted([*NEEDED, *HANDED_ON])
    only = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])
    setpriv = ["setpriv", "--no-new-privs", f"--bounding-set={only}", "--inh-caps=-all"]
    web = pod(
        "web",
        securityContext={"runAsUser": 1234, "runAsGroup": 1234},
        container={
            "command": ["python3", "-m", "http.server", "8080", "--bind", "::"],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
        },
    )
    given = manifest(
        web, pod("client"), service("web", ports=[{"port": 80, "targetPort": "http"}]),
        policy("open", None, **OPEN),
    )  # fmt: skip
    done = system.on_host(*setpriv, *SIXFOLD, "up", "--detach", "-f", "-", stdin=given)
    assert done.returncode == 0, done.stderr
    fetch = ["curl", "-sS", "-m3", "-o", "/dev/null", "-w", "%{http_code}", "http://web"]
    assert system.sixfold("exec", "client", "--", *fetch).stdout == "200"
    assert system.sixfold("exec", "web", "--", "id", "-u").stdout == "1234\n"
    capabilities = system.sixfold("exec", "client", "--", "grep", "CapEff", "/proc/self/status")
    system.sixfold("delete", "pod", "web", "--now")
    system.eventually(lambda: not system.sixfold("get", "pod", "web", check=False).stdout)
    system.on_host("kill", "-9", str(system.agent_pid()))
    system.up()  # with everything: its pods may no more than those of the unit
    system.apply(manifest(pod("other")), "--wait")
    other = system.sixfold("exec", "other", "--", "grep", "CapEff", "/proc/self/status")
    assert capabilities.stdout == other.stdout


# --- reboot, instances ---------------------------------------------------------------------------


def reboot(system: System) -> None:
    """All that the kernel and /run hold is gone, the state directory stays."""
    paths = system.paths
    system.on_host("kill", "-9", str(system.agent_pid()))

    def emptied() -> bool:
        """Processes die at once, cgroups a moment later."""
        for group in sorted(paths.cgroup.rglob("*"), reverse=True):
            if group.is_dir():
                (group / "cgroup.kill").write_text("1")
                try_to(group.rmdir)
        try_to(paths.cgroup.rmdir)
        return not paths.cgroup.exists()

    system.eventually(emptied, "no process is left")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = try_to(path.read_bytes) or b""
        if b"sixfold.serve.dns" in words and paths.instance.encode() in words:
            os.kill(int(path.parent.name), signal.SIGKILL)
    shutil.rmtree(BPFFS_ROOT / paths.instance)
    for path in [*NETNS_ROOT.glob(f"{paths.netns_prefix}*"), system.host]:
        netns.delete(path)
    shutil.rmtree(paths.run)
    netns.create(system.host, lambda: None)
    system.on_host("ip", "link", "set", "lo", "up")


def try_to(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError:
        return None


def test_after_a_reboot_all_comes_back_with_its_addresses_and_numbers(system: System) -> None:
    given = manifest(
        pod("web"), deployment("many", 2), service("web", ports=[{"port": 80}]),
        policy("web", {"app": "web"}, ingress=[{"from": [labelled(app="many")]}]),
    )  # fmt: skip
    system.up("--posture", "kubernetes", manifest=given)

    def facts() -> Any:
        kept = ("id", "ips", "identity", "node")
        endpoints = {
            name: {key: status[key] for key in kept} for name, status in system.endpoints().items()
        }
        objects = Client(system.paths.api_socket).objects
        generated = [item["metadata"]["uid"] for item in objects("Pod")]
        return endpoints, generated, objects("Service"), system.json("bpf", "policy", "list")

    before = facts()
    generation = system.status()["agent"]["generation"]
    reboot(system)
    system.up()
    assert facts() == before
    agent = system.status()["agent"]
    assert (agent["generation"], agent["posture"]) == (generation, "kubernetes")


def test_two_instances_live_side_by_side(system: System, tmp_path: Path) -> None:
    given = manifest(pod("web"), service("web", ports=[{"port": 80}]))
    system.up(manifest=given)
    (tmp_path / "other").mkdir()
    with running(tmp_path / "other") as other:
        other.up(manifest=given)
        assert other.endpoint("default/web")["ips"] == system.endpoint("default/web")["ips"]
        other.sixfold("delete", "pod", "web", "--now")
    assert place_of(system, "web").run("ip", "-br", "addr", "show", "eth0")
    assert system.json("bpf", "lb", "list")
    assert system.status()["pods"]["ready"] == 1


def test_a_second_instance_in_one_network_namespace_is_refused(system: System) -> None:
    system.up()
    before = system.status()["agent"]["pid"]
    second = system.on_host(
        *("env", "-u", "SIXFOLD_RUN_DIR", "-u", "SIXFOLD_STATE_DIR"),
        *(f"SIXFOLD_INSTANCE={system.paths.instance}b", *SIXFOLD, "up", "--detach"),
    )
    assert second.returncode == 1
    assert f"instance {system.paths.instance} runs in it" in second.stderr
    assert not Path(f"/run/{system.paths.instance}b").exists()
    shutil.rmtree(f"/var/lib/{system.paths.instance}b", ignore_errors=True)
    assert system.status()["agent"]["pid"] == before
