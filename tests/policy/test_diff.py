"""A difference is exactly the flows that pass in one world and not in the other."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.policy import cases, languages, reference
from tests.policy.worlds import nine, np, world

from sixfold.policy.diff import compare
from sixfold.policy.reach_parties import View

IN_80 = np(
    "in", {"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"ports": [{"port": 80}]}]}
)
IN_RANGE = np(
    "in",
    {
        "podSelector": {"matchLabels": {"pod": "a"}},
        "ingress": [{"ports": [{"port": 80, "endPort": 82}]}],
    },
)


def difference(before, after):
    return compare(View(world(before)), View(world(after)))


def rows(some):
    return [(row.sources, row.destinations, row.family, str(row.ports)) for row in some]


def test_the_same_world_has_no_difference():
    assert not difference(nine(IN_80), nine(IN_80))


def test_only_the_ports_that_change_are_said():
    found = difference(nine(IN_80), nine(IN_RANGE))
    assert rows(found.opened) == [(("all workloads", "world"), ("x/a",), "", "TCP/81-82")]
    assert found.closed == ()
    back = difference(nine(IN_RANGE), nine(IN_80))
    assert (back.opened, back.closed) == ((), found.opened)


def test_a_workload_that_comes_opens_all_its_flows():
    case = nine(posture="zero-trust")
    newcomer = {"pod": "x/new", "labels": {}, "ip": "192.168.1.77"}
    found = difference(case, {**case, "pods": [*case["pods"], newcomer]})
    assert found.came == ("x/new",)
    assert rows(found.opened) == [(("x/new",), ("resolver",), "", "TCP/53 UDP/53")]


def test_an_exception_that_goes_opens_its_addresses_only():
    def lan(*excepted):
        block = {"cidr": "192.0.2.0/24", "except": list(excepted)}
        return np("lan", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]})

    found = difference(nine(lan("192.0.2.8/29")), nine(lan()))
    assert rows(found.opened) == [(("192.0.2.8/29",), ("x/*",), "", "all")]
    assert found.closed == ()


@pytest.mark.parametrize("worlds", [cases, languages], ids=["networkpolicy", "languages"])
@pytest.mark.parametrize("seed", range(30))
def test_random_changes_are_as_the_reference_says(seed, worlds):
    before = worlds.case(seed)
    after = worlds.change(before, seed)
    pools = {"pod_ipv4": ip_network("192.168.0.0/16"), "pod_ipv6": ip_network("2001:db8::/64")}
    here, there = world(before), world(after)
    views = [View(replace(one, config=replace(one.config, **pools))) for one in (here, there)]
    found = compare(*views)
    both = {pod["pod"] for pod in before["pods"]} & {pod["pod"] for pod in after["pods"]}
    for flow in worlds.flows(before, random.Random(seed), 150):
        source, destination, protocol, port, _ = flow
        ends = [end.get("pod") for end in (source, destination)]
        if not any(ends) or ends[0] == ends[1] or not {*ends} - {None} <= both:
            continue
        if source.get("ip") in reference.RESOLVERS:
            continue
        was, now = (
            reference.allowed(case, *(again(case, end) for end in flow[:2]), protocol, port)
            for case in (before, after)
        )
        assert said(found.opened, flow) == (now and not was), flow
        assert said(found.closed, flow) == (was and not now), flow


def again(case, end):
    """The same pod in another case."""
    same = (pod for pod in case["pods"] if pod["pod"] == end.get("pod"))
    return {**next(same, end), "ip": end["ip"]}


def said(changes, flow):
    source, destination, protocol, port, version = flow
    return any(
        row.family in ("", f"IPv{version}")
        and names(row.sources, source)
        and names(row.destinations, destination)
        and any(p == protocol and a <= port <= b for p, a, b in row.ports.ranges())
        for row in changes
    )


def names(texts, end):
    if "pod" in end:
        wanted = {end["pod"], f"{end['pod'][0]}/*", "all workloads"}
        return bool(wanted & {*texts})
    if end.get("host"):
        return "host" in texts
    if end["ip"] in reference.RESOLVERS:
        return "resolver" in texts
    return any(holds(text, ip_address(end["ip"])) for text in texts)


def holds(text, address):
    if text == "world":
        return True
    block, _, holes = text.partition(" except ")
    if block[0] not in "0123456789:" or "/" not in block or "*" in block:
        return False
    inside = [ip_network(one) for one in holes.split(", ") if one]
    return address in ip_network(block) and not any(address in hole for hole in inside)
