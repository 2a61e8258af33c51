"""One test per policy language on real traffic, through the command.

The posture is ``kubernetes``: what no policy judges is open. Nothing listens in the pods: who
reaches one is refused, who does not hears nothing.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import System
from .places import Place, checksummed, manifest, places_of, pod, policy, received, service
from .test_policies import namespace, reached

pytestmark = pytest.mark.root

PODS = ("shop/web", "shop/friend", "shop/builder", "lab/guest")
CLIENTS = ("friend", "builder", "guest")
WEB = {"matchLabels": {"app": "web"}}
LAB = {"namespaces": {"matchLabels": {"team": "lab"}}}
CLUSTER = {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy"}
OLDER = "policy.networking.k8s.io/v1alpha1"
CILIUM = "cilium.io/v2"


@dataclass(frozen=True)
class Lab:
    """The instance and its places by name."""

    system: System
    places: dict[str, Place]

    def reach(self, *ports: str, target: str = "web") -> dict[str, set[str]]:
        """Who reaches which of these ports of the target."""
        address = self.places[target].ipv4
        found = reached(
            {
                (name, port): (place, address, port)
                for name, place in self.places.items()
                for port in ports
                if name != target
            }
        )
        names = sorted({name for name, _ in found})
        return {name: {port for who, port in found if who == name} for name in names}

    def denied_by(self) -> dict[str, Any]:
        """The last flow that was dropped."""
        return self.system.flows("--verdict", "DROPPED", "--last", "1")[0]


@pytest.fixture(scope="module")
def built(module_system: System) -> Lab:
    module_system.up(
        *("--posture", "kubernetes"),
        manifest=manifest(
            namespace("shop", team="shop"),
            namespace("lab", team="lab"),
            pod(
                "web", namespace="shop", container={"ports": [{"name": "web", "containerPort": 81}]}
            ),
            pod("friend", namespace="shop"),
            pod("builder", namespace="shop", serviceAccountName="builder"),
            pod("guest", namespace="lab"),
            service("web", namespace="shop", ports=[{"port": 80}]),
        ),
    )
    found = places_of(module_system, *PODS)
    places = {name.rpartition("/")[2]: it for name, it in zip(PODS, found, strict=True)}
    places["host"] = Place(module_system.host, "10.244.0.1", "fd00:5f:244::1")
    return Lab(module_system, places)


@pytest.fixture
def lab(built: Lab):
    """Without policies, before and after."""
    yield built
    kinds = "netpol,cnp,ccnp,anp,banp,clusternetworkpolicies,ccg"
    for namespace_ in ("shop", "lab"):
        built.system.sixfold("delete", kinds, "--all", "-n", namespace_, check=False)


def cluster_policy(name: str, tier: str, priority: int, *rules: dict[str, Any]) -> dict[str, Any]:
    subject = {"pods": {"namespaceSelector": {}, "podSelector": WEB}}
    spec = {"tier": tier, "priority": priority, "subject": subject, "ingress": list(rules)}
    return {**CLUSTER, "metadata": {"name": name}, "spec": spec}


def cilium(name: str, spec: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    """Clusterwide when it has no namespace."""
    kind = "CiliumNetworkPolicy" if namespace else "CiliumClusterwideNetworkPolicy"
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": CILIUM, "kind": kind, "metadata": metadata, "spec": spec}


def test_cluster_network_policies_come_before_and_after_network_policies(lab: Lab):
    every = [{"namespaces": {}}]
    lab.system.apply(
        manifest(
            cluster_policy(
                "guard",
                "Admin",
                10,
                {"action": "Deny", "from": [LAB], "protocols": [{"destinationNamedPort": "web"}]},
                {"action": "Pass", "from": [LAB]},
                {
                    "action": "Deny",
                    "from": every,
                    "protocols": [{"tcp": {"destinationPort": {"number": 83}}}],
                },
            ),
            cluster_policy(
                "floor",
                "Baseline",
                10,
                {
                    "action": "Deny",
                    "from": every,
                    "protocols": [
                        {"tcp": {"destinationPort": {"range": {"start": 82, "end": 90}}}}
                    ],
                },
            ),
        )
    )
    ports = ("81", "82", "83", "84")
    alone = {"friend": {"81"}, "builder": {"81"}, "guest": set(), "host": set(ports)}
    assert lab.reach(*ports) == {name: there for name, there in alone.items() if there}
    assert lab.denied_by()["ingress_denied_by"][0]["kind"] == "ClusterNetworkPolicy"
    allow = [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 82}, {"port": 83}]}]
    lab.system.apply(manifest(policy("web", {"app": "web"}, namespace="shop", ingress=allow)))
    assert lab.reach(*ports) == {
        **{"friend": {"82"}, "builder": {"82"}},
        **{"guest": {"82", "83"}, "host": set(ports)},
    }
    reached({"last": (lab.places["friend"], lab.places["web"].ipv4, "83")})
    flow = lab.denied_by()
    assert flow["sixfold"]["rule"] == "ClusterNetworkPolicy admin/guard ingress[2]"
    explained = lab.system.sixfold(
        "explain", "lab/guest", f"{lab.places['web'].ipv4}:81", check=False
    )
    assert "denied by ClusterNetworkPolicy admin/guard ingress[0]" in explained.stdout


def test_admin_network_policies_of_the_older_version(lab: Lab):
    subject = {"namespaces": {"matchLabels": {"team": "shop"}}}
    shop = {"namespaces": {"matchLabels": {"team": "shop"}}}
    ports = [{"portRange": {"protocol": "TCP", "start": 81, "end": 82}}]
    admin = {
        "priority": 1,
        "subject": subject,
        "ingress": [
            {"action": "Allow", "from": [LAB], "ports": ports},
            {"action": "Deny", "from": [LAB]},
        ],
    }
    baseline = {"subject": subject, "ingress": [{"action": "Deny", "from": [shop]}]}
    lab.system.apply(
        manifest(
            {"apiVersion": OLDER, "kind": "AdminNetworkPolicy", "metadata": {"name": "lab"},
             "spec": admin},
            {"apiVersion": OLDER, "kind": "BaselineAdminNetworkPolicy",
             "metadata": {"name": "default"}, "spec": baseline},
        )
    )  # fmt: skip
    assert lab.reach("81", "82", "83") == {"guest": {"81", "82"}, "host": {"81", "82", "83"}}
    table = lab.system.sixfold("get", "anp,banp").stdout
    assert "lab" in table
    assert "default" in table


def test_a_cilium_deny_beats_every_allow_and_is_named(lab: Lab):
    guests = {"k8s:io.kubernetes.pod.namespace": "lab"}
    spec = {
        "endpointSelector": {"matchLabels": {"k8s:app": "web"}},
        "ingress": [
            {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "81", "endPort": 82}]}]},
            {"fromEndpoints": [{"matchLabels": guests}]},
        ],
        "ingressDeny": [
            {
                "fromEndpoints": [
                    {"matchLabels": {"io.cilium.k8s.policy.serviceaccount": "builder"}}
                ],
                "toPorts": [{"ports": [{"port": "web", "protocol": "TCP"}]}],
            }
        ],
        "log": {"value": "shop policy"},
    }
    everyone = [{"from": [{"podSelector": {}}], "ports": [{"port": 81}]}]
    lab.system.apply(
        manifest(
            cilium("web", spec),
            policy("web", {"app": "web"}, namespace="shop", ingress=everyone),
        )
    )
    assert lab.reach("81", "82", "83") == {
        "friend": {"81", "82"},
        "builder": {"82"},
        "guest": {"81", "82", "83"},
        "host": {"81", "82", "83"},
    }
    reached({"last": (lab.places["builder"], lab.places["web"].ipv4, "81")})
    flow = lab.denied_by()
    assert flow["sixfold"]["rule"] == "CiliumNetworkPolicy shop/web ingressDeny[0]"
    assert flow["drop_reason_desc"] == "POLICY_DENY"
    assert flow["policy_log"] == ["shop policy"]


def test_a_cilium_cidr_means_no_pods_and_an_entity_means_them_all(lab: Lab):
    group = {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "pool"},
        "spec": {"externalCIDRs": ["10.244.0.0/16"]},
    }
    cidr = [{"fromCIDRSet": [{"cidrGroupRef": "pool"}]}]
    lab.system.apply(manifest(group, cilium("web", {"endpointSelector": WEB, "ingress": cidr})))
    assert lab.reach("81") == {"host": {"81"}}
    group["spec"]["externalCIDRs"] = ["192.0.2.0/24"]
    lab.system.apply(manifest(group))
    listed = lab.system.json("bpf", "policy", "list", "--pod", "shop/web")
    assert any("cidr:192.0.2.0/24" in row["peer"] for row in listed)
    cluster = [{"fromEntities": ["cluster"]}]
    lab.system.apply(manifest(cilium("web", {"endpointSelector": WEB, "ingress": cluster})))
    assert lab.reach("81") == {name: {"81"} for name in (*CLIENTS, "host")}


def test_a_clusterwide_policy_by_namespace_label_and_service(lab: Lab):
    guests = {"matchLabels": {"k8s:io.cilium.k8s.namespace.labels.team": "lab"}}
    to_web = {"k8sService": {"serviceName": "web", "namespace": "shop"}}
    spec = {
        "endpointSelector": guests,
        "egress": [{"toServices": [to_web], "toPorts": [{"ports": [{"port": "81"}]}]}],
    }
    lab.system.apply(manifest(cilium("guests", spec, namespace="")))
    assert lab.reach("81", "82")["guest"] == {"81"}
    assert "guest" not in lab.reach("81", target="friend")
    described = lab.system.sixfold("describe", "ccnp", "guests").stdout
    assert "Service Name: web" in described
    moved = service("web", namespace="shop", ports=[{"port": 80}], selector={"app": "friend"})
    lab.system.apply(manifest(moved))
    assert "guest" not in lab.reach("81")
    assert lab.reach("81", target="friend")["guest"] == {"81"}


def test_icmp_types_are_judged_one_by_one(lab: Lab):
    spec = {
        "endpointSelector": WEB,
        "ingress": [{"fromEntities": ["all"], "icmps": [{"fields": [{"type": "EchoRequest"}]}]}],
    }
    lab.system.apply(manifest(cilium("web", spec)))
    web, friend = lab.places["web"], lab.places["friend"]
    with friend.make_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        for kind, answered in ((8, True), (13, False), (8, True)):
            body = bytes(12) if kind == 13 else b"hello"
            packet = struct.pack("!BBHHH", kind, 0, 0, 13, 1) + body
            sock.sendto(checksummed(packet), (web.ipv4, 0))
            answer = received(sock)
            assert (answer is not None) is answered, kind
            assert answer is None or answer[20] == 0
    assert "friend" not in lab.reach("81")


def test_what_is_not_enforced_is_refused_with_its_place(lab: Lab):
    http = [{"ports": [{"port": "80"}], "rules": {"l7proto": "kafka"}}]
    spec = {"endpointSelector": WEB, "ingress": [{"toPorts": http}]}
    refused = lab.system.sixfold(
        "apply", "-f", "-", stdin=manifest(cilium("web", spec)), check=False
    )
    assert refused.returncode != 0
    assert "spec.ingress[0].toPorts[0].rules.l7proto: not supported: " in refused.stderr
