import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from sixfold.cli.root import GROUPS, VERBS, cli


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples_and_the_line_that_the_root_shows(verb, sixfold):
    result = sixfold(verb, "--help")
    assert result.exit_code == 0, result.output
    assert "Examples:" in result.stdout
    command = cli.get_command(None, verb)
    assert command.short_help == VERBS[verb]


def test_every_verb_is_in_one_group_of_the_help(sixfold):
    assert sorted(verb for verbs in GROUPS.values() for verb in verbs) == sorted(VERBS)
    listed = sixfold("--help").stdout
    assert all(line in listed for line in VERBS.values())


def test_help_imports_no_verb_and_nothing_heavy():
    code = (
        "import sys, sixfold.cli.root as root\n"
        "root.cli(['--help'], standalone_mode=False)\n"
        "heavy = {'yaml', 'msgspec', 'rich', 'http.client', 'sixfold.cli.get', 'asyncio'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_an_unknown_verb_is_wrong_usage_and_suggests_one(sixfold):
    result = sixfold("explan")
    assert result.exit_code == 2
    assert "did you mean 'explain'?" in result.stderr


def test_wrong_options_are_wrong_usage(sixfold):
    assert sixfold("get", "--nonsense").exit_code == 2
    assert sixfold("get").exit_code == 2


def test_without_an_agent_it_says_what_to_do(sixfold, run_dir):
    result = sixfold("get", "pods")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {run_dir}/api.sock: agent not running; start it with 'sudo sixfold up'\n"
    )
    assert result.stdout == ""


def test_options_may_stand_before_or_after_the_verb(sixfold, agent):
    agent.answers["GET /v1/objects/Pod/shop"] = {"items": []}
    for args in (["-n", "shop", "get", "pods"], ["get", "pods", "-n", "shop"]):
        assert sixfold(*args).exit_code == 0
        assert agent.last().path == "/v1/objects/Pod/shop"


def test_the_instance_of_the_environment_gives_way_to_the_flag(monkeypatch):
    monkeypatch.delenv("SIXFOLD_RUN_DIR", raising=False)
    monkeypatch.setenv("SIXFOLD_INSTANCE", "from-environment")
    for args, name in (
        (["get", "po"], "from-environment"),
        (["--instance", "flag", "get", "po"], "flag"),
        (["get", "po", "--instance", "flag"], "flag"),
    ):
        result = CliRunner().invoke(cli, args)
        assert f"/run/{name}/api.sock" in result.stderr


def test_no_colour_when_piped_and_none_with_no_color(sixfold, agent, monkeypatch):
    pod = {"metadata": {"name": "web"}, "spec": {}, "status": {"phase": "Running"}}
    agent.answers["GET /v1/objects/Pod/default"] = {"items": [pod]}
    assert "\x1b[" not in sixfold("get", "pods").stdout
    assert "\x1b[32mRunning" in sixfold("get", "pods", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in sixfold("get", "pods", color=True).stdout


def test_errors_of_the_agent_are_shown_as_it_words_them(sixfold, agent):
    agent.answers["GET /v1/status"] = (
        503,
        {"error": {"message": "apply: busy; try again", "problems": []}},
    )
    result = sixfold("status")
    assert (result.exit_code, result.stderr) == (1, "error: apply: busy; try again\n")


def test_an_answer_that_is_not_ours_is_named(sixfold, agent):
    agent.answers["GET /v1/status"] = (500, b"Internal Server Error")
    assert "agent answered 500: Internal Server Error" in sixfold("status").stderr


def test_a_reader_that_goes_away_is_no_crash(agent):
    items = [{"metadata": {"name": f"pod-{n}"}, "spec": {}, "status": {}} for n in range(20000)]
    agent.answers["GET /v1/objects/Pod/default"] = {"items": items}
    result = subprocess.run(
        f"{sys.executable} -m sixfold.cli get pods | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert result.stdout.startswith("NAME")
    assert "Traceback" not in result.stderr
