"""Bad input, through the command, on a running system: refused with its place, nothing changes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sixfold.cli.client import Client
from sixfold.host import bpf

from .conftest import SIXFOLD, System
from .places import OPEN, manifest, pod, policy, service

pytestmark = pytest.mark.root

GOOD = manifest(
    pod("web", container={"ports": [{"name": "http", "containerPort": 8080}]}),
    service("web", ports=[{"port": 80, "targetPort": "http"}]),
    policy("open", {"app": "web"}, **OPEN),
)
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 0
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec: {containers: [{name: c, command: [sleep, inf]}]}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
    - name: c
      command: [sleep, inf]
"""
GOOD_FIRST = "apiVersion: v1\nkind: Namespace\nmetadata: {name: half}\n---\n"
MAPS = ("policy", "policy_tables", "policy_of", "frontends", "ipcache", "endpoints", "addresses")


@pytest.fixture(scope="module")
def running(module_system: System) -> System:
    module_system.up(manifest=GOOD)
    return module_system


def state(system: System) -> dict[str, object]:
    """All objects, and the maps of the kernel byte for byte."""
    kinds = ("Namespace", "Pod", "Deployment", "Service", "NetworkPolicy", "Endpoints")
    client = Client(system.paths.api_socket)
    found: dict[str, object] = {kind: client.objects(kind) for kind in kinds}
    found["generation"] = client.get("/v1/status")["agent"]["generation"]
    for name in MAPS:
        loaded = bpf.Map(bpf.get(system.paths.bpffs / "maps" / name), name)
        found[name] = sorted(loaded.items())
        loaded.close()
    return found


def refused(system: System, *arguments: str, stdin: str | None = None) -> str:
    """What ``apply`` says when it refuses; nothing may have changed, and no trace be shown."""
    before = state(system)
    done = system.sixfold("apply", *arguments, stdin=stdin, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert state(system) == before
    return done.stderr


def case(name: str, text: str, *wanted: str) -> object:
    return pytest.param(text, wanted, id=name)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        case("not-yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: [p}\n", ":7:20: not YAML"),
        case("unknown-field", POD + "      comand: [a]\n", ":12: spec.containers[0].comand: unkn"),
        case(
            *("wrong-type", DEPLOYMENT.replace("replicas: 0", "replicas: two")),
            ':9: spec.replicas: "two" is a string; give an integer',
        ),
        case(
            "twice-in-one-file",
            POD + "---\n" + POD.replace("inf", "1d"),
            ":13: pod default/p",
            "keep one",
        ),
        case(
            "a-key-twice",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nmetadata: {name: b}\n",
            ":8: metadata: key 'metadata' is here twice, first in line 7",
        ),
        case(
            "a-prefix-too-long",
            manifest(policy("n", None, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}])),
            ':5: spec.ingress[0].from[0].ipBlock.cidr: "10.0.0.0/33": prefix length is not 0 to 32',
        ),
        case(
            "an-alias-of-itself",
            "apiVersion: v1\nkind: Namespace\nmetadata: &m {name: a, labels: *m}\n",
            ":7: alias *m refers to itself",
        ),
        case(
            "an-alias-of-nothing",
            "apiVersion: v1\nkind: Namespace\nmetadata: *nobody\n",
            ":7: alias *nobody has no anchor",
        ),
        case(
            "a-port-name-that-nobody-has",
            POD + "      readinessProbe: {tcpSocket: {port: nobodys}}\n",
            ':12: spec.containers[0].readinessProbe.tcpSocket.port: "nobodys" is no port',
        ),
        case(
            "an-owner-that-is-not-there",
            POD.replace(
                "{name: p}",
                "{name: p, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, "
                "name: nobody, uid: u, controller: true}]}",
            ),
            "metadata.ownerReferences: deployment default/nobody is not there",
        ),
        case(
            *("an-image", POD.replace("command: [sleep, inf]", "image: nginx")),
            ":11: spec.containers[0].image",
            "docs/support.md",
        ),
        case(
            "a-selector-that-does-not-select-its-own",
            DEPLOYMENT.replace("matchLabels: {app: d}", "matchLabels: {app: e}"),
            ":10: spec.selector: does not match the labels",
        ),
        case(
            "an-address-of-another-pool",
            manifest(service("s", clusterIP="192.0.2.1", ports=[{"port": 80}])),
            "spec.clusterIP: service address 192.0.2.1: not in the pool",
        ),
        case("binary", "\x01\x02", ":5: not YAML: character U+0001"),
        case("a-list", "- a\n", ":5: is no Kubernetes object"),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_nothing_is_half_applied(
    running: System, tmp_path: Path, text: str, wanted: tuple[str, ...]
) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(GOOD_FIRST + text)
    said = refused(running, "-f", str(path))
    assert f"{path}:" in said
    for words in wanted:
        assert words in said


def test_what_may_not_change_is_refused_and_the_rest_of_the_file_with_it(running: System) -> None:
    changed = manifest(pod("new"), pod("web", container={"command": ["sleep", "1"]}))
    assert "-:3: spec: is immutable; delete pod default/web first" in refused(
        running, "-f", "-", stdin=changed
    )
    moved = json.loads(manifest(service("web", clusterIP="10.96.0.99", ports=[{"port": 80}])))
    assert "spec.clusterIP: is immutable" in refused(running, "-f", "-", stdin=json.dumps(moved))


def test_kinds_that_are_not_ours_are_counted_and_named(running: System) -> None:
    foreign = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: %s}}\n---\n"
    role = "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r}}"
    done = running.sixfold("apply", "-f", "-", stdin=foreign % "a" + foreign % "b" + role)
    assert "ignored, not a kind of Sixfold's: 1 Role, 2 ServiceAccount" in done.stderr


def test_a_file_that_is_not_there_is_named(running: System, tmp_path: Path) -> None:
    said = refused(running, "-f", str(tmp_path / "none.yaml"))
    assert str(tmp_path / "none.yaml") in said


def test_a_service_may_name_a_port_that_nobody_has_yet_and_refuses_at_once(
    running: System,
) -> None:
    """core/v1: pods may come later."""
    running.apply(manifest({**service("late", ports=[{"port": 80, "targetPort": "nobodys"}])}))
    frontends = running.json("bpf", "lb", "list")
    late = [
        row for row in frontends if row["service"] == "default/late" and row["protocol"] != "any"
    ]
    assert {tuple(row["backends"]) for row in late} == {("refused",)}
    running.sixfold("delete", "service", "late")


def test_the_agent_answers_while_ten_megabytes_are_applied_and_takes_or_refuses_all(
    running: System, tmp_path: Path
) -> None:
    rules = [{"from": [{"ipBlock": {"cidr": f"10.{n}.0.0/16"}} for n in range(250)]}]
    objects = [policy(f"big-{n}", {"app": f"n{n}"}, namespace="big", ingress=rules) for n in "abc"]
    note = {"annotations": {"note": "x" * 250_000}}
    objects += [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"big-{n}", **note}}
        for n in range(40)
    ]
    text = manifest(*objects)
    assert len(text) > 10_000_000
    path = tmp_path / "big.yaml"
    path.write_text(text)
    applying = subprocess.Popen(
        ["nsenter", f"--net={running.host}", *SIXFOLD, "apply", "-f", str(path)],
        env=running.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client = Client(running.paths.api_socket, timeout_s=60)
    answers = 0
    while applying.poll() is None:
        client.get("/v1/status")
        answers += 1
    output = applying.communicate()[0]
    assert applying.returncode == 0, output[:500]
    assert output.count("/big-") == 43
    assert answers > 5


def test_what_ran_before_runs_on(running: System) -> None:
    """Last in this module: after all the refusals above."""
    web = running.json("get", "pods", "web")
    (container,) = web["status"]["containerStatuses"]
    assert (container["ready"], container["restartCount"]) == (True, 0)
