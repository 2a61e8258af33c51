from __future__ import annotations

import pytest

from sixfold.model.kinds import ALIASES, KINDS, Kind, classify, find, key_of
from sixfold.model.meta import Key, Namespace, ObjectMeta
from sixfold.model.service import Service, ServiceSpec


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("po", "Pod"),
        ("pods", "Pod"),
        ("Pod", "Pod"),
        ("deploy", "Deployment"),
        ("svc", "Service"),
        ("netpol", "NetworkPolicy"),
        ("networkpolicies", "NetworkPolicy"),
        ("ns", "Namespace"),
        ("sts", "StatefulSet"),
        ("ds", "DaemonSet"),
        ("rs", "ReplicaSet"),
        ("job", "Job"),
        ("ep", "Endpoints"),
        ("endpoints", "Endpoints"),
        ("endpointslices", "EndpointSlice"),
        ("deployments.apps", "Deployment"),
    ],
)
def test_users_may_call_a_kind_as_in_kubectl(word, kind):
    assert find(word) is KINDS[kind]


def test_no_alias_means_two_kinds():
    assert len(ALIASES) == sum(len(set(kind.aliases)) for kind in KINDS.values())


def test_an_unknown_word_is_no_kind():
    assert find("ingress") is None


def test_a_key_has_the_namespace_of_namespaced_kinds_only():
    service = Service(ObjectMeta(name="web", namespace="shop"), ServiceSpec())
    assert key_of(service) == Key("Service", "shop", "web")
    assert key_of(Namespace(ObjectMeta(name="shop"))) == Key("Namespace", "", "shop")


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        pytest.param("v1", "ServiceAccount", id="core"),
        pytest.param("apps/v1", "ControllerRevision", id="apps"),
        pytest.param("batch/v1", "CronJob", id="batch"),
        pytest.param("rbac.authorization.k8s.io/v1", "Role", id="other group"),
        pytest.param("serving.knative.dev/v1", "Service", id="same name, other group"),
        pytest.param("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", id="other dialect"),
        pytest.param("cilium.io/v2", "CiliumEndpoint", id="cilium"),
        pytest.param("cilium.io/v2", "CiliumLocalRedirectPolicy", id="cilium policy"),
        pytest.param("cilium.io/v2", "CiliumEgressGatewayPolicy", id="cilium gateway"),
        pytest.param("cilium.io/v2", "CiliumClusterwideEnvoyConfig", id="cilium envoy"),
        pytest.param("networking.k8s.io/v1", "Ingress", id="networking"),
    ],
)
def test_kinds_that_are_not_ours_are_ignored(api_version, kind):
    assert classify(api_version, kind) is None


@pytest.mark.parametrize(
    ("api_version", "kind", "message"),
    [
        ("extensions/v1beta1", "NetworkPolicy", "give apiVersion: networking.k8s.io/v1"),
        ("apps/v1beta2", "Deployment", "give apiVersion: apps/v1"),
        ("v1", "Deployment", "give apiVersion: apps/v1"),
        ("apps/v1", "Service", "give apiVersion: v1"),
        ("networking.k8s.io/v1", "NetworkPolicies", "did you mean NetworkPolicy?"),
        ("networking.k8s.io/v1", "networkpolicy", "did you mean NetworkPolicy?"),
        ("v1", "Pods", "did you mean Pod?"),
    ],
)
def test_a_slip_in_a_kind_of_ours_is_not_taken_for_a_foreign_kind(api_version, kind, message):
    assert message in str(classify(api_version, kind))


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("extensions/v1beta1", "Deployment"),
        ("apps/v1beta1", "StatefulSet"),
        ("apps/v1beta2", "DaemonSet"),
        ("extensions/v1beta1", "NetworkPolicy"),
        ("batch/v1beta1", "CronJob"),
    ],
)
def test_versions_that_no_server_has_any_more_are_taken_offline(api_version, kind):
    found = classify(api_version, kind, offline=True)
    assert isinstance(found, Kind)
    assert found.name == kind
    assert not isinstance(classify(api_version, kind), Kind)
