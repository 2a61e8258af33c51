"""What relaxes the posture is listed, whatever says it, as long as it lasts: Z26."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from tests.policy.worlds import nine, np, world

from sixfold.manifest import decode, loads, offline
from sixfold.model.enforcement import ENFORCEMENT
from sixfold.model.posture import Relaxation
from sixfold.policy.reach_parties import View
from sixfold.trust.audit import audit
from sixfold.trust.audit_finding import Evidence
from sixfold.trust.relaxed import LAYERS, relaxed

DENY = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
LEGACY = Relaxation(
    "legacy", "x", "2126-12-24T18:00:00Z", "ticket 4711", enforcement="audit", mtls="permissive"
)


def a_world(*policies, mtls=None, audit=False, **changes):
    here = world(nine(*policies, posture="zero-trust"))
    return replace(here, config=replace(here.config, mtls=mtls, audit=audit), **changes)


def findings(here):
    return audit(Evidence(View(here)), ["Z26"])


def authenticated(**spec):
    meta = {"name": "plain", "namespace": "x"}
    head = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta}
    return {"x/plain": decode({**head, "spec": spec}).object}


def test_a_posture_that_nobody_relaxes_is_no_finding():
    assert findings(a_world(np("base", DENY, "x"), peer_authentications=authenticated())) == []
    assert list(relaxed(a_world())) == []


def test_what_has_an_end_is_listed_low_with_its_scope_its_reason_and_its_end():
    port, plain = findings(a_world(relaxations=(LEGACY,)))
    for one, said in ((port, "enforcement: audit"), (plain, "mtls: permissive")):
        assert (one.severity, str(one.about)) == ("low", "Posture/default")
        assert one.message.endswith(f"but: {said}, for namespace x")
        assert one.evidence == "relaxation legacy, until 2126-12-24T18:00:00Z: ticket 4711"
        assert one.path == ("spec", "relaxations", 0)


@pytest.mark.parametrize(
    ("here", "about", "said"),
    [
        ({"audited": frozenset("x")}, "Namespace/x", "namespace x is in audit"),
        ({"told": frozenset("x")}, "Namespace/x", "services of namespace x"),
        ({"mtls": "permissive"}, "Agent/sixfold", "mTLS is permissive"),
        (
            {"peer_authentications": authenticated(mtls={"mode": "DISABLE"})},
            "x/PeerAuthentication/plain",
            "it takes plaintext: DISABLED",
        ),
        (
            {
                "peer_authentications": authenticated(
                    selector={"matchLabels": {"pod": "a"}},
                    portLevelMtls={"80": {"mode": "PERMISSIVE"}},
                )
            },
            "x/PeerAuthentication/plain",
            "port 80 takes plaintext: PERMISSIVE",
        ),
    ],
    ids=["audit", "names", "flag", "namespace", "port"],
)
def test_what_has_no_end_is_worse_and_the_fix_gives_it_one(here, about, said):
    (one,) = findings(a_world(**here))
    assert (one.severity, str(one.about)) == ("medium", about)
    assert said in one.message
    assert one.evidence.endswith("without an end")
    _, _, fix = one.fix.partition("\n")
    (dated,) = yaml.safe_load(fix)["spec"]["relaxations"]
    assert {"until", "reason", "namespace"} <= dated.keys()


def test_a_policy_in_audit_and_everything_in_audit():
    base = np("base", DENY, "x")
    base["metadata"]["annotations"] = {ENFORCEMENT: "audit"}
    (one,) = findings(a_world(base))
    assert (str(one.about), one.evidence) == (
        "x/NetworkPolicy/base",
        f"by {ENFORCEMENT}, without an end",
    )
    assert {one.layer for one in relaxed(a_world(audit=True))} == {"port", "name"}


def test_offline_a_relaxation_is_in_force_until_its_end():
    text = """
apiVersion: sixfold.dev/v1
kind: Posture
metadata: {name: default}
spec:
  base: kubernetes
  relaxations:
    - {name: a, namespace: x, until: 2026-12-24T18:00:00Z, reason: why, discovery: open}
"""
    manifests = loads(text)
    (one,) = manifests.objects[0].object.spec.relaxations
    before = offline(manifests, now_s=one.until_s - 1)
    after = offline(manifests, now_s=one.until_s)
    assert (before.relaxations, before.public) == ((one,), {"x"})
    assert (after.relaxations, after.public) == ((), frozenset())
    assert before.config.posture == "kubernetes"


def test_there_are_six_layers():
    assert len(LAYERS) == 6
