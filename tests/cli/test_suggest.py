import json

import pytest
from tests.policy.test_suggest import DB, WEB, pod, record


@pytest.fixture
def flows(tmp_path):
    path = tmp_path / "flows.json"
    path.write_text("".join(json.dumps(one) + "\n" for one in (record(WEB, DB, 6379),)))
    return str(path)


def test_what_is_printed_applies_and_allows_what_was_seen(sixfold, flows, tmp_path):
    result = sixfold("suggest", "--flows", flows)
    assert result.exit_code == 0, result.output
    assert "the policies allow exactly these" in result.stderr
    workloads = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        }
        for name in ("web", "db")
    ]
    (tmp_path / "pods.json").write_text(json.dumps({"kind": "List", "items": workloads}))
    (tmp_path / "policies.yaml").write_text(result.stdout)
    files = ["-f", str(tmp_path / "pods.json"), "-f", str(tmp_path / "policies.yaml")]
    edges = json.loads(sixfold("reach", *files, "-o", "json").stdout)["edges"]
    between = [edge for edge in edges if edge["to"] != "resolver"]
    assert between == [{"from": "shop/web", "to": "shop/db", "ports": ["TCP/6379"]}]


def test_as_json_it_is_a_list(sixfold, flows):
    answer = json.loads(sixfold("suggest", "--flows", flows, "-o", "json").stdout)
    assert [item["metadata"]["name"] for item in answer["items"]] == ["default-deny", "db", "web"]


def test_live_it_reads_the_agents_flows_and_endpoints(sixfold, agent):
    ports = {"ports": [], "probePorts": []}
    status = {"workload": "Pod/db", "serviceAccount": "default", "id": 1, "identity": 300}
    status |= {"ips": ["10.244.0.5"], "ifindex": 3, "node": "n", "ready": True, **ports}
    status["accelerated"] = False
    status["terminating"] = False
    meta = {"name": "db", "namespace": "shop", "labels": {"app": "db", "tier": "store"}}
    agent.answers["GET /v1/status"] = {
        "agent": {
            "instance": "sixfold",
            "node": "n",
            "posture": "zero-trust",
            "audit": False,
            "ipblock_matches_pods": True,
            "pod_networks": ["10.244.0.0/16", "fd00:5f:244::/64"],
            "node_labels": {},
            "mtls": "disabled",
            "mtls_given": True,
            "trust_domain": "cluster.local",
        }
    }
    agent.answers["GET /v1/objects/Endpoints"] = {"items": [{"metadata": meta, "status": status}]}
    from sixfold.manifest import KINDS

    for kind in KINDS:
        agent.answers.setdefault(f"GET /v1/objects/{kind}", {"items": []})
    line = json.dumps(record("192.0.2.1", pod("shop/db", {"app": "db", "tier": "store"}), 443))
    agent.answers["GET /v1/flows"] = line.encode() + b"\n"
    result = sixfold("suggest", "--since", "5m", "-o", "json")
    assert result.exit_code == 0, result.output
    assert agent.last().params == {"since": "5m"}
    policy = json.loads(result.stdout)["items"][-1]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app": "db", "tier": "store"}}


def test_wrong_usage_exits_2(sixfold, flows, tmp_path):
    assert sixfold("suggest", "-f", str(tmp_path)).exit_code == 2
    assert sixfold("suggest", "--flows", flows, "--since", "5m").exit_code == 2
    assert sixfold("suggest", "--flows", "-", stdin="nonsense\n").exit_code == 2
