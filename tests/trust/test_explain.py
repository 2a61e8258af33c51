"""One flow through the stack: what each pattern says, and that policy judges the backend's port."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from tests.policy.worlds import NINE, nine, np, world

from sixfold.errors import NotFoundError
from sixfold.model.identity import NamedPort
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.trust.explain import OfflinePlans, explain, plan_offline

HTTP = {"name": "http", "protocol": "TCP", "port": 8080}
TO_B = np(
    "to-b",
    {
        "podSelector": {"matchLabels": {"pod": "a"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"pod": "b"}}}],
                    "ports": [{"port": 8080}]}],
    },
)  # fmt: skip
FROM_A = np(
    "from-a",
    {
        "podSelector": {"matchLabels": {"pod": "b"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "a"}}}],
                     "ports": [{"port": "http"}]}],
    },
)  # fmt: skip


def service(name, selector, ports, cluster_ip="10.96.0.9", namespace="x"):
    raw = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector, "ports": ports, "clusterIP": cluster_ip},
    }
    return msgspec.convert(raw, Service)


WEB = service("web", {"pod": "b"}, [{"port": 80, "targetPort": "http"}])


def stack(*policies, services=(WEB,), pods=NINE, **settings):
    """A zero-trust world whose pods serve http on 8080."""
    case = {**nine(*policies, posture="zero-trust", **settings)}
    case["pods"] = [{**pod, "ports": [HTTP]} for pod in pods]
    here = world(case)
    named = {
        key: replace(pod, publish_ports=(NamedPort("http", "TCP", 8080),))
        for key, pod in here.endpoints.items()
    }
    keyed = {f"{one.metadata.namespace}/{one.metadata.name}": one for one in services}
    return replace(here, endpoints=named, services=keyed)


def dual_stack(here):
    """The pods with an address of each family, 10.244.1.N and fd00:5f:244::1:N."""
    both = {
        key: replace(
            pod,
            ipv4=ip_address(f"10.244.1.{number}"),
            ipv6=ip_address(f"fd00:5f:244::1:{number}"),
        )
        for number, (key, pod) in enumerate(sorted(here.endpoints.items()), 1)
    }
    return replace(here, endpoints=both)


def ask(here, *question, **more):
    return explain(here, plan_offline(here), *question, **more)


def outcome(answer, pattern):
    return next(line.outcome for line in answer.lines if line.pattern == pattern)


def details(answer, pattern):
    return [line.detail for line in answer.lines if line.pattern == pattern]


def test_lines_come_in_stack_order():
    answer = ask(stack(TO_B, FROM_A), "x/a", "web", 80)
    assert [line.pattern for line in answer.lines] == [
        "discovery",
        "balancing",
        "routing",
        "policy egress",
        "policy ingress",
        "mesh",
        "verdict",
    ]


@pytest.mark.parametrize(
    ("mtls", "said"),
    [("disabled", "accelerated: once open"), ("strict", "not accelerated: its data goes by")],
)
def test_what_goes_by_the_meshs_proxy_is_not_accelerated(mtls, said):
    here = stack(TO_B, FROM_A)
    fast = {key: replace(pod, accelerated=True) for key, pod in here.endpoints.items()}
    here = replace(here, endpoints=fast, config=replace(here.config, mtls=mtls))
    (detail,) = details(ask(here, "x/a", "x/b", 8080), "routing")
    assert f"; {said}" in detail


def test_policy_judges_the_port_of_the_backend_not_of_the_service():
    answer = ask(stack(TO_B, FROM_A), "x/a", "web", 80)
    assert answer.allowed
    assert answer.port == 80
    assert details(answer, "policy egress") == ["x/a allowed by x/to-b egress[0]"]
    assert details(answer, "policy ingress") == ["x/b allowed by x/from-a ingress[0]"]
    assert "x/b (192.168.1.11):8080" in details(answer, "balancing")[0]


@pytest.mark.parametrize(
    "name",
    ["web", "web.x", "x/web", "web.x.svc", "web.x.svc.cluster.local", "10.96.0.9"],
)
def test_a_service_goes_by_any_name_that_its_client_may_use(name):
    answer = ask(stack(TO_B, FROM_A), "x/a", name, 80)
    assert answer.allowed
    assert outcome(answer, "balancing") == "random"


def test_the_port_of_a_service_need_not_be_given():
    assert ask(stack(TO_B, FROM_A), "x/a", "web").port == 80


def test_a_denial_names_the_default_and_the_rule_that_nearly_matched():
    answer = ask(stack(TO_B, FROM_A), "x/c", "web", 80)
    assert not answer.allowed
    assert outcome(answer, "verdict") == "DROPPED"
    assert details(answer, "policy egress") == [
        "x/c denied by default-deny (zero-trust)",
        "no egress policy selects x/c",
    ]
    assert details(answer, "policy ingress") == [
        "x/b denied by default-deny (x/from-a)",
        "x/from-a ingress[0]: wants pod=a (has c) on pod x/c",
    ]


def test_the_wrong_port_is_a_near_miss():
    answer = ask(stack(TO_B, FROM_A), "x/a", "x/b", 81)
    assert details(answer, "policy egress")[1] == "x/to-b egress[0]: allows TCP/8080, not TCP/81"
    assert (
        details(answer, "policy ingress")[1] == "x/from-a ingress[0]: allows TCP/http, not TCP/81"
    )


def test_a_peer_of_another_namespace_is_a_near_miss():
    answer = ask(stack(FROM_A), "y/a", "x/b", 8080)
    assert details(answer, "policy ingress")[1] == (
        "x/from-a ingress[0]: without namespaceSelector it means x only, not y"
    )


def test_backends_that_differ_are_told_apart_and_one_denial_denies():
    both = service("both", {}, [{"port": 80, "targetPort": "http"}])
    both = msgspec.structs.replace(
        both, spec=msgspec.structs.replace(both.spec, selector={"tier": "web"})
    )
    pods = [
        {**pod, "labels": {**pod["labels"], "tier": "web"}} if pod["pod"] in ("x/b", "x/c") else pod
        for pod in NINE
    ]
    answer = ask(stack(TO_B, FROM_A, services=(both,), pods=pods), "x/a", "both", 80)
    assert not answer.allowed
    egress = [line for line in answer.lines if line.pattern == "policy egress"]
    assert [line.outcome for line in egress] == ["FORWARDED", "DROPPED", "nearly"]
    assert "to x/b:8080" in egress[0].detail
    assert "to x/c:8080" in egress[1].detail
    assert "1 of 2 backends" in details(answer, "verdict")[0]


def test_a_service_without_backends_is_refused():
    lonely = service("lonely", {"pod": "nobody"}, [{"port": 80}])
    answer = ask(stack(services=(lonely,)), "x/a", "lonely", 80)
    assert not answer.allowed
    assert outcome(answer, "balancing") == "refused"
    assert "no pod matches selector pod=nobody" in details(answer, "verdict")[0]


def test_a_backend_that_is_not_ready_is_not_a_backend():
    here = stack(TO_B, FROM_A)
    waiting = {**here.endpoints, "x/b": replace(here.endpoints["x/b"], ready=False)}
    answer = ask(replace(here, endpoints=waiting), "x/a", "web", 80)
    assert outcome(answer, "balancing") == "refused"


def test_service_addresses_do_not_exist_outside():
    answer = ask(stack(TO_B, FROM_A), "world", "x/web", 80)
    assert not answer.allowed
    assert outcome(answer, "balancing") == "refused"


@pytest.mark.parametrize(
    ("dialled", "allowed"),
    [("web", True), ("10.96.0.9", True), ("fd00:5f:96::9", False)],
    ids=["name", "ipv4", "ipv6"],
)
def test_the_address_of_a_service_says_which_family_its_backends_are_asked_in(dialled, allowed):
    raw = msgspec.to_builtins(WEB)
    addresses = {"clusterIPs": ["10.96.0.9", "fd00:5f:96::9"], "ipFamilies": ["IPv4", "IPv6"]}
    dual = msgspec.convert({**raw, "spec": {**raw["spec"], **addresses}}, Service)
    four = {"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}
    here = dual_stack(stack(np("four", {"podSelector": {}, **four}), FROM_A, services=(dual,)))
    answer = ask(here, "x/a", dialled, 80)
    assert answer.allowed == allowed
    (balancing,), b = details(answer, "balancing"), here.endpoints["x/b"]
    assert str(b.ipv4 if allowed else b.ipv6) in balancing


@pytest.mark.parametrize("block", ["10.244.0.1/32", "fd00:5f:244::1/128"])
def test_the_node_is_judged_by_its_address_of_the_family_asked(block):
    peer = {"ipBlock": {"cidr": block}}
    here = dual_stack(stack(np("node", {"podSelector": {}, "ingress": [{"from": [peer]}]})))
    b = here.endpoints["x/b"]
    assert ask(here, "host", str(b.ipv4), 9).allowed == ("." in block)
    assert ask(here, "host", str(b.ipv6), 9).allowed == (":" in block)


def test_an_address_outside_is_judged_by_its_block():
    out = np(
        "out",
        {
            "podSelector": {"matchLabels": {"pod": "a"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/29"]}}]}],
        },
    )
    assert ask(stack(out), "x/a", "192.0.2.1", 443).allowed
    answer = ask(stack(out), "x/a", "192.0.2.9", 443)
    assert not answer.allowed
    assert "192.0.2.9 is excepted from 192.0.2.0/24" in details(answer, "policy egress")[1]


def test_an_address_of_ours_that_nobody_has_is_unreachable():
    open_egress = np("all", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})
    answer = ask(stack(open_egress), "x/a", "10.244.9.9", 80)
    assert outcome(answer, "policy egress") == "FORWARDED"
    assert outcome(answer, "routing") == "unreachable"
    assert not answer.allowed


def test_a_pods_address_means_the_pod():
    answer = ask(stack(TO_B, FROM_A), "192.168.1.10", "192.168.1.11", 8080)
    assert answer.allowed
    assert details(answer, "policy ingress") == ["x/b allowed by x/from-a ingress[0]"]


def test_addresses_of_the_node_are_the_ipcaches_to_name():
    here = stack()
    plans = plan_offline(here)
    node = ip_network("192.0.2.50/32")
    ipcache = {**plans.routing.ipcache, node: plans.routing.ipcache[ip_network("10.244.0.1/32")]}
    live = OfflinePlans(replace(plans.routing, ipcache=ipcache), plans.policy)
    answer = explain(here, live, "192.0.2.50", "x/a", 8080)
    assert answer.source == "host 192.0.2.50"
    assert explain(here, plans, "192.0.2.50", "x/a", 8080).source == "world 192.0.2.50"


def test_the_nodes_probes_are_let_in_by_name():
    here = stack()
    probed = replace(here.endpoints["x/a"], probe_ports=frozenset({8080}))
    here = replace(here, endpoints={**here.endpoints, "x/a": probed})
    answer = ask(here, "host", "x/a", 8080)
    assert answer.allowed
    assert details(answer, "policy ingress") == ["x/a allowed by builtin:node-probes"]
    assert not ask(here, "host", "x/a", 9090).allowed


def test_a_pod_always_reaches_itself():
    answer = ask(stack(), "x/b", "web", 80)
    assert answer.allowed
    assert details(answer, "policy ingress") == ["a pod may always talk to itself"]


def test_one_endpoint_for_many_pods_is_not_itself():
    here = stack()
    many = replace(here.endpoints["x/b"], workload="Deployment/b")
    answer = ask(replace(here, endpoints={**here.endpoints, "x/b": many}), "x/b", "web", 80)
    assert not answer.allowed


def test_a_workload_goes_by_its_name():
    here = stack(TO_B, FROM_A)
    pod = replace(here.endpoints["x/a"], pod="front-7f-1", workload="Deployment/front")
    others = {key: one for key, one in here.endpoints.items() if key != "x/a"}
    here = replace(here, endpoints={**others, pod.key: pod})
    assert ask(here, "x/front", "web", 80).source == "x/front-7f-1"
    assert ask(here, "front", "web", 80, namespace="x").allowed


def test_the_only_port_of_a_pod_need_not_be_given():
    assert ask(stack(TO_B, FROM_A), "x/a", "x/b").port == 8080


def test_a_question_about_nothing_is_an_error_that_helps():
    with pytest.raises(NotFoundError, match=r"did you mean x/web"):
        ask(stack(), "x/a", "x/wbe", 80)
    with pytest.raises(NotFoundError, match='no pod or workload named "nobody"'):
        ask(stack(), "nobody", "x/web", 80)
    with pytest.raises(NotFoundError, match="no port given"):
        ask(stack(), "x/a", "192.0.2.1")
    with pytest.raises(NotFoundError, match="protocol gre"):
        ask(stack(), "x/a", "web", 80, "gre")


def test_blocks_mean_no_pods_when_so_configured_in_the_kernel_too():
    block = {"to": [{"ipBlock": {"cidr": "192.168.0.0/16"}}]}
    only = np("only", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [block]})
    for matches in (True, False):
        routing = plan_offline(stack(only, ipblock_matches_pods=matches)).routing
        assert all(bool(entry.cidr4) is matches for entry in routing.endpoints.values())


def test_answers_are_json():
    answer = ask(stack(TO_B, FROM_A), "x/a", "web", 80)
    decoded = msgspec.json.decode(msgspec.json.encode(answer))
    assert decoded["allowed"] is True
    assert decoded["lines"][-1] == {
        "pattern": "verdict",
        "outcome": "FORWARDED",
        "detail": "x/a → web:80/TCP",
    }


def test_icmp_has_no_port_and_a_service_does_not_answer_it():
    open_all = np("all", {"podSelector": {}, "ingress": [{}], "egress": [{}]})
    here = stack(open_all)
    assert ask(here, "x/a", "x/b", None, "icmp").allowed
    assert not ask(here, "x/a", "web", None, "icmp").allowed


def test_a_workload_in_the_hosts_network_is_explained_as_the_host():
    here = replace(World(), on_host=frozenset({"kube-system/agent"}))
    answer = explain(here, plan_offline(here), "kube-system/agent", "192.0.2.1", 443)
    assert answer.allowed
    assert answer.source == "kube-system/agent (host)"


def test_a_question_about_icmp_means_a_ping():
    """Rules may name ICMP types; the type of an echo request is asked about."""
    echo = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "ping"},
        "spec": {
            "endpointSelector": {},
            "ingress": [{"fromEntities": ["all"], "icmps": [{"fields": [{"type": 8}]}]}],
            "egress": [{"toEntities": ["all"], "icmps": [{"fields": [{"type": "EchoRequest"}]}]}],
        },
    }
    here = stack(echo)
    assert explain(here, plan_offline(here), "x/a", "x/b", protocol="ICMP").allowed
    assert not explain(here, plan_offline(here), "x/a", "x/b", 8, protocol="TCP").allowed
