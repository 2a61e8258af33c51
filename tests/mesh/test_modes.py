"""The narrowest PeerAuthentication that says something decides, as Istio documents it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.policy import worlds

from sixfold.manifest import decode
from sixfold.mesh.explain import explain_mesh
from sixfold.mesh.modes import Decided, kernel_lines, plan_modes, transport
from sixfold.model.mesh import Mode, PortMode
from sixfold.model.meta import LabelSelector
from sixfold.model.posture import Relaxation, RelaxedPort

CASE = {
    "namespaces": {"shop": {}, "bank": {}},
    "pods": [
        {"pod": "shop/web", "labels": {"app": "web"}, "ip": "192.0.2.1"},
        {"pod": "shop/db", "labels": {"app": "db"}, "ip": "192.0.2.2"},
        {"pod": "bank/vault", "labels": {}, "ip": "192.0.2.3"},
    ],
    "policies": [],
}


def authentication(place, mode=None, *, labels=None, ports=None, made="2026-01-01T00:00:00Z"):
    namespace, name = place.split("/")
    spec = {
        **({"mtls": {"mode": mode}} if mode else {}),
        **({"selector": {"matchLabels": labels}} if labels else {}),
        **({"portLevelMtls": {p: {"mode": m} for p, m in ports.items()}} if ports else {}),
    }
    return decode(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": made},
            "spec": spec,
        }
    ).object


def world(*given, mtls="disabled"):
    here = worlds.world(CASE)
    named = {f"{one.metadata.namespace}/{one.metadata.name}": one for one in given}
    return replace(here, config=replace(here.config, mtls=mtls), peer_authentications=named)


def modes(*given, mtls="disabled", port=80):
    return {key: pod.of(port).mode for key, pod in plan_modes(world(*given, mtls=mtls)).items()}


def everywhere(mode):
    return dict.fromkeys(("shop/web", "shop/db", "bank/vault"), mode)


def test_where_nobody_asks_for_mtls_there_is_no_mesh():
    assert plan_modes(world()) == {}
    assert plan_modes(world(authentication("shop/off", "DISABLE"))) == {}


@pytest.mark.parametrize("root", ["sixfold-system", "istio-system"])
def test_the_mesh_has_the_mode_of_the_flag_or_of_the_root_namespace(root):
    assert modes(mtls="strict") == everywhere(Mode.STRICT)
    wide = authentication(f"{root}/default", "PERMISSIVE")
    assert modes(wide, mtls="strict") == everywhere(Mode.PERMISSIVE)


def test_a_namespace_overrides_the_mesh_and_a_workload_its_namespace():
    given = (
        authentication("shop/default", "DISABLE"),
        authentication("shop/db", "PERMISSIVE", labels={"app": "db"}),
    )
    assert modes(*given, mtls="strict") == {
        "shop/web": Mode.DISABLED,
        "shop/db": Mode.PERMISSIVE,
        "bank/vault": Mode.STRICT,
    }


def test_a_port_overrides_its_workload():
    one = authentication("shop/db", "STRICT", labels={"app": "db"}, ports={"81": "DISABLE"})
    assert modes(one, port=80)["shop/db"] == Mode.STRICT
    assert modes(one, port=81)["shop/db"] == Mode.DISABLED
    assert modes(one, port=80)["shop/web"] == Mode.DISABLED


def test_what_is_unset_is_said_by_the_next_wider_scope():
    given = (
        authentication("shop/default", "PERMISSIVE"),
        authentication("shop/db", "UNSET", labels={"app": "db"}, ports={"81": "UNSET"}),
    )
    pod = plan_modes(world(*given, mtls="strict"))["shop/db"]
    assert pod.every == Decided(Mode.PERMISSIVE, "PeerAuthentication shop/default")
    assert pod.ports == {}


def test_of_several_in_one_scope_the_oldest_is_read_and_no_other():
    given = (
        authentication("shop/a", "STRICT", made="2026-01-02T00:00:00Z"),
        authentication("shop/b", "PERMISSIVE", made="2026-01-01T00:00:00Z"),
        authentication("shop/c", labels={"app": "db"}, ports={"81": "DISABLE"}),
        authentication("shop/d", "STRICT", labels={"app": "db"}, made="2026-01-03T00:00:00Z"),
    )
    assert modes(*given)["shop/web"] == Mode.PERMISSIVE
    assert modes(*given)["shop/db"] == Mode.PERMISSIVE
    assert modes(*given, port=81)["shop/db"] == Mode.DISABLED


def test_a_selector_in_the_root_namespace_is_for_its_own_workloads():
    one = authentication("istio-system/db", "STRICT", labels={"app": "db"})
    assert modes(one, mtls="permissive") == everywhere(Mode.PERMISSIVE)


def test_the_kernel_is_told_the_mode_of_every_port_and_the_exceptions():
    here = world(authentication("shop/db", "STRICT", labels={"app": "db"}, ports={"81": "DISABLE"}))
    db = here.endpoints["shop/db"]
    lines = kernel_lines(plan_modes(here), {**here.endpoints, "shop/db": replace(db, ifindex=7)})
    assert {one for one in lines if one.endpoint == db.id} == {
        PortMode(db.id, 0, Mode.STRICT, 7),
        PortMode(db.id, 81, Mode.DISABLED, 7),
    }


def test_a_pod_that_is_not_attached_yet_is_not_told():
    here = world(mtls="strict")
    endpoints = {key: replace(one, ifindex=0) for key, one in here.endpoints.items()}
    assert kernel_lines(plan_modes(here), endpoints) == frozenset()


@pytest.mark.parametrize(
    ("mode", "captured", "mtls", "dropped"),
    [
        pytest.param("STRICT", True, True, False, id="strict, by the proxy"),
        pytest.param("STRICT", False, False, True, id="strict, plaintext"),
        pytest.param("PERMISSIVE", True, True, False, id="permissive, by the proxy"),
        pytest.param("PERMISSIVE", False, False, False, id="permissive, plaintext"),
        pytest.param("DISABLE", True, False, False, id="disabled"),
    ],
)
def test_how_a_connection_goes_follows_from_the_mode(mode, captured, mtls, dropped):
    planned = plan_modes(world(authentication("shop/default", mode), mtls="strict"))
    went = transport(planned, "bank/vault", "shop/web", 80, captured=captured)
    assert (went.mtls, went.dropped) == (mtls, dropped)


def explained(*given, mtls="disabled", protocol="TCP", port=80, to="shop/db"):
    here = world(*given, mtls=mtls)
    answer = explain_mesh(here, here.endpoints["shop/web"], here.endpoints[to], protocol, port)
    return f"{answer.outcome}: {answer.text}"


def test_explain_says_who_is_who_and_what_says_so():
    one = authentication("shop/db", "STRICT", labels={"app": "db"}, ports={"81": "DISABLE"})
    ids = "spiffe://cluster.local/ns/shop/sa/default → spiffe://cluster.local/ns/shop/sa/default"
    assert explained(one) == f"mTLS: {ids}, strict by PeerAuthentication shop/db"
    assert explained(one, port=81) == (
        "plaintext: port 81 of shop/db is disabled by PeerAuthentication shop/db, port 81"
    )
    assert explained(mtls="permissive") == (
        f"mTLS: {ids}, permissive by --mtls permissive; "
        "plaintext from outside the mesh is let in, too"
    )
    assert explained() == "plaintext: mTLS is off: --mtls disabled"
    assert explained(one, protocol="UDP").startswith("plaintext: UDP is in no tunnel")
    assert explained(mtls="strict", to="shop/web") == "plaintext: it does not leave the pod"


def relaxed(mtls, *ports, labels=None, namespace="shop"):
    selector = None if labels is None else LabelSelector(labels)
    given = [RelaxedPort(port) for port in ports]
    return Relaxation("x", namespace, "2126-01-01T00:00:00Z", "why", selector, given, mtls=mtls)


def relaxed_modes(*relaxations, given=(), mtls="strict", port=80):
    here = replace(world(*given, mtls=mtls), relaxations=relaxations)
    return {key: pod.of(port).mode for key, pod in plan_modes(here).items()}


def test_a_relaxation_makes_what_is_stricter_less_strict_whoever_said_so():
    strict = authentication("shop/strict", "STRICT", labels={"app": "web"}, ports={"80": "STRICT"})
    for given in ((), (strict,)):
        assert relaxed_modes(relaxed("permissive"), given=given) == {
            "shop/web": Mode.PERMISSIVE,
            "shop/db": Mode.PERMISSIVE,
            "bank/vault": Mode.STRICT,
        }
    off = authentication("shop/off", "DISABLE")
    assert relaxed_modes(relaxed("permissive"), given=(off,))["shop/web"] == Mode.DISABLED


def test_a_relaxation_of_a_port_is_of_nothing_else():
    one = relaxed("disabled", 80, labels={"app": "db"})
    assert relaxed_modes(one) == {**everywhere(Mode.STRICT), "shop/db": Mode.DISABLED}
    assert relaxed_modes(one, port=81) == everywhere(Mode.STRICT)


def test_ports_that_are_looked_into_stay_strict():
    here = replace(world(mtls="strict"), relaxations=(relaxed("disabled"),))
    found = plan_modes(here, lambda _: frozenset({80}))
    assert found["shop/web"].of(80).mode == Mode.STRICT
    assert found["shop/web"].of(81).mode == Mode.DISABLED
