import pytest

DELETED = {"results": [{"kind": "Pod", "namespace": "shop", "name": "web", "action": "deleted"}]}


@pytest.fixture
def deleting(agent):
    agent.answers["POST /v1/delete"] = DELETED
    return agent


def keys(agent):
    return [(key["kind"], key["namespace"], key["name"]) for key in agent.last().body["keys"]]


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["pod", "web", "api"], [("Pod", "shop", "web"), ("Pod", "shop", "api")]),
        (["po/web", "svc/web"], [("Pod", "shop", "web"), ("Service", "shop", "web")]),
        (["ns", "old"], [("Namespace", "", "old")]),
    ],
)
def test_objects_are_named_as_in_kubectl(args, wanted, sixfold, deleting):
    result = sixfold("delete", *args, "-n", "shop")
    assert (result.exit_code, result.stdout) == (0, "pod/web deleted\n")
    assert keys(deleting) == wanted


def test_a_manifest_is_deleted_backwards(sixfold, deleting):
    text = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
"""
    assert sixfold("delete", "-f", "-", stdin=text).exit_code == 0
    assert keys(deleting) == [("Service", "shop", "web"), ("Namespace", "", "shop")]


def test_a_selector_asks_first_who_is_meant(sixfold, deleting):
    pods = [{"metadata": {"name": n, "labels": {"app": n}}} for n in ("web", "db")]
    deleting.answers["GET /v1/objects/Pod/default"] = {"items": pods}
    sixfold("delete", "pods", "-l", "app=db")
    assert keys(deleting) == [("Pod", "default", "db")]


def test_a_kind_alone_deletes_nothing(sixfold, deleting):
    assert sixfold("delete", "pods").exit_code == 2
    assert sixfold("delete").exit_code == 2
    assert sixfold("delete", "endpoints", "web").exit_code == 2
    assert deleting.calls == []


def test_grace_and_wait_reach_the_agent(sixfold, deleting):
    sixfold("delete", "pod", "web", "--grace-period", "0", "--no-wait", "--ignore-not-found")
    body = deleting.last().body
    assert (body["grace_s"], body["wait"], body["ignore_missing"]) == (0, False, True)


def test_what_is_missing_fails_line_by_line(sixfold, agent):
    message = "pod shop/a: not found\npod shop/b: not found"
    agent.answers["POST /v1/delete"] = (404, {"error": {"message": message}})
    result = sixfold("delete", "pod", "a", "b")
    assert result.exit_code == 1
    assert result.stderr == "error: pod shop/a: not found\nerror: pod shop/b: not found\n"
