"""Listeners of Gateways: which are served, which routes have them, whose is a host."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import msgspec
import pytest
from envoy.config.listener.v3 import listener_pb2
from tests.mesh.standalone import route, service, world
from tests.system.certificates import Authority

from sixfold.mesh.hosts import host_for, hosts_of, misdirected
from sixfold.mesh.http_routes import Front, routes_of
from sixfold.mesh.listeners import common, plan_listeners
from sixfold.mesh.member import Member
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.status import status_of, status_of_class, status_of_gateway, status_of_set
from sixfold.mesh.stream_resources import listener as handshakes
from sixfold.mesh.streams import of_clients, plan_streams, stream_for, streams_of
from sixfold.model.gateway import Gateway, GatewayClass
from sixfold.model.httproute import ParentReference
from sixfold.model.listenerset import ListenerSet
from sixfold.model.referencegrant import ReferenceGrant
from sixfold.model.secret import Secret
from sixfold.model.streamroute import TCPRoute, TLSRoute

PARENT = {"name": "front", "namespace": "edge"}
CLASS = msgspec.convert(
    {"metadata": {"name": "sixfold"}, "spec": {"controllerName": "sixfold.dev/gateway"}},
    GatewayClass,
)


def listener(name="http", port=80, protocol="HTTP", namespaces="All", **more):
    allowed = {"namespaces": {"from": namespaces}}
    return {"name": name, "port": port, "protocol": protocol, "allowedRoutes": allowed, **more}


def gateway(*listeners, **spec):
    given = {"gatewayClassName": "sixfold", "listeners": list(listeners), **spec}
    meta = {"name": "front", "namespace": "edge", "generation": 3}
    return msgspec.convert({"metadata": meta, "spec": given}, Gateway)


def edge(one, *routes, **more):
    return replace(
        world(*routes),
        gateways={one.key: one},
        gateway_classes={"sixfold": CLASS},
        namespaces={"shop": {"team": "shop"}},
        **more,
    )


def attached_to(*hostnames, name="r", to="a", gateway="front", **parent):
    rules = [{"backendRefs": [{"name": to, "port": 80}]}]
    return route(
        rules, name, parentRefs=[{**PARENT, "name": gateway, **parent}], hostnames=list(hostnames)
    )


def conditions(entry):
    return {one["type"]: (one["status"], one["reason"]) for one in entry["conditions"]}


def status(one, *routes, addresses=("192.0.2.64",), lacks="", lacking=""):
    return status_of_gateway(edge(one, *routes), one, addresses, lacks, lacking)


@pytest.mark.parametrize(
    ("listener_host", "route_hosts", "both"),
    [
        ("*", [], ["*"]),
        ("*", ["a.example.com"], ["a.example.com"]),
        ("a.example.com", [], ["a.example.com"]),
        (
            "*.example.com",
            ["a.example.com", "a.b.example.com"],
            ["a.example.com", "a.b.example.com"],
        ),
        ("*.example.com", ["example.com", "*.org"], []),
        ("*.example.com", ["*.a.example.com", "*.com"], ["*.a.example.com", "*.example.com"]),
        ("a.example.com", ["*.example.com"], ["a.example.com"]),
        ("a.example.com", ["b.example.com"], []),
    ],
)
def test_a_route_has_the_hosts_that_its_listener_means_too(listener_host, route_hosts, both):
    assert [*common(listener_host, route_hosts)] == both


@pytest.mark.parametrize(
    ("listeners", "reasons"),
    [
        pytest.param([listener("a", hostname="a.com"), listener("b")], {}, id="told apart"),
        pytest.param(
            [listener("a", hostname="a.com"), listener("b", hostname="a.com"), listener("c")],
            {"a": "HostnameConflict", "b": "HostnameConflict"},
            id="one host twice",
        ),
        pytest.param(
            [listener("a"), listener("b", protocol="TCP"), listener("c", 81)],
            {"a": "ProtocolConflict", "b": "ProtocolConflict"},
            id="two protocols",
        ),
        pytest.param(
            [
                listener("a", 443, "HTTPS", hostname="a.com"),
                listener("b", 443, "TLS", hostname="b.com"),
            ],
            {},
            id="HTTPS and TLS go by the same name",
        ),
    ],
)
def test_of_listeners_that_cannot_be_told_apart_none_is_served(listeners, reasons):
    given = plan_listeners(edge(gateway(*listeners)))["edge/front"]
    conflicts = {one.listener.name: one.conflict.reason for one in given if one.conflict}
    assert conflicts == reasons


@pytest.mark.parametrize(
    ("given", "parent", "reason"),
    [
        pytest.param(listener(), {}, "Accepted", id="any"),
        pytest.param(listener(), {"gateway": "back"}, "NoMatchingParent", id="no such gateway"),
        pytest.param(listener(), {"sectionName": "x"}, "NoMatchingParent", id="no such section"),
        pytest.param(listener(), {"port": 81}, "NoMatchingParent", id="no such port"),
        pytest.param(listener(), {"port": 80, "sectionName": "http"}, "Accepted", id="both"),
        pytest.param(
            listener(namespaces="Same"), {}, "NotAllowedByListeners", id="another namespace"
        ),
        pytest.param(listener(namespaces="None"), {}, "NotAllowedByListeners", id="nobody's"),
        pytest.param(
            listener(hostname="b.com"), {}, "NoMatchingListenerHostname", id="another host"
        ),
    ],
)
def test_a_route_is_attached_or_told_why_not(given, parent, reason):
    asked = attached_to("a.com", **parent)
    one = gateway(given)
    found = status_of(edge(one, asked), asked)["parents"][0]
    accepted = "True" if reason == "Accepted" else "False"
    assert conditions(found) == {
        "Accepted": (accepted, reason),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }
    assert found["controllerName"] == "sixfold.dev/gateway"
    (at,) = status(one, asked)["listeners"]
    assert at["attachedRoutes"] == (reason == "Accepted")


@pytest.mark.parametrize(("team", "attached"), [("shop", 1), ("other", 0)])
def test_namespaces_are_let_in_by_their_labels(team, attached):
    chosen = {"from": "Selector", "selector": {"matchLabels": {"team": team}}}
    one = gateway(listener() | {"allowedRoutes": {"namespaces": chosen}})
    assert status(one, attached_to())["listeners"][0]["attachedRoutes"] == attached


def test_kinds_that_do_not_go_with_a_protocol_are_said_and_the_others_served():
    kinds = [{"kind": "GRPCRoute"}, {"kind": "UDPRoute"}]
    one = gateway(listener() | {"allowedRoutes": {"namespaces": {"from": "All"}, "kinds": kinds}})
    (found,) = status(one, attached_to())["listeners"]
    assert found["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "GRPCRoute"}]
    assert found["attachedRoutes"] == 0
    assert conditions(found)["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    assert conditions(found)["Programmed"] == ("True", "Programmed")


def test_a_gateway_says_what_it_is():
    one = gateway(listener())
    found = status(one)
    assert found["addresses"] == [{"type": "IPAddress", "value": "192.0.2.64"}]
    assert conditions(found) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("True", "Programmed"),
    }
    assert {it["observedGeneration"] for it in found["conditions"]} == {3}
    assert conditions(found["listeners"][0]) == {
        "Accepted": ("True", "Accepted"),
        "Conflicted": ("False", "NoConflicts"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
        "Programmed": ("True", "Programmed"),
    }
    assert conditions(status_of_class(CLASS)) == {"Accepted": ("True", "Accepted")}


def test_a_gateway_says_what_it_lacks():
    one = gateway(listener("a"), listener("b"))
    assert conditions(status(one)) == {
        "Accepted": ("False", "ListenersNotValid"),
        "Programmed": ("False", "Invalid"),
    }
    one = gateway(listener())
    assert conditions(status(one, addresses=()))["Programmed"] == ("False", "AddressNotAssigned")
    assert conditions(status(one, lacking="envoy: x"))["Programmed"] == ("False", "Pending")
    one = gateway(listener(), addresses=[{"value": "192.0.2.9"}])
    found = status(one, addresses=(), lacks="no pool has it")
    assert conditions(found)["Programmed"] == ("False", "AddressNotUsable")


def test_a_gateway_of_another_class_is_not_ours():
    other = gateway(listener(), gatewayClassName="nginx")
    assert status_of_gateway(edge(other), other, (), "", "") == {}
    assert plan_listeners(edge(other)) == {}


def served(*listeners, routes):
    """Who answers for a host, by name of the first way's route; "404"."""
    asked = edge(gateway(*listeners), *routes)
    hosts = hosts_of(asked, plan_listeners(asked)["edge/front"])

    def by(name):
        ways = host_for(hosts, name)
        return ways[0].name.partition(" ")[0] if ways else "404"

    return by


def test_the_most_specific_listener_has_a_host_though_it_has_no_route_for_it():
    by = served(
        listener("all"),
        listener("named", hostname="*.shop.com"),
        routes=[
            attached_to("a.shop.com", "*.com", name="wide", sectionName="all"),
            attached_to("b.shop.com", name="narrow", sectionName="named"),
        ],
    )
    assert by("b.shop.com") == "shop/narrow"
    assert by("a.shop.com") == "404"
    assert by("c.shop.com") == "404"
    assert by("x.com") == "shop/wide"
    assert by("x.org") == "404"


def test_of_the_hostnames_of_routes_the_most_specific_is_asked_first():
    by = served(
        listener(),
        routes=[
            attached_to(name="any"),
            attached_to("*.com", name="suffix"),
            attached_to("*.shop.com", name="longer"),
            attached_to("a.shop.com", name="exact"),
        ],
    )
    assert by("a.shop.com") == "shop/exact"
    assert by("b.shop.com") == "shop/longer"
    assert by("b.com") == "shop/suffix"
    assert by("b.org") == "shop/any"


def test_what_the_most_specific_host_does_not_match_a_wider_one_may():
    only = {"matches": [{"path": {"value": "/only"}}], "backendRefs": [{"name": "a", "port": 80}]}
    exact = route([only], "exact", parentRefs=[PARENT], hostnames=["a.com"])
    asked = edge(gateway(listener()), exact, attached_to("*.com", name="wide"))
    hosts = hosts_of(asked, plan_listeners(asked)["edge/front"])
    assert [way.name.partition(" ")[0] for way in hosts["a.com"]] == ["shop/exact", "shop/wide"]


@pytest.mark.parametrize(
    ("redirect", "front", "port"),
    [
        ({"hostname": "x.org"}, Front("http", 80), 0),
        ({"hostname": "x.org"}, Front("http", 8080), 8080),
        ({"scheme": "https"}, Front("http", 80), 0),
        ({"scheme": "https"}, Front("http", 8080), 443),
        ({"scheme": "https", "hostname": "x.org"}, Front("http", 8080), 0),
        ({"scheme": "https", "port": 8443}, Front("http", 80), 8443),
        ({"hostname": "x.org"}, Front("https", 443), 0),
        ({"scheme": "http", "hostname": "x.org"}, Front("https", 8443), 0),
        ({"statusCode": 301}, Front("http", 8080), 8080),
    ],
)
def test_a_redirect_leads_to_the_schemes_port_or_to_the_listeners(redirect, front, port):
    step = {"type": "RequestRedirect", "requestRedirect": redirect}
    given = route([{"filters": [step]}], parentRefs=[PARENT])
    asked = edge(gateway(listener()), given)
    (ways,) = hosts_of(asked, plan_listeners(asked)["edge/front"]).values()
    (found,) = routes_of(ways, front)
    assert found.redirect.port_redirect == port


def terminated(*secrets, hostname="a.com", name="https", **reference):
    refs = [{"name": one, **reference} for one in secrets]
    return listener(name, 443, "HTTPS", hostname=hostname, tls={"certificateRefs": refs})


def secret(data, name="shop", namespace="edge"):
    given = {"metadata": {"name": name, "namespace": namespace}, "stringData": data}
    return msgspec.convert(given, Secret)


def grant(name=""):
    who = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "edge"}
    to = {"group": "", "kind": "Secret", "name": name}
    given = {"metadata": {"name": "g", "namespace": "safe"}, "spec": {"from": [who], "to": [to]}}
    return msgspec.convert(given, ReferenceGrant)


GOOD = Authority().issue("a.com")
OTHER = Authority().issue("a.com")


@pytest.mark.parametrize(
    ("reference", "secrets", "grants", "reason"),
    [
        pytest.param({}, [secret(GOOD)], [], "ResolvedRefs", id="there"),
        pytest.param({}, [], [], "InvalidCertificateRef", id="missing"),
        pytest.param({"kind": "ConfigMap"}, [], [], "InvalidCertificateRef", id="another kind"),
        pytest.param(
            {},
            [secret({**GOOD, "tls.key": OTHER["tls.key"]})],
            [],
            "InvalidCertificateRef",
            id="another's key",
        ),
        pytest.param({}, [secret({"tls.crt": "x"})], [], "InvalidCertificateRef", id="no PEM"),
        pytest.param(
            {"namespace": "safe"},
            [secret(GOOD, namespace="safe")],
            [],
            "RefNotPermitted",
            id="another namespace",
        ),
        pytest.param(
            {"namespace": "safe"},
            [secret(GOOD, namespace="safe")],
            [grant("other")],
            "RefNotPermitted",
            id="another name granted",
        ),
        pytest.param(
            {"namespace": "safe"},
            [secret(GOOD, namespace="safe")],
            [grant()],
            "ResolvedRefs",
            id="granted",
        ),
    ],
)
def test_a_listener_shows_certificates_that_it_may_have_and_that_are_some(
    reference, secrets, grants, reason
):
    one = gateway(terminated("shop", **reference))
    asked = edge(
        one,
        secrets={f"{it.metadata.namespace}/{it.metadata.name}": it for it in secrets},
        grants={it.metadata.name: it for it in grants},
    )
    (found,) = status_of_gateway(asked, one, ("192.0.2.64",), "", "")["listeners"]
    said = conditions(found)
    assert said["ResolvedRefs"] == (str(reason == "ResolvedRefs"), reason)
    assert said["Programmed"][0] == str(reason == "ResolvedRefs")
    assert "PRIVATE" not in str(found)


def test_a_connection_for_one_listener_is_not_used_for_another():
    named = terminated("shop"), terminated("shop", hostname="*.com", name="wide")
    given = plan_listeners(edge(gateway(*named)))["edge/front"]
    assert misdirected(given[0], given) == {"*.com"}
    assert misdirected(given[1], given) == {"a.com"}


def stream(kind, *hosts, name="s", to="a", created="2026-01-01T00:00:00Z", **parent):
    spec = {"parentRefs": [{**PARENT, **parent}]}
    spec["rules"] = [{"backendRefs": [{"name": to, "port": 80, "weight": 3}]}]
    if hosts:
        spec["hostnames"] = list(hosts)
    meta = {"name": name, "namespace": "shop", "creationTimestamp": created}
    return msgspec.convert({"metadata": meta, "spec": spec}, kind)


def by_name(*routes):
    return {f"{one.kind} shop/{one.metadata.name}": one for one in routes}


def passed(name="tls", hostname="*.com"):
    return listener(name, 443, "TLS", hostname=hostname, tls={"mode": "Passthrough"})


def test_a_connection_goes_by_the_most_specific_name_and_the_oldest_route():
    routes = [
        stream(TLSRoute, "a.com", "*.com", name="old"),
        stream(TLSRoute, "a.com", "b.com", name="young", created="2026-02-01T00:00:00Z"),
    ]
    asked = edge(gateway(passed()), streams=by_name(*routes))
    (one,) = plan_listeners(asked)["edge/front"]
    streams = [*streams_of(asked, one, [one])]
    assert [it.hosts for it in streams] == [("a.com", "*.com"), ("b.com",)]
    by = {name: stream_for(streams, name).name for name in ("a.com", "b.com", "c.com", "c.org")}
    assert by == {"a.com": "shop/old", "b.com": "shop/young", "c.com": "shop/old", "c.org": ""}


def test_a_name_of_a_more_specific_listener_is_not_taken_by_a_wider_one():
    asked = edge(
        gateway(terminated("shop", hostname="a.com"), passed()),
        streams=by_name(stream(TLSRoute, "a.com", "b.com")),
        secrets={"edge/shop": secret(GOOD)},
    )
    listeners = plan_listeners(asked)["edge/front"]
    streams = [*streams_of(asked, listeners[1], listeners)]
    assert [it.hosts for it in streams] == [("b.com",), ("*.com",)]
    assert streams[1].way.name == ""


def test_kinds_of_routes_go_with_what_is_read_of_a_connection():
    tcp, tls = stream(TCPRoute, name="tcp"), stream(TLSRoute, "a.com", name="tls")
    listeners = listener("tcp", 90, "TCP"), passed(), listener()
    one = gateway(*listeners)
    asked = edge(one, attached_to("a.com"), streams=by_name(tcp, tls))
    plans = plan_listeners(asked)["edge/front"]
    kinds = {it.listener.name: [at.route.kind for at in it.attached] for it in plans}
    assert kinds == {"tcp": ["TCPRoute"], "tls": ["TLSRoute"], "http": ["HTTPRoute"]}
    (found,) = status_of(asked, tcp)["parents"]
    assert conditions(found)["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize(
    ("service_", "reason"),
    [
        ({"to": "missing"}, "BackendNotFound"),
        ({"to": "none"}, "UnsupportedValue"),
        ({"to": "a"}, "ResolvedRefs"),
    ],
)
def test_a_connection_goes_to_a_service_that_has_an_address(service_, reason):
    one = stream(TCPRoute, **service_)
    asked = edge(gateway(listener("tcp", 90, "TCP")), streams=by_name(one))
    asked = replace(
        asked, services={**asked.services, "shop/none": service("none", clusterIP="None")}
    )
    (found,) = status_of(asked, one)["parents"]
    assert conditions(found)["ResolvedRefs"][1] == reason
    (plan,) = plan_listeners(asked)["edge/front"]
    (way,) = [it.way for it in streams_of(asked, plan, [plan])]
    assert [backend.to is not None for backend in way.backends] == [reason == "ResolvedRefs"]


def test_connections_to_a_service_are_routed_for_all_or_for_those_of_a_namespace():
    parent = {"group": "", "kind": "Service", "name": "web", "namespace": "shop", "port": 80}
    made = [stream(TCPRoute, name=name) for name in ("ours", "young")]
    theirs = stream(TCPRoute, name="theirs", to="b")
    for one in (*made, theirs):
        one.spec.parent_refs = [msgspec.convert(parent, ParentReference)]
    theirs.metadata.namespace = "other"
    made[1].metadata.creation_timestamp = "2026-02-01T00:00:00Z"
    asked = replace(edge(gateway(listener())), streams=by_name(*made, theirs))
    port = ServicePort("shop/web", 80)
    routed = plan_streams(asked)
    assert {*routed} == {port}
    (ours,) = of_clients(asked, [port], routed, "shop")
    (them,) = of_clients(asked, [port], routed, "other")
    (after,) = of_clients(asked, [port], {}, "shop")
    names = [[it.way.name for it in one.streams] for one in (ours, them, after)]
    assert names == [["shop/ours"], ["other/theirs"], [str(port)]]
    read = route([{"backendRefs": []}], "read")
    asked = replace(asked, routes={"HTTPRoute shop/read": read})
    assert plan_streams(asked) == {}
    (found,) = status_of(asked, made[0])["parents"]
    assert conditions(found)["Accepted"] == ("False", "Conflicted")


def test_handshakes_to_a_service_go_by_name_and_nothing_else_has_the_port():
    parent = {"group": "", "kind": "Service", "name": "web", "port": 80}
    named = stream(TLSRoute, "a.com", "*.com", name="named")
    young = stream(TLSRoute, "a.com", "b.com", name="young", created="2026-02-01T00:00:00Z")
    theirs = stream(TLSRoute, "*.org", name="theirs")
    other = stream(TCPRoute, name="tcp")
    for one in (named, young, theirs, other):
        one.spec.parent_refs = [msgspec.convert({**parent, "namespace": "shop"}, ParentReference)]
    theirs.metadata.namespace = "other"
    asked = replace(edge(gateway(listener())), streams=by_name(named, young, theirs, other))
    port = ServicePort("shop/web", 80)
    routed = plan_streams(asked)[port]
    ours = routed.for_clients_of("shop")
    assert routed.by_name
    assert [it.hosts for it in ours] == [("a.com", "*.com"), ("b.com",)]
    by = {name: stream_for(ours, name).name for name in ("a.com", "b.com", "c.com", "c.org", "")}
    assert by == {
        **{"a.com": "shop/named", "b.com": "shop/young", "c.com": "shop/named"},
        **{"c.org": "", "": ""},
    }
    assert stream_for(routed.for_clients_of("other"), "c.org").name == "other/theirs"
    (found,) = status_of(asked, other)["parents"]
    assert conditions(found)["Accepted"] == ("False", "Conflicted")
    (found,) = status_of(asked, named)["parents"]
    assert conditions(found)["Accepted"] == ("True", "Accepted")
    assert found["controllerName"] == "sixfold.dev/mesh"
    (told,) = of_clients(asked, [port], {port: routed}, "shop")
    member = Member("shop/client", "spiffe://x/y", "/n", (ip_address("10.244.0.2"),))
    body = handshakes(member, [told]).body.value
    chains = listener_pb2.Listener.FromString(body).filter_chains
    assert [[*it.filter_chain_match.server_names] for it in chains] == [
        *(["a.com", "*.com"], ["b.com"], [])
    ]


def more(*listeners, name="team", namespace="shop", created="2026-01-01T00:00:00Z"):
    """A ListenerSet of the Gateway."""
    meta = {"name": name, "namespace": namespace, "creationTimestamp": created}
    spec = {"parentRef": PARENT, "listeners": list(listeners)}
    return msgspec.convert({"metadata": meta, "spec": spec}, ListenerSet)


def with_sets(one, *sets, **given):
    return edge(one, *given.pop("routes", ()), listener_sets={it.key: it for it in sets}, **given)


@pytest.mark.parametrize(
    ("allowed", "found"),
    [
        pytest.param({}, set(), id="nobody unless it is said"),
        pytest.param({"from": "All"}, {"shop/team", "edge/own"}, id="all"),
        pytest.param({"from": "Same"}, {"edge/own"}, id="same"),
        pytest.param(
            {"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}},
            {"shop/team"},
            id="selector",
        ),
    ],
)
def test_a_gateway_says_whose_sets_it_takes(allowed, found):
    one = gateway(listener(hostname="a.com"), allowedListeners={"namespaces": allowed})
    sets = more(listener(hostname="b.com")), more(listener(hostname="c.com"), name="own")
    sets[1].metadata.namespace = "edge"
    asked = with_sets(one, *sets)
    plans = plan_listeners(asked)["edge/front"]
    assert {it.set.key for it in plans if it.set is not None} == found
    told = {it.key: conditions(status_of_set(asked, it, "")) for it in sets}
    assert {key for key, it in told.items() if it["Accepted"] == ("True", "Accepted")} == found
    for key in found:
        held = conditions(status_of_set(asked, asked.listener_sets[key], "", "no address"))
        assert held["Programmed"] == ("False", "ParentNotProgrammed")
    refused = {it["Accepted"] for key, it in told.items() if key not in found}
    assert refused <= {("False", "NotAllowed")}
    assert status_of_gateway(asked, one, (), "", "")["attachedListenerSets"] == len(found)


def test_what_the_gateway_and_older_sets_listen_at_goes_first():
    one = gateway(listener(hostname="a.com"), allowedListeners={"namespaces": {"from": "All"}})
    young = more(listener(hostname="b.com"), name="a", created="2026-03-01T00:00:00Z")
    old = more(
        listener(hostname="a.com"),
        listener("two", hostname="b.com"),
        passed("tls") | {"port": 80},
        name="z",
    )
    asked = with_sets(one, young, old)
    plans = plan_listeners(asked)["edge/front"]
    reasons = {it.section: it.conflict.reason if it.conflict else "" for it in plans}
    assert reasons == {
        "http": "",
        "shop/z/http": "ProtocolConflict",
        "shop/z/two": "ProtocolConflict",
        "shop/z/tls": "ProtocolConflict",
        "shop/a/http": "",
    }
    old.spec.listeners.pop()
    plans = plan_listeners(with_sets(one, young, old))["edge/front"]
    reasons = {it.section: it.conflict.reason if it.conflict else "" for it in plans}
    assert reasons == {
        **{"http": "", "shop/z/http": "HostnameConflict", "shop/z/two": ""},
        **{"shop/a/http": "HostnameConflict"},
    }
    said = conditions(status_of_set(with_sets(one, young, old), old, ""))
    assert said["Accepted"] == ("True", "ListenersNotValid")


def test_a_route_is_attached_to_the_set_or_to_the_gateway_and_to_nothing_of_the_other():
    one = gateway(listener(hostname="a.com"), allowedListeners={"namespaces": {"from": "All"}})
    theirs = more(listener(hostname="b.com"))
    parent = {"kind": "ListenerSet", "name": "team", "namespace": "shop"}
    routes = attached_to(name="ours"), attached_to(name="theirs")
    routes[1].spec.parent_refs = [
        msgspec.convert({"group": "gateway.networking.k8s.io", **parent}, ParentReference)
    ]
    asked = with_sets(one, theirs, routes=routes)
    plans = plan_listeners(asked)["edge/front"]
    found = {it.section: [at.route.metadata.name for at in it.attached] for it in plans}
    assert found == {"http": ["ours"], "shop/team/http": ["theirs"]}
    (said,) = status_of(asked, routes[1])["parents"]
    assert conditions(said)["Accepted"] == ("True", "Accepted")
    assert said["controllerName"] == "sixfold.dev/gateway"
    closed = with_sets(gateway(listener()), theirs, routes=routes)
    (said,) = status_of(closed, routes[1])["parents"]
    assert conditions(said)["Accepted"] == ("False", "NoMatchingParent")


def test_a_grant_to_gateways_is_none_to_sets():
    one = gateway(listener(hostname="a.com"), allowedListeners={"namespaces": {"from": "All"}})
    theirs = more(terminated("shop", hostname="b.com", namespace="edge"))
    kept = {"edge/shop": secret(GOOD)}

    def reason(kind):
        grants = {kind: granted_to(kind)}
        plans = plan_listeners(with_sets(one, theirs, secrets=kept, grants=grants))["edge/front"]
        return plans[1].wrong.reason if plans[1].wrong else ""

    assert reason("Gateway") == "RefNotPermitted"
    assert reason("ListenerSet") == ""


def granted_to(kind):
    """To objects of a kind in the namespace of the shop, for the Secrets of the edge."""
    who = {"group": "gateway.networking.k8s.io", "kind": kind, "namespace": "shop"}
    spec = {"from": [who], "to": [{"group": "", "kind": "Secret"}]}
    meta = {"name": "grant", "namespace": "edge"}
    return msgspec.convert({"metadata": meta, "spec": spec}, ReferenceGrant)
