"""The verbs as a new user tries them: shells, logs, listings, explanations, lost flows."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, SIXFOLD, System

pytestmark = pytest.mark.root

BASECAMP = str(ROOT / "examples/basecamp")
TALKER = "i=0; while :; do i=$((i+1)); echo line $i; [ $i -gt 4 ] && sleep 0.2; done"


@pytest.fixture(scope="module")
def camp(module_system: System) -> System:
    """Basecamp, and a pod that talks."""
    module_system.typed("up", "--detach", "--mtls", "strict", "-f", BASECAMP)
    module_system.typed("run", "talker", "--labels", "app=talk", "--", "sh", "-c", TALKER)
    return module_system


def at_terminal(system: System, *arguments: str, types: bytes) -> tuple[int, str]:
    """Run a command with a terminal of its own, type, and return its exit code and its screen."""
    argv = ["nsenter", f"--net={system.host}", *SIXFOLD, *arguments]
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(argv[0], argv, {**system.environment, "TERM": "xterm"})
    os.write(terminal, types)
    screen = b""
    try:
        while chunk := os.read(terminal, 4096):
            screen += chunk
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), screen.decode()


def test_exec_gives_a_shell_on_a_terminal_and_its_exit_code(camp: System) -> None:
    shell = ("exec", "-it", "talker", "--", "sh")
    code, screen = at_terminal(camp, *shell, types=b"test -t 0 && hostname; exit 5\n")
    assert code == 5
    assert re.search(r"talker\r\n", screen)


def test_run_rm_passes_output_input_and_exit_code_on_and_leaves_nothing(camp: System) -> None:
    done = camp.typed("run", "tmp", "--rm", "--", "sh", "-c", "hostname; exit 4", check=False)
    assert (done.returncode, done.stdout) == (4, "tmp\n")
    typed = ("run", "tmp", "--rm", "-i", "--", "sh", "-c", "cat; exit 3")
    done = camp.typed(*typed, stdin="hello", check=False)
    assert (done.returncode, done.stdout) == (3, "hello")
    missing = camp.typed("run", "tmp", "--rm", "--", "/no/such", check=False)
    assert (missing.returncode, "/no/such: No such file" in missing.stderr) == (127, True)
    there = camp.typed("run", "talker", "--rm", "--", "true", check=False)
    assert (there.returncode, "is there already" in there.stderr) == (1, True)
    camp.typed("get", "pod", "talker")
    assert camp.typed("get", "pod", "tmp", check=False).returncode == 1


def test_logs_tail_since_timestamps_and_follow(camp: System) -> None:
    camp.eventually(lambda: "line 5" in camp.typed("logs", "talker").stdout)
    assert camp.typed("logs", "talker").stdout.startswith("line 1\nline 2\n")
    assert len(camp.typed("logs", "talker", "--tail", "2").stdout.splitlines()) == 2
    assert "line 1\n" in camp.typed("logs", "pod/talker", "--since", "1h").stdout
    stamped = camp.typed("logs", "talker", "--timestamps", "--tail=1").stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z line \d+\n", stamped)
    argv = ["nsenter", f"--net={camp.host}", *SIXFOLD, "logs", "-f", "-l", "app=talk"]
    with subprocess.Popen(argv, env=camp.environment, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        numbers = [int(follow.stdout.readline().split()[1]) for _ in range(14)]
        follow.terminate()
    assert numbers == list(range(numbers[0], numbers[0] + 14))


def test_listings_in_every_shape(camp: System) -> None:
    assert (
        camp.typed("get", "po", "-n=supply", "-o=name", "-l", "app=store").stdout == "pod/store-0\n"
    )
    everything = camp.typed("get", "all,netpol", "-A").stdout
    for kind in ("pod/", "service/", "deployment.apps/", "networkpolicy.networking.k8s.io/"):
        assert kind in everything
    one = camp.typed("get", "sts/store", "-n", "supply", "-o", "yaml").stdout
    assert one.startswith("apiVersion: apps/v1\nkind: StatefulSet\n")
    assert "<unknown>" not in camp.typed("get", "endpointslices", "-A").stdout
    wide = camp.typed("get", "pods", "-n", "supply", "-owide", "--show-labels").stdout
    assert wide.splitlines()[0].split()[-3:] == ["IP", "NODE", "LABELS"]
    found = camp.typed("describe", "svc/store", "-n", "supply").stdout
    assert re.search(r"port 6000 store-0 active", found)
    missing = camp.typed("get", "pod", "nobody", check=False)
    assert (missing.returncode, missing.stderr) == (1, "error: pod default/nobody: not found\n")


def test_the_contract_of_endpoints_for_scripts(camp: System) -> None:
    items = camp.json("get", "endpoints", "-A")["items"]
    keys = {"netns", "ips", "identity", "node", "ready"}
    for item in items:
        assert keys <= item["status"].keys()
        assert Path(item["status"]["netns"]).exists()
        assert len(item["status"]["ips"]) == 2
    named = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items}
    assert ("supply", "store-0") in named
    agent = camp.status()["agent"]
    assert agent["generation"] == agent["applied"]


@pytest.mark.parametrize(
    ("source", "destination", "code"),
    [
        ("camp/hiker", "kitchen.camp:80", 0),
        ("supply/deploy/pantry", "supply/svc/store:6000", 0),
        ("outside/intruder", "supply/store:6000", 1),
        ("camp/kitchen", "192.0.2.7:443", 1),
        ("camp/hiker", "nobody", 2),
    ],
)
def test_offline_and_live_explanations_agree(
    camp: System, source: str, destination: str, code: int
) -> None:
    question = ("explain", source, destination, "-o", "json")
    answers = [camp.typed(*question, *where, check=False) for where in ([], ["-f", BASECAMP])]
    assert [answer.returncode for answer in answers] == [code, code]
    if code == 2:
        assert all("nobody" in answer.stderr for answer in answers)
        return
    live, offline = (_rules(json.loads(answer.stdout)["lines"]) for answer in answers)
    assert live == offline


def _rules(lines: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    """Lines without what only a running pod has: its full name, its address, its interface.

    Of a pod that stands for its controller offline, the number goes too.

    Edits that would allow the flow are no part of the answer: live they are shown with --fix.
    """
    said = [re.search(r"(allowed|denied) by .*", line["detail"]) for line in lines]
    return [
        (line["pattern"], line["outcome"], re.sub(r"(store)-\d", r"\1", rule[0]) if rule else "")
        for line, rule in zip(lines, said, strict=True)
        if not line["pattern"].startswith("fix ")
    ]


def test_flows_are_filtered_by_every_option(camp: System) -> None:
    def count(*options: str) -> int:
        return len(camp.flows(*options))

    camp.eventually(lambda: count("--from", "outside/intruder", "--verdict", "DROPPED"), "a drop")
    passing = ("--from", "camp/deploy/hiker", "--to", "camp/svc/kitchen", "--since", "1h")
    served = (*passing, "--verdict", "FORWARDED")
    camp.eventually(lambda: count(*served), "the hiker fetches")
    for flow in camp.flows(*served, "--port", "80", "--protocol", "tcp", "--last", "3"):
        assert flow["verdict"] == "FORWARDED"
        assert flow["destination_service"] == {"name": "kitchen", "namespace": "camp"}
        assert flow["l4"]["TCP"]["destination_port"] == 8080
    assert count(*passing, "--verdict", "DROPPED") == 0
    assert count(*passing, "--port", "81") == 0
    assert count("--from", "camp/", "--since", "0s") == 0
    assert count("--from", "supply/", "--last", "1") <= 1


def test_a_flow_has_the_shape_of_hubbles_json(camp: System) -> None:
    (address,) = camp.json("get", "svc", "store", "-n", "supply")["spec"]["clusterIPs"][:1]
    dial = ("curl", "-s", "-m", "1", f"http://{address}:6000/")
    camp.typed("exec", "-n", "outside", "deploy/intruder", "--", *dial, check=False)
    wanted = ("--verdict", "DROPPED", "--protocol", "tcp", "--last", "1")
    line = camp.typed("flows", "-o", "json", *wanted).stdout
    record = json.loads(line)
    flow = record["flow"]
    assert record.keys() == {"flow", "node_name", "time"}
    assert (record["time"], record["node_name"]) == (flow["time"], flow["node_name"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", flow["time"])
    assert (flow["verdict"], flow["Type"], flow["IP"]["ipVersion"]) == ("DROPPED", "L3_L4", "IPv4")
    assert (flow["drop_reason"], flow["drop_reason_desc"]) == (133, "POLICY_DENIED")
    assert flow["traffic_direction"] in ("EGRESS", "INGRESS")
    assert flow["source"].keys() >= {
        "ID",
        "identity",
        "namespace",
        "labels",
        "pod_name",
        "workloads",
    }
    assert all(re.match(r"(k8s|reserved):", label) for label in flow["source"]["labels"])
    assert flow["l4"]["TCP"]["flags"] == {"SYN": True}
    assert flow["Summary"] == "TCP Flags: SYN"


def test_output_in_a_pipe_has_no_colour_and_on_a_terminal_it_has(camp: System) -> None:
    assert "\x1b" not in camp.typed("get", "pods", "-A").stdout
    plain = {name: value for name, value in camp.environment.items() if name != "NO_COLOR"}
    camp_in_colour = System(camp.paths, camp.host, plain)
    _, screen = at_terminal(camp_in_colour, "get", "pods", "-A", types=b"")
    assert "\x1b[32mRunning" in screen


def test_who_has_seen_enough_of_a_long_answer_may_go(camp: System) -> None:
    """As ``flows --all | head``: the agent notices, and the command ends as SIGPIPE would."""
    storm = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for i in range(20000): s.sendto(b'x', (f'10.244.9.{i % 250 + 1}', 1000 + i // 250))\n"
    )
    seen = camp.status()["flows"]["seen"]
    camp.run_in(camp.endpoint("default/talker")["netns"], "python3", "-c", storm)
    camp.eventually(lambda: camp.status()["flows"]["seen"] >= seen + 20000)
    line = shlex.join([*SIXFOLD, "flows", "--all"])
    done = camp.on_host("bash", "-c", f"{line} | head -1; echo ${{PIPESTATUS[0]}}")
    assert done.stdout.splitlines()[1:] == ["141"]
    assert done.stderr == ""
    assert camp.status()["agent"]["problem"] == ""
    assert "socket.send() raised" not in camp.agent_log()


def test_what_the_ring_could_not_take_is_counted_and_shown(camp: System, tmp_path: Path) -> None:
    """The agent sleeps while more packets are denied than the kernel's ring has room for."""
    pid, before = camp.agent_pid(), camp.status()["flows"]
    argv = ["nsenter", f"--net={camp.host}", *SIXFOLD, "flows", "-f", "--last", "0"]
    storm = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for i in range(60000): s.sendto(b'x', (f'10.244.9.{i % 250 + 1}', 1000 + i // 250))\n"
    )
    followed = tmp_path / "followed"
    with (
        followed.open("w") as out,
        subprocess.Popen(
            argv, env=camp.environment, stdout=out, stderr=subprocess.PIPE, text=True
        ) as follow,
    ):
        assert follow.stderr is not None
        camp.eventually(lambda: followed.stat().st_size, "the follower sees basecamp's traffic")
        target = camp.endpoint("default/talker")["netns"]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert camp.run_in(target, "python3", "-c", storm).returncode == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        told = follow.stderr.readline()
        follow.terminate()
    after = camp.eventually(
        lambda: (status := camp.status())["flows"]["lost"] > before["lost"] and status
    )
    lost = after["flows"]["lost"] - before["lost"]
    assert after["flows"]["seen"] - before["seen"] + lost >= 60000
    assert after["drops"]["events_lost"] >= lost
    assert told == f"warning: {lost} events lost here\n"
    assert f"{after['flows']['lost']} lost" in camp.typed("status").stdout
    assert "events lost since the agent started" in camp.typed("flows", "--last", "1").stderr
