"""Reach: blocks say exactly what the tables say, for every pair, port and address."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.policy import cases, languages, reference
from tests.policy.worlds import endpoint, nine, np, world

from sixfold.model.world import World
from sixfold.policy import reach as reach_module
from sixfold.policy.reach import pairs_of, reach
from sixfold.policy.reach_parties import View, parties
from sixfold.policy.reach_ports import EVERY_PORT, NO_PORT, PortSet
from sixfold.policy.reach_show import Reach, addresses

HTTP, DNS = PortSet.of("TCP", 80, 80), PortSet.of("UDP", 53, 53)


def test_sets_of_ports_are_exact():
    low, high = PortSet.of("TCP", 0, 99), PortSet.of("TCP", 100, 65535)
    assert low | high == PortSet.of("TCP")
    assert EVERY_PORT - low - HTTP == EVERY_PORT - low
    assert (EVERY_PORT - HTTP) & HTTP == NO_PORT
    assert low - HTTP == PortSet.join([(0, 79), (81, 99)])
    assert PortSet.join([(5, 9), (1, 4), (8, 12)]).spans == ((1, 12),)


def test_sets_of_ports_read_as_people_write_them():
    assert str(EVERY_PORT) == "all"
    assert str(NO_PORT) == "none"
    assert str(HTTP | PortSet.of("TCP", 8000, 8010) | DNS) == "TCP/80,8000-8010 UDP/53"
    assert str(PortSet.of("TCP") | PortSet.of("UDP")) == "TCP UDP"
    assert (HTTP | PortSet.of("SCTP")).texts() == ["TCP/80", "SCTP"]


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
@pytest.mark.parametrize("worlds", [cases, languages], ids=["networkpolicy", "languages"])
@pytest.mark.parametrize("seed", range(40))
def test_random_worlds_are_as_the_reference_says(seed, worlds, posture):
    case = worlds.case(seed, posture)
    if seed % 2:  # as those of a StatefulSet, every pod has a label of its own
        own = [{**pod["labels"], "own": pod["pod"].replace("/", "-")} for pod in case["pods"]]
        case["pods"] = [{**pod, "labels": one} for pod, one in zip(case["pods"], own, strict=True)]
    here = world(case)
    pools = {"pod_ipv4": ip_network("192.168.0.0/16"), "pod_ipv6": ip_network("2001:db8::/64")}
    view = View(replace(here, config=replace(here.config, **pools)))  # the host as cases have it
    groups = parties([view])
    blocks = reach([view], groups)
    pick = random.Random(seed)
    for source, destination, protocol, port, version in worlds.flows(case, pick, 150):
        if "pod" not in source and "pod" not in destination:
            continue
        if source is destination or source.get("pod") == destination.get("pod"):
            continue
        if source.get("ip") in reference.RESOLVERS:
            continue  # nobody sends as the resolver
        sides = [group_of(groups, side, version) for side in (source, destination)]
        face = 0 if len(groups[0].faces) == 1 else (version == 6)
        spot = PortSet.of(protocol, port, port)
        allowed = any(spot & (block.ports[face] or NO_PORT) for block in holding(blocks, sides))
        wanted = reference.allowed(case, source, destination, protocol, port)
        assert allowed == wanted, (source, destination, protocol, port)


def holding(blocks, sides):
    found = [b for b in blocks if sides[0] in b.sources and sides[1] in b.destinations]
    assert len(found) <= 1, "blocks overlap"
    return found


def group_of(groups, side, version):
    """The one group that a side of a case is in."""
    found = []
    for number, group in enumerate(groups):
        if "pod" in side:
            inside = side["pod"] in group.members
        elif side.get("host"):
            inside = group.kind == "host"
        elif side["ip"] in reference.RESOLVERS:
            inside = group.kind == "resolver"
        else:
            address = int(ip_address(side["ip"]))
            inside = any(v == version and a <= address <= b for v, a, b in group.ranges)
        found += [number] if inside else []
    assert len(found) == 1, side
    return found[0]


def shown(case, **more):
    found = Reach(View(world(case, **more)))
    return [(*row.sources, ">", *row.destinations, str(row.ports)) for row in found.rows()]


def test_equal_workloads_stand_in_one_row():
    deny = np("deny", {"podSelector": {}})
    allow = np("allow", {"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [HTTP_RULE]})
    assert shown(nine(deny, allow, posture="zero-trust")) == [
        ("all workloads", ">", "resolver", "TCP/53 UDP/53"),
        ("host", "world", ">", "x/a", "TCP/80"),
    ]
    assert ("all workloads", "world", ">", "x/a", "TCP/80") in shown(nine(deny, allow))


HTTP_RULE = {"ports": [{"port": 80}]}


def test_a_pod_and_itself_are_no_pair():
    found = Reach(View(world(nine())))
    assert all(edge.source != edge.destination for edge in found.edges())
    assert sum(edge.destination == "x/a" for edge in found.edges()) == 8 + 2  # host and world


def test_the_pods_of_one_controller_reach_each_other_or_not():
    def edges(*policies):
        pods = {
            f"x/{name}": type_of(name, workload)
            for name, workload in (("web-1", "Deployment/web"), ("web-2", "Deployment/web"))
        }
        base = world(nine(*policies))
        here = World(config=base.config, endpoints=pods, policies=base.policies)
        return [(one.source, one.destination) for one in Reach(View(here)).edges()]

    assert ("x/web", "x/web") in edges()
    assert ("x/web", "x/web") not in edges(np("deny", {"podSelector": {}}))


@pytest.mark.parametrize("count", [4, 40])
def test_pods_that_the_same_rules_select_and_name_are_looked_at_once(count, monkeypatch):
    looked = []
    flow = reach_module._flow
    monkeypatch.setattr(reach_module, "_flow", lambda *of: looked.append(of) or flow(*of))
    pods = [
        {"pod": f"x/web-{at}", "labels": {"app": "web", "own": str(at)}, "ip": f"192.168.1.{at}"}
        for at in range(count)
    ]
    inward = np("inward", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]})
    found = Reach(View(world(nine(inward, pods=pods))))
    assert sum(edge.source == "x/web-1" for edge in found.edges()) == count - 1 + 3
    assert len(looked) <= 2, "pair by pair"


def type_of(name, workload):
    return replace(endpoint({"pod": f"x/{name}", "labels": {"a": "b"}}, 1, 300), workload=workload)


def test_addresses_are_said_in_few_cidrs():
    low = (4, 0, (1 << 31) - 1)
    everything6 = (6, 0, (1 << 128) - 1)
    assert addresses([low]) == ["0.0.0.0/1"]
    assert addresses([low, (4, 1 << 31, (1 << 32) - 1), everything6]) == ["world"]
    hole = [(4, 0, 9), (4, 11, (1 << 32) - 1)]
    assert addresses(hole) == ["0.0.0.0/0 except 0.0.0.10/32"]
    block = (10 << 24, (11 << 24) - 1)
    inner = (10 << 24) + (1 << 16) + 256
    assert addresses([(4, block[0], inner - 1), (4, inner + 256, block[1])]) == [
        "10.0.0.0/8 except 10.1.1.0/24"
    ]
    assert addresses([(4, block[0], block[1]), (4, 192 << 24, 192 << 24)]) == [
        "10.0.0.0/8",
        "192.0.0.0/32",
    ]


def test_pairs_of_a_block_leave_out_a_single_pod_and_itself():
    view = View(world(nine()))
    groups = parties([view])
    for block in reach([view], groups):
        assert all(a != b or not groups[a].alone for a, b in pairs_of(block, groups))
