import pytest

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: one}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: two}
"""
RESULT = {
    "results": [
        {"kind": "NetworkPolicy", "namespace": "shop", "name": "deny", "action": "configured"}
    ],
    "generation": 7,
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return str(path)


def test_results_are_in_kubectls_words(sixfold, agent, file):
    agent.answers["POST /v1/apply"] = RESULT
    result = sixfold("apply", "-f", file)
    assert (result.exit_code, result.stdout) == (0, "networkpolicy/deny configured\n")
    assert sixfold("apply", "-f", file, "-o", "name").stdout == "networkpolicy/deny\n"
    assert sixfold("apply", "-f", file, "--dry-run").stdout.endswith("configured (dry run)\n")


def test_what_was_taken_is_told_also_when_it_is_not_ready_in_time(sixfold, agent, file):
    agent.answers["POST /v1/apply"] = {**RESULT, "problem": "not ready after 1 s: pod shop/web"}
    result = sixfold("apply", "-f", file, "--wait")
    assert (result.exit_code, result.stdout) == (1, "networkpolicy/deny configured\n")
    assert result.stderr.endswith("error: not ready after 1 s: pod shop/web\n")


def test_nothing_to_apply_is_an_error(sixfold, agent, tmp_path):
    (tmp_path / "empty.yaml").write_text("---\n# nothing\n")
    result = sixfold("apply", "-f", str(tmp_path / "empty.yaml"))
    assert result.exit_code == 1
    assert "no objects in it" in result.stderr


def test_objects_go_with_their_namespace_source_and_line(sixfold, agent, file):
    agent.answers["POST /v1/apply"] = RESULT
    sixfold("apply", "-f", file, "-n", "shop", "--wait")
    body = agent.last().body
    assert body["objects"][0]["metadata"] == {"name": "deny", "namespace": "shop"}
    assert body["sources"] == [{"source": file, "line": 2}]
    assert (body["wait"], body["dry_run"]) == (True, False)


def test_kinds_that_are_not_ours_are_counted_and_named(sixfold, agent, file):
    agent.answers["POST /v1/apply"] = RESULT
    assert sixfold("apply", "-f", file).stderr == (
        "ignored, not a kind of Sixfold's: 2 ServiceAccount\n"
    )


def test_problems_of_a_manifest_are_shown_as_they_are_and_nothing_is_sent(sixfold, agent, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(POLICY.replace("podSelector", "podSelektor"))
    result = sixfold("apply", "-f", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{path}:5: spec.podSelektor: ")
    assert agent.calls == []


def test_problems_that_the_agent_finds_look_the_same(sixfold, agent, file):
    problem = {"source": file, "line": 2, "path": "spec", "message": "is immutable"}
    agent.answers["POST /v1/apply"] = (422, {"error": {"message": "", "problems": [problem]}})
    result = sixfold("apply", "-f", file)
    assert result.exit_code == 1
    assert result.stderr.endswith(f"{file}:2: spec: is immutable\n")


def test_a_missing_file_is_named(sixfold, agent):
    result = sixfold("apply", "-f", "/nowhere.yaml")
    assert result.exit_code == 1
    assert "/nowhere.yaml" in result.stderr


def test_standard_input(sixfold, agent):
    agent.answers["POST /v1/apply"] = RESULT
    assert sixfold("apply", "-f", "-", stdin=POLICY).exit_code == 0
    assert agent.last().body["sources"][0]["source"] == "-"
