import json

import pytest
import yaml

from sixfold.cli.run import build
from sixfold.manifest import decode


def options(**changes):
    return {
        "argv": ("sleep", "60"),
        "image": "host",
        "labels": (),
        "ports": (),
        "env": (),
        "replicas": None,
        "restart": "Always",
        **changes,
    }


def test_run_makes_a_pod_that_the_manifest_reader_takes():
    raw = build(
        "web",
        "shop",
        **options(labels=("app=web,tier=front",), ports=("http:8080", "53/udp"), env=("A=b=c",)),
    )
    pod = decode(raw).object
    assert pod.metadata.labels == {"run": "web", "app": "web", "tier": "front"}
    container = pod.spec.containers[0]
    assert container.command == ["sleep", "60"]
    assert [(p.name, p.container_port, p.protocol) for p in container.ports] == [
        ("http", 8080, "TCP"),
        ("", 53, "UDP"),
    ]
    assert (container.env[0].name, container.env[0].value) == ("A", "b=c")


def test_run_with_replicas_makes_a_deployment():
    deployment = decode(build("web", "shop", **options(replicas=3))).object
    assert (deployment.kind, deployment.spec.replicas) == ("Deployment", 3)


def test_run_applies_and_waits(sixfold, agent):
    agent.answers["POST /v1/apply"] = {
        "results": [{"kind": "Pod", "namespace": "shop", "name": "web", "action": "created"}]
    }
    result = sixfold("run", "web", "-n", "shop", "--", "sleep", "-x", "60")
    assert (result.exit_code, result.stdout) == (0, "pod/web created\n")
    body = agent.last().body
    assert body["wait"] is True
    assert body["objects"][0]["spec"]["containers"][0]["command"] == ["sleep", "-x", "60"]


def test_run_dry_prints_the_manifest(sixfold, agent):
    result = sixfold("run", "web", "--dry-run", "--", "sleep", "60")
    assert yaml.safe_load(result.stdout)["kind"] == "Pod"
    assert agent.calls == []


@pytest.mark.parametrize(
    "args", [["--port", "x"], ["--port", "70000"], ["--env", "A"], ["--labels", "=b"]]
)
def test_run_with_a_bad_option_is_wrong_usage(args, sixfold):
    assert sixfold("run", "web", *args, "--", "sleep").exit_code == 2


def test_logs_are_passed_through_as_bytes(sixfold, agent):
    agent.answers["GET /v1/pods/shop/web-0/log"] = b"one\nt\xff\xfewo\n"
    result = sixfold("logs", "web-0", "-n", "shop")
    assert result.stdout_bytes == b"one\nt\xff\xfewo\n"


def test_logs_options_reach_the_agent(sixfold, agent):
    agent.answers["GET /v1/pods/default/web/log"] = b""
    args = "logs web -c app --tail 5 --since 2m -p --timestamps -f"
    assert sixfold(*args.split()).exit_code == 0
    assert agent.last().params == {
        "container": "app",
        "tail": "5",
        "since": "120.0",
        "previous": "true",
        "timestamps": "true",
        "follow": "true",
    }
    assert sixfold("logs", "web", "--since", "soon").exit_code == 2


def pod(name: str, owner: str, ready: str):
    return {
        "metadata": {"name": name, "ownerReferences": [{"kind": "Deployment", "name": owner}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_logs_of_a_workload_are_those_of_a_ready_pod(sixfold, agent):
    pods = [pod("web-1", "web", "False"), pod("web-2", "web", "True"), pod("db-1", "db", "True")]
    agent.answers["GET /v1/objects/Pod/default"] = {"items": pods}
    agent.answers["GET /v1/pods/default/web-2/log"] = b"ready\n"
    assert sixfold("logs", "deploy/web").stdout == "ready\n"


def test_a_workload_without_pods_says_so(sixfold, agent):
    agent.answers["GET /v1/objects/Pod/default"] = {"items": []}
    agent.answers["GET /v1/objects/Deployment/default/web"] = {"items": [{}]}
    result = sixfold("logs", "deploy/web")
    assert (result.exit_code, result.stderr) == (1, "error: deployment default/web: has no pods\n")


def test_exec_of_a_missing_pod_fails(sixfold, agent):
    result = sixfold("exec", "ghost", "--", "ls")
    assert result.exit_code == 1
    assert "not found" in result.stderr


def test_describe_shows_the_object_its_endpoint_and_its_drops(sixfold, agent):
    item = {
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "web", "command": ["sleep", "60"]}],
            "nodeSelector": {"disk": "ssd"},
        },
        "status": {"phase": "Running", "podIP": "10.244.0.4"},
    }
    agent.answers["GET /v1/objects/Pod/shop/web"] = {"items": [item]}
    agent.answers["GET /v1/objects/Endpoints/shop/web"] = {
        "items": [{"metadata": {"name": "web"}, "status": {"identity": 1234}}]
    }
    agent.answers["GET /v1/flows"] = json.dumps({"text": "a drop"}).encode() + b"\n"
    result = sixfold("describe", "pod", "web", "-n", "shop")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Name:         web",
        "Namespace:    shop",
        "Status:       Running",
        "Labels:       app=web",
        "Spec:",
        "  Containers:",
        "    - Name: web",
        "      Command: sleep 60",
        "  Node Selector: disk=ssd",
        "Status:",
        "  Phase: Running",
        "  Pod IP: 10.244.0.4",
        "Endpoint:",
        "  Identity: 1234",
        "Drops (newest 5 of each side):",
        "  a drop",
        "  a drop",
    ]


def test_describe_a_service_lists_its_endpoints(sixfold, agent):
    agent.answers["GET /v1/objects/Service/default/web"] = {
        "items": [{"metadata": {"name": "web", "namespace": "default"}, "spec": {}}]
    }
    slice_ = {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"port": 8080}],
        "endpoints": [
            {
                "addresses": ["10.244.0.4"],
                "conditions": {"ready": False},
                "targetRef": {"name": "web-0"},
            }
        ],
    }
    agent.answers["GET /v1/objects/EndpointSlice/default"] = {"items": [slice_]}
    frontend = {"port": 80, "protocol": "TCP", "algorithm": "random", "why": "nothing says"}
    frontend |= {"near": "PreferSameZone: of zone a: 1 of them"}
    frontend["backends"] = [{"address": "10.244.0.4", "state": "not ready", "locality": "eu/a"}]
    agent.answers["GET /v1/balancing"] = {"frontends": [frontend, frontend]}
    said = sixfold("describe", "svc/web").stdout
    assert "  10.244.0.4 port 8080 web-0 not ready eu/a" in said
    assert said.count("  80/TCP random (nothing says; PreferSameZone: of zone a: 1 of them)") == 1
