from dataclasses import replace
from ipaddress import ip_address, ip_network

from sixfold.model.config import Config
from sixfold.model.datapath import IpcacheEntry
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.identity import FIRST_CIDR, HOST, RESOLVER, UNKNOWN, WORLD, Identity, Subject
from sixfold.model.world import World
from sixfold.routing.plan import EndpointPlanner, plan_routing

BLOCK = ip_network("192.0.2.0/24")
BLOCK_IDENTITY = Identity(FIRST_CIDR + 1)
SUBJECT = Subject("shop", "default", (("app", "web"),), ())


def cidr_of(address):
    return BLOCK_IDENTITY if address in BLOCK else UNKNOWN


EMPTY = World()


def plan(world=EMPTY, hosts=(), cidrs=None):
    return plan_routing(world, cidr_of, [ip_address(host) for host in hosts], cidrs or {})


def lookup(ipcache, address):
    """The kernel's longest prefix match."""
    candidates = [net for net in ipcache if ip_address(address) in net]
    return ipcache[max(candidates, key=lambda net: net.prefixlen)]


def test_gateways_and_node_addresses_are_the_host():
    ipcache = plan(hosts=["198.51.100.7", "2001:db8::7"]).ipcache
    for address in ("198.51.100.7", "2001:db8::7", "10.244.0.1", "169.254.1.1", "fe80::1"):
        assert lookup(ipcache, address) == IpcacheEntry(HOST)


def test_resolver_is_itself_though_its_address_is_on_the_host():
    ipcache = plan(hosts=["169.254.20.10", "fd00:5f::10"]).ipcache
    assert lookup(ipcache, "169.254.20.10") == IpcacheEntry(RESOLVER)
    assert lookup(ipcache, "fd00:5f::10") == IpcacheEntry(RESOLVER)


def test_policy_cidr_is_world_under_its_own_number():
    ipcache = plan(cidrs={BLOCK: BLOCK_IDENTITY}).ipcache
    assert lookup(ipcache, "192.0.2.9") == IpcacheEntry(WORLD, BLOCK_IDENTITY)
    assert lookup(ipcache, "203.0.113.9") == IpcacheEntry(WORLD)


def test_host_inside_a_policy_cidr_is_both():
    ipcache = plan(hosts=["192.0.2.1"], cidrs={BLOCK: BLOCK_IDENTITY}).ipcache
    assert lookup(ipcache, "192.0.2.1") == IpcacheEntry(HOST, BLOCK_IDENTITY)


def test_policy_that_names_everything_numbers_the_last_resort():
    everything = Identity(FIRST_CIDR + 2)
    ipcache = plan(cidrs={ip_network("0.0.0.0/0"): everything}).ipcache
    assert lookup(ipcache, "203.0.113.9") == IpcacheEntry(WORLD, everything)
    assert lookup(ipcache, "2001:db8::1") == IpcacheEntry(WORLD)


def test_endpoint_is_planned_by_interface_with_the_cidr_of_its_address():
    web = Endpoint(
        "shop", "web-0", "Pod/web-0", SUBJECT, EndpointId(7), Identity(300),
        ip_address("192.0.2.5"), ip_address("fd00:5f:244::5"), ifindex=12, netns_cookie=99,
    )  # fmt: skip
    entry = plan(World(endpoints={"shop/web-0": web})).endpoints[12]
    assert (entry.id, entry.identity, entry.netns_cookie) == (7, 300, 99)
    assert (entry.cidr4, entry.cidr6) == (BLOCK_IDENTITY, UNKNOWN)


def test_endpoint_without_interface_is_not_in_the_kernel():
    offline = Endpoint("shop", "web-0", "Pod/web-0", SUBJECT)
    assert plan(World(endpoints={"shop/web-0": offline})).endpoints == {}


def test_pods_have_no_cidr_identity_when_blocks_are_for_the_outside_only():
    config = Config(ipblock_matches_pods=False)
    endpoint = Endpoint("shop", "web", "Pod/web", SUBJECT, ipv4=ip_address("192.0.2.9"), ifindex=7)
    world = World(config=config, endpoints={"shop/web": endpoint})
    assert plan(world).endpoints[7].cidr4 == UNKNOWN


def test_an_entry_stays_while_its_pod_and_the_cidrs_are_the_same_objects():
    web = Endpoint(
        "shop", "web", "Pod/web", SUBJECT, EndpointId(1), Identity(256),
        ipv4=ip_address("192.0.2.5"), ifindex=7,
    )  # fmt: skip
    planner, cidrs = EndpointPlanner(), object()
    first = planner.plan(World(endpoints={"shop/web": web}), cidr_of, cidrs)
    assert first[7].cidr4 == BLOCK_IDENTITY
    again = planner.plan(World(endpoints={"shop/web": web}), cidr_of, cidrs)
    assert again[7] is first[7]
    moved = replace(web, ipv4=ip_address("203.0.113.5"))
    assert planner.plan(World(endpoints={"shop/web": moved}), cidr_of, cidrs)[7].cidr4 == UNKNOWN
    no_cidr = planner.plan(World(endpoints={"shop/web": web}), lambda _: UNKNOWN, object())
    assert no_cidr[7].cidr4 == UNKNOWN
    assert planner.plan(EMPTY, cidr_of, cidrs) == {}
