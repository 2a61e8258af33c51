import json

import pytest
from test_explain import MANIFESTS

BAD = """---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: web}}
    - podSelector: {matchLabels: {app: ghost}}
"""


@pytest.fixture
def lint(sixfold, tmp_path):
    def run(text, *args):
        path = tmp_path / "shop.yaml"
        path.write_text(text)
        return sixfold("lint", "-f", str(path), *args)

    return run


def test_findings_have_file_line_and_path(lint):
    result = lint(MANIFESTS + BAD)
    line = (MANIFESTS + BAD).splitlines().index(BAD.splitlines()[-1]) + 1
    place = f"shop.yaml:{line}: spec.ingress[0].from[1]: warning: selects no workload"
    assert place in result.stdout
    assert result.exit_code == 1


def test_as_json(lint):
    items = json.loads(lint(MANIFESTS + BAD, "-o", "json").stdout)
    (one,) = [item for item in items if item["check"] == "selects-nothing"]
    assert (one["policy"], one["path"]) == ("shop/nobody", "spec.ingress[0].from[1]")


@pytest.mark.parametrize(("limit", "code"), [("info", 1), ("warning", 0), ("never", 0)])
def test_the_exit_code_counts_from_a_severity_on(lint, limit, code):
    base = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
    base += "metadata: {name: extra, namespace: shop}\n"
    base += "spec: {podSelector: {}, ingress: [{ports: [{port: 6379}]}]}\n"
    result = lint(MANIFESTS + base, "--fail-on", limit)
    assert result.exit_code == code, result.output


def test_wrong_usage_exits_2(sixfold):
    assert sixfold("lint", "--posture", "kubernetes").exit_code == 2
