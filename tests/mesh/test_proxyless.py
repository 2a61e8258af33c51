"""What gRPC clients without a proxy are told, and what is kept from them."""

from ipaddress import ip_address

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from tests.mesh.standalone import route, service, world

from sixfold.mesh.http import Backend
from sixfold.mesh.member import Member
from sixfold.mesh.proxyless import cluster, endpoints, listener, port_named, why_not
from sixfold.mesh.route_tables import plan_routes
from sixfold.mesh.routes import ServicePort

WEB = ServicePort("shop/web", 80)
ID = "spiffe://cluster.local/ns/shop/sa/web"
BACKENDS = [
    Backend(
        Member("shop/web-1", ID, "/n", (ip_address("10.244.0.2"),)), ip_address("10.244.0.2"), 8080
    ),
    Backend(
        Member("shop/web-2", ID, "/m", (ip_address("10.244.0.3"),)),
        ip_address("10.244.0.3"),
        8080,
        0,
    ),
]


@pytest.mark.parametrize(
    ("name", "namespace", "wanted"),
    [
        ("web:80", "shop", WEB),
        ("web.shop:80", "other", WEB),
        ("web.shop.svc.cluster.local.:81", "other", ServicePort("shop/web", 81)),
        ("web:80", "other", None),
        ("web:82", "shop", None),
        ("web", "shop", None),  # of two ports none is meant
        ("single", "shop", ServicePort("shop/single", 80)),
    ],
)
def test_names_mean_what_they_mean_to_dns(name, namespace, wanted):
    single = service("single", ports=[{"port": 80}])
    assert port_named(world(services=[single]), name, namespace) == wanted


def ways(*rules):
    return plan_routes(world(route(list(rules))))[WEB].producer


def unpacked(message, body):
    assert body.Unpack(message)
    return message


def test_a_listener_has_its_routes_inside_and_a_router_behind_them():
    weighted = [{"name": "a", "port": 80, "weight": 9}, {"name": "b", "port": 80, "weight": 1}]
    path = {"path": {"type": "Exact", "value": "/Greeter/Hello"}}
    made = listener("web:80", ways({"matches": [path], "backendRefs": weighted}))
    api = unpacked(listener_pb2.Listener(), made.body).api_listener.api_listener
    manager = unpacked(hcm.HttpConnectionManager(), api)
    (found,) = manager.route_config.virtual_hosts[0].routes
    shares = {one.name: one.weight.value for one in found.route.weighted_clusters.clusters}
    assert (found.match.path, shares) == (
        "/Greeter/Hello",
        {"service|shop/a:80": 9, "service|shop/b:80": 1},
    )
    assert manager.http_filters[-1].name == "envoy.filters.http.router"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({}, ""),
        ({"timeouts": {"request": "1s"}}, "timeouts"),
        ({"retry": {"codes": [503]}}, "a retry"),
        ({"matches": [{"queryParams": [{"name": "a", "value": "b"}]}]}, "query parameters"),
        (
            {
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"remove": ["x"]},
                    }
                ]
            },
            "filters",
        ),
    ],
)
def test_what_grpc_would_pass_over_is_named(rule, wanted):
    said = why_not(ways({"backendRefs": [{"name": "a", "port": 80}], **rule}))
    assert said.rpartition(" has ")[2] == wanted


def test_a_client_takes_the_backends_identities_and_no_other():
    made = unpacked(cluster_pb2.Cluster(), cluster(WEB, BACKENDS).body)
    tls = unpacked(tls_pb2.UpstreamTlsContext(), made.transport_socket.typed_config)
    context = tls.common_tls_context.combined_validation_context.default_validation_context
    assert [one.exact for one in context.match_subject_alt_names] == [ID]


def test_who_has_no_weight_is_not_told():
    made = unpacked(endpoint_pb2.ClusterLoadAssignment(), endpoints(WEB, BACKENDS).body)
    places = [
        (
            one.endpoint.address.socket_address.address,
            one.endpoint.address.socket_address.port_value,
        )
        for group in made.endpoints
        for one in group.lb_endpoints
    ]
    assert places == [("10.244.0.2", 8080)]
