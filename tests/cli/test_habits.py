"""What a user of kubectl types first: it works, or says where to go."""

import shlex
from importlib import import_module

import click
import pytest

from sixfold.cli.kinds import by_kind, parse_kinds
from sixfold.cli.root import VERBS, as_click, cli
from sixfold.cli.settings import Settings


def examples(verb: str) -> list[str]:
    """The command lines at the end of a verb's help, without remarks and pipes."""
    epilog = import_module(f"sixfold.cli.{verb}").command.epilog or ""
    lines = [line.strip() for line in epilog.splitlines()]
    found = [part.strip() for line in lines for part in line.split(" | ") if "sixfold" in part]
    return [line.partition("   ")[0].partition(" > ")[0] for line in found]


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_in_the_help_is_a_command_line_that_parses(verb, run_dir):
    assert examples(verb), f"{verb} --help shows no example"
    for line in examples(verb):
        words = shlex.split(line.replace("<(", "").replace(")", ""))
        words = words[words.index("sixfold") + 1 :]
        root = cli.make_context("sixfold", list(words))
        name, command, rest = cli.resolve_command(root, [*root._protected_args, *root.args])
        assert command.make_context(name, rest, parent=root).params is not None, line


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("get pods -o=json -n=shop", "get pods -ojson -nshop"),
        ("apply -f x --dry-run=client", "apply -f x --dry-run"),
        ("delete pod x --wait=false", "delete pod x --no-wait"),
        ("exec x -- tar -o=json --wait=false", "exec x -- tar -o=json --wait=false"),
        ("get pods -l app=web", "get pods -l app=web"),
    ],
)
def test_spellings_of_kubectl_are_understood(typed, meant):
    assert list(as_click(typed.split())) == meant.split()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("scale deploy/web --replicas 3", "change spec.replicas"),
        ("rollout status deploy/web", "--wait"),
        ("port-forward svc/web 80", "sixfold get pods -o wide"),
        ("get events", "sixfold describe"),
        ("get nodes", "sixfold status"),
        ("describe pvc x", "pods have the host's files"),
        ("get ingress", "write a Gateway and an HTTPRoute"),
        ("get pods -o jsonpath={.items}", "use -o json with jq"),
        ("flos", "did you mean 'flows'?"),
    ],
)
def test_what_is_not_here_says_what_to_do_instead(sixfold, line, hint):
    result = sixfold(*line.split())
    assert (result.exit_code, hint in result.stderr) == (2, True), result.stderr


def test_all_stands_among_other_kinds_and_each_kind_is_listed_once():
    kinds = [kind.name for kind in parse_kinds("po,all,netpol")]
    assert (kinds[0], kinds[-1]) == ("Pod", "NetworkPolicy")
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("deploy/web", ("", "Deployment", "web")),
        ("shop/svc/db", ("shop", "Service", "db")),
        ("shop/web", None),
        ("web", None),
        ("a/b/c/d", None),
        ("/deploy/web", None),
        ("deploy/", None),
    ],
)
def test_a_kind_before_a_name_is_told_from_a_namespace(text, found):
    known = by_kind(text)
    assert (known and (known[0], known[1].name, known[2])) == found


def completions(complete, words: dict[str, str], prefix: str) -> list[str]:
    context = click.Context(cli, obj=Settings())
    context.params = words
    return [item.value for item in complete(context, None, prefix)]


def test_completion_knows_names_workloads_and_containers(agent):
    from sixfold.cli import completer

    pod = {
        "metadata": {"name": "web-0", "namespace": "default"},
        "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "init"}]},
    }
    agent.answers |= {
        "GET /v1/objects/Pod/default": {"items": [pod]},
        "GET /v1/objects/Pod/default/web-0": {"items": [pod]},
        "GET /v1/objects/Deployment/default": {"items": [{"metadata": {"name": "web"}}]},
        "GET /v1/objects/Service/default": {"items": [{"metadata": {"name": "web"}}]},
        "GET /v1/objects/Namespace": {"items": [{"metadata": {"name": "default"}}]},
    }
    assert completions(completer.kinds, {}, "po,services") == ["po,services"]
    assert completions(completer.kinds, {}, "po/w") == ["po/web-0"]
    assert completions(completer.names, {"kind": "deploy"}, "") == ["web"]
    assert completions(completer.pods, {}, "deploy/") == ["deploy/web"]
    assert completions(completer.containers, {"pod": "web-0"}, "") == ["init", "app"]
    assert completions(completer.places, {}, "default/w") == ["default/web-0", "default/web"]
    assert completions(completer.namespaces, {}, "d") == ["default"]


def test_completion_is_silent_without_an_agent(run_dir):
    from sixfold.cli import completer

    assert completions(completer.pods, {}, "") == []
    assert completions(completer.containers, {"pod": "web-0"}, "") == []


@pytest.mark.parametrize(
    ("options", "grace_s", "wait"),
    [
        ([], None, True),
        (["--now"], 1, True),
        (["--force"], 0, False),
        (["--force", "--grace-period=3"], 3, False),
        (["--grace-period", "0", "--wait=false"], 0, False),
    ],
)
def test_delete_now_and_force(sixfold, agent, options, grace_s, wait):
    agent.answers["POST /v1/delete"] = {"results": []}
    assert sixfold("delete", "pod", "web", *options).exit_code == 0
    assert (agent.last().body["grace_s"], agent.last().body["wait"]) == (grace_s, wait)
    assert sixfold("delete", "pod", "web", "--now", "--force").exit_code == 2


def test_ends_of_flows_may_name_their_kind(sixfold, agent):
    agent.answers["GET /v1/flows"] = b""
    peers = ["--from", "deploy/web,!po/x", "--to", "shop/svc/db"]
    assert sixfold("flows", *peers).exit_code == 0
    params = agent.last().params
    assert (params["from"], params["to"]) == ("Deployment/web,!x", "shop/db")
    agent.answers["POST /v1/explain"] = {"allowed": True, "lines": []}
    assert sixfold("explain", "-n", "shop", "deploy/web", "svc/db:80").exit_code == 0
    body = agent.last().body
    assert (body["from"], body["to"], body["port"]) == ("shop/Deployment/web", "shop/db", 80)
    assert sixfold("explain", "svc/db", "web").exit_code == 2


def test_logs_of_all_pods_with_a_label_say_whose_they_are(sixfold, agent):
    def pod(name):
        spec = {"containers": [{"name": "app"}, {"name": "side"}]}
        metadata = {"name": name, "namespace": "default", "labels": {"app": name[:3]}}
        return {"metadata": metadata, "spec": spec}

    agent.answers["GET /v1/objects/Pod/default"] = {
        "items": [pod("web-0"), pod("web-1"), pod("db")]
    }
    for name in ("web-0", "web-1"):
        agent.answers[f"GET /v1/pods/default/{name}/log"] = b"hello\n"
    result = sixfold("logs", "-l", "app=web", "--prefix")
    assert result.stdout == "[pod/web-0] hello\n[pod/web-1] hello\n"
    assert agent.last().params == {"tail": "10"}
    result = sixfold("logs", "-l", "app=web", "--all-containers", "--prefix", "-f", "--tail=-1")
    assert sorted(result.stdout.splitlines()) == [
        f"[pod/{pod}/{container}] hello"
        for pod in ("web-0", "web-1")
        for container in ("app", "side")
    ]
    assert sixfold("logs").exit_code == 2
    assert sixfold("logs", "web-0", "-l", "app=web").exit_code == 2


def test_labels_are_shown_last(sixfold, agent):
    agent.answers["GET /v1/objects/Namespace"] = {
        "items": [{"metadata": {"name": "shop", "labels": {"team": "a"}}}]
    }
    header, row = sixfold("get", "ns", "--show-labels").stdout.splitlines()
    assert (header.split()[-1], row.split()[-1]) == ("LABELS", "team=a")
