from ipaddress import ip_address

import pytest
from flow_samples import DENY_RULE, OFFSET_NS, Event, sample_names

from sixfold.model.flow import Verdict
from sixfold.model.identity import HOST, WORLD
from sixfold.model.reason import DropReason
from sixfold.observe import join


def joined(**changes):
    return join(Event()._replace(**changes), sample_names(), OFFSET_NS)


def test_both_sides_get_their_names_labels_and_rules():
    flow = joined()
    assert (flow.source.name, flow.destination.name) == ("shop/web-1", "shop/db-0")
    assert flow.source.workload == "Deployment/web"
    assert "k8s:app=web" in flow.source.labels
    assert str(flow.egress_rule) == "shop/web-egress egress[1]"
    assert str(flow.ingress_rule) == "shop/allow-web ingress[0]"
    assert (flow.service, flow.service_port) == ("shop/db", 6379)
    assert (flow.node, flow.verdict) == ("basecamp", Verdict.FORWARDED)


def test_time_is_moved_to_the_epoch():
    assert joined().time_ns == OFFSET_NS + 123_456_789


def test_a_drop_carries_its_reason_and_the_rule_that_denied():
    flow = joined(type=2, reason=133, rule=(DENY_RULE, 1))
    assert (flow.verdict, flow.drop_reason) == (Verdict.DROPPED, DropReason.POLICY_DENIED)
    assert str(flow.ingress_rule) == "default-deny (shop/allow-web)"


def test_a_spoofed_address_does_not_borrow_the_name_of_its_owner():
    flow = joined(
        type=2,
        reason=DropReason.INVALID_SOURCE_IP,
        direction=1,
        source=ip_address("10.244.0.5"),
        ifindex=12,
    )
    assert flow.source.name == "shop/web-1"


def test_a_spoofed_source_from_outside_has_no_name():
    flow = joined(type=2, reason=DropReason.INVALID_SOURCE_IP, direction=0)
    assert flow.source.pod == ""


@pytest.mark.parametrize("identity", [HOST, WORLD])
def test_the_kernels_word_on_host_and_world_beats_a_stale_address(identity):
    assert joined(source_identity=identity).source.pod == ""


def test_what_went_through_the_mesh_says_so():
    assert joined().extra == {}
    assert joined(transport=1).extra == {"mesh": "through mTLS"}
    assert joined(transport=1, type=4).extra == {"connection": "cut", "mesh": "through mTLS"}


def test_icmp_has_no_ports_whatever_the_kernel_kept_there():
    flow = joined(protocol=1, icmp_type=8)
    assert (flow.source.port, flow.destination.port) == (0, 0)


def test_what_has_no_name_keeps_its_number():
    flow = joined(rule=(77, 0), service=99, source_identity=4321, source=ip_address("10.9.9.9"))
    assert flow.egress_rule is None
    assert "77" in str(flow.ingress_rule)
    assert flow.service == ""
    assert (flow.source.identity, flow.source.name) == (4321, "10.9.9.9")


def test_a_reason_of_a_newer_datapath_does_not_break_the_log():
    assert joined(type=2, reason=255).drop_reason is DropReason.INVALID_PACKET


def test_an_answer_that_the_kernel_gave_is_told():
    flow = joined(answer=4)
    assert flow.extra == {"dns": "answered in the kernel: NXDOMAIN"}
