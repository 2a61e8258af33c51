"""``reach --probes`` against the reference: random worlds, as files, through the command."""

import json
import random

import pytest
import yaml
from tests.policy import languages
from tests.policy.reference import allowed

from sixfold.model.config import Config

SEEDS = 12
FLOWS = 150


def pod(one, kind):
    """A pod of a case as a manifest; those of a ReplicaSet come as in a dump of a cluster."""
    namespace, name = one["pod"].split("/")
    ports = [
        {"name": port["name"], "containerPort": port["port"], "protocol": port["protocol"]}
        for port in one["ports"]
    ]
    container = {"name": "main", "image": "example.org/main", "ports": ports}
    if one["probes"]:
        container["readinessProbe"] = {"tcpSocket": {"port": one["probes"][0]}}
    metadata = {"name": name, "namespace": namespace, "labels": one["labels"]}
    if kind == "ReplicaSet":
        owner = {"apiVersion": "apps/v1", "kind": kind, "name": f"{name}-5d", "controller": True}
        metadata |= {"generateName": f"{name}-5d-", "ownerReferences": [owner]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"serviceAccountName": one["account"], "containers": [container]},
        "status": {"phase": "Running", "podIPs": [{"ip": one["ip"]}, {"ip": one["ip6"]}]},
    }


def manifests(case, pick):
    """All objects of a case, in any order, over files of several shapes."""
    kinds = {one["pod"]: pick.choice(("Pod", "ReplicaSet")) for one in case["pods"]}
    objects = [pod(one, kinds[one["pod"]]) for one in case["pods"]]
    objects += [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in case["namespaces"].items()
    ]
    objects += [
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumCIDRGroup",
            "metadata": {"name": name, "labels": group["labels"]},
            "spec": {"externalCIDRs": group["cidrs"]},
        }
        for name, group in case["groups"].items()
    ]
    objects += [*case["policies"], *case["services"]]
    pick.shuffle(objects)
    thirds = [objects[at::3] for at in range(3)]
    return {
        "a/list.json": json.dumps({"kind": "List", "apiVersion": "v1", "items": thirds[0]}),
        "a/b/many.yaml": yaml.safe_dump_all(thirds[1]),
        "more.yml": "\n---\n".join(map(json.dumps, thirds[2])) + "\n---\n",
    }, kinds


def at_home(side, version):
    """The host has the address that the command takes for its own."""
    own = Config().host_ipv4 if version == 4 else Config().host_ipv6
    return {**side, "ip": str(own)} if side.get("host") else side


def name_of(side, kinds, pick, version):
    if "pod" not in side:
        return side["ip"]
    namespace, name = side["pod"].split("/")
    names = [side["pod"], f"{namespace}/Pod/{name}", side["ip"]]
    if kinds[side["pod"]] == "ReplicaSet":
        names += [f"{namespace}/{name}-5d", f"{namespace}/ReplicaSet/{name}-5d"]
    return names[2] if version == 6 else pick.choice(names)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_the_command_says_of_files_is_what_the_reference_says(sixfold, tmp_path, seed):
    pick = random.Random(seed)
    case = languages.case(seed + 1000, pick.choice(("kubernetes", "zero-trust")))
    case["domains"] = {}  # offline nobody has resolved a name
    files, kinds = manifests(case, pick)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    flows = [
        (*map(at_home, flow[:2], [flow[4]] * 2), *flow[2:])
        for flow in languages.flows(case, pick, FLOWS)
        if not ({"pod"} <= flow[0].keys() & flow[1].keys() and flow[0]["pod"] == flow[1]["pod"])
    ]
    probes = [
        {
            "from": name_of(source, kinds, pick, version),
            "to": name_of(destination, kinds, pick, 6),
            "protocol": protocol,
            "port": port,
        }
        for source, destination, protocol, port, version in flows
    ]
    text = "".join(json.dumps(probe) + "\n" for probe in probes)
    settings = (
        "--posture",
        case["posture"],
        f"--ipblock-matches-pods={case['ipblock_matches_pods']}",
    )
    paths = ("-f", str(tmp_path / "a"), "-f", str(tmp_path / "more.yml"))
    result = sixfold("reach", *paths, *settings, "--probes", "-", stdin=text)
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    wrong = [
        (flow, answer)
        for flow, answer in zip(flows, answers, strict=True)
        if (answer["verdict"] == "ALLOWED") != allowed(case, *flow[:4])
    ]
    assert not wrong, f"seed {seed}: {len(wrong)} of {len(flows)} differ: {wrong[0]}"
