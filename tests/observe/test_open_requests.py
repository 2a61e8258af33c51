"""Entries of the log of open requests, as Envoy 1.40 sends them."""

from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from tests.observe.test_access import ALLOW, CLIENT, NAMES, PLAN, SERVER, place

from sixfold.model.flow import Verdict
from sixfold.observe.access import access
from sixfold.observe.open_requests import cut, key_of, open_request


def entry():
    found = HTTPAccessLogEntry(
        common_properties={
            "downstream_direct_remote_address": place(CLIENT, 40000),
            "downstream_local_address": place(SERVER, 15008),
            "upstream_local_address": place(CLIENT, 41000),
            "upstream_remote_address": place(SERVER, 80),
            "start_time": {"seconds": 1, "nanos": 5},
        },
        request={
            "request_method": "GET",
            "authority": "web",
            "path": "/x?y=1",
            "request_headers": {"x-sixfold-destination": f"{SERVER}:80"},
        },
        response={"response_code": {"value": 200}, "response_code_details": "via_upstream"},
    )
    said = found.common_properties.metadata.filter_metadata
    said["sixfold.headers"].update({"x-team": "a"})
    said["sixfold.headers.absent"].update({"x-other": "absent"})
    said["envoy.filters.http.jwt_authn"].update({"payload": {"sub": "me", "aud": ["x"]}})
    return found


def test_of_an_open_request_is_known_what_rules_look_at_and_which_socket_carries_it():
    one = open_request(entry())
    assert (one.source, one.destination) == ((CLIENT, 40000), (SERVER, 80))
    assert (one.near, one.far) == ((CLIENT, 41000), (SERVER, 80))
    assert (one.method, one.host, one.path) == ("GET", "web", "/x?y=1")
    assert (one.headers, one.absent) == ({"x-team": "a"}, {"x-other"})
    assert one.claims == {"sub": "me", "aud": ["x"]}


def test_a_request_that_was_cut_is_dropped_by_the_rule_of_today():
    flow = cut(access("requests", entry(), NAMES, PLAN), ALLOW, "")
    assert (flow.verdict, flow.ingress_rule) == (Verdict.DROPPED, ALLOW)
    assert flow.extra["http"] == "GET web/x?y=1 200"
    assert flow.extra["connection"] == "cut"


def test_the_end_of_a_request_is_known_by_its_beginning():
    other = entry()
    other.common_properties.start_time.nanos = 6
    assert key_of(entry()) == key_of(entry()) != key_of(other)


def test_where_a_request_went_is_known_when_it_was_passed_on_without_that_header():
    one = entry()
    del one.request.request_headers["x-sixfold-destination"]
    kept = one.common_properties.metadata.filter_metadata["sixfold.headers"]
    kept.update({"x-sixfold-destination": f"{SERVER}:81", "x-sixfold-client-port": "40001"})
    found = open_request(one)
    assert (found.source, found.destination) == ((CLIENT, 40001), (SERVER, 81))
    assert found.headers == {"x-team": "a"}
