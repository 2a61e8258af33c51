import json
import subprocess
import sys

import pytest

from sixfold.cli.explain import split_port

MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.org/web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: db, image: example.org/db, ports: [{containerPort: 6379}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 80, targetPort: 6379}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 6379}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-egress, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {}}]}]
"""


@pytest.fixture
def manifests(tmp_path):
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "shop.yaml").write_text(MANIFESTS)
    return str(directory)


def test_offline_an_allowed_flow_exits_0_and_names_both_rules(sixfold, manifests):
    result = sixfold("explain", "-f", manifests, "shop/web", "db:80")
    assert result.exit_code == 0, result.output
    assert "web-egress egress[0]" in result.stdout
    assert "allow-web ingress[0]" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("verdict")


def test_offline_a_denied_flow_exits_1_and_names_the_default_deny(sixfold, manifests):
    result = sixfold("explain", "-f", manifests, "shop/db", "shop/web:8080")
    assert result.exit_code == 1, result.output
    assert "default-deny" in result.stdout


def test_offline_an_unknown_name_exits_2(sixfold, manifests):
    result = sixfold("explain", "-f", manifests, "shop/ghost", "shop/db:80")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "ghost" in result.stderr


def test_offline_the_posture_decides_what_no_policy_selects(sixfold, manifests):
    question = ["-f", manifests, "shop/db", "192.0.2.7:443"]
    assert sixfold("explain", *question).exit_code == 1
    assert sixfold("explain", *question, "--posture", "kubernetes").exit_code == 0


def test_offline_reads_standard_input_and_its_problems_have_a_line(sixfold):
    assert sixfold("explain", "-f", "-", "a", "b:1", stdin="kind: Pod\n").exit_code == 1
    result = sixfold("explain", "-f", "-", "shop/web", "db:80", stdin=MANIFESTS)
    assert result.exit_code == 0, result.stderr


def test_bare_names_are_of_the_namespace_given(sixfold, manifests):
    assert sixfold("explain", "-n", "shop", "-f", manifests, "web", "db:80").exit_code == 0
    assert sixfold("explain", "-f", manifests, "web", "db:80").exit_code == 2


def test_as_json_it_has_a_line_per_pattern(sixfold, manifests):
    result = sixfold("explain", "-f", manifests, "shop/web", "db:80", "-o", "json")
    answer = json.loads(result.stdout)
    patterns = [line["pattern"] for line in answer["lines"]]
    assert answer["allowed"] is True
    assert patterns[:3] == ["discovery", "balancing", "routing"]


ANSWER = {
    "allowed": False,
    "lines": [{"pattern": "verdict", "outcome": "DROPPED", "detail": "no rule"}],
}


def test_live_it_asks_the_agent(sixfold, agent):
    agent.answers["POST /v1/explain"] = ANSWER
    result = sixfold("explain", "web", "db:80", "-n", "shop", "--protocol", "udp")
    assert (result.exit_code, result.stdout) == (1, "verdict  DROPPED  no rule\n")
    assert agent.last().body == {
        "from": "web",
        "to": "db",
        "port": 80,
        "protocol": "UDP",
        "namespace": "shop",
    }


def test_live_a_denial_by_policy_points_to_the_smallest_edit(sixfold, agent):
    denied = {"pattern": "policy egress", "outcome": "DROPPED", "detail": "default-deny"}
    agent.answers["POST /v1/explain"] = {**ANSWER, "lines": [denied, *ANSWER["lines"]]}
    assert "--fix" in sixfold("explain", "web", "db:80").stderr
    agent.answers["POST /v1/explain"] = ANSWER
    assert sixfold("explain", "web", "db:80").stderr == ""


def test_live_an_unknown_name_exits_2(sixfold, agent):
    agent.answers["POST /v1/explain"] = (404, {"error": {"message": "from web: no such pod"}})
    result = sixfold("explain", "web", "db:80")
    assert (result.exit_code, result.stderr) == (2, "error: from web: no such pod\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("db", ("db", None)),
        ("shop/db:6379", ("shop/db", 6379)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
    ],
)
def test_ports_are_split_off(text, parts):
    assert split_port(text) == parts


@pytest.mark.parametrize("text", ["db:http", "db:0", "db:65536", "[::1", "[::1]80"])
def test_no_ports_are_wrong_usage(text, sixfold):
    assert sixfold("explain", "web", text).exit_code == 2


def test_offline_needs_nothing_of_the_host(manifests):
    code = (
        "import sys\n"
        "from sixfold.cli.root import cli\n"
        f"args = ['explain', '-f', {manifests!r}, 'shop/web', 'db:80']\n"
        "try: cli(args)\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "host = [m for m in sys.modules if m.startswith(('sixfold.host', 'sixfold.agent'))]\n"
        "assert host in ([], ['sixfold.host', 'sixfold.host.paths']), host\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_denial_comes_with_the_smallest_edit(sixfold, manifests):
    result = sixfold("explain", "-f", manifests, "shop/web", "db:80", "--posture", "kubernetes")
    assert "fix" not in result.stdout
    result = sixfold("explain", "-f", manifests, "shop/web", "192.0.2.7:443")
    (line,) = [one for one in result.stdout.splitlines() if one.startswith("fix egress")]
    assert "add a rule to shop/web-egress: to 192.0.2.7 on TCP/443" in line


def test_with_fix_the_output_is_yaml_that_mends_it(sixfold, manifests, tmp_path):
    question = ["shop/db", "shop/web:8080"]
    result = sixfold("explain", "-f", manifests, *question, "--fix")
    assert result.exit_code == 1
    (tmp_path / "manifests" / "fix.yaml").write_text(result.stdout)
    assert sixfold("explain", "-f", manifests, *question).exit_code == 0
    answer = json.loads(
        sixfold(
            "explain", "-f", manifests, "shop/web", "192.0.2.7:443", "--fix", "-o", "json"
        ).stdout
    )
    (fix,) = answer["fixes"]
    assert (fix["side"], fix["policy"]["metadata"]["name"]) == ("egress", "web-egress")
