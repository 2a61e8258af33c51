"""Every rule of the audit: the fault planted, and a clean system silent."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from tests.policy.worlds import NINE, nine, np, world

from sixfold.manifest import decode
from sixfold.model.peerauthentication import PeerAuthentication
from sixfold.model.policies import policy_key
from sixfold.model.service import Service
from sixfold.model.spiffe import workload_id
from sixfold.policy.reach_parties import View
from sixfold.trust.audit import RULES, audit
from sixfold.trust.audit_finding import (
    BundleSeen,
    ConnectionSeen,
    DialsSeen,
    DoorSeen,
    Evidence,
    IntrusionSeen,
    Live,
    PermissiveSeen,
    PlaintextSeen,
    PolicySeen,
    PortSeen,
    StraySeen,
    SvidSeen,
    UnguardedSeen,
)
from sixfold.trust.audit_show import Placed, markdown, sarif
from sixfold.trust.authority import create, issue

DENY = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
BASES = [np("base", DENY, namespace) for namespace in "xyz"]
A = {"podSelector": {"matchLabels": {"pod": "a"}}}
FROM_B = np(
    "from-b", {**A, "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}]}
)
BY_BLOCK = np("by-block", {**A, "ingress": [{"from": [{"ipBlock": {"cidr": "192.168.1.11/32"}}]}]})
ANYWHERE = np("anywhere", {**A, "policyTypes": ["Egress"], "egress": [{}]})
TO_443 = np("web", {**A, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]})
OWN = [{**one, "account": one["pod"].partition("/")[2]} for one in NINE]  # an identity each
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WEB = workload_id("cluster.local", "x", "a")
AUTHORITY = create("cluster.local", NOW - timedelta(days=3))
SEEN = PortSeen("x/web", 80, "TCP", "random", "nothing says", 0.1, (10.0, 10.0))


def service(annotations=None, **port):
    raw = {
        "metadata": {"name": "web", "namespace": "x", "annotations": annotations or {}},
        "spec": {
            "selector": {"pod": "a"},
            "clusterIP": "10.96.0.9",
            "ports": [{"port": 80, **port}],
        },
    }
    return msgspec.convert(raw, Service)


def found(*policies, services=(), live=None, pods=None, **settings):
    here = world({**nine(*policies, **settings), "pods": pods or OWN})
    here = replace(here, services=dict.fromkeys(["x/web"], *services) if services else {})
    return audit(Evidence(View(here), live))


def numbers(*policies, **options):
    return {one.rule for one in found(*policies, **options)}


def svid(hours=1.0, *, age_s=60, **seen):
    one = issue(AUTHORITY, WEB, NOW - timedelta(seconds=age_s), timedelta(hours=hours))
    return svid_seen(one.certificate, **seen)


def svid_seen(certificate, **seen):
    return SvidSeen("x/a", certificate.public_bytes(Encoding.PEM).decode(), **seen)


def made_by_hand(uri=WEB, *, ca=False, signs=False):
    """A leaf as no authority of ours makes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "somebody")])
    usage = x509.KeyUsage(True, False, False, False, False, signs, False, False, False)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 7, NOW, NOW + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(uri))]), False
        )
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        .add_extension(usage, True)
        .sign(key, hashes.SHA256())
    )


CLEAN = {
    "services": [service(name="http")],
    "live": Live(
        ports=(SEEN,),
        svids=(svid(followed=True),),
        policies={"x/from-b": PolicySeen(1e6, {"ingress[0]": 3}), "x/web": PolicySeen(60.0)},
        doors=(DoorSeen("sixfold (7)", "127.0.0.1:8500/TCP", True),),
        now_s=NOW.timestamp(),
        generation=3,
        applied=3,
    ),
}


def test_a_clean_system_is_silent():
    assert found(*BASES, FROM_B, TO_443, **CLEAN) == []
    assert found(FROM_B, TO_443, posture="zero-trust", **CLEAN) == []


def test_z01_a_workload_that_no_policy_selects():
    first = found(BASES[0], BASES[1])[0]
    assert (first.rule, first.severity, str(first.about)) == ("Z01", "critical", "z/Pod/a")
    assert "ingress and egress open to everybody" in first.message
    (fix,) = yaml.safe_load_all(first.fix)
    assert numbers(BASES[0], BASES[1], fix) == set()


def test_z01_names_the_direction_that_is_open():
    only_ingress = np("base", {"podSelector": {}, "policyTypes": ["Ingress"]})
    messages = {one.message for one in found(only_ingress, *BASES[1:]) if one.rule == "Z01"}
    assert messages == {"no policy selects it: egress open to everybody"}


def test_z02_an_allow_list_without_a_base():
    (one,) = [one for one in found(FROM_B, *BASES[1:]) if one.rule == "Z02"]
    assert "ingress of x/b, x/c is open" in one.message
    assert "podSelector: {}, policyTypes: [Ingress]" in one.fix


def test_z06_a_block_that_means_a_pod():
    (one,) = found(*BASES, BY_BLOCK)
    assert (one.rule, str(one.about)) == ("Z06", "x/NetworkPolicy/by-block")
    assert one.path == ("spec", "ingress", 0, "from", 0, "ipBlock")


def test_z09_a_rule_for_everybody_on_every_port():
    (one,) = found(*BASES, np("public", {**A, "ingress": [{}]}))
    assert (one.rule, str(one.about)) == ("Z09", "x/NetworkPolicy/public")
    assert one.path == ("spec", "ingress", 0)
    assert found(*BASES, np("public", {**A, "ingress": [{"ports": [{"port": 80}]}]})) == []


@pytest.mark.parametrize(
    ("seen", "rules"),
    [
        (PolicySeen(8 * 86400), ["Z10"]),
        (PolicySeen(6 * 86400), []),
        (PolicySeen(8 * 86400, {"ingress[0]": 1}), []),
        (PolicySeen(8 * 86400, {"ingress default-deny": 9}), ["Z10"]),
    ],
)
def test_z10_a_rule_that_nobody_uses(seen, rules):
    live = Live(policies={"x/from-b": seen})
    assert [one.rule for one in found(*BASES, FROM_B, live=live)] == rules


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (svid(25), "its certificate is valid for 25 h"),
        (svid(24), ""),
        (svid(age_s=3000, followed=True), "16 % of its certificate's lifetime are left"),
        (svid(age_s=3000), ""),
        (svid(age_s=4000, followed=True), "0 % of its certificate's lifetime are left"),
    ],
)
def test_z11_a_lifetime_that_is_too_long_or_nearly_over(seen, message):
    findings = found(*BASES, live=Live(svids=(seen,), now_s=NOW.timestamp()))
    assert [one.message for one in findings] == [message] * bool(message)
    assert {(one.rule, str(one.about)) for one in findings} <= {("Z11", "x/Pod/a")}


@pytest.mark.parametrize(
    ("seen", "rules"),
    [
        ({"followed": True, "overdue_s": 31.0}, ["Z12"]),
        ({"followed": True, "overdue_s": 29.0}, []),
        ({"overdue_s": 31.0}, []),
    ],
)
def test_z12_a_renewal_that_is_late(seen, rules):
    live = Live(svids=(svid(**seen),), now_s=NOW.timestamp())
    assert [one.rule for one in found(*BASES, live=live)] == rules


@pytest.mark.parametrize(
    ("certificate", "fault"),
    [
        (made_by_hand(ca=True), "it may sign others (CA is true)"),
        (made_by_hand(signs=True), "its key usage has keyCertSign or cRLSign"),
        (made_by_hand("spiffe://cluster.local"), "names a trust domain, and no workload of it"),
        (made_by_hand("https://cluster.local/a"), "does not start with spiffe://"),
    ],
)
def test_z13_a_certificate_that_is_no_svid(certificate, fault):
    live = Live(svids=(svid_seen(certificate),), now_s=NOW.timestamp())
    (one,) = found(*BASES, live=live)
    assert one.rule == "Z13"
    assert fault in one.message


def test_z14_workloads_that_share_an_identity():
    pods = [{**one, "account": "both"} if one["pod"] in ("x/a", "x/b") else one for one in OWN]
    (one,) = found(*BASES, pods=pods)
    assert (one.rule, str(one.about)) == ("Z14", "x/ServiceAccount/both")
    assert one.evidence == "Pod/a, Pod/b are spiffe://cluster.local/ns/x/sa/both"


def test_z16_a_connection_that_policy_denies_by_now():
    seen = ConnectionSeen("x/b", "x/a", 80, "TCP", rule="default-deny (x/base)")
    (one,) = found(*BASES, live=Live(denied=(seen,)))
    assert (one.rule, str(one.about)) == ("Z16", "x/Pod/b")
    assert one.evidence == "denied today by default-deny (x/base)"


def test_z17_egress_to_everywhere():
    (one,) = found(*BASES, ANYWHERE)
    assert (one.rule, str(one.about)) == ("Z17", "x/Pod/a")


def test_z19_a_socket_that_nobody_meant():
    door = DoorSeen("envoy (7)", "0.0.0.0:9901/TCP", meant=False)
    (one,) = found(*BASES, live=Live(doors=(door,)))
    assert (one.rule, one.severity) == ("Z19", "critical")
    assert "listens on 0.0.0.0:9901/TCP" in one.message


@pytest.mark.parametrize("lost", [{"flows_lost": 4}, {"hits_lost": 4}])
def test_z21_decisions_that_were_not_recorded(lost):
    (one,) = found(*BASES, live=Live(**lost))
    assert (one.rule, one.message[:2]) == ("Z21", "4 ")


@pytest.mark.parametrize("state", [{"generation": 2, "applied": 1}, {"problem": "E2BIG"}])
def test_z22_a_datapath_that_lags(state):
    (one,) = found(*BASES, live=Live(**state))
    assert one.rule == "Z22"


DIALS = DialsSeen(
    "x/a",
    "x/db",
    watched_s=60,
    longest_s=3,
    connections=30,
    retired=0,
    expired=0,
    late=0,
    unasked=0,
)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, []),
        ({"retired": 1, "address": "10.244.0.9"}, ["RETIRED"]),
        ({"expired": 15, "late": 15, "longest_s": 90.0}, ["EXPIRED"]),
        ({"expired": 15, "late": 14}, []),
        ({"expired": 14, "late": 14}, []),
        ({"connections": 19, "expired": 19, "late": 19}, []),
        ({"unasked": 30, "watched_s": 601.0}, ["NO_LOOKUP"]),
        ({"unasked": 30, "watched_s": 599.0}, []),
        ({"unasked": 29, "watched_s": 601.0}, []),
    ],
)
def test_z24_a_client_that_keeps_addresses(seen, words):
    findings = found(*BASES, live=Live(dials=(replace(DIALS, **seen),)))
    assert [one.message.split(":")[0] for one in findings] == words
    assert {(one.rule, str(one.about)) for one in findings} <= {("Z24", "x/Pod/a")}


RANDOM = {"sixfold.dev/lb-algorithm": "random"}


def test_z23_a_rotation_for_what_the_port_calls_long_lived():
    (one,) = found(*BASES, services=[service(RANDOM, appProtocol="grpc")])
    assert (one.rule, one.path) == (
        "Z23",
        ("metadata", "annotations", "sixfold.dev/lb-algorithm"),
    )
    assert one.evidence == "appProtocol grpc means many requests"
    assert found(*BASES, services=[service(appProtocol="grpc")]) == []


@pytest.mark.parametrize(
    ("seen", "evidence"),
    [
        ({"lifetime_s": 45.0}, "they last 45 s on average"),
        ({"connections": (30.0, 5.0, 7.0)}, "the busiest backend has 30 live connections"),
    ],
)
def test_z23_a_rotation_for_what_is_seen(seen, evidence):
    live = Live(ports=(replace(SEEN, **seen),))
    (one,) = found(*BASES, services=[service(RANDOM)], live=live)
    assert one.evidence.startswith(evidence)


@pytest.mark.parametrize(
    "seen",
    [
        {"algorithm": "least-connections", "lifetime_s": 45.0},
        {"connections": (3.0, 0.0)},  # chance
        {"connections": ()},
    ],
)
def test_z23_is_silent_where_all_is_well(seen):
    assert found(*BASES, services=[service()], live=Live(ports=(replace(SEEN, **seen),))) == []


def test_z25_a_process_of_the_host_on_a_workload():
    seen = ConnectionSeen("10.0.0.1", "x/a", 80, "TCP", owner="curl (7)")
    (one,) = found(*BASES, live=Live(by_host=(seen,)))
    assert (one.rule, str(one.about)) == ("Z25", "x/Pod/a")
    assert one.message == "curl (7) is connected to its port 80/TCP"


def test_rules_can_be_chosen_and_the_worst_comes_first():
    here = world({**nine(FROM_B, ANYWHERE), "pods": OWN})
    evidence = Evidence(View(here))
    severities = [one.severity for one in audit(evidence)]
    assert severities == sorted(severities, key=("critical", "high", "medium").index)
    assert {one.rule for one in audit(evidence, ["Z02"])} == {"Z02"}


def test_offline_nothing_is_asked_that_only_an_agent_knows():
    offline = [rule.number for rule in RULES if rule.offline]
    most = ["Z01", "Z02", "Z05", "Z06", "Z07", "Z09", "Z14", "Z15", "Z17", "Z18", "Z23"]
    assert offline == [*most, "Z26"]
    assert numbers(*BASES, live=None) == set()


def test_sarif_and_markdown_have_every_finding_with_its_place():
    placed = [Placed(one, "shop.yaml", 7, "spec") for one in found(*BASES, BY_BLOCK, ANYWHERE)]
    (run,) = json.loads(json.dumps(sarif(placed, "1.0")))["runs"]
    assert [one["ruleId"] for one in run["results"]] == ["Z17", "Z06"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "shop.yaml"
        assert place["region"]["startLine"] == 7
    assert [one["level"] for one in run["results"]] == ["error", "warning"]
    text = markdown(placed)
    assert "## Z17 everything outside may be dialled" in text
    assert "(shop.yaml:7)" in text


# --- the mesh -------------------------------------------------------------------------------------

PEER = "security.istio.io/v1"
HTTP = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "asked", "namespace": "x"},
    "spec": {
        "endpointSelector": {"matchLabels": {"pod": "a"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"pod": "b"}}],
                "toPorts": [
                    {
                        "ports": [{"port": "80", "protocol": "TCP"}],
                        "rules": {"http": [{"method": "GET"}]},
                    }
                ],
            }
        ],
    },
}
OPEN_80 = np("public", {**A, "ingress": [{"ports": [{"port": 80}]}]})


def authenticated(mode, **ports):
    spec = {"mtls": {"mode": mode}}
    if ports:
        spec["selector"] = {"matchLabels": {"pod": "a"}}
        spec["portLevelMtls"] = {port[1:]: {"mode": word} for port, word in ports.items()}
    raw = {
        "apiVersion": PEER,
        "kind": "PeerAuthentication",
        "metadata": {"name": f"{mode}{len(ports)}".lower(), "namespace": "x"},
        "spec": spec,
    }
    return msgspec.convert(raw, PeerAuthentication)


def in_mesh(*policies, mtls="strict", peers=(), live=None, rules=(), on_host=()):
    here = world({**nine(*policies, posture="zero-trust"), "pods": OWN})
    here = replace(
        here,
        config=replace(here.config, mtls=mtls),
        peer_authentications={f"x/{one.metadata.name}": one for one in peers},
        on_host=frozenset(on_host),
    )
    found = audit(Evidence(View(here), live), rules)
    return [one for one in found if one.rule != "Z26"]  # test_relaxed.py has it


PLAIN = PlaintextSeen("x/b", "x/a", 80, "TCP", 3)


@pytest.mark.parametrize(
    ("options", "why", "fix"),
    [
        ({"mtls": "disabled"}, "mTLS is off", "sixfold up --mtls strict"),
        ({"mtls": "permissive"}, "permissive by --mtls permissive", "sixfold up --mtls strict"),
        (
            {"peers": [authenticated("STRICT", p80="DISABLE")]},
            "disabled by PeerAuthentication x/strict1, port 80",
            "mtls: {mode: STRICT}",
        ),
    ],
)
def test_z03_workloads_that_talk_in_plaintext(options, why, fix):
    (one,) = in_mesh(live=Live(plaintext=(PLAIN, replace(PLAIN, client="x/c"))), **options)
    assert (one.rule, one.severity, str(one.about)) == ("Z03", "critical", "x/Pod/a")
    assert one.message == "port 80/TCP is talked to in plaintext by x/b, x/c"
    assert one.evidence == f"6 connections outside of any tunnel; {why}"
    assert fix in one.fix


def test_z03_what_is_strict_by_now_is_history_and_datagrams_are_told_apart():
    assert in_mesh(live=Live(plaintext=(PLAIN,))) == []
    (one,) = in_mesh(live=Live(plaintext=(replace(PLAIN, protocol="UDP"),)))
    assert (one.rule, one.severity) == ("Z03", "medium")


DAY = 86400.0


@pytest.mark.parametrize(
    ("seen", "evidence"),
    [
        ((8 * DAY, None), "no client in plaintext was seen, in 8 days"),
        ((30 * DAY, 9 * DAY), "the last client in plaintext came 9 days ago, in 30 days"),
        ((30 * DAY, 6 * DAY), ""),
        ((6 * DAY, None), ""),
    ],
)
def test_z04_a_permissive_port_that_nobody_needs(seen, evidence):
    permissive = [authenticated("STRICT", p80="PERMISSIVE")]
    live = Live(permissive=(PermissiveSeen("x/a", 80, *seen),))
    findings = in_mesh(peers=permissive, live=live)
    assert [one.evidence for one in findings] == [evidence] * bool(evidence)
    for one in findings:
        assert (one.rule, str(one.about)) == ("Z04", "x/Pod/a")
        (fix,) = yaml.safe_load_all(one.fix)
        assert fix["spec"] == {
            "selector": {"matchLabels": {"pod": "a"}},
            "mtls": {"mode": "STRICT"},
        }


def test_z05_a_certificate_of_anybody_is_enough():
    (one,) = in_mesh(OPEN_80)
    assert (one.rule, one.severity, str(one.about)) == ("Z05", "high", "x/Pod/a")
    assert one.message == "whoever has an identity may call it, on TCP/80"
    assert "x/public ingress[0]" in one.evidence


@pytest.mark.parametrize(
    ("policies", "options"),
    [
        ((FROM_B,), {}),
        ((OPEN_80,), {"mtls": "disabled"}),  # then nobody has to show a certificate
        ((OPEN_80,), {"peers": [authenticated("STRICT", p80="DISABLE")]}),
    ],
)
def test_z05_is_silent_where_somebody_is_named_or_nobody_is_asked(policies, options):
    assert [one.rule for one in in_mesh(*policies, **options)] == []


FROM_HOST = {
    **HTTP,
    "metadata": {"name": "host", "namespace": "x"},
    "spec": {
        "endpointSelector": {"matchLabels": {"pod": "a"}},
        "ingress": [{"fromEntities": ["host"]}],
    },
}
FROM_WORLD = np(
    "world",
    {**A, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 80}]}]},
)


@pytest.mark.parametrize(
    ("policy", "who"), [(FROM_HOST, "the host"), (FROM_WORLD, "the host and the world")]
)
def test_z07_requests_judged_on_a_port_that_some_reach_without_mtls(policy, who):
    (one,) = in_mesh(HTTP, policy, rules=["Z07"])
    assert (one.severity, str(one.about)) == ("high", "x/Pod/a")
    assert one.message == f"port 80/TCP: requests are judged, but not those of {who}"
    assert in_mesh(HTTP, rules=["Z07"]) == in_mesh(policy, rules=["Z07"]) == []


def test_z08_rules_about_requests_that_can_be_gone_around():
    assert in_mesh(HTTP, live=Live()) == []
    (one,) = in_mesh(HTTP, live=Live(unguarded=(UnguardedSeen("x/a", 80, "permissive"),)))
    assert (one.rule, one.severity, str(one.about)) == ("Z08", "critical", "x/Pod/a")


@pytest.mark.parametrize(
    ("tried", "looked_into", "rule"),
    [
        ("plaintext", True, "Z08"),
        ("plaintext", False, "Z03"),
        ("tunnel", False, "Z08"),
        ("door", False, "Z19"),
    ],
)
def test_an_answer_to_a_stranger_is_critical(tried, looked_into, rule):
    seen = IntrusionSeen(tried, "x/b", "x/a", "10.0.0.1:80", looked_into)
    (one,) = in_mesh(live=Live(intrusions=(seen,)))
    assert (one.rule, one.severity) == (rule, "critical")


def test_z15_a_process_that_nobody_attested():
    seen = StraySeen("x/a", "nc (7)", "/user.slice")
    (one,) = in_mesh(live=Live(strays=(seen,)))
    assert (one.rule, str(one.about)) == ("Z15", "x/Pod/a")
    (one,) = in_mesh(on_host=["x/agent", "x/DaemonSet/agent"])
    assert (one.rule, str(one.about)) == ("Z15", "x/DaemonSet/agent")


def test_anti_patterns_have_a_name_each():
    named = {rule.number: rule.anti_pattern for rule in RULES if rule.anti_pattern}
    assert len(set(named.values())) == len(named) == 6


def tokens(audiences=("web",), labels=None):
    rule = {"issuer": "https://login.example", "audiences": list(audiences)}
    selector = {"selector": {"matchLabels": labels}} if labels else {}
    return decode(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "users", "namespace": "x"},
            "spec": {**selector, "jwtRules": [rule]},
        }
    ).object


def with_tokens(*policies):
    here = world({**nine(), "pods": OWN})
    more = {policy_key(one): one for one in policies}
    view = View(replace(here, policies={**here.policies, **more}))
    return audit(Evidence(view), ["Z18"])


def test_z18_a_token_that_nobody_asks_for():
    (one,) = with_tokens(tokens(labels={"pod": "a"}))
    assert (one.severity, str(one.about)) == ("high", "x/RequestAuthentication/users")
    assert "Pod/a" in one.evidence
    asking = decode(yaml.safe_load(one.fix)).object
    assert with_tokens(tokens(labels={"pod": "a"}), asking) == []
    (rest,) = with_tokens(tokens(), asking)
    assert "Pod/b, Pod/c" in rest.evidence


def test_z18_a_token_that_was_made_for_anybody():
    asking = decode(yaml.safe_load(with_tokens(tokens())[0].fix)).object
    assert with_tokens(tokens(), asking) == []
    (one,) = with_tokens(tokens(audiences=()), asking)
    assert (one.path, "no audiences" in one.evidence) == (("spec", "jwtRules", 0), True)


@pytest.mark.parametrize(
    ("heard_s", "problem", "old"),
    [
        (-3000.0, "", True),
        (-3000.0, "it answered 503", True),
        (-200.0, "it answered 503", False),  # it is asked again before its word is old
        (-200.0, "", False),
        (None, "", False),  # it is being asked for the first time
        (None, "connection refused", True),
    ],
)
def test_z20_a_bundle_that_is_old(heard_s, problem, old):
    now_s = NOW.timestamp()
    heard = 0.0 if heard_s is None else now_s + heard_s
    seen = BundleSeen("partner.example", "https://192.0.2.2/bundle", 1, heard, 300.0, problem)
    live = replace(CLEAN["live"], bundles=(seen,))
    findings = found(*BASES, FROM_B, TO_443, **{**CLEAN, "live": live})
    assert [one.rule for one in findings] == ["Z20"] * old
    assert all("partner.example" in one.message and problem in one.evidence for one in findings)


def abroad(*principals, federated=(), audited=False):
    raw = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "them", "namespace": "x"},
        "spec": {"rules": [{"from": [{"source": {"principals": list(principals)}}]}]},
    }
    one = decode(raw).object
    here = world({**nine(*BASES), "pods": OWN})
    here = replace(
        here,
        policies={**here.policies, policy_key(one): one},
        federated=frozenset(federated),
        audited=frozenset({"x"} if audited else ()),
    )
    found = audit(Evidence(View(here), replace(CLEAN["live"], svids=())), ["Z05", "Z20"])
    return [(one.rule, one.severity, str(one.about)) for one in found]


PARTNER, THEM = "partner.example", "x/AuthorizationPolicy/them"


def test_z05_a_whole_trust_domain_is_let_in():
    assert abroad(f"{PARTNER}/*", federated=[PARTNER]) == [("Z05", "high", THEM)]
    assert abroad(f"{PARTNER}/ns/a/sa/b", "*", federated=[PARTNER]) == []
    assert abroad(f"{PARTNER}/*", federated=[PARTNER], audited=True) == []  # lets nobody in


def test_z20_a_trust_domain_that_is_spoken_of_and_not_federated():
    assert abroad(f"{PARTNER}/ns/a/sa/b") == [("Z20", "medium", THEM)]
    assert abroad("cluster.local/ns/a/sa/b") == []
