"""Registrations: what is taken of a request, and how checks fare as time goes by."""

from __future__ import annotations

import pytest

from sixfold.discovery.registration import (
    Health,
    RegistrationError,
    begin,
    duration_s,
    expire,
    is_overdue,
    parse_check,
    parse_registration,
    report,
    worst,
)


def parse(**body):
    return parse_registration({"Name": "web", **body}, "default")


def test_keys_come_in_any_case_and_with_underscores():
    ours = parse_registration(
        {
            "name": "web.shop",
            "id": "w1",
            "checks": [{"check_id": "c", "tcp": "192.0.2.1:80", "interval": "10s"}],
            "weights": {"passing": 3},
        },
        "default",
    )
    assert (ours.service, ours.id, ours.weight) == ("shop/web", "w1", 3)
    assert [(c.id, c.type, c.interval_s) for c in ours.checks] == [("c", "tcp", 10.0)]


def test_ids_of_checks_are_numbered_when_there_are_several():
    ttl = {"TTL": "1m"}
    assert [c.id for c in parse(Check=ttl).checks] == ["service:web"]
    assert [c.id for c in parse(Checks=[ttl, ttl]).checks] == ["service:web:1", "service:web:2"]


def test_what_says_nothing_is_taken_whatever_it_is_called():
    assert parse(Connect=None, Proxy={}, EnableTagOverride=False, Kind="").name == "web"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"Name": "Web!"}, "Name 'Web!'"),
        ({"Address": "web.example"}, "give an IP address"),
        ({"Address": "127.0.0.1"}, "nobody else reaches it"),
        ({"Address": "169.254.1.1"}, "is of one link only"),
        ({"Port": 70000}, "Port 70000"),
        ({"Connect": {"Native": True}}, "service: Connect: not supported"),
        ({"Tags": "a"}, "Tags: give a list"),
        ({"Check": {"Args": ["sh"]}}, "check: Args: not supported"),
        ({"Check": {"TTL": "1m", "TCP": "a:1"}}, "give one of TTL, HTTP, TCP, GRPC"),
        ({"Check": {"TCP": "192.0.2.1:80"}}, "Interval: give 1s or more"),
        ({"Check": {"HTTP": "ftp://a/", "Interval": "1s"}}, "give http://HOST:PORT/PATH"),
        ({"Check": {"HTTP": "https://a/", "Interval": "1s"}}, "set TLSSkipVerify"),
        ({"Check": {"HTTP": "http://a/", "Interval": "1s", "Method": "PUT"}}, "only GET"),
        ({"Check": {"TTL": "soon"}}, "duration 'soon'"),
        ({"Checks": [{"TTL": "1m", "CheckID": "x"}] * 2}, "the same CheckID twice"),
        ({"Weights": {"Passing": 1000}}, r"Weights\.Passing"),
    ],
)
def test_what_is_not_done_is_refused_with_words(body, says):
    with pytest.raises(RegistrationError, match=says):
        parse(**body)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1m30s", 90), ("250ms", 0.25), (10_000_000_000, 10), (5, 5)]
)
def test_durations_are_those_of_go(text, seconds):
    assert duration_s(text) == seconds


def test_a_ttl_expires_unless_it_is_renewed():
    check = parse_check({"TTL": "10s"}, "c", "c")
    health = begin(check, 0.0)
    assert health.status == "critical"
    health = report(check, health, "passing", "well", 1.0)
    assert expire(check, health, 10.9) == health
    gone = expire(check, health, 11.0)
    assert (gone.status, gone.output, gone.critical_since_s) == ("critical", "TTL expired", 11.0)
    assert expire(check, gone, 99.0) == gone
    assert report(check, gone, "warning", "", 100.0).critical_since_s is None


def test_a_status_follows_after_as_many_results_as_were_asked_for():
    body = {"TCP": "192.0.2.1:80", "Interval": "1s"}
    body |= {"SuccessBeforePassing": 2, "FailuresBeforeCritical": 3}
    check = parse_check(body, "c", "c")
    health, seen = begin(check, 0.0), []
    for now_s, status in enumerate(["passing"] * 2 + ["critical"] * 3 + ["passing"]):
        health = report(check, health, status, "", float(now_s))
        seen.append(health.status)
    assert seen == ["critical", "passing", "passing", "passing", "critical", "critical"]


def test_what_is_critical_for_too_long_is_overdue_and_never_sooner_than_a_minute():
    check = parse_check({"TTL": "10s", "DeregisterCriticalServiceAfter": "1s"}, "c", "c")
    health = begin(check, 0.0)
    assert not is_overdue(check, health, 59.0)
    assert is_overdue(check, health, 60.0)
    assert not is_overdue(check, Health("passing"), 1e9)
    assert not is_overdue(parse_check({"TTL": "10s"}, "c", "c"), health, 1e9)


def test_an_instance_is_as_well_as_its_worst_check():
    assert worst([]) == "passing"
    assert worst(["passing", "warning"]) == "warning"
    assert worst(["critical", "warning"]) == "critical"
