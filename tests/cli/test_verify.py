import json
from xml.etree import ElementTree

import pytest
from test_explain import MANIFESTS

GOOD = """
- name: only web reaches db
  only:
    to: {podSelector: {matchLabels: {app: db}}}
    from: {workload: shop/web}
- deny: {from: {world: true}, to: {namespace: shop}}
"""
BAD = "- deny: {from: {workload: shop/web}, to: {workload: shop/db}, ports: [{port: 6379}]}\n"


@pytest.fixture
def run(sixfold, tmp_path):
    def verify(assertions, *args):
        (tmp_path / "shop.yaml").write_text(MANIFESTS)
        path = tmp_path / "assertions"
        path.write_text(assertions)
        return sixfold("verify", "-f", str(tmp_path), "--assert", str(path), *args)

    return verify


def test_what_holds_exits_0(run):
    result = run(GOOD)
    assert (result.exit_code, result.stdout.count("ok ")) == (0, 2), result.output


def test_what_does_not_hold_exits_1_with_a_flow_and_its_rules(run):
    result = run(BAD)
    assert result.exit_code == 1
    assert "shop/web → shop/db TCP/6379: egress allowed by shop/web-egress" in result.stdout
    assert "ingress allowed by shop/allow-web ingress[0]" in result.stdout
    (answer,) = json.loads(run(BAD, "-o", "json").stdout)
    assert answer["holds"] is False
    assert answer["counterexample"]["verdict"] == "ALLOWED"


def test_a_report_for_ci(run, tmp_path):
    path = tmp_path / "report.xml"
    assert run(GOOD + BAD, "--junit", str(path)).exit_code == 1
    suite = ElementTree.parse(path).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    assert [case.find("failure") is None for case in suite] == [True, True, False]


def test_assertions_may_lie_beside_the_manifests(sixfold, tmp_path):
    (tmp_path / "shop.yaml").write_text(MANIFESTS)
    path = tmp_path / "assertions.yaml"
    path.write_text(f"apiVersion: sixfold.dev/v1\nkind: Assertions\nassertions:\n{BAD}")
    result = sixfold("verify", "-f", str(tmp_path), "--assert", str(path))
    assert (result.exit_code, result.stdout[:4]) == (1, "fail")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- deny: {form: {}}\n", ":1: [0].deny.form: unknown field"),
        ("- name: x\n", ":1: [0]: give one of deny, allow, only, isolated"),
        ("- deny: {}\n  allow: {}\n", ":1: [0]: give one of"),
        ("\n- deny: {from: {cidr: 192.0.2.0/33}}\n", ":2: [0].deny: "),
        ("- deny: {from: {cidr: 192.0.2.0/24, host: true}}\n", "sides of their own"),
        ("- deny: {ports: [{port: http}]}\n", '[0].deny.ports: "http" is a name'),
        ("", "no assertion"),
    ],
)
def test_wrong_assertions_are_said_with_their_place(run, text, problem):
    result = run(text)
    assert result.exit_code == 1
    assert problem in result.stderr


def test_what_only_an_audit_lets_pass_is_said_to_be(sixfold, tmp_path):
    named = "{name: allow-web, namespace: shop"
    assert named in MANIFESTS
    audit = f"{named}, annotations: {{sixfold.dev/enforcement: audit}}"
    (tmp_path / "shop.yaml").write_text(MANIFESTS.replace(named, audit))
    path = tmp_path / "assertions"
    path.write_text("- deny: {to: {workload: shop/db}, ports: [{port: 22}]}\n")
    result = sixfold("verify", "-f", str(tmp_path), "--assert", str(path))
    assert result.exit_code == 1
    assert "ingress in audit, so allowed, else denied by default-deny (shop/allow-web)" in (
        result.stdout
    )
