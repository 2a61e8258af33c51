import json

import pytest
from test_explain import MANIFESTS

WIDER = MANIFESTS.replace("port: 6379}]", "port: 6379, endPort: 6380}]")


@pytest.fixture
def diff(sixfold, tmp_path):
    def run(old, new, *args):
        for name, text in (("old", old), ("new", new)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "shop.yaml").write_text(text)
        return sixfold("diff", str(tmp_path / "old"), str(tmp_path / "new"), *args)

    return run


def test_no_change_exits_0(diff):
    result = diff(MANIFESTS, MANIFESTS)
    assert (result.exit_code, result.stdout) == (0, "")


def test_what_opens_and_closes_exits_1(diff):
    result = diff(MANIFESTS, WIDER)
    assert result.exit_code == 1, result.output
    assert [line.split() for line in result.stdout.splitlines()][1:] == [
        ["+", "shop/web", "shop/db", "TCP/6380"]
    ]
    answer = json.loads(diff(WIDER, MANIFESTS, "-o", "json").stdout)
    assert answer["opened"] == []
    assert answer["closed"] == [{"from": ["shop/web"], "to": ["shop/db"], "ports": ["TCP/6380"]}]


def test_a_comment_for_a_pull_request(diff):
    text = diff(MANIFESTS, WIDER, "-o", "markdown").stdout
    assert "| ➕ | `shop/web` | `shop/db` | `TCP/6380` |" in text


def test_trouble_exits_2(diff, sixfold):
    assert diff(MANIFESTS, "kind: Pod\n").exit_code == 2
    assert sixfold("diff", "one").exit_code == 2
    assert sixfold("diff", "--live", "one", "two").exit_code == 2
