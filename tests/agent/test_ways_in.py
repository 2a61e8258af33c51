"""Node ports are handed out as by the Kubernetes API server; what others have is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sixfold.agent.addresses import Addresses
from sixfold.agent.admission import admit
from sixfold.errors import ManifestError
from sixfold.manifest import decode, loads
from sixfold.manifest.load import restore
from sixfold.model.config import Config
from sixfold.model.meta import Key
from sixfold.store import Database, Objects

HEAD = "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n"
POOL = """
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {{name: {name}}}
spec: {{blocks: [{{cidr: {cidr}}}]}}
"""


def service(name: str, ports: str = "[{port: 80}]", spec: str = "type: NodePort") -> str:
    return f"{HEAD.format(name=name)}  {spec}\n  ports: {ports}\n"


class Store:
    def __init__(self, path: Path) -> None:
        database = Database(path / "state.db")
        self.objects = Objects(database, restore)
        self.addresses = Addresses(database, Config())

    def apply(self, *texts: str) -> None:
        loaded = loads("---\n".join(texts)).objects
        admitted = admit(loaded, self.objects, self.addresses, 0)
        self.objects.put(admitted, lambda: "uid", "now")

    def ports(self, name: str) -> list[int | None]:
        stored = self.objects.get(Key("Service", "default", name))
        assert stored is not None
        return [port.get("nodePort") for port in stored.raw["spec"]["ports"]]

    def health_port(self, name: str) -> int | None:
        stored = self.objects.get(Key("Service", "default", name))
        assert stored is not None
        return stored.raw["spec"].get("healthCheckNodePort")

    def refusal(self, *texts: str) -> str:
        with pytest.raises(ManifestError) as caught:
            self.apply(*texts)
        (problem,) = caught.value.problems
        return f"{problem.path}: {problem.message}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_port_is_allocated_above_the_band_that_manifests_choose_from(store: Store):
    store.apply(service("a"), service("b", "[{port: 80, nodePort: 30001}]"), service("c"))
    assert (store.ports("a"), store.ports("b"), store.ports("c")) == ([30086], [30001], [30087])


def test_a_service_keeps_its_port(store: Store):
    store.apply(service("a"), service("b"))
    store.apply(service("b", "[{name: x, port: 80}, {name: y, port: 81}]"))
    assert store.ports("b") == [30087, 30088]


def test_a_port_that_another_has_is_refused(store: Store):
    store.apply(service("a", "[{port: 80, nodePort: 30080}]"))
    taken = "30080 is already allocated, to service default/a; give another"
    again = service("b", "[{port: 80, nodePort: 30080, protocol: UDP}]")
    assert store.refusal(again) == f"spec.ports[0].nodePort: {taken}"


def test_of_two_services_in_one_apply_the_second_is_refused(store: Store):
    one, two = (service(name, "[{port: 80, nodePort: 30080}]") for name in "ab")
    assert store.refusal(one, two).startswith("spec.ports[0].nodePort: 30080 is already allocated")


def test_both_protocols_of_one_port_share_a_number(store: Store):
    store.apply(service("dns", "[{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]"))
    assert store.ports("dns") == [30086, 30086]


def test_a_cluster_address_gives_its_port_back(store: Store):
    store.apply(service("a", "[{port: 80, nodePort: 30080}]"))
    store.apply(service("a", spec="type: ClusterIP"))
    assert store.ports("a") == [None]
    store.apply(service("b", "[{port: 80, nodePort: 30080}]"))


def test_a_load_balancer_may_do_without(store: Store):
    spec = "type: LoadBalancer\n  allocateLoadBalancerNodePorts: false"
    store.apply(service("a", spec=spec), service("b", spec="type: LoadBalancer"))
    assert (store.ports("a"), store.ports("b")) == ([None], [30086])


def test_a_health_port_is_given_kept_and_given_back(store: Store):
    local = "type: LoadBalancer\n  externalTrafficPolicy: Local"
    store.apply(service("a", spec=local), service("b", spec=local))
    assert (store.health_port("a"), store.health_port("b")) == (30088, 30089)
    store.apply(service("b", spec=local))
    assert (store.ports("b"), store.health_port("b")) == ([30087], 30089)
    store.apply(service("a", spec="type: LoadBalancer"))
    assert store.health_port("a") is None
    store.apply(service("c", "[{port: 80, nodePort: 30088}]"))


def test_a_health_port_that_another_has_is_refused(store: Store):
    local = "type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 30080"
    store.apply(service("a", spec=local))
    taken = "30080 is already allocated, to service default/a; give another"
    assert store.refusal(service("b", spec=local)) == f"spec.healthCheckNodePort: {taken}"
    again = service("b", "[{port: 80, nodePort: 30080}]")
    assert store.refusal(again) == f"spec.ports[0].nodePort: {taken}"


def test_a_full_range_is_said(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sixfold.agent.ways_in.NODE_PORTS", range(30000, 30001))
    store.apply(service("a"))
    assert "all 1 node ports are taken" in store.refusal(service("b"))


def test_an_external_address_and_port_belong_to_one_service(store: Store):
    spec = "externalIPs: [203.0.113.7]"
    store.apply(service("a", spec=spec))
    assert store.refusal(service("b", spec=spec)) == (
        "spec.externalIPs[0]: 203.0.113.7:80/TCP is service default/a's; give another"
    )
    store.apply(service("b", "[{port: 81}]", spec=spec))


def test_an_external_address_is_none_of_ours(store: Store):
    refusal = store.refusal(service("b", spec="externalIPs: [10.96.0.9]"))
    assert refusal == "spec.externalIPs[0]: 10.96.0.9 is in our pool 10.96.0.0/16; give another"


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}.example.org]
  addresses: ["{address}"]
  ports: [{{number: 80, name: web, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: {endpoint}}}]
"""


def entry(name: str, address: str, endpoint: str = "198.51.100.1") -> str:
    return ENTRY.format(name=name, address=address, endpoint=endpoint)


def test_nobody_takes_an_address_of_the_cluster_for_what_is_outside(store: Store):
    for address, pool in {"10.96.0.9": "10.96.0.0/16", "fd00:5f:96::9": "fd00:5f:96::/112"}.items():
        assert store.refusal(entry("bank", address)) == (
            f"spec.addresses[0]: {address} is in our pool {pool}; give another"
        )
    assert store.refusal(entry("bank", "203.0.113.7", endpoint="10.96.0.9")) == (
        "spec.endpoints[0].address: 10.96.0.9 is in the range of services; "
        "give addresses of who serves"
    )


def test_an_address_and_port_are_of_one_service_or_of_one_outside(store: Store):
    store.apply(entry("bank", "2001:db8::7"))
    for other, path in {
        entry("thief", "2001:db8:0::7"): "addresses",
        service("thief", spec='externalIPs: ["2001:db8::7"]'): "externalIPs",
    }.items():
        assert store.refusal(other) == (
            f"spec.{path}[0]: 2001:db8::7:80/TCP is serviceentry default/bank's; give another"
        )
    store.apply(service("a", spec="externalIPs: [203.0.113.7]"))
    assert store.refusal(entry("thief", "203.0.113.7")) == (
        "spec.addresses[0]: 203.0.113.7:80/TCP is service default/a's; give another"
    )


def test_pools_do_not_overlap(store: Store):
    store.apply(POOL.format(name="a", cidr="192.0.2.0/24"))
    assert store.refusal(POOL.format(name="b", cidr="192.0.2.128/25")) == (
        "spec.blocks[0]: overlaps 192.0.2.0 to 192.0.2.255 of ciliumloadbalancerippool a"
    )
    store.apply(POOL.format(name="a", cidr="192.0.2.0/25"))
    store.apply(POOL.format(name="b", cidr="192.0.2.128/25"))
    assert "is in our pool" in store.refusal(POOL.format(name="c", cidr="10.244.1.0/32"))


def test_what_was_stored_is_taken_again(store: Store):
    store.apply(service("a", spec="type: LoadBalancer"))
    raw = dict(store.objects.get(Key("Service", "default", "a")).raw)  # type: ignore[union-attr]
    admit([decode(raw)], store.objects, store.addresses, 0)
