"""Registrations on disk and under checks; those of tests/system/test_catalogue.py dial."""

from __future__ import annotations

import asyncio
import time

import pytest

from sixfold.agent.registrations import Registrations, dial
from sixfold.discovery.registration import parse_registration
from sixfold.errors import NotFoundError
from sixfold.host.probes import ProbeResult
from sixfold.store import Database

WAIT_S = 10.0


async def well(probe, probed):
    return ProbeResult(True, "connected")


@pytest.fixture
def database(tmp_path):
    made = Database(tmp_path / "state.db")
    yield made
    made.close()


def web(**body):
    return parse_registration({"Name": "web", "Port": 80, **body}, "default")


def test_the_next_agent_finds_registrations_as_well_as_they_were(database):
    ours = Registrations(database, well, lambda: None)
    ours.register(web(Check={"TTL": "60s"}, Tags=["a"]))
    ours.say("service:web", "passing", "fine")
    ours.maintain("web", "upgrade")
    (one,) = Registrations(database, well, lambda: None)
    assert one.registration.tags == ("a",)
    assert (one.health[0].status, one.health[0].output, one.maintenance) == (
        "passing",
        "fine",
        "upgrade",
    )
    assert one.health[0].due_s is not None
    assert one.health[0].due_s > time.time() + 30  # nobody could renew it meanwhile


def test_registering_again_keeps_the_health_of_checks_that_are_the_same(database):
    ours = Registrations(database, well, lambda: None)
    ours.register(web(Check={"TTL": "60s"}))
    ours.say("service:web", "passing", "")
    ours.register(web(Check={"TTL": "60s"}, Tags=["new"]))
    assert [one.health[0].status for one in ours] == ["passing"]
    ours.register(web(Check={"TTL": "61s"}))
    assert [one.health[0].status for one in ours] == ["critical"]


def test_only_what_is_news_is_told(database):
    told = []
    ours = Registrations(database, well, lambda: told.append(1))
    ours.register(web(Check={"TTL": "60s"}))
    assert ours.say("service:web", "passing", "same")
    before = len(told)
    assert not ours.say("service:web", "passing", "same")
    assert len(told) == before


def test_ids_of_checks_are_one_services_only(database):
    ours = Registrations(database, well, lambda: None)
    ours.register(web(Check={"TTL": "60s", "CheckID": "c"}))
    with pytest.raises(ValueError, match='CheckID "c": another service has it'):
        ours.register(web(ID="other", Check={"TTL": "60s", "CheckID": "c"}))
    with pytest.raises(NotFoundError, match="Unknown check ID"):
        ours.say("d", "passing", "")


def test_a_check_that_is_due_is_asked_and_a_ttl_that_nobody_renews_expires(database):
    async def scenario():
        ours = Registrations(database, well, lambda: None)
        ours.register(web(Check={"TCP": "192.0.2.1:80", "Interval": "1s"}))
        ours.register(web(ID="late", Check={"TTL": "1ms", "Status": "passing"}))
        wanted = {"web": "passing", "late": "critical"}
        running = asyncio.create_task(ours.run())
        async with asyncio.timeout(WAIT_S):
            while {o.registration.id: o.health[0].status for o in ours} != wanted:
                await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("check", "result", "status"),
    [
        ({"HTTP": "http://192.0.2.1/a?b"}, ProbeResult(True, "", 204), "passing"),
        ({"HTTP": "http://192.0.2.1/"}, ProbeResult(True, "", 302), "critical"),
        ({"HTTP": "http://192.0.2.1/"}, ProbeResult(False, "", 429), "warning"),
        ({"HTTP": "http://192.0.2.1/"}, ProbeResult(False, "no answer"), "critical"),
        ({"TCP": "192.0.2.1:80"}, ProbeResult(True), "passing"),
        ({"GRPC": "192.0.2.1:80/web"}, ProbeResult(False), "critical"),
    ],
)
def test_answers_of_probes_are_statuses_as_consul_has_them(check, result, status):
    asked = []

    async def ask(probe, probed):
        asked.append(probe)
        return result

    registration = web(Check={**check, "Interval": "1s"})
    assert asyncio.run(dial(ask, registration, registration.checks[0]))[0] == status
    (probe,) = asked
    if probe.grpc:
        assert (probe.grpc.port, probe.grpc.service) == (80, "web")
    if probe.http_get and check["HTTP"].endswith("b"):
        assert (probe.http_get.host, probe.http_get.port, probe.http_get.path) == (
            "192.0.2.1",
            80,
            "/a?b",
        )
