"""The host as a subject of policy, in the tools; its verdicts are in ``test_languages``."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.policy.worlds import nine, world

from sixfold.model.config import Config
from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.model.identity import HOST, WORLD
from sixfold.model.policies import policy_key
from sixfold.policy.decide import Party, decide, party_at
from sixfold.policy.diff import compare, only_by_audit
from sixfold.policy.fix import fixes
from sixfold.policy.host import ends_session, lockouts
from sixfold.policy.lint import lint
from sixfold.policy.plan import PolicyCompiler, compile_policies
from sixfold.policy.reach_parties import View
from sixfold.policy.reach_probe import Probes
from sixfold.policy.verify import verify
from sixfold.policy.verify_assertion import Assertion, End, Flows

WORLD_SSH = {
    "fromEntities": ["world"],
    "toPorts": [{"ports": [{"port": "22", "protocol": "TCP"}]}],
}
DNS = {"toEntities": ["world"], "toPorts": [{"ports": [{"port": "53"}]}]}


def policy(node=None, audit=False, **spec):
    annotations = {"annotations": {"sixfold.dev/enforcement": "audit"}} if audit else {}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "host", **annotations},
        "spec": {"nodeSelector": node or {}, **spec},
    }


def view(*policies, **config):
    here = world(nine(*policies, posture="zero-trust"))
    return View(replace(here, config=replace(here.config, **config)))


def verdict(plan, direction, port):
    ends = Party(WORLD), Party(HOST)
    found = decide(plan, *(ends if direction == INGRESS else ends[::-1]), 6, port)
    return found.ingress if direction == INGRESS else found.egress


def test_labels_of_the_node_are_its_name_its_kind_and_what_was_given():
    config = Config(node="alpine", node_labels=("zone=edge", "kubernetes.io/os=plan9"))
    assert config.labels == {
        "kubernetes.io/hostname": "alpine",
        "kubernetes.io/os": "plan9",
        "kubernetes.io/arch": "amd64",
        "zone": "edge",
    }


@pytest.mark.parametrize("zone", ["edge", "core"])
def test_a_node_is_selected_by_its_labels(zone):
    here = view(
        policy({"matchLabels": {"zone": "edge"}}, ingress=[{}]), node_labels=(f"zone={zone}",)
    )
    assert (here.plan.host is not None) == (zone == "edge")


def test_pods_are_not_the_node_whatever_their_labels():
    here = view(policy({"matchLabels": {"pod": "a"}}, ingress=[{}]), node_labels=("pod=a",))
    assert here.plan.host is not None
    table = here.plan.tables["x/a"]
    assert str(here.plan.rules[table.ingress_default]) == "default-deny (zero-trust)"


def test_what_locks_the_operator_out_is_found():
    assert [d for d, _ in lockouts(view(policy(ingress=[{}], egress=[{}])).plan)] == [
        INGRESS,
        EGRESS,
    ]
    assert [*lockouts(view(policy(ingress=[WORLD_SSH], egress=[DNS])).plan)] == []
    from_one = {**WORLD_SSH, "fromCIDR": ["192.0.2.0/24"]}
    del from_one["fromEntities"]
    here = view(policy(ingress=[from_one]))
    assert [*lockouts(here.plan)] == []
    assert ends_session(here.plan, *session("192.0.2.9")) is None
    rule = ends_session(here.plan, *session("198.51.100.9"))
    assert rule is not None
    assert "CiliumClusterwideNetworkPolicy host" in str(rule)
    assert [*lockouts(view(policy(ingress=[{}], audit=True)).plan)] == []


def session(client):
    return ip_address(client), 22


def test_lint_names_lockouts_and_selectors_of_no_node():
    found = [(one.check, one.path) for one in lint(view(policy(ingress=[{}])))]
    assert ("host-lockout", ("spec",)) in found
    (one,) = lint(view(policy({"matchLabels": {"zone": "edge"}}, ingress=[WORLD_SSH])))
    assert (one.check, "kubernetes.io/hostname=localhost" in one.message) == (
        "selects-nothing",
        True,
    )


def test_reach_and_diff_show_the_host_and_the_world():
    before, after = view(policy(ingress=[{}], egress=[{}])), view(policy(ingress=[WORLD_SSH]))
    (row,) = [row for row in compare(before, after).opened if "world" in row.sources]
    assert (row.destinations, str(row.ports)) == (("host",), "TCP/22")
    audited = only_by_audit(view(policy(ingress=[WORLD_SSH], audit=True)))
    assert any(row.destinations == ("host",) and "world" in row.sources for row in audited)


def test_probes_of_the_host_are_answered_with_its_rule():
    answer = Probes(view(policy(ingress=[WORLD_SSH]))).answer
    asked = {"from": "203.0.113.9", "to": "host", "port": 22}
    assert answer(asked)["ingress"]["policy"] == "host"
    assert answer({**asked, "port": 23})["verdict"] == "DENIED"
    assert answer({"from": "host", "to": "203.0.113.9", "port": 22})["verdict"] == "ALLOWED"


def test_assertions_about_the_host_are_proved():
    host, outside = End(host=True), End(world=True)
    deny = Assertion(deny=Flows(from_=[host], to=[outside]))
    others = Assertion(deny=Flows(to=[outside]))
    closed, open_ = view(policy(egress=[{}])), view(policy(ingress=[WORLD_SSH]))
    assert [one.holds for one in verify(closed, [deny, others])] == [True, True]
    outcome, other = verify(open_, [deny, others])
    assert not outcome.holds
    assert outcome.example is not None
    assert outcome.example["from"] == "host"
    assert other.holds, "an assertion that does not name the host is about workloads"


@pytest.mark.parametrize(
    ("spec", "peer", "direction", "what"),
    [
        (
            {"ingress": [WORLD_SSH]},
            Party(WORLD, address=ip_address("203.0.113.9")),
            "ingress",
            "add a rule to CiliumClusterwideNetworkPolicy host ingress: from 203.0.113.9 on TCP/80",
        ),
        (
            {"ingress": [{"fromCIDR": ["203.0.113.9/32"], "toPorts": WORLD_SSH["toPorts"]}]},
            Party(WORLD, address=ip_address("203.0.113.9")),
            "ingress",
            "add TCP/80 to the ports of CiliumClusterwideNetworkPolicy host ingress[0]",
        ),
        (
            {"egress": [{"toCIDR": ["198.51.100.7/32"]}]},
            Party(WORLD, address=ip_address("203.0.113.9")),
            "egress",
            "add a rule to CiliumClusterwideNetworkPolicy host egress: to 203.0.113.9 on TCP/80",
        ),
        (
            {"ingress": [WORLD_SSH]},
            "x/a",
            "ingress",
            "add a rule to CiliumClusterwideNetworkPolicy host ingress: from x/a on TCP/80",
        ),
    ],
    ids=["a rule more", "a port more", "egress", "from a pod"],
)
def test_the_fix_of_a_host_policy_lets_the_flow_pass_and_nothing_else(spec, peer, direction, what):
    here = view(policy(**spec))
    if isinstance(peer, str):
        pod = here.world.endpoints[peer]
        peer = Party(pod.identity, key=peer, address=pod.ipv4)
    ends = (peer, Party(HOST)) if direction == "ingress" else (Party(HOST), peer)
    found = fixes(here.world, here.plan, *ends, "TCP", 80)
    (fix,) = [one for one in found if one.subject == "host"]
    assert (fix.direction, fix.what, fix.others) == (direction, what, 0)
    after = replace(here.world, policies={policy_key(fix.policy): fix.policy})
    plan = compile_policies(after)
    ends = tuple(party_at(plan, one.identity, one.address) if not one.key else one for one in ends)
    for port, allowed in ((80, True), (81, False)):
        decided = decide(plan, *ends, 6, port)
        side = decided.ingress if direction == "ingress" else decided.egress
        assert side.allow is allowed


def test_what_a_host_policy_denies_outright_no_rule_can_allow():
    here = view(policy(ingress=[WORLD_SSH], ingressDeny=[{"fromEntities": ["world"]}]))
    peer = Party(WORLD, address=ip_address("203.0.113.9"))
    (fix,) = fixes(here.world, here.plan, peer, Party(HOST), "TCP", 80)
    assert fix.policy is None
    assert "ingressDeny[0]" in fix.what


def test_the_hosts_table_follows_policies_and_probes():
    compiler = PolicyCompiler()
    here = world(nine(policy(ingress=[WORLD_SSH], egress=[{}]), posture="zero-trust"))
    plan = compiler.compile(here)
    assert verdict(plan, INGRESS, 22).allow
    assert not verdict(plan, EGRESS, 80).allow
    probed = {key: replace(one, probe_ports=frozenset({80})) for key, one in here.endpoints.items()}
    here = replace(here, endpoints=probed)
    followed = compiler.compile(here)
    pod = Party(here.endpoints["x/a"].identity, key="x/a")
    found = decide(followed, Party(HOST), pod, 6, 80)
    assert found.egress is not None
    assert found.egress.allow
    assert compiler.compile(replace(here, policies={})).host is None
    assert compile_policies(here).host is not None
