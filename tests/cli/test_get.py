import json

import yaml

from sixfold.cli.columns import COLUMNS
from sixfold.model.kinds import KINDS

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web-0",
        "namespace": "shop",
        "labels": {"app": "web"},
        "creationTimestamp": "2020-01-01T00:00:00Z",
    },
    "spec": {"containers": [{"name": "web"}, {"name": "sidecar"}], "nodeName": "basecamp"},
    "status": {
        "phase": "Running",
        "podIPs": [{"ip": "10.244.0.4"}, {"ip": "fd00:5f:244::4"}],
        "containerStatuses": [
            {"name": "web", "ready": True, "restartCount": 2, "state": {"running": {}}},
            {
                "name": "sidecar",
                "ready": False,
                "restartCount": 0,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            },
        ],
    },
}
DB = {
    "metadata": {"name": "db", "namespace": "shop", "labels": {"app": "db"}},
    "spec": {"containers": [{"name": "db"}]},
    "status": {"phase": "Pending"},
}
SERVICE = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7", "fd00:5f:96::7"],
        "selector": {"app": "web"},
        "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}],
    },
}
DEPLOYMENT = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"spec": {"containers": [{"name": "web"}]}},
    },
    "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
}
ENDPOINT = {
    "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
    "status": {
        "id": 21,
        "identity": 1234,
        "ips": ["10.244.0.4", "fd00:5f:244::4"],
        "netns": "/run/netns/sixfold.shop.web-0",
        "node": "basecamp",
        "ready": True,
        "workload": "Deployment/web",
        "ifindex": 12,
    },
}


def lines(result):
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_every_kind_has_columns():
    assert set(COLUMNS) == set(KINDS)


def test_pods_look_as_in_kubectl(sixfold, agent):
    agent.answers["GET /v1/objects/Pod/shop"] = {"items": [POD, DB]}
    rows = [line.split("  ") for line in lines(sixfold("get", "po", "-n", "shop"))]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert rows[1][:4] == ["web-0", "1/2", "CrashLoopBackOff", "2"]
    assert rows[2][:4] == ["db", "0/1", "Pending", "0"]


def test_wide_pods_show_address_and_node(sixfold, agent):
    agent.answers["GET /v1/objects/Pod/shop"] = {"items": [POD]}
    header, row = lines(sixfold("get", "pods", "-n", "shop", "-o", "wide"))
    assert header.split()[-2:] == ["IP", "NODE"]
    assert row.split()[-2:] == ["10.244.0.4,fd00:5f:244::4", "basecamp"]


def test_columns_line_up_and_lines_end_without_spaces(sixfold, agent):
    agent.answers["GET /v1/objects/Service/default"] = {"items": [SERVICE]}
    assert lines(sixfold("get", "svc")) == [
        "NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)         AGE",
        "web    ClusterIP   10.96.0.7    <none>        80/TCP,53/UDP   <unknown>",
    ]


def test_several_kinds_are_several_tables_with_typed_names(sixfold, agent):
    agent.answers["GET /v1/objects/Deployment/shop"] = {"items": [DEPLOYMENT]}
    agent.answers["GET /v1/objects/Service/shop"] = {"items": [SERVICE]}
    table = lines(sixfold("get", "deploy,svc", "-n", "shop"))
    assert table[1].split() == ["deployment.apps/web", "2/3", "3", "2", "<unknown>"]
    assert table[2] == ""
    assert table[4].startswith("service/web")


def test_all_namespaces_adds_a_column(sixfold, agent):
    agent.answers["GET /v1/objects/Pod"] = {"items": [POD, DB]}
    table = lines(sixfold("get", "pods", "-A"))
    assert [line.split()[0] for line in table] == ["NAMESPACE", "shop", "shop"]


def test_one_name_gives_one_object_and_a_list_gives_a_list(sixfold, agent):
    agent.answers["GET /v1/objects/Pod/shop/web-0"] = {"items": [POD]}
    agent.answers["GET /v1/objects/Pod/shop"] = {"items": [POD]}
    one = sixfold("get", "pod", "web-0", "-n", "shop", "-o", "json")
    assert json.loads(one.stdout) == POD
    same = sixfold("get", "pod/web-0", "-n", "shop", "-o", "yaml")
    assert yaml.safe_load(same.stdout) == POD
    many = json.loads(sixfold("get", "pods", "-n", "shop", "-o", "json").stdout)
    assert (many["kind"], many["items"]) == ("List", [POD])


def test_endpoints_keep_the_contract_for_scripts(sixfold, agent):
    agent.answers["GET /v1/objects/Endpoints"] = {"items": [ENDPOINT]}
    found = json.loads(sixfold("get", "endpoints", "-A", "-o", "json").stdout)
    assert found["items"][0]["status"].keys() >= {"netns", "ips", "identity", "node", "ready"}
    header, row = lines(sixfold("get", "endpoints", "-A", "-o", "wide"))
    assert "/run/netns/sixfold.shop.web-0" in row.split()
    assert row.split()[2:7] == ["21", "1234", "10.244.0.4", "fd00:5f:244::4", "true"]
    assert "AGE" not in header


def test_names_only(sixfold, agent):
    agent.answers["GET /v1/objects/Deployment/shop"] = {"items": [DEPLOYMENT]}
    assert lines(sixfold("get", "deploy", "-n", "shop", "-o", "name")) == ["deployment.apps/web"]


def test_a_selector_narrows(sixfold, agent):
    agent.answers["GET /v1/objects/Pod/shop"] = {"items": [POD, DB]}
    for selector, names in (
        ("app=web", ["pod/web-0"]),
        ("app!=web", ["pod/db"]),
        ("app in (web, db)", ["pod/web-0", "pod/db"]),
        ("app,!tier", ["pod/web-0", "pod/db"]),
        ("tier", []),
    ):
        assert lines(sixfold("get", "po", "-n", "shop", "-l", selector, "-o", "name")) == names
    assert sixfold("get", "po", "-l", "app in web").exit_code == 2


def test_nothing_found_is_said_on_stderr_and_is_no_failure(sixfold, agent):
    agent.answers["GET /v1/objects/Pod/shop"] = {"items": []}
    result = sixfold("get", "pods", "-n", "shop")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No resources found in shop namespace.\n"


def test_a_missing_name_fails(sixfold, agent):
    result = sixfold("get", "pod", "ghost")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_cluster_scoped_kinds_have_no_namespace_in_the_path(sixfold, agent):
    agent.answers["GET /v1/objects/Namespace/-/shop"] = {
        "items": [{"metadata": {"name": "shop"}, "status": {"phase": "Active"}}]
    }
    assert lines(sixfold("get", "ns", "shop"))[1].split()[:2] == ["shop", "Active"]


def test_watch_prints_what_changes_and_what_goes(sixfold, agent, monkeypatch):
    monkeypatch.setattr("sixfold.cli.get.WATCH_PERIOD_S", 0.01)
    running = {**DB, "status": {"phase": "Running"}}
    leaving = {
        **running,
        "metadata": {**DB["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"},
    }
    answers = iter([[DB], [DB], [running], [leaving], [], [], (503, {"error": {"message": "bye"}})])

    def answer():
        now = next(answers)
        return now if isinstance(now, tuple) else {"items": now}

    agent.answers["GET /v1/objects/Pod/shop"] = answer
    result = sixfold("get", "pods", "-n", "shop", "-w")
    states = [line.split()[:3] for line in result.stdout.splitlines()[1:]]
    assert states == [
        ["db", "0/1", "Pending"],
        ["db", "0/1", "Running"],
        ["db", "0/1", "Terminating"],
        ["db", "0/1", "Deleted"],
    ]
    assert (result.exit_code, result.stderr) == (1, "error: bye\n")


def test_an_unknown_kind_suggests_one(sixfold):
    result = sixfold("get", "deplyoments")
    assert result.exit_code == 2
    assert "did you mean 'deployments'?" in result.stderr
