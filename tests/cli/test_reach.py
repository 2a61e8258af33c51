"""``sixfold reach`` on manifests, as a user would run it; the cyclonus corpus when it is there."""

import json
from pathlib import Path

import pytest

BASECAMP = Path(__file__).parents[2] / "examples/basecamp"
CASES = Path(__file__).parents[3] / "shared/corpora/cyclonus/cases.jsonl"

MANIFESTS = """
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: shop}
  spec:
    selector: {matchLabels: {app: web}}
    template:
      metadata: {labels: {app: web}}
      spec:
        volumes: [{name: v, emptyDir: {}}]
        containers:
        - {name: web, image: "example.org/web:1", volumeMounts: [{name: v, mountPath: /v}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: shop, labels: {app: db}}
  spec: {containers: [{name: db, image: example.org/db, ports: [{containerPort: 6379}]}]}
  status: {phase: Running, podIP: 10.1.0.7}
- apiVersion: v1
  kind: Pod
  metadata: {name: done, namespace: shop, labels: {app: web}}
  spec: {containers: [{name: db, image: example.org/db}]}
  status: {phase: Succeeded, podIP: 10.1.0.9}
- apiVersion: v1
  kind: Service
  metadata: {name: db, namespace: shop}
  spec: {type: NodePort, selector: {app: db}, ports: [{port: 80, nodePort: 30080}]}
- {apiVersion: example.org/v1, kind: Widget, metadata: {name: w}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: allow-web, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: db}}
    ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 6379}]
    - from: [{ipBlock: {cidr: 10.0.0.0/8}}]
      ports: [{port: 9999}]
"""
WEB_TO_DB = {"from": "shop/web", "to": "shop/db", "protocol": "TCP", "port": 6379}


@pytest.fixture
def manifests(tmp_path):
    (tmp_path / "shop.yaml").write_text(MANIFESTS)
    return str(tmp_path)


def judge(sixfold, *args, probes):
    text = "".join(json.dumps(probe) + "\n" for probe in probes)
    result = sixfold("reach", *args, "--probes", "-", stdin=text)
    assert result.exit_code == 0, result.output
    return [json.loads(line)["verdict"] for line in result.stdout.splitlines()]


def test_a_table_of_who_reaches_whom(sixfold, manifests):
    result = sixfold("reach", "-f", manifests, "--posture", "kubernetes")
    assert result.exit_code == 0, result.output
    assert "\nposture kubernetes: " in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["shop/web", "shop/db", "TCP/6379"] in rows
    assert "shop/done" not in result.stdout


def test_what_passes_only_by_audit_is_listed_again_and_probes_say_it(sixfold, manifests, tmp_path):
    whole = sixfold("reach", "-f", manifests, "--posture", "kubernetes", "-o", "json").stdout
    assert "audit" not in json.loads(whole)
    path = tmp_path / "shop.yaml"
    named = "{name: allow-web, namespace: shop"
    path.write_text(
        MANIFESTS.replace(named, f"{named}, annotations: {{sixfold.dev/enforcement: audit}}")
    )
    args = ("-f", manifests, "--posture", "kubernetes")
    told = json.loads(sixfold("reach", *args, "-o", "json").stdout)["audit"]
    assert told["by"] == ["shop/allow-web"]
    assert ["shop/web"] in [flow["from"] for flow in told["flows"]]
    assert "in audit, so allowed and told: shop/allow-web" in sixfold("reach", *args).stdout
    probes = "".join(json.dumps({**WEB_TO_DB, "port": port}) + "\n" for port in (6379, 6380))
    lines = sixfold("reach", *args, "--probes", "-", stdin=probes).stdout.splitlines()
    let, by_audit = map(json.loads, lines)
    assert let["verdict"] == by_audit["verdict"] == "ALLOWED"
    assert "audit" not in let
    assert by_audit["audit"] is by_audit["ingress"]["audit"] is True
    assert by_audit["ingress"]["default"] == "default-deny (shop/allow-web)"


def test_what_is_not_ours_is_named_and_foreign_policies_apart(sixfold, manifests, tmp_path):
    foreign = {"apiVersion": "policy.linkerd.io/v1alpha1", "kind": "AuthorizationPolicy"}
    (tmp_path / "mesh.json").write_text(json.dumps({**foreign, "metadata": {"name": "a"}}))
    (tmp_path / "values.yaml").write_text("replicas: 2\n")
    (tmp_path / "list.yaml").write_text("- one\n")
    result = sixfold("reach", "-f", manifests)
    assert result.exit_code == 0, result.output
    told = result.stderr.splitlines()
    assert "NOT in force, a policy that Sixfold does not know: 1 AuthorizationPolicy" in told
    assert "ignored, not a kind of Sixfold's: 1 Widget" in told
    both = f"{tmp_path}/list.yaml, {tmp_path}/values.yaml"
    assert f"ignored, no Kubernetes object: {both}" in told
    named = sixfold("reach", "-f", str(tmp_path / "values.yaml"))
    assert named.exit_code == 1
    assert "apiVersion: is required" in named.output


def test_pods_without_a_known_address_are_counted_where_blocks_matter(sixfold, manifests):
    note = "note: 1 of 2 workloads have no known address"
    assert note in sixfold("reach", "-f", manifests).stderr
    off = "--ipblock-matches-pods=false"
    assert "note" not in sixfold("reach", "-f", manifests, off).stderr
    assert "note" not in sixfold("reach", "-f", str(BASECAMP)).stderr


def test_the_default_posture_denies_what_nothing_allows(sixfold, manifests):
    result = sixfold("reach", "-f", manifests)
    assert "posture zero-trust: " in result.stderr
    assert judge(sixfold, "-f", manifests, probes=[WEB_TO_DB]) == ["DENIED"]


def test_probes_come_back_in_order_with_verdicts(sixfold, manifests):
    probes = [
        WEB_TO_DB,
        {**WEB_TO_DB, "port": 80},
        {**WEB_TO_DB, "from": "shop/Deployment/web"},
        {**WEB_TO_DB, "to": "10.1.0.7"},
        {**WEB_TO_DB, "from": "192.0.2.1"},
        {**WEB_TO_DB, "from": "10.9.9.9", "port": 9999},
        {**WEB_TO_DB, "to": "192.0.2.1"},
    ]
    options = ["-f", manifests, "--posture", "kubernetes"]
    wanted = ["ALLOWED", "DENIED", "ALLOWED", "ALLOWED", "DENIED", "ALLOWED", "ALLOWED"]
    assert judge(sixfold, *options, probes=probes) == wanted


def test_a_block_may_be_told_not_to_mean_pods(sixfold, manifests, tmp_path):
    pod = MANIFESTS.split("- apiVersion: v1\n  kind: Pod\n")[1].replace("db", "peer")
    text = "apiVersion: v1\nkind: Pod\n" + "\n".join(line[2:] for line in pod.splitlines())
    (tmp_path / "peer.yaml").write_text(text.replace("10.1.0.7", "10.1.0.8"))
    probe = {"from": "shop/peer", "to": "shop/db", "port": 9999}
    options = ["-f", manifests, "--posture", "kubernetes"]
    assert judge(sixfold, *options, probes=[probe]) == ["ALLOWED"]
    off = "--ipblock-matches-pods=false"
    assert judge(sixfold, *options, off, probes=[probe]) == ["DENIED"]


def test_a_line_that_means_nothing_has_an_error_and_the_rest_is_answered(sixfold, manifests):
    text = f'{{"from": "shop/ghost", "to": "shop/db"}}\nnonsense\n\n{json.dumps(WEB_TO_DB)}\n'
    result = sixfold("reach", "-f", manifests, "--probes", "-", stdin=text)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert ["error" in line for line in lines] == [True, True, False]


def test_one_namespace_is_what_has_a_side_there(sixfold):
    def edges(*args):
        answer = json.loads(sixfold("reach", "-f", str(BASECAMP), "-o", "json", *args).stdout)
        return [(one["from"], one["to"]) for one in answer["edges"]]

    there = edges("-n", "supply")
    assert ("camp/kitchen", "supply/pantry") in there
    assert there == [one for one in edges() if any(end.startswith("supply/") for end in one)]


def test_edges_as_json(sixfold, manifests):
    result = sixfold("reach", "-f", manifests, "--posture", "kubernetes", "-o", "json")
    answer = json.loads(result.stdout)
    assert answer["posture"] == "kubernetes"
    assert {"from": "shop/web", "to": "shop/db", "ports": ["TCP/6379"]} in answer["edges"]


def test_wrong_usage_exits_2(sixfold, manifests):
    assert sixfold("reach", "--posture", "kubernetes").exit_code == 2
    assert sixfold("reach", "-f", "-", "--probes", "-").exit_code == 2
    assert sixfold("reach", "-f", manifests, "--probes", "/nowhere").exit_code == 2


def world_of(step):
    """A step of a case as manifests: JSON is YAML."""
    ports = [
        {"name": f"serve-{port}-{protocol.lower()}", "protocol": protocol, "containerPort": port}
        for port in (80, 81)
        for protocol in ("TCP", "UDP", "SCTP")
    ]
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in step["namespaces"].items()
    ]
    for pod in step["pods"]:
        namespace, name = pod["pod"].split("/")
        container = {"name": "serve", "image": "agnhost", "ports": pod.get("ports") or ports}
        items.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": pod["labels"]},
                "spec": {"containers": [container]},
                "status": {"podIP": pod["ip"]},
            }
        )
    typed = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}  # some lack it
    items += [{**policy, **typed} for policy in step["policies"] or ()]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def probes_of(step):
    for column, rows in (step["expected"] or {}).items():
        protocol, port = column.split("/")
        for source, row in zip(step["pods"], rows, strict=True):
            for destination, mark in zip(step["pods"], row, strict=True):
                if source is not destination:
                    ends = {"from": source["pod"], "to": destination["pod"]}
                    yield {**ends, "protocol": protocol, "port": int(port)}, mark == "1"


@pytest.mark.skipif(not CASES.exists(), reason=f"no corpus at {CASES}")
def test_all_cyclonus_cases_agree_by_command(sixfold, tmp_path):
    steps = [s for line in CASES.read_text().splitlines() for s in json.loads(line)["steps"]]
    path = tmp_path / "world.json"
    wrong = judged = 0
    for step in steps:
        path.write_text(world_of(step))
        asked = list(probes_of(step))
        options = ["-f", str(path), "--posture", "kubernetes"]
        verdicts = judge(sixfold, *options, probes=[probe for probe, _ in asked])
        found = zip(verdicts, asked, strict=True)
        wrong += sum((verdict == "ALLOWED") != allowed for verdict, (_, allowed) in found)
        judged += len(asked)
    assert (len(steps), wrong) == (256, 0), f"{wrong} of {judged} flows differ"
