from ipaddress import ip_address, ip_network

import pytest
from flow_samples import OFFSET_NS, Event, sample_names
from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import Identity
from sixfold.model.reason import DropReason
from sixfold.observe import FilterError, FlowFilter, join, parse_time_ns
from sixfold.observe.filter import duration_s

NOW_NS = OFFSET_NS + 60 * 10**9


def joined(**changes):
    return join(Event()._replace(**changes), sample_names(), OFFSET_NS)


def matches(flow=None, **params):
    return FlowFilter.parse(params, NOW_NS).matches(flow or joined())


@pytest.mark.parametrize(
    "peer",
    [
        "shop/web-1",
        "shop/web",
        "web",
        "web-1",
        "we*",
        "shop/w*",
        "shop/",
        "Deployment/web",
        "shop/Deployment/web",
        "10.244.0.4",
        "10.244.0.0/24",
        "app=web",
        "k8s:app=web",
        "1234",
    ],
)
def test_a_peer_may_be_named_in_many_ways(peer):
    assert matches(**{"from": [peer]})
    assert not matches(to=[peer]) or peer in ("shop/", "10.244.0.0/24")


@pytest.mark.parametrize(
    "peer",
    ["shop/we", "we", "other/web", "StatefulSet/web", "world", "app=we", "10.244.1.0/24", "1235"],
)
def test_a_name_that_only_begins_alike_does_not_match(peer):
    assert not matches(**{"from": [peer]})


def test_a_service_that_was_dialled_counts_as_destination():
    assert matches(to=["shop/db"])
    flow = joined(destination=ip_address("10.244.0.99"), destination_identity=9)
    assert matches(flow, to=["shop/db"])
    assert not matches(joined(service=0, destination=ip_address("10.244.0.99")), to=["db"])


def test_what_is_excluded_stays_out_whatever_else_is_asked_for():
    assert matches(to=["!resolver"])
    assert matches(to=["!resolver", "!host"])
    assert not matches(to=["!shop/db", "!resolver"])
    assert not matches(to=["shop/", "!db"])
    assert not matches(**{"from": ["!app=web"]})


def test_reserved_names_match_by_identity():
    flow = joined(source_identity=2, source=ip_address("192.0.2.7"))
    assert matches(flow, **{"from": ["world"]})
    assert not matches(flow, **{"from": ["host"]})


def test_ports_match_on_either_side_and_on_the_service():
    assert matches(port=["6379"])
    assert matches(port=["41234"])
    assert matches(joined(destination_port=16379), port=["6379"])
    assert not matches(port=["80"])


def test_values_of_one_option_widen_and_options_narrow():
    assert matches(verdict=["DROPPED", "forwarded"], port=["6379"])
    assert matches(verdict="DROPPED,FORWARDED")
    assert not matches(verdict=["FORWARDED"], port=["80"])


def test_icmp_means_both_families():
    assert matches(joined(protocol=58), protocol=["icmp"])
    assert not matches(joined(protocol=58), protocol=["icmpv4"])
    assert matches(joined(protocol=47), protocol=["47"])


def test_drop_reasons_by_name_and_number():
    dropped = joined(type=2, reason=133)
    assert matches(dropped, drop_reason=["policy-denied"])
    assert matches(dropped, drop_reason=["133"])
    assert not matches(dropped, drop_reason=["INVALID_SOURCE_IP"])


def test_since_and_until_bound_the_time():
    assert matches(since=["2m"])
    assert not matches(since=["30s"])
    assert matches(until=["30s"])
    assert not matches(until=["2025-11-23T07:59:59Z"])


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"verdict": ["MAYBE"]}, "FORWARDED"),
        ({"port": ["70000"]}, "65535"),
        ({"protocol": ["tpc"]}, "tcp"),
        ({"drop_reason": ["bored"]}, "policy_denied"),
        ({"since": ["yesterday"]}, "5m"),
        ({"from": ["a/b/c/d"]}, "namespace/pod"),
    ],
)
def test_what_cannot_be_read_says_what_can(params, word):
    with pytest.raises(FilterError, match=word):
        FlowFilter.parse(params, NOW_NS)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("2d", 172800), ("1.5h", 5400)],
)
def test_durations(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "-", "5m5", "1..2s"])
def test_no_durations(text):
    assert duration_s(text) is None


def test_a_time_without_zone_is_utc_and_keeps_its_microseconds():
    assert parse_time_ns("2025-11-23T08:00:00.000123", 0) == OFFSET_NS + 123_000


peers = st.builds(
    Peer,
    address=st.sampled_from([ip_address(t) for t in ("10.0.0.1", "10.0.1.1", "fd00::1")]),
    port=st.sampled_from([0, 80, 443]),
    identity=st.sampled_from([Identity(n) for n in (1, 2, 300, 301)]),
    namespace=st.sampled_from(["", "shop", "shop2"]),
    pod=st.sampled_from(["", "web", "web-1", "webhook", "db-0"]),
    workload=st.sampled_from(["", "Deployment/web", "StatefulSet/db"]),
    labels=st.sampled_from([(), ("k8s:app=web",), ("k8s:app=web2", "k8s:x=1")]),
)
flows = st.builds(
    Flow,
    time_ns=st.integers(0, 100),
    verdict=st.sampled_from(Verdict),
    direction=st.sampled_from(["egress", "ingress"]),
    protocol=st.sampled_from([1, 6, 17, 58]),
    source=peers,
    destination=peers,
    drop_reason=st.sampled_from([DropReason.NONE, DropReason.POLICY_DENIED]),
    service=st.sampled_from(["", "shop/web"]),
    service_port=st.sampled_from([0, 8080]),
)
options = {
    "from": ["web", "shop/", "10.0.0.0/16", "app=web", "300", "host", "shop/web*"],
    "verdict": ["FORWARDED", "DROPPED", "AUDIT"],
    "port": ["80", "443", "8080"],
    "protocol": ["tcp", "icmp"],
    "namespace": ["shop", "shop2"],
    "drop_reason": ["POLICY_DENIED"],
}
params = st.fixed_dictionaries(
    {}, optional={name: st.lists(st.sampled_from(v), max_size=2) for name, v in options.items()}
)


def naive_peer(peer: Peer, text: str) -> bool:
    """What the module's table says, word by word."""
    match text:
        case "web":
            names = (peer.pod, peer.workload.split("/")[-1])
            return bool(peer.pod) and ("web" in names or peer.pod.startswith("web-"))
        case "shop/":
            return bool(peer.pod) and peer.namespace == "shop"
        case "10.0.0.0/16":
            return peer.address.version == 4 and peer.address in ip_network(text)
        case "app=web":
            return "k8s:app=web" in peer.labels
        case "300":
            return peer.identity == 300
        case "host":
            return peer.identity == 1
        case _:
            return peer.namespace == "shop" and peer.pod.startswith("web")


def naive(flow: Flow, given: dict[str, list[str]]) -> bool:
    numbers = {"tcp": (6,), "icmp": (1, 58)}
    ports = (flow.source.port, flow.destination.port, flow.service_port)
    spaces = (flow.source.namespace, flow.destination.namespace, flow.service.split("/")[0])
    checks = {
        "from": lambda text: naive_peer(flow.source, text),
        "verdict": lambda text: flow.verdict.name == text,
        "port": lambda text: int(text) in ports,
        "protocol": lambda text: flow.protocol in numbers[text],
        "namespace": lambda text: text in spaces,
        "drop_reason": lambda text: flow.drop_reason.name == text,
    }
    return all(any(checks[name](text) for text in texts) for name, texts in given.items() if texts)


@given(flows, params)
def test_the_filter_agrees_with_a_naive_reading(flow, given_params):
    assert FlowFilter.parse(given_params, 0).matches(flow) == naive(flow, given_params)


def test_the_side_that_saw_a_flow_is_asked_for_as_hubble_does():
    assert matches(traffic_direction="egress") != matches(traffic_direction="ingress")
    assert matches(traffic_direction=("Egress", "INGRESS"))
    with pytest.raises(FilterError, match="'up': ingress or egress"):
        matches(traffic_direction="up")
