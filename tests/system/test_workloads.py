"""Workloads as a user of Kubernetes knows them: one manifest with a bit of everything, running."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import System

pytestmark = pytest.mark.root

GRPC_SERVER = '''
"""grpc.health.v1 by grpcio: SERVING until the file is there."""
import os, sys
from concurrent.futures import ThreadPoolExecutor
import grpc

def check(request, context):
    return b"\\x08\\x02" if os.path.exists(sys.argv[2]) else b"\\x08\\x01"

handler = grpc.unary_unary_rpc_method_handler(check)
server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers(
    (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
)
server.add_insecure_port("[::]:" + sys.argv[1])
server.start()
server.wait_for_termination()
'''

WORLD = Path(__file__).with_name("workloads.yaml")


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Files that steer the workloads: probes look at them, traps leave them.

    None of pytest's: it closes them to other users whenever it starts, and one of these reads.
    """
    made = Path(tempfile.mkdtemp(prefix="steer-"))
    (made / "www").mkdir()
    for name in ("alive", "www/ready"):
        (made / name).touch()
    (made / "grpcd.py").write_text(GRPC_SERVER)
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def manifest(directory: Path) -> str:
    return WORLD.read_text().replace("DIR", str(directory)).replace("PYTHON", sys.executable)


@pytest.fixture(scope="module")
def world(module_system: System, manifest: str) -> System:
    module_system.up(manifest=manifest)
    return module_system


def pod(system: System, name: str) -> dict[str, Any]:
    return system.json("get", "pod", name, "-n", "w")


def named(system: System, prefix: str) -> list[dict[str, Any]]:
    """Pods of a workload that are not on their way out."""
    return [
        item
        for item in system.json("get", "pods", "-n", "w")["items"]
        if item["metadata"]["name"].startswith(prefix)
        if not item["metadata"].get("deletionTimestamp")
    ]


def is_ready(system: System, name: str) -> bool:
    return system.endpoints()[f"w/{name}"]["ready"]


def restarts(system: System, name: str) -> int:
    return pod(system, name)["status"]["containerStatuses"][0]["restartCount"]


def changed(manifest: str, name: str, *changes: tuple[str, str]) -> str:
    """One object of the manifest, its text changed."""
    (found,) = [
        part
        for part in manifest.split("---\n")
        if f"metadata: {{name: {name}, " in part
        and "NetworkPolicy" not in part
        and "Service\n" not in part
    ]
    for old, new in changes:
        assert old in found
        found = found.replace(old, new)
    return found


def test_a_container_sees_its_environment_its_user_and_its_directory(world: System) -> None:
    seen = json.loads(world.sixfold("logs", "env", "-n", "w").stdout)
    status = pod(world, "env")["status"]
    assert (seen["GREETING"], seen["arg"]) == ("hello world", "hello world $(WHO) $(NOBODY)")
    assert (seen["IP"], seen["NAME"], seen["SPACE"]) == (status["podIP"], "env", "w")
    assert (seen["LABEL"], seen["NOTE"]) == ("env", "hi")
    assert (seen["NODE"], seen["HOSTNAME"]) == (pod(world, "env")["spec"]["nodeName"], "env")
    assert (seen["id"], seen["cwd"], seen["init"]) == ([1234, 2345], "/usr/share", True)


def test_containers_of_a_pod_share_localhost_and_each_has_its_log(world: System) -> None:
    fetch = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://localhost:9000/bin/")
    done = world.sixfold("exec", "-n", "w", "env", "-c", "main", "--", *fetch)
    assert done.stdout == "200"
    assert world.sixfold("logs", "env", "-n", "w", "-c", "init").stdout == "init\n"
    assert '"GET /bin/ HTTP/1.1" 200' in world.sixfold("logs", "env", "side", "-n", "w").stdout


def test_a_pod_that_never_restarts_keeps_its_exit_code(world: System) -> None:
    status = pod(world, "never")["status"]
    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_on_failure_restarts_until_it_succeeds_and_the_last_log_is_kept(world: System) -> None:
    world.eventually(lambda: pod(world, "failing")["status"]["phase"] == "Succeeded")
    assert restarts(world, "failing") == 1
    assert world.sixfold("logs", "-p", "failing", "-n", "w").stdout == "try\n"


def test_grace_is_a_term_signal_then_a_kill(world: System, directory: Path) -> None:
    world.sixfold("delete", "pod", "stubborn", "polite", "-n", "w")
    assert (directory / "asked").exists()
    assert (directory / "bye").exists()
    names = [item["metadata"]["name"] for item in world.json("get", "pods", "-n", "w")["items"]]
    assert not {"stubborn", "polite"} & set(names)


@pytest.mark.parametrize(
    ("name", "file", "well"),
    [
        pytest.param("grpc", "sick", False, id="grpc"),
        pytest.param("http", "www/ready", True, id="http"),
    ],
)
def test_readiness_follows_its_probe(
    world: System, directory: Path, name: str, file: str, well: bool
) -> None:
    world.eventually(lambda: is_ready(world, name), f"{name} is ready at first")
    steer = directory / file
    steer.unlink() if well else steer.touch()
    world.eventually(lambda: not is_ready(world, name), f"{name} is not ready")
    assert restarts(world, name) == 0
    steer.touch() if well else steer.unlink()
    world.eventually(lambda: is_ready(world, name), f"{name} is ready again")


def test_liveness_restarts_the_container(world: System, directory: Path) -> None:
    (directory / "alive").unlink()
    world.eventually(lambda: restarts(world, "http") > 0, "a restart")
    (directory / "alive").touch()
    last = pod(world, "http")["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert last["exitCode"] in (137, 143)
    assert last["message"].startswith("liveness probe: ")


def test_apply_wait_returns_when_the_roll_out_is_done(world: System, manifest: str) -> None:
    before = {item["metadata"]["name"] for item in named(world, "web-")}
    # minReadySeconds: a new pod is ready long before it counts
    second = changed(
        manifest,
        "web",
        ('value: "1"', 'value: "2"'),
        ("replicas: 2", "replicas: 3\n  minReadySeconds: 1"),
    )
    world.apply(second, "--wait")
    after = named(world, "web-")
    assert (len(after), before & {item["metadata"]["name"] for item in after}) == (3, set())
    status = world.json("get", "deploy", "web", "-n", "w")["status"]
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)
    done = world.sixfold("exec", "-n", "w", "deploy/web", "--", "printenv", "VERSION")
    assert done.stdout == "2\n"


def test_conditions_keep_the_time_at_which_they_turned(world: System) -> None:
    def turned() -> list[str]:
        conditions = world.json("get", "deploy", "web", "-n", "w")["status"]["conditions"]
        return [condition["lastTransitionTime"] for condition in conditions]

    before = turned()
    world.sixfold("run", "passer", "-n", "w", "--rm", "--", "sleep", "1.1")
    assert turned() == before


def test_recreate_and_scale_by_apply(world: System, manifest: str) -> None:
    third = changed(
        manifest,
        "web",
        ('value: "1"', 'value: "3"'),
        ("replicas: 2", "replicas: 1\n  strategy: {type: Recreate}"),
    )
    world.apply(third, "--wait")
    (left,) = named(world, "web-")
    assert left["spec"]["containers"][0]["env"][0]["value"] == "3"


def test_a_stateful_pod_comes_back_under_its_name_with_its_new_address(world: System) -> None:
    old = pod(world, "db-1")["status"]["podIP"]
    world.sixfold("delete", "pod", "db-1", "-n", "w")
    world.eventually(lambda: "w/db-1" in world.endpoints() and is_ready(world, "db-1"))
    new = pod(world, "db-1")["status"]["podIP"]
    assert new != old
    look_up = ("getent", "ahostsv4", "db-1.db")
    found = world.sixfold("exec", "-n", "w", "guest", "--", *look_up).stdout.split()[0]
    assert found == new


def test_daemon_and_replica_sets_replace_what_goes(world: System) -> None:
    for prefix in ("each-", "rs-"):
        (one,) = named(world, prefix)
        name = one["metadata"]["name"]
        world.sixfold("delete", "pod", name, "-n", "w")
        (other,) = world.eventually(lambda prefix=prefix: named(world, prefix), prefix)
        assert other["metadata"]["name"] != name


def test_jobs_complete_or_fail_for_good(world: System) -> None:
    def ends(name: str) -> set[str]:
        status = world.json("get", "job", name, "-n", "w")["status"]
        return {c["type"] for c in status.get("conditions", ()) if c["status"] == "True"}

    world.eventually(lambda: "Complete" in ends("three"))
    world.eventually(lambda: "Failed" in ends("hopeless"))
    assert world.json("get", "job", "three", "-n", "w")["status"]["succeeded"] == 3
    assert world.json("get", "job", "hopeless", "-n", "w")["status"]["failed"] == 1


def test_a_new_label_changes_identity_and_policy_at_once(world: System, manifest: str) -> None:
    web = named(world, "web-")[0]["status"]["podIP"]
    knock = ("exec", "-n", "w", "guest", "--", "curl", "-sS", "-m1", "-o", "/dev/null")
    url = f"http://{web}:8080"
    assert world.sixfold(*knock, url, check=False).returncode == 28
    stranger = world.endpoints()["w/guest"]["identity"]
    world.apply(changed(manifest, "guest", ("app: guest", "app: friend")))
    assert world.sixfold(*knock, url).returncode == 0
    assert world.endpoints()["w/guest"]["identity"] != stranger
    world.apply(changed(manifest, "guest"))
    assert world.sixfold(*knock, url, check=False).returncode == 28


def test_apply_wait_does_not_wait_for_what_others_broke(world: System, manifest: str) -> None:
    broken = changed(manifest, "guest", ("guest", "broken"), ("sleep, inf", "/no/such/program"))
    world.apply(broken)
    world.apply(changed(manifest, "guest"), "--wait", "--timeout", "10")
    refused = world.sixfold(
        "apply", "-f", "-", "--wait", "--timeout", "0.5", stdin=broken, check=False
    )
    assert (refused.returncode, "pod w/broken" in refused.stderr) == (1, True)
    described = world.sixfold("describe", "pod", "broken", "-n", "w").stdout
    assert "exec /no/such/program: No such file or directory" in described


def test_a_namespace_takes_all_that_is_in_it_along(world: System) -> None:
    world.sixfold("delete", "namespace", "w", "--now")
    assert [key for key in world.endpoints() if key.startswith("w/")] == []
    assert world.json("get", "all,netpol", "-n", "w")["items"] == []
    assert list(world.paths.netns("w/x").parent.glob(f"{world.paths.instance}.w.*")) == []
