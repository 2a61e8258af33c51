"""The catalogue: instances, and an index for each service."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs
from tests.discovery.test_prometheus import scene

from sixfold.balancing.plan import plan_balancing
from sixfold.discovery.catalog import Catalogue, Registered
from sixfold.discovery.consul import Sight, passing, tagged
from sixfold.discovery.registered import REGISTRATION, RegisteredSlices
from sixfold.discovery.registration import Health, parse_registration
from sixfold.model.config import Config
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import EndpointSlice, Service, ServicePort, ServiceSpec
from sixfold.model.world import World


def registered(name: str, status: str = "passing") -> Registered:
    body = {
        "Name": name,
        "Address": "192.0.2.7",
        "Port": 7000,
        "Tags": ["V1"],
        "Check": {"TTL": "9s"},
    }
    return Registered(parse_registration(body, "shop"), (Health(status),))  # type: ignore[arg-type]


def catalogue() -> Catalogue:
    world: World = scene().world
    found = Catalogue(100)
    found.update(world, plan_balancing(world, lambda _: 1).slices, {})
    return found


def test_each_endpoint_is_an_instance_once_whatever_its_families():
    (one,) = catalogue().instances["shop/web"]
    assert (one.address, one.port, one.tags) == ("10.244.0.3", 8080, ("http",))
    assert one.meta["pod-name"] == "web-1"
    assert one.meta["spiffe-id"] == "spiffe://cluster.local/ns/shop/sa/default"
    assert one.virtual == ("10.96.0.5", 80)
    assert one.status == "passing"


def test_an_index_moves_with_its_service_only():
    found = catalogue()
    world = scene().world
    slices = plan_balancing(world, lambda _: 1).slices
    found.update(world, slices, {})
    first = found.index_of("shop/web")
    assert found.update(world, slices, {"shop/a": (registered("a"),)}) == {"shop/a"}
    assert found.index_of("shop/web") == first
    second = found.index_of("shop/a")
    assert second > first
    assert found.update(world, slices, {"shop/a": (registered("a"),)}) == set()
    assert found.update(world, slices, {"shop/a": (registered("a", "critical"),)})
    third = found.index_of("shop/a")
    assert third > second
    assert found.update(world, slices, {}) == {"shop/a"}
    assert found.index_of("shop/a") > third  # whoever waits for what vanished, hears of it


def test_names_are_short_in_their_own_namespace_and_hidden_ones_have_no_instances():
    found = catalogue()
    ours, other = Sight(found, Config(), "shop"), Sight(found, Config(), "default")
    assert ours.services() == {"consul": [], "web": ["http"]}
    assert other.services() == {"consul": [], "web.shop": ["http"]}
    assert (ours.key("web"), other.key("web.shop")) == ("shop/web", "shop/web")
    hidden = Sight(found, Config(), "shop", lambda _: False)
    assert (hidden.services(), hidden.instances()) == ({"consul": []}, [])
    assert hidden.instances(hidden.key("web")) == []


def test_tags_match_whatever_their_case_and_warnings_do_not_pass():
    found = catalogue()
    found.update(World(), {}, {"shop/a": (registered("a"), registered("a", "warning"))})
    instances = found.instances["shop/a"]
    assert len(tagged(instances, ["v1"])) == 2
    assert tagged(instances, ["v1", "v2"]) == []
    assert [one.status for one in passing(instances)] == ["passing"]


def slices(service: Service, *registered: Registered) -> list[EndpointSlice]:
    made = RegisteredSlices(Config())
    return list(made.take({"shop/a": registered}, {"shop/a": service}).values())


def test_a_registration_is_a_slice_of_its_service_as_ready_as_it_is_well():
    spec = ServiceSpec(ports=[ServicePort(80, "http"), ServicePort(81, "more")])
    service = Service(ObjectMeta("a", "shop"), spec)
    (one,) = slices(service, registered("a"))
    assert one.service == "shop/a"
    assert [(port.name, port.port) for port in one.ports] == [("http", 7000)]
    assert one.endpoints[0].addresses == ["192.0.2.7"]
    assert one.endpoints[0].conditions.ready
    (ill,) = slices(service, registered("a", "critical"))
    assert not ill.endpoints[0].conditions.ready


def test_a_pods_own_registration_needs_a_service_that_takes_it():
    own = registered("a")
    own = replace(own, registration=structs.replace(own.registration, own=True, owner="shop/p"))
    closed = Service(ObjectMeta("a", "shop"), ServiceSpec(ports=[ServicePort(80)]))
    assert slices(closed, own) == []
    meta = ObjectMeta("a", "shop", annotations={REGISTRATION: "open"})
    (one,) = slices(Service(meta, closed.spec), own)
    assert one.endpoints[0].target_ref.name == "p"  # type: ignore[union-attr]


def test_what_did_not_change_is_the_same_object():
    made, service = RegisteredSlices(Config()), Service(ObjectMeta("a", "shop"), ServiceSpec())
    registrations = {"shop/a": (registered("a"),)}
    first = made.take(registrations, {"shop/a": service})
    second = made.take(registrations, {"shop/a": service})
    assert all(second[key] is slice_ for key, slice_ in first.items())
