"""The demo's manifests, offline: what is meant to pass passes, and the intruder gets nowhere."""

from pathlib import Path

import pytest

from sixfold.manifest import load, offline
from sixfold.mesh.asked import Asked
from sixfold.policy.reach_parties import View
from sixfold.trust.audit import audit
from sixfold.trust.audit_finding import Evidence
from sixfold.trust.explain import explain, plan_offline

BASECAMP = Path(__file__).parents[2] / "examples/basecamp"
MEANT = [
    ("camp/hiker", "kitchen"),
    ("camp/kitchen", "pantry.supply"),
    ("supply/pantry", "store"),
    ("camp/lookout", "weather.supply"),
]
REQUESTS = [("GET", "/rice", True), ("GET", "/", False), ("DELETE", "/rice", False)]


@pytest.fixture(scope="module")
def camp():
    world = offline(load([str(BASECAMP)]))
    return world, plan_offline(world)


@pytest.mark.parametrize(("source", "destination"), MEANT)
def test_what_the_camp_needs_is_allowed(camp, source, destination):
    assert explain(*camp, source, destination).allowed


@pytest.mark.parametrize("target", ["camp/kitchen", "supply/pantry", "supply/store"])
def test_the_intruder_is_denied_everywhere_on_both_sides(camp, target):
    answer = explain(*camp, "outside/intruder", target)
    assert not answer.allowed
    denied = [line.pattern for line in answer.lines if line.outcome == "DROPPED"]
    assert denied == ["policy egress", "policy ingress", "verdict"]


def test_nothing_else_between_workloads_is_allowed(camp):
    world, plans = camp
    meant = {("camp/hiker", "camp/kitchen"), ("camp/kitchen", "supply/pantry")}
    meant |= {("supply/pantry", "supply/store"), ("camp/lookout", "supply/weather")}
    kitchens = {"camp/kitchen", "camp/kitchen-next"}
    meant |= {("camp/hiker", f"camp/kitchen-{version}") for version in ("stable", "next")}
    meant |= {(kitchen, "supply/pantry") for kitchen in kitchens}
    allowed = {
        (source, destination)
        for source in world.endpoints
        for destination in world.services
        if explain(world, plans, source, destination).allowed
    }
    assert allowed == meant


def test_an_audit_has_nothing_to_say(camp):
    assert audit(Evidence(View(camp[0]))) == []


@pytest.mark.parametrize(("method", "path", "allowed"), REQUESTS)
def test_a_kitchen_takes_from_the_pantry_what_it_may(camp, method, path, allowed):
    asked = Asked(method, path)
    assert explain(*camp, "camp/kitchen", "pantry.supply", asked=asked).allowed is allowed
