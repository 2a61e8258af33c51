"""What the kernel and the proxy tell of one connection is one record."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import Identity
from sixfold.model.rule import Rule
from sixfold.observe.joined import HOLD_S, Pairs

CLIENT = Peer(ip_address("10.244.0.2"), 41000, Identity(256), "shop", "front")
SERVER = Peer(ip_address("10.244.0.3"), 80, Identity(257), "shop", "cart")
OUT, IN = (Rule("NetworkPolicy", "shop", "open", way, 0) for way in ("egress", "ingress"))
DENY = Rule("AuthorizationPolicy", "shop", "not", "ingress", 0, section="rules")
KERNEL = Flow(
    *(1, Verdict.FORWARDED, "ingress", 6, CLIENT, SERVER),
    egress_rule=OUT,
    ingress_rule=IN,
    service="shop/cart",
    service_port=8080,
    extra={"mesh": "through mTLS"},
)
PROXY = Flow(
    *(2, Verdict.FORWARDED, "ingress", 6, CLIENT, SERVER),
    ingress_rule=IN,
    extra={"mtls": "TLS 1.3"},
)
CAPTURED, OTHER, KEY = b"captured", b"other", b"key"


def pairs():
    return Pairs(lambda event: KEY if event == CAPTURED else None)


def test_both_parts_are_one_record_with_what_each_knows():
    some = pairs()
    assert list(some.hold([OTHER, CAPTURED], 0.0)) == [OTHER]
    flow = some.join(KEY, PROXY, lasts=False).told(lambda _: KERNEL)
    assert (flow.service, flow.service_port, flow.egress_rule) == ("shop/cart", 8080, OUT)
    assert flow.extra == {"mtls": "TLS 1.3"}
    assert list(some.due(HOLD_S * 2)) == []


def test_what_the_proxy_never_tells_of_is_told_by_the_kernel_alone():
    some = pairs()
    assert list(some.hold([CAPTURED], 0.0)) == []
    assert list(some.due(HOLD_S - 0.1)) == []
    assert list(some.due(HOLD_S)) == [CAPTURED]
    assert some.join(KEY, PROXY, lasts=False).told(lambda _: KERNEL) == PROXY


def test_a_port_that_is_used_again_is_another_connection():
    some = pairs()
    assert list(some.hold([CAPTURED, CAPTURED], 0.0)) == [CAPTURED]


def test_bytes_are_told_when_a_connection_is_over():
    some = pairs()
    record = some.join(KEY, PROXY, lasts=True)
    assert record.told(lambda _: KERNEL).extra["state"] == "open"
    some.ended(KEY, 5, 7)
    extra = record.told(lambda _: KERNEL).extra
    assert (extra["bytes_sent"], extra["bytes_received"]) == ("5", "7")
    assert "state" not in extra


def test_of_a_proxy_that_is_away_nothing_is_open():
    some = pairs()
    record = some.join(KEY, PROXY, lasts=True)
    some.abandon()
    assert record.told(lambda _: KERNEL) == PROXY


@pytest.mark.parametrize(
    ("kernel", "proxy", "verdict", "rule"),
    [
        (KERNEL, replace(PROXY, verdict=Verdict.DROPPED, ingress_rule=DENY), Verdict.DROPPED, DENY),
        (replace(KERNEL, verdict=Verdict.AUDIT, ingress_rule=DENY), PROXY, Verdict.AUDIT, DENY),
        (KERNEL, replace(PROXY, verdict=Verdict.ERROR, ingress_rule=None), Verdict.ERROR, IN),
    ],
    ids=["denied by the proxy", "told by the kernel", "not reached"],
)
def test_the_verdict_is_of_who_has_something_against_it(kernel, proxy, verdict, rule):
    some = pairs()
    list(some.hold([CAPTURED], 0.0))
    flow = some.join(KEY, proxy, lasts=False).told(lambda _: kernel)
    assert (flow.verdict, flow.ingress_rule) == (verdict, rule)
