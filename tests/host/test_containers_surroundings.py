"""What a container's command finds around it: names, files, user, privileges, namespaces."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.host.test_containers import UNTIL_TOLD

from sixfold.host import logs, netns
from sixfold.host.decoys import decoys

pytestmark = pytest.mark.root


@pytest.fixture
def output(containers, make_spec):
    """Run a shell script as a container and give what it printed."""

    def run(script: str, **fields: object) -> str:
        async def main() -> str:
            container = await containers.start(make_spec("sh", "-c", script, **fields))
            await containers.wait(container)
            lines = logs.stream(container.log.parent, logs.LogOptions())
            return "".join([line async for line in lines]).strip()

        return asyncio.run(main())

    return run


def test_the_environment_is_the_given_one_and_home(output):
    script = "cat /proc/self/environ | tr '\\0' '\\n' | sort"
    env = {"PATH": os.environ["PATH"], "GREETING": "grüß dich\nzweite Zeile"}
    found = output(script, env=env)
    assert "GREETING=grüß dich" in found
    assert "HOME=/root" in found
    assert "PYTHON" not in found
    assert "SIXFOLD_STATE_DIR" not in found


def test_arguments_arrive_as_given(output, containers, make_spec):
    async def main():
        container = await containers.start(make_spec("printf", "%s|", "a b", "", "--log=x", "ü"))
        await containers.wait(container)
        return container.log.read_text()

    assert asyncio.run(main()).rstrip().endswith("stdout F a b||--log=x|ü|")


def test_the_working_directory_is_the_given_one(output):
    assert output("pwd", workdir="/usr/lib") == "/usr/lib"


def test_the_user_and_all_groups_are_the_given_ones(output):
    assert (
        output("id -u; id -g; id -G", uid=1234, gid=2345, groups=(3, 4)) == "1234\n2345\n2345 3 4"
    )


def test_root_has_no_supplementary_groups_of_the_agent(output):
    assert output("id -G") == "0"


SEARCH = "__import__('ctypes').CDLL(None).syscall(250, 10, -3, b'user', b'sixfold', 0)"
JOIN_SESSION, SESSION = 1, -3  # of keyctl(2)


def test_keys_of_the_agents_session_are_none_of_the_containers(output):
    libc = ctypes.CDLL(None)
    libc.syscall(250, JOIN_SESSION, None)
    libc.syscall(248, b"user", b"sixfold", b"secret", 6, SESSION)  # add_key
    script = f"print({SEARCH})"
    assert int(subprocess.check_output([sys.executable, "-c", script])) > 0
    assert output(f'{sys.executable} -c "{script}"') == "-1"


def test_the_host_name_is_the_pods_and_the_hosts_stays(output):
    assert output("hostname; cat /proc/sys/kernel/hostname", hostname="web-0") == "web-0\nweb-0"
    assert socket.gethostname() != "web-0"


def test_resolv_conf_and_hosts_are_the_pods_and_the_hosts_stay(output):
    before = Path("/etc/resolv.conf").read_text()
    found = output("cat /etc/resolv.conf /etc/hosts")
    assert found == "nameserver 192.0.2.53\n192.0.2.1 web"
    assert Path("/etc/resolv.conf").read_text() == before


REPLACE = """
set -e
mkdir {copy}
cp -aL /etc/passwd /etc/group /etc/resolv.conf {copy}
: > {copy}/hosts
mount --bind {copy} /etc
rm -f /etc/resolv.conf
echo nameserver 192.0.2.1 > /run/{link}
{link_or_copy} /run/{link} /etc/resolv.conf
{python} -c '
import asyncio, sys, msgspec
from pathlib import Path
from sixfold.host.containers import Containers, ContainerSpec
from sixfold.host.paths import Paths
spec = msgspec.json.decode(sys.argv[2], type=ContainerSpec, dec_hook=lambda kind, text: Path(text))
asyncio.run(Containers(Paths(sys.argv[1])).start(spec))
' {instance} "$SPEC"
echo nameserver 192.0.2.2 > /run/{link}.new
mv /run/{link}.new /run/{link}
echo nameserver 192.0.2.3 > /etc/.new
mv /etc/.new /etc/resolv.conf
"""


@pytest.mark.parametrize("link_or_copy", ["cp", "ln -s"])
def test_resolv_conf_stays_when_the_host_renames_a_new_one_over_its_own(
    containers, make_spec, instance_paths, tmp_path, link_or_copy
):
    """As DHCP clients and systemd-resolved do; in a mount namespace, to spare this host."""
    script = f"{UNTIL_TOLD} cat /etc/resolv.conf"
    spec = make_spec("sh", "-c", script, workdir=str(tmp_path))
    encoded = msgspec.json.encode(spec, enc_hook=str).decode()
    host = REPLACE.format(
        copy=tmp_path / "etc",
        link=f"{instance_paths.instance}-link",
        link_or_copy=link_or_copy,
        python=sys.executable,
        instance=instance_paths.instance,
    )
    try:
        subprocess.run(
            ["unshare", "-m", "sh", "-c", host], env={**os.environ, "SPEC": encoded}, check=True
        )
    finally:
        Path(f"/run/{instance_paths.instance}-link").unlink(missing_ok=True)
    [container] = containers.observe()
    (tmp_path / "go").touch()
    asyncio.run(containers.wait(container))
    assert container.log.read_text().strip().endswith("stdout F nameserver 192.0.2.53")


def test_etc_is_the_hosts_and_cannot_be_written(output):
    found = output("grep -c root: /etc/passwd; touch /etc/written-by-a-pod 2>&1")
    assert found.startswith("1\n")
    assert "Read-only file system" in found


def test_the_agent_may_rewrite_the_files_of_a_running_pod(containers, make_spec, tmp_path):
    async def main():
        script = f"{UNTIL_TOLD} cat /etc/hosts"
        spec = make_spec("sh", "-c", script, workdir=str(tmp_path))
        container = await containers.start(spec)
        spec.hosts.write_text("192.0.2.9 other\n")
        (tmp_path / "go").touch()
        await containers.wait(container)
        return container.log.read_text()

    assert "192.0.2.9 other" in asyncio.run(main())


def test_the_network_namespace_is_the_pods(output, make_spec):
    expected = f"net:[{os.stat(make_spec().netns).st_ino}]"
    assert output("readlink /proc/self/ns/net") == expected
    assert output("ls /sys/class/net").split() == ["lo"]


def test_the_cgroup_is_in_force_before_the_first_instruction(output, containers, instance_paths):
    found = output("grep ^0:: /proc/self/cgroup")
    assert found == f"0::/{instance_paths.instance}/pods/5f9a/app"


def test_root_keeps_what_containers_need_and_cannot_leave_its_namespaces(output):
    found = output(
        "nsenter --net=/proc/1/ns/net true 2>&1; ip link add dev x type veth 2>&1;"
        "mount -t tmpfs none /mnt 2>&1; hostname other 2>&1;"
        "ls /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs 2>&1;"
        "touch /tmp/of-root && chown 1:1 /tmp/of-root && rm /tmp/of-root && echo still root"
    )
    assert found.endswith("still root")
    assert found.lower().count("not permitted") + found.lower().count("permission denied") >= 3
    assert "No such file or directory" in found  # cgroups are out of sight
    assert "hostname:" in found


def test_raw_sockets_work_for_root_as_in_other_containers(output):
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('raw')"
    assert output(f'python3 -c "{script}"') == "raw"


def test_no_new_privs_is_set_when_asked_for(output):
    assert output("grep NoNewPrivs /proc/self/status", no_new_privs=True).split() == [
        "NoNewPrivs:",
        "1",
    ]
    assert output("grep NoNewPrivs /proc/self/status").split()[1] == "0"


def test_no_descriptor_leaks_in(output):
    leak = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        found = output("ls /proc/self/fd")
    finally:
        os.close(leak)
    assert found.split() == ["0", "1", "2", "3"]  # 3 is ls reading the directory


RT_SIGACTION = 13  # x86-64


def test_signals_are_at_their_defaults_also_those_that_libc_hides(output):
    """32 and 33 are libc's own; what posix_spawn starts, and so make, inherits them ignored."""
    system_call = ctypes.CDLL(None).syscall
    ignored, before = (ctypes.c_ulong * 4)(signal.SIG_IGN), (ctypes.c_ulong * 4)()
    assert system_call(RT_SIGACTION, 32, ignored, before, 8) == 0
    try:
        found = output("grep -E 'SigBlk|SigIgn' /proc/self/status")
    finally:
        system_call(RT_SIGACTION, 32, before, None, 8)
    assert set(found.split()[1::2]) == {"0000000000000000"}


def test_what_spares_the_agent_does_not_spare_workloads(containers, make_spec):
    before = Path("/proc/self/oom_score_adj").read_text()
    try:
        Path("/proc/self/oom_score_adj").write_text("-900")
    except PermissionError:
        pytest.skip("root may not lower oom_score_adj here")
    try:

        async def main():
            container = await containers.start(make_spec("sleep", "300"))
            scores = [
                Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip()
                for process in (container.shim, container.process)
            ]
            await containers.kill(container)
            return scores

        assert asyncio.run(main()) == ["-900", "0"]
    finally:
        Path("/proc/self/oom_score_adj").write_text(before)


def test_a_container_sees_its_own_processes_and_nobodys_devices(output):
    assert output("cat /proc/self/comm; ls -d /proc/[0-9]* | wc -l").split() == ["cat", "4"]
    words = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    mine = "find /dev -mindepth 1 -maxdepth 1 ! -lname /proc/1/exe -printf '%f\\n' | sort | xargs"
    assert output(mine) == words
    assert output("echo gone > /dev/null; head -c 3 /dev/zero | wc -c").strip() == "3"


@pytest.mark.parametrize(
    "path", ["/usr/bin/env", "/root/x", "/var/lib/x", "/proc/sys/kernel/core_pattern", "/dev/x"]
)
def test_root_may_not_change_the_hosts_files(output, path):
    assert "Read-only file system" in output(f"echo x 2>&1 >> {path}; true")


def test_what_is_temporary_and_the_working_directory_may_be_written(output, tmp_path):
    assert output(
        "touch /tmp/x /var/tmp/x /run/x /dev/shm/x && rm /tmp/x /var/tmp/x && echo did"
    ) == ("did")
    assert output("touch here && echo did", workdir=str(tmp_path)) == "did"
    assert (tmp_path / "here").exists()


def test_in_the_directories_of_the_agent_are_decoys_that_root_may_not_open(output, instance_paths):
    instance_paths.state.mkdir(exist_ok=True)
    (instance_paths.state / "key").write_text("secret")
    ours = [instance_paths.state / "key", instance_paths.run / "pods"]
    ours += [Path("/run/netns/other"), instance_paths.bpffs / "maps/x", instance_paths.cgroup / "x"]
    devices = [one for one in decoys(instance_paths) if one.is_relative_to("/dev")]
    said = output(f"cat {' '.join(map(str, ours + devices))} 2>&1; ls -A /run").split("\n")
    assert said == [*(f"cat: {one}: Permission denied" for one in ours + devices), "lock", "netns"]
    assert Path("/dev/mem") in devices


def test_stdin_is_empty(output):
    assert output("cat; echo done") == "done"


def test_a_running_container_pins_no_removed_namespace(containers, make_spec, instance_paths):
    async def main():
        path = Path(f"/run/netns/{instance_paths.instance}.gone")
        netns.create(path, lambda: None)
        try:
            container = await containers.start(make_spec("sleep", "300"))
        finally:
            netns.delete(path)
        seen = Path(f"/proc/{container.process.pid}/mountinfo").read_text()
        await containers.kill(container)
        return path.name in seen

    assert not asyncio.run(main())


def test_the_shim_is_small(containers, make_spec):
    async def main():
        container = await containers.start(make_spec("sleep", "300"))
        status = Path(f"/proc/{container.shim.pid}/status").read_text()
        await containers.kill(container)
        return int(status.split("VmRSS:")[1].split()[0])

    assert asyncio.run(main()) < 1024


def test_the_host_sees_no_mount_of_a_container(containers, make_spec):
    async def main():
        container = await containers.start(make_spec("sleep", "300"))
        found = subprocess.run(["cat", "/proc/self/mountinfo"], capture_output=True, text=True)
        await containers.kill(container)
        return found.stdout

    assert "/etc/resolv.conf" not in asyncio.run(main())
