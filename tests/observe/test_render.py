import json
from ipaddress import ip_address

import msgspec
import pytest
from flow_samples import DENY_RULE, OFFSET_NS, Event, sample_names

from sixfold.model.reason import DropReason
from sixfold.observe import compact, join, response, to_hubble
from sixfold.observe.render import HUBBLE_DROPS


def joined(**changes):
    return join(Event()._replace(**changes), sample_names(), OFFSET_NS)


def test_hubble_json_of_a_forwarded_connection():
    assert to_hubble(joined()) == {
        "time": "2025-11-23T08:00:00.123456789Z",
        "verdict": "FORWARDED",
        "IP": {"source": "10.244.0.4", "destination": "10.244.0.5", "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 41234, "destination_port": 6379, "flags": {"SYN": True}}},
        "source": {
            "ID": 21,
            "identity": 1234,
            "cluster_name": "default",
            "namespace": "shop",
            "labels": [
                "k8s:app=web",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=shop",
            ],
            "pod_name": "web-1",
            "workloads": [{"name": "web", "kind": "Deployment"}],
        },
        "destination": {
            "ID": 22,
            "identity": 1300,
            "cluster_name": "default",
            "namespace": "shop",
            "labels": [
                "k8s:app=db",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=shop",
            ],
            "pod_name": "db-0",
            "workloads": [{"name": "db", "kind": "Deployment"}],
        },
        "Type": "L3_L4",
        "node_name": "basecamp",
        "event_type": {"type": 5},
        "traffic_direction": "INGRESS",
        "is_reply": False,
        "Summary": "TCP Flags: SYN",
        "egress_allowed_by": [{"name": "web-egress", "namespace": "shop", "kind": "NetworkPolicy"}],
        "ingress_allowed_by": [{"name": "allow-web", "namespace": "shop", "kind": "NetworkPolicy"}],
        "interface": {"index": 12},
        "destination_service": {"name": "db", "namespace": "shop"},
        "sixfold": {
            "rule": "shop/web-egress egress[1], shop/allow-web ingress[0]",
            "length": 74,
            "service_port": 6379,
            "egress_rule": {"index": 1, "text": "shop/web-egress egress[1]"},
            "ingress_rule": {"index": 0, "text": "shop/allow-web ingress[0]"},
        },
    }


def test_a_default_deny_names_itself_and_who_isolated():
    record = to_hubble(joined(type=2, reason=133, rule=(DENY_RULE, 1)))
    assert record["verdict"] == "DROPPED"
    assert (record["drop_reason"], record["drop_reason_desc"]) == (133, "POLICY_DENIED")
    assert record["ingress_denied_by"] == [
        {"name": "default-deny", "kind": "posture", "labels": ["sixfold:because=shop/allow-web"]}
    ]
    assert record["egress_allowed_by"][0]["name"] == "web-egress"
    assert "ingress_allowed_by" not in record


def test_an_egress_denial_claims_nothing_about_ingress():
    record = to_hubble(joined(type=2, reason=133, direction=1, rule=(2, DENY_RULE)))
    assert [key for key in record if key.endswith("_by")] == ["egress_denied_by"]


def test_every_drop_reason_renders_and_says_its_own_name():
    for reason in DropReason:
        record = to_hubble(joined(type=2, reason=reason))
        assert record["sixfold"]["drop_reason"] == reason.name
        assert record["drop_reason"] == HUBBLE_DROPS.get(reason, (0, ""))[0]


def test_a_response_is_one_line_of_json_with_the_node():
    line = json.dumps(response(joined()))
    assert "\n" not in line
    assert set(json.loads(line)) == {"flow", "node_name", "time"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param(
            {},
            "Nov 23 08:00:00.123: shop/web-1:41234 (ID:1234) -> shop/db-0:6379 (ID:1300) "
            "policy-verdict:ingress FORWARDED (TCP Flags: SYN) service shop/db:6379 "
            "rule shop/web-egress egress[1], shop/allow-web ingress[0]",
            id="forwarded",
        ),
        pytest.param(
            {"type": 2, "reason": 133, "rule": (DENY_RULE, 1), "service": 0},
            "Nov 23 08:00:00.123: shop/web-1:41234 (ID:1234) -> shop/db-0:6379 (ID:1300) "
            "policy-verdict:ingress DROPPED (TCP Flags: SYN) "
            "rule ingress default-deny (shop/allow-web)",
            id="default deny",
        ),
        pytest.param(
            {"type": 2, "reason": 132, "direction": 1, "rule": (0, 0), "service": 0},
            "Nov 23 08:00:00.123: shop/web-1:41234 (ID:1234) -> shop/db-0:6379 (ID:1300) "
            "drop:invalid-source-ip DROPPED (TCP Flags: SYN)",
            id="spoofed",
        ),
        pytest.param(
            {
                "protocol": 58,
                "icmp_type": 128,
                "destination": ip_address("2001:db8::1"),
                "destination_identity": 2,
                "rule": (0, 1),
                "service": 0,
            },
            "Nov 23 08:00:00.123: shop/web-1 (ID:1234) -> 2001:db8::1 (world) "
            "policy-verdict:ingress FORWARDED (ICMPv6 type 128 code 0) "
            "rule shop/web-egress egress[1]",
            id="ping to the world",
        ),
        pytest.param(
            {"is_reply": 1, "rule": (0, 0), "service": 0, "protocol": 17, "tcp_flags": 0},
            "Nov 23 08:00:00.123: shop/db-0:6379 (ID:1300) <- shop/web-1:41234 (ID:1234) "
            "policy-verdict:ingress FORWARDED (UDP)",
            id="reply",
        ),
    ],
)
def test_compact_line(changes, text):
    assert compact(joined(**changes)) == text


def test_an_ipv6_address_with_a_port_is_bracketed():
    flow = joined(source=ip_address("2001:db8::7"), source_identity=2)
    assert "[2001:db8::7]:41234 (world)" in compact(flow)


def test_what_a_policy_wants_logged_is_said():
    names = sample_names()
    names.rules[1] = msgspec.structs.replace(names.rules[1], log="paid")
    flow = join(Event(), names, OFFSET_NS)
    assert compact(flow).endswith(" log paid")
    assert to_hubble(flow)["policy_log"] == ["paid"]


def test_an_address_of_the_world_goes_by_the_name_that_it_was_last_known_by():
    names = sample_names()
    address = ip_address("198.51.100.7")
    for name in ("old.example.org", "api.example.org"):
        names.add_domain(name, [address])
    flow = join(Event(destination=address, destination_identity=2), names, OFFSET_NS)
    assert to_hubble(flow)["destination_names"] == ["old.example.org", "api.example.org"]
    assert "-> api.example.org (198.51.100.7):6379 (world)" in compact(flow)
    pod = join(Event(), names, OFFSET_NS)
    assert "destination_names" not in to_hubble(pod)
