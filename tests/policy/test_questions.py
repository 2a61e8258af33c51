"""Which names a pod may ask for: what rules about names add up to."""

import pytest
from tests.policy.worlds import nine, world

from sixfold.policy.plan import PolicyCompiler
from sixfold.policy.questions import QuestionPlanner

A = {"pod": "a"}
KUBE_DNS = {"matchLabels": {"k8s-app": "kube-dns", "io.kubernetes.pod.namespace": "kube-system"}}
EVERYTHING = {"toEntities": ["all"]}


def cnp(name, *rules, **more):
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"endpointSelector": {"matchLabels": A}, "egress": list(rules), **more},
    }


def asks(*names, **rules):
    ports = {"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": one} for one in names]}}
    return {"toEndpoints": [KUBE_DNS], "toPorts": [ports if names else {"ports": ports["ports"]}]}


def limits(*policies, **case):
    found = world(nine(*policies, posture="zero-trust", **case))
    return QuestionPlanner().plan(found, PolicyCompiler().compile(found))


def test_rules_add_up_and_who_has_none_is_not_limited():
    found = limits(cnp("p", asks("*.a.b")), cnp("q", asks("c.d")))
    assert [*found] == ["x/a"]
    assert found["x/a"].patterns == {"*.a.b", "c.d"}
    assert str(found["x/a"].denied) == (
        "default-deny (CiliumNetworkPolicy x/p,CiliumNetworkPolicy x/q)"
    )
    assert [found["x/a"].refuses(name) for name in ("1.a.b", "1.2.a.b", "c.d")] == [0, 1, 0]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(asks("*"), id="every-name"),
        pytest.param(asks(), id="kube-dns-without-rules"),
        pytest.param(EVERYTHING, id="everybody"),
    ],
)
def test_a_rule_that_lets_to_the_resolver_without_a_word_about_names_allows_all(other):
    assert limits(cnp("p", asks("a.b")), cnp("q", other)) == {}


def test_a_rule_about_others_widens_nothing():
    other = {"toEndpoints": [{}], "toPorts": [{"ports": [{"port": "53"}]}]}
    assert limits(cnp("p", asks("a.b"), other))["x/a"].patterns == {"a.b"}


def test_without_default_deny_names_are_limited_all_the_same():
    """Cilium: enableDefaultDeny does not apply to layer 7."""
    found = limits(cnp("p", asks("a.b"), enableDefaultDeny={"egress": False}))
    assert found["x/a"].refuses("c.d")
