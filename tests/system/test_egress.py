"""What leaves, and what may be asked for: rules about names, on real traffic.

A name server and servers in a namespace behind the uplink; clients are programs in pods.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dns.message
import dns.query
import dns.rcode
import pytest

from .conftest import System
from .places import FAMILIES, WAIT_S, Place, manifest, places_of, pod, service
from .upstream import Upstream, outside

pytestmark = pytest.mark.root

RESOLVERS = {4: "169.254.20.10", 6: "fd00:5f::10"}
KUBE_DNS = {
    "matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}
}


def cnp(name: str, app: str, *egress: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, "egress": list(egress)},
    }


def asks(*names: dict[str, str]) -> dict[str, Any]:
    """The rule that every guide to Cilium begins with."""
    ports = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": list(names)}}
    return {"toEndpoints": [KUBE_DNS], "toPorts": [ports]}


MANIFEST = manifest(
    pod("limited"),
    pod("free"),
    pod("web"),
    service("web", ports=[{"port": 80, "targetPort": 8080}]),
    service("hidden", ports=[{"port": 80, "targetPort": 8080}], selector={"app": "web"}),
    cnp(
        "limited",
        "limited",
        asks({"matchName": "api.example.org"}, {"matchPattern": "web.default.svc.*.local"}),
        {"toEndpoints": [{"matchLabels": {"app": "web"}}]},
    ),
    cnp("free", "free", {"toEndpoints": [{"matchLabels": {"app": "web"}}]}),
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]},
    },
)


@dataclass(frozen=True)
class Scene:
    system: System
    upstream: Upstream
    world: Place
    limited: Place
    free: Place

    def ask(self, place: Place, name: str, version: int = 4, *, tcp: bool = False) -> str:
        query = dns.message.make_query(name, "A")
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        there = RESOLVERS[version]
        with place.make_socket(family, kind) as sock:
            if tcp:
                sock.connect((there, 53))
            sock.setblocking(False)
            ask = dns.query.tcp if tcp else dns.query.udp
            return dns.rcode.to_text(ask(query, there, timeout=WAIT_S, sock=sock).rcode())


@pytest.fixture(scope="module")
def scene(module_system: System) -> Iterator[Scene]:
    with outside(module_system) as (world, upstream):
        module_system.up("--dns-upstream", "192.0.2.2", manifest=MANIFEST)
        for name in ("api.example.org", "evil.example.org"):
            upstream.new(name)
        places = places_of(module_system, "limited", "free")
        yield Scene(module_system, upstream, world, *places)


@FAMILIES
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_name_that_no_rule_allows_is_refused_and_no_server_hears_of_it(
    scene: Scene, version: int, tcp: bool
):
    name = f"stolen-{version}{tcp}.evil.example.org".lower()
    assert scene.ask(scene.limited, "API.example.org", version, tcp=tcp) == "NOERROR"
    assert scene.ask(scene.limited, name, version, tcp=tcp) == "REFUSED"
    assert name not in scene.upstream.asked
    assert scene.ask(scene.free, "evil.example.org", version, tcp=tcp) == "NOERROR"
    flows = ["--from", "limited", "--verdict", "DROPPED"]
    flow = scene.system.eventually(
        lambda: [it for it in scene.system.flows(*flows) if name in it["sixfold"].get("asked", "")]
    )[0]
    assert flow["sixfold"]["rule"] == "egress default-deny (CiliumNetworkPolicy default/limited)"
    assert flow["sixfold"]["asked"] == f"{name} A: REFUSED"


def test_our_own_names_obey_it_too_and_search_paths_find_what_is_allowed(scene: Scene):
    assert scene.ask(scene.limited, "web.default.svc.cluster.local") == "NOERROR"
    assert scene.ask(scene.limited, "hidden.default.svc.cluster.local") == "REFUSED"
    assert scene.ask(scene.free, "hidden.default.svc.cluster.local") == "NOERROR"
    for name in ("web", "api.example.org"):  # by libc, with its search path before
        asked = ("exec", "limited", "--", "getent", "hosts", name)
        assert scene.system.sixfold(*asked).returncode == 0
    asked = ("resolve", "hidden", "--as", "default/limited", "-o", "json")
    step = json.loads(scene.system.sixfold(*asked, check=False).stdout)["steps"][-1]
    assert (step["rcode"], step["by"]) == ("REFUSED", "resolver")
