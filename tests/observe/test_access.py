"""Entries of the proxy's access log, as Envoy 1.40 sends them, become flows."""

from ipaddress import ip_address

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry, TCPAccessLogEntry
from google.protobuf import any_pb2
from google.protobuf.wrappers_pb2 import StringValue

from sixfold.model.flow import Verdict
from sixfold.model.identity import Identity
from sixfold.model.reason import DropReason
from sixfold.model.rule import Rule
from sixfold.observe.access import NETNS, Asked, access
from sixfold.observe.names import Names, Owner

CLIENT, SERVER = ip_address("10.244.0.2"), ip_address("10.244.0.3")
ALLOW = Rule("NetworkPolicy", "shop", "web", "ingress", 0)
DEFAULT = Rule("posture", "", "default-deny", "ingress", because="zero-trust")
NAMES = Names(
    owners={
        CLIENT: Owner("shop", "client", "Pod/client", 1, Identity(256)),
        SERVER: Owner("shop", "web", "Pod/web", 2, Identity(257)),
    },
    rules={7: ALLOW},
)
NOT_ALLOWED = Rule("posture", "", "default-deny", "ingress", because="AuthorizationPolicy shop/a")
PLAN = Asked(lambda *_: DEFAULT, lambda *_: NOT_ALLOWED, lambda *_: CLIENT)
ID = "spiffe://home/ns/shop/sa/"


def place(address, port):
    return {"socket_address": {"address": str(address), "port_value": port}}


def tunnel(code, details, policy="", authority="10.244.0.3:80"):
    decided = {"enforced_effective_policy_id": policy} if policy else {}
    entry = HTTPAccessLogEntry(
        common_properties={
            "downstream_direct_remote_address": place(CLIENT, 40000),
            "downstream_local_address": place(SERVER, 15008),
            "tls_properties": {
                "local_certificate_properties": {"subject_alt_name": [{"uri": f"{ID}web"}]},
                "peer_certificate_properties": {"subject_alt_name": [{"uri": f"{ID}client"}]},
            },
            "start_time": {"seconds": 1, "nanos": 5},
        },
        request={"authority": authority, "request_headers": {"forwarded": 'for="_pod:51234"'}},
        response={"response_code": {"value": code}, "response_code_details": details},
    )
    if decided:
        fields = entry.common_properties.metadata.filter_metadata["envoy.filters.http.rbac"]
        fields.update(decided)
    return entry


def told(log, entry):
    return access(log, entry, NAMES, PLAN)


def test_a_tunnel_is_a_flow_between_its_inner_ends_with_its_rule_and_both_ids():
    flow = told("inbound", tunnel(200, "via_upstream", "7 shop/web ingress[0]"))
    assert flow.verdict is Verdict.FORWARDED
    assert (flow.source.name, flow.source.port) == ("shop/client", 51234)
    assert (flow.destination.name, flow.destination.port) == ("shop/web", 80)
    assert flow.ingress_rule == ALLOW
    assert (flow.extra["source_id"], flow.extra["destination_id"]) == (f"{ID}client", f"{ID}web")
    assert flow.time_ns == 10**9 + 5


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ({"enforced_engine_result": "denied"}, "default-deny (zero-trust)"),
        (
            {
                "deny_enforced_engine_result": "denied",
                "deny_enforced_effective_policy_id": "AuthorizationPolicy shop/not-c rules[2]",
            },
            "AuthorizationPolicy shop/not-c rules[2]",
        ),
        (
            {"deny_enforced_engine_result": "allowed", "allow_enforced_engine_result": "denied"},
            "default-deny (AuthorizationPolicy shop/a)",
        ),
    ],
)
def test_what_an_authorization_policy_denies_is_told_by_its_rule(said, rule):
    entry = tunnel(403, "rbac_access_denied_matched_policy[none]")
    entry.common_properties.metadata.filter_metadata["envoy.filters.http.rbac"].update(said)
    flow = told("inbound", entry)
    assert flow.verdict is Verdict.DROPPED
    assert str(flow.ingress_rule) == rule
    assert flow.extra["source_id"] == f"{ID}client"


@pytest.mark.parametrize(
    ("said", "verdict", "rule"),
    [
        ({"policy_shadow_engine_result": "denied"}, Verdict.AUDIT, "default-deny (told)"),
        (
            {
                "deny_shadow_engine_result": "denied",
                "deny_shadow_effective_policy_id": "AuthorizationPolicy shop/not-c rules[2]",
            },
            Verdict.AUDIT,
            "AuthorizationPolicy shop/not-c rules[2]",
        ),
        (
            {
                "deny_shadow_engine_result": "denied",
                "deny_shadow_effective_policy_id": "told AuthorizationPolicy shop/l rules[0]",
            },
            Verdict.FORWARDED,
            "shop/web ingress[0]",
        ),
        ({"allow_shadow_engine_result": "denied"}, Verdict.AUDIT, "default-deny (told too)"),
        ({"allow_shadow_engine_result": "allowed"}, Verdict.FORWARDED, "shop/web ingress[0]"),
    ],
)
def test_what_is_in_audit_passes_and_is_told_by_its_rule(said, verdict, rule):
    entry = tunnel(200, "via_upstream", "7 shop/web ingress[0]")
    entry.common_properties.metadata.filter_metadata["envoy.filters.http.rbac"].update(said)
    one, other = (
        Rule("posture", "", "default-deny", "ingress", because=text)
        for text in ("told", "told too")
    )
    plan = PLAN._replace(told_by=lambda _: one, told_not_allowed_by=lambda _: other)
    flow = access("inbound", entry, NAMES, plan)
    assert (flow.verdict, str(flow.ingress_rule)) == (verdict, rule)
    assert ("told by" in flow.extra.get("mesh", "")) is ("told AuthorizationPolicy" in str(said))


def test_a_tunnel_over_ipv6_is_to_the_address_in_brackets():
    flow = told("inbound", tunnel(200, "", "7 shop/web", "[fd00::3]:80"))
    assert (str(flow.destination.address), flow.destination.port) == ("fd00::3", 80)


def test_a_tunnel_that_rbac_refuses_is_dropped_by_the_rule_that_denies():
    flow = told("inbound", tunnel(403, "rbac_access_denied_matched_policy[none]"))
    assert (flow.verdict, flow.drop_reason) == (Verdict.DROPPED, DropReason.POLICY_DENIED)
    assert flow.ingress_rule == DEFAULT


def test_a_workload_that_does_not_listen_is_an_error_of_an_allowed_flow():
    flow = told("inbound", tunnel(503, "connection_refused", "7 shop/web"))
    assert (flow.verdict, flow.ingress_rule) == (Verdict.ERROR, ALLOW)
    assert "connection_refused" in flow.extra["mesh"]


def test_a_handshake_that_failed_is_an_error_with_tls_own_words():
    why = (
        "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end"
    )
    entry = TCPAccessLogEntry(
        common_properties={
            "downstream_direct_remote_address": place(CLIENT, 40000),
            "downstream_local_address": place(SERVER, 15008),
            "downstream_transport_failure_reason": why,
        }
    )
    flow = told("listener", entry)
    assert flow.verdict is Verdict.ERROR
    assert flow.extra["mesh"] == "handshake: CERTIFICATE_VERIFY_FAILED"


def test_a_connection_that_ended_well_is_no_flow_of_its_own():
    assert told("listener", TCPAccessLogEntry()) is None
    assert told("outbound", TCPAccessLogEntry()) is None


def outbound(**common):
    entry = TCPAccessLogEntry(
        common_properties={
            "downstream_direct_remote_address": place("127.0.0.1", 51234),
            "downstream_local_address": place(SERVER, 80),
            **common,
        }
    )
    path = StringValue(value="/run/x/netns/1").SerializeToString()
    entry.common_properties.filter_state_objects[NETNS].CopyFrom(any_pb2.Any(value=path))
    return entry


def test_the_client_of_a_captured_connection_is_the_pod_that_its_namespace_is():
    entry = outbound(response_flags={"upstream_connection_failure": True})
    asked = []
    plan = PLAN._replace(address_in=lambda *it: asked.append(it) or CLIENT)
    flow = access("outbound", entry, NAMES, plan)
    assert asked == [("/run/x/netns/1", 4)]
    assert (flow.verdict, flow.source.name, flow.source.port) == (
        Verdict.ERROR,
        "shop/client",
        51234,
    )


def test_what_the_other_end_refused_is_told_there():
    entry = outbound(upstream_transport_failure_reason="tunnel_response:403")
    assert told("outbound", entry) is None


def sent(details, code=503, cluster="service|shop/web:80"):
    return HTTPAccessLogEntry(
        common_properties={
            "downstream_direct_remote_address": place("127.0.0.1", 40000),
            "downstream_local_address": place("10.96.0.5", 80),
            "upstream_cluster": cluster,
        },
        request={"authority": "web", "path": "/x", "request_method": "GET"},
        response={"response_code": {"value": code}, "response_code_details": details},
    )


def test_a_request_that_no_backend_answered_is_told_with_what_it_met():
    flow = told("sent", sent("upstream_reset_before_response_started{overflow}"))
    assert flow.verdict is Verdict.ERROR
    assert (flow.source.name, flow.source.port) == ("shop/client", 40000)
    assert (flow.service, flow.service_port) == ("shop/web", 80)
    assert flow.extra["http"] == "GET web/x 503"
    assert flow.extra["mesh"] == "circuit breaker: too many at once"
    assert told("sent", sent("something_new", cluster="")).extra["mesh"] == "something_new"
    assert told("sent", sent("via_upstream")) is None


@pytest.mark.parametrize(
    ("code", "details", "verdict", "mesh"),
    [
        (200, "via_upstream", Verdict.FORWARDED, None),
        (301, "direct_response", Verdict.FORWARDED, None),
        (404, "route_not_found", Verdict.ERROR, "no match of a route"),
        (421, "direct_response", Verdict.ERROR, "for another listener's host"),
        (500, "direct_response", Verdict.ERROR, "its route has a backend that is none"),
    ],
)
def test_what_a_client_of_a_gateway_asked_is_told_with_its_answer(code, details, verdict, mesh):
    flow = told("gateway", sent(details, code))
    assert flow.verdict == verdict
    assert flow.extra["http"].endswith(str(code))
    assert flow.extra.get("mesh") == mesh


def test_a_client_of_a_gateway_that_asked_nothing_is_no_flow():
    entry = sent("downstream_remote_disconnect", 0)
    entry.request.path = ""
    assert told("gateway", entry) is None


KEPT_IN = Rule("posture", "", "default-deny", "egress", because="CiliumNetworkPolicy shop/client")
OUT = PLAN._replace(kept_in_by=lambda _: KEPT_IN)


def test_a_handshake_that_was_not_passed_is_dropped_by_its_name_and_rule():
    said = {"tls_sni_hostname": "evil.example.org"}
    entry = outbound(response_flags={"no_cluster_found": True}, tls_properties=said)
    flow = access("outward", entry, NAMES, OUT)
    assert (flow.verdict, flow.egress_rule, flow.extra["sni"]) == (
        Verdict.DROPPED,
        KEPT_IN,
        "evil.example.org",
    )
    assert access("outward", outbound(), NAMES, OUT) is None  # what passed the kernel tells


@pytest.mark.parametrize(
    ("details", "code", "verdict"),
    [
        pytest.param("via_upstream", 500, Verdict.FORWARDED, id="answered"),
        pytest.param("direct_response", 403, Verdict.DROPPED, id="another host"),
        pytest.param("direct_response", 502, Verdict.ERROR, id="no secret"),
        pytest.param("upstream_reset_before_response_started", 503, Verdict.ERROR, id="reset"),
    ],
)
def test_a_request_to_a_service_outside_is_told_with_what_became_of_it(details, code, verdict):
    flow = access("external", sent(details, code), NAMES, OUT)
    assert (flow.verdict, flow.direction) == (verdict, "egress")
    assert flow.extra["http"] == f"GET web/x {code}"
    assert (flow.egress_rule is KEPT_IN) == (verdict is Verdict.DROPPED)
