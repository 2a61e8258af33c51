"""Posture: what holds of each workload and pair, and how it is shown."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.policy.worlds import nine, np, world
from tests.trust.test_audit import BASES, FROM_B, OWN, service

from sixfold.policy.reach_parties import View
from sixfold.trust.audit_finding import Evidence, Live, PairSeen
from sixfold.trust.posture import QUESTIONS, posture
from sixfold.trust.posture_show import html, markdown, structured

RULES = ("x/b egress[0]", "x/from-b ingress[0]")
PAIR = PairSeen("x/b", "x/a", 80, "TCP", 3, True, "x/web", RULES)


def found(*pairs, mtls="strict", posture_="zero-trust", **live):
    here = world({**nine(*BASES, FROM_B, posture=posture_), "pods": OWN})
    here = replace(here, config=replace(here.config, mtls=mtls), services={"x/web": service()})
    return posture(Evidence(View(here), Live(pairs=pairs, **live)))


def test_a_system_as_it_should_be_is_clean():
    seen = found(PAIR, replace(PAIR, connections=2, rules=("other", "rules")))
    assert seen.clean
    (pair,) = seen.pairs
    assert (pair.name, pair.to, pair.port, pair.connections) == (
        "x/Pod/b",
        "x/Pod/a",
        "80/TCP",
        5,
    )
    assert len(seen.workloads) == 9
    assert seen.counts(seen.workloads) == dict.fromkeys(QUESTIONS, 9)


@pytest.mark.parametrize(
    ("change", "question", "why"),
    [
        ({"server": "x/c"}, "discoverable", "no service leads to it"),
        ({"service": ""}, "balanced", "dialled past its service"),
        ({"rules": ("a", "default-allow (kubernetes)")}, "allow-listed", "let in by default-allow"),
        ({"mtls": False}, "authenticated", "plaintext"),
        ({"rules": ("a", "")}, "observed", "its rule is not known any more"),
    ],
)
def test_an_exception_of_a_pair_says_why(change, question, why):
    seen = found(PAIR, replace(PAIR, **change))
    assert not seen.clean
    exceptions = {name: text for one in seen.pairs for name, text in one.exceptions.items()}
    assert exceptions.pop(question).startswith(why)
    assert exceptions == {}


def test_an_exception_of_a_workload_says_why():
    (first, *_) = found(mtls="disabled", flows_lost=3).workloads
    assert first.exceptions == {"authenticated": "mTLS is off", "observed": "3 flows were lost"}
    here = world({**nine(np("one", {"podSelector": {}})), "pods": OWN})
    told = {
        one.name: one.exceptions.get("allow-listed")
        for one in posture(Evidence(View(here), Live())).workloads
    }
    assert told["x/Pod/a"] == "egress open by default"
    assert told["y/Pod/a"] == "ingress and egress open by default"


def test_who_is_gone_is_no_pair():
    assert found(replace(PAIR, client="x/gone")).pairs == ()


def test_who_came_from_a_federated_trust_domain_is_a_pair_and_who_is_gone_is_none():
    web = "spiffe://partner.example/ns/shop/sa/web"
    came = PairSeen(web, "x/a", 80, "TCP", 2, mtls=True, rules=("", "x/a rules[0]"))
    here = world({**nine(*BASES, FROM_B), "pods": OWN})
    config = replace(here.config, mtls="strict")
    here = replace(here, config=config, services={"x/web": service()})
    live = Live(from_abroad=(came, replace(came, rules=("", ""))))
    assert posture(Evidence(View(here), live)).pairs == ()  # nobody vouches for it
    known = replace(here, federated=frozenset({"partner.example"}))
    (pair,) = posture(Evidence(View(known), live)).pairs
    assert (pair.name, pair.to, pair.port, pair.connections) == (web, "x/Pod/a", "80/TCP", 4)
    assert pair.exceptions == {"observed": "its rule is not known any more"}


def test_it_can_be_shown_in_every_form():
    seen = found(PAIR, replace(PAIR, mtls=False, client="x/c"))
    told = structured(seen)
    assert told["counts"]["pairs"] == {
        "total": 2,
        **dict.fromkeys(QUESTIONS, 2),
        "authenticated": 1,
    }
    assert "| x/Pod/c → x/Pod/a 80/TCP | yes | yes | yes | NO | yes | plaintext |" in markdown(seen)
    page = html(seen)
    assert "<svg" in page
    assert "x/Pod/c → x/Pod/a 80/TCP" in page
    assert re.findall(r"(?:src|href)=|url\((?!#)|@import", page) == []


def test_what_is_told_only_is_on_no_allow_list():
    here = world({**nine(*BASES, FROM_B, posture="zero-trust"), "pods": OWN})
    here = replace(here, audited=frozenset("x"), services={"x/web": service()})
    pairs = (PAIR, replace(PAIR, port=81))
    seen = posture(Evidence(View(here), Live(pairs=pairs)))
    told = {one.name: one.exceptions.get("allow-listed") for one in seen.workloads}
    assert (told["x/Pod/a"], told["y/Pod/a"]) == ("told, not enforced: namespace x", None)
    why = "passes only because of an audit"
    assert [one.exceptions.get("allow-listed") for one in seen.pairs] == [why, why]
