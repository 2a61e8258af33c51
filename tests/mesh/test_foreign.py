"""What the proxy is told of other trust domains: ways out, names in, and nobody else's rules."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import count

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from tests.mesh.rbac import allows
from tests.mesh.test_plan import compiler
from tests.mesh.worlds import netns_of
from tests.trust.test_explain_foreign import DB, FEDERATED, OURS, WEB, WHOLE

from sixfold.balancing.plan import BalancingPlanner
from sixfold.manifest import loads, offline
from sixfold.mesh.foreign import foreign_services, status_of
from sixfold.mesh.http_routes import NOWHERE
from sixfold.mesh.messages import CLUSTER, LISTENER, ROUTE
from sixfold.mesh.needed import needed_by_one
from sixfold.mesh.plan import MeshPlanner
from sixfold.mesh.resources import RBAC_FILTER
from sixfold.model.config import Config
from sixfold.model.gateway import Gateway
from sixfold.workloads.gateway import made_for

PLACES = {"shop/web": "10.244.0.2", "shop/db": "10.244.0.3", "edge/abroad-sixfold": "10.244.0.4"}
GATEWAY = "10.244.0.4"
INVALID = "InvalidCACertificateRef"
OWN_WEB = "spiffe://home.example/ns/shop/sa/web"


def world(*without):
    given = [one for one in (*OURS, *WHOLE) if one not in without]
    text = "\n---\n".join(map(json.dumps, given))
    (gateway,) = (one.object for one in loads(text).objects if isinstance(one.object, Gateway))
    raw = [dict(one) for one in (*given, *made_for(gateway))]
    for one in raw:
        if one["kind"] == "Pod":
            meta = one["metadata"]
            one["status"] = {"podIP": PLACES[f"{meta['namespace']}/{meta['name']}"]}
    config = Config(mtls="strict", trust_domain="home.example")
    here = offline(loads("\n---\n".join(map(json.dumps, raw)), offline=True), config)
    numbers = count(256)
    endpoints = {
        key: replace(
            one, netns=f"/run/netns/{key}", netns_cookie=number, identity=number, id=number
        )
        for key, one in here.endpoints.items()
        for number in [next(numbers)]
    }
    return replace(here, endpoints=endpoints)


def planned(here):
    balancing = BalancingPlanner(lambda service: hash(service) & 0xFFFF).plan(here)
    return MeshPlanner(netns_of).plan(here, compiler().compile(here), balancing.frontends)


def message(kind, resource):
    return kind.FromString(resource.body.value)


def chain_of(resources, pod):
    listener = message(listener_pb2.Listener, resources[LISTENER, f"requests|{pod}"])
    (chain,) = (one for one in listener.filter_chains if one.name.startswith("foreign|"))
    return tcp_proxy_pb2.TcpProxy.FromString(chain.filters[-1].typed_config.value)


def rules(route):
    found = rbac_pb2.RBACPerRoute()
    route.typed_per_filter_config[RBAC_FILTER].Unpack(found)
    return found.rbac.rules


def routes_of(table):
    """Of all that arrives at a pod: those of names that others know come first."""
    (host,) = table.virtual_hosts
    assert list(host.domains) == ["*"]
    return host.routes


def reasons(here):
    (policy,) = here.backend_tls.values()
    (entry,) = status_of(here, policy)["ancestors"]
    return {one["type"]: one["reason"] for one in entry["conditions"]}


def test_a_foreign_service_is_asked_for_its_identities_by_name_and_nobody_else():
    resources = planned(world()).resources
    proxy = chain_of(resources, "shop/web")
    assert proxy.cluster == "foreign|edge/db-there:5432"
    assert proxy.tunneling_config.hostname == "db.partner.example:5432"
    cluster = message(cluster_pb2.Cluster, resources[CLUSTER, proxy.cluster])
    tls = tls_pb2.UpstreamTlsContext.FromString(cluster.transport_socket.typed_config.value)
    checked = tls.common_tls_context.combined_validation_context.default_validation_context
    assert tls.sni == "db.partner.example"
    assert [it.matcher.exact for it in checked.match_typed_subject_alt_names] == [DB]


def test_without_a_bundle_there_is_no_way_out_and_none_in():
    here = world(FEDERATED)
    resources = planned(here).resources
    assert chain_of(resources, "shop/web").cluster == NOWHERE
    assert (CLUSTER, "foreign|edge/db-there:5432") not in resources
    (one,) = foreign_services(here).values()
    assert "partner.example is not federated" in one.closed
    assert reasons(here) == {"Accepted": "NoValidCACertificate", "ResolvedRefs": INVALID}
    assert reasons(world()) == {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
    table = message(route_pb2.RouteConfiguration, resources[ROUTE, "inbound|shop/db"])
    assert not rules(routes_of(table)[0]).policies


def test_what_is_ours_is_not_foreign():
    here = world()
    here = replace(here, config=replace(here.config, trust_domain="partner.example"))
    (one,) = foreign_services(here).values()
    assert one.closed == "partner.example is our own trust domain"


def test_only_the_names_that_others_know_lead_others_anywhere():
    """By the Gateway, with an identity of theirs; whatever the open rules of ours are."""
    resources = planned(world()).resources
    table = message(route_pb2.RouteConfiguration, resources[ROUTE, "inbound|shop/db"])
    route, ours = (it for it in routes_of(table) if it.match.HasField("connect_matcher"))
    assert route.route.cluster == "end|10.244.0.3:6432"
    (name,) = (one.string_match.safe_regex.regex for one in route.match.headers)
    assert re.fullmatch(name, "db.home.example:1")
    assert not re.fullmatch(name, "10.244.0.3:6432")
    place = "10.244.0.3:6432"
    assert allows(rules(ours), WEB, GATEWAY, place) is None
    assert allows(rules(route), WEB, GATEWAY, "db.home.example:1") is not None
    for who, source in ((OWN_WEB, GATEWAY), (WEB, "10.244.0.2"), (WEB, "192.0.2.1")):
        assert allows(rules(route), who, source, "db.home.example:1") is None
    for pod in ("shop/web", "edge/abroad-sixfold"):
        table = message(route_pb2.RouteConfiguration, resources[ROUTE, f"inbound|{pod}"])
        assert allows(rules(routes_of(table)[0]), WEB, GATEWAY, f"{PLACES[pod]}:5432") is None


def test_a_proxy_of_one_pod_is_told_its_own_ways_to_other_trust_domains_and_back():
    plan = planned(world())
    away, to_pods = "foreign|edge/db-there:5432", "tunnels|shop/db:5432"

    def told(pod, *reached):
        return {name for kind, name in needed_by_one(plan, pod, reached) if kind == CLUSTER}

    assert away in told("shop/web", "edge/abroad-sixfold")
    assert away not in told("shop/web", "shop/db")
    assert "end|10.244.0.3:6432" in told("shop/db")
    assert to_pods in told("edge/abroad-sixfold")
    assert not {to_pods, "end|10.244.0.3:6432"} & told("shop/web", "edge/abroad-sixfold")
