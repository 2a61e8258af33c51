"""Requests to services of other trust domains, and theirs to ours: as they are, in no tunnel.

Pure. See ``foreign`` and ``http``. The client's proxy reads them where it knows that a port of a
foreign service is HTTP, picks a way for each, and sends it under the client's own SVID by the
Gateway, which passes on what it cannot read. At the other end each is judged by who sent it and by
what it asks. Where it wants to go is told by the name that others know: they know no address.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.rbac.v3 import rbac_pb2

from sixfold.mesh import foreign_resources, http, kept_headers, resilience
from sixfold.mesh import resources as parts
from sixfold.mesh.authorization import policy_name
from sixfold.mesh.backend_tls import Tls
from sixfold.mesh.foreign import Export, Foreign
from sixfold.mesh.http_routes import cluster_of
from sixfold.mesh.member import Member, authority
from sixfold.mesh.messages import Resource, extension, packed, resource
from sixfold.mesh.requests import permission_to_ask
from sixfold.mesh.routes import ServicePort
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.mesh import CLIENT_PORT, COPIES, COPY_TO, DESTINATION
from sixfold.model.rule import Rule
from sixfold.model.trafficpolicy import TrafficPolicySpec
from sixfold.policy.requests import Requests

ROUTE = f"{foreign_resources.ROUTE}requests "  # before the place that requests lead to


def backends(
    one: Foreign,
    gateway: Member,
    algorithm: Algorithm,
    table_size: int,
    spec: TrafficPolicySpec,
    lifetime: timedelta,
) -> Resource:
    """Where a foreign service lets requests in: its backends, from the namespace of the Gateway."""
    said = [
        parts.set_header(DESTINATION, foreign_resources.said(one.host)),
        *({"remove": header} for header in (CLIENT_PORT, COPIES, COPY_TO)),
    ]
    cluster = cluster_pb2.Cluster(
        name=cluster_of(one.port),
        **parts.fixed(cluster_of(one.port), one.places),
        **resilience.picking(algorithm, table_size, spec),
        connect_timeout=resilience.connect_timeout(spec),
        circuit_breakers=resilience.of_service(spec),
        outlier_detection=resilience.outliers(spec),
        upstream_bind_config=parts.from_namespace(gateway.netns),
        transport_socket=extension(
            "envoy.transport_sockets.tls", parts.client_tls(*one.ids, host=one.host)
        ),
        typed_extension_protocol_options={parts.OPTIONS: packed(http.over_http2(said, lifetime))},
    )
    return resource(cluster.name, cluster)


def judged(
    one: Export,
    rules: rbac_pb2.RBAC,
    narrowed: Mapping[str, Any],
    limited: Mapping[str, ServicePort],
    secured: Mapping[str, tuple[ServicePort, Tls]],
    headers: Iterable[str],
) -> list[dict[str, Any]]:
    """Routes of what others ask of a name of ours; as ``http.judged``, of that one place."""
    place = authority(one.address, one.port)
    only = http.configured(rules, narrowed, kept_headers.of_route(headers, place))
    here = foreign_resources.named(DESTINATION, foreign_resources.said(one.host))
    ways = http.ways(
        {place: secured[place]} if place in secured else {},
        [place] if one.looked_into else [],
        {place: limited[place]} if place in limited else {},
    )
    return [
        http.judged_route(
            cluster, [here, *(it for it in found if it["name"] != DESTINATION)], only, ROUTE + place
        )
        for cluster, found in ways
    ]


def rules(
    requests: Requests,
    server: Endpoint,
    one: Export,
    gateways: Mapping[str, tuple[Endpoint, Member]],
    domains: frozenset[str],
    numbers: Mapping[Rule, int],
) -> rbac_pb2.RBAC:
    """What network policy lets the Gateways ask, whoever is behind them; nothing is opened by
    audit."""
    found: dict[str, rbac_pb2.Policy] = {}
    for pod in one.gateways if domains else ():
        if pod not in gateways:
            continue
        client, member = gateways[pod]
        who = foreign_resources.of_gateway(_of_version(member, one.address), domains)
        turns: defaultdict[Rule, int] = defaultdict(int)
        for rule, wanted in requests.would_allow(server, one.port, client):
            number = numbers.get(rule, 0)
            turns[rule] += 1
            name = f"{policy_name(number, {number: rule})} #{turns[rule]} {pod}"
            found[name] = rbac_pb2.Policy(permissions=[permission_to_ask(wanted)], principals=[who])
    return rbac_pb2.RBAC(action="ALLOW", policies=found)


def _of_version(member: Member, address: IPAddress) -> list[IPAddress]:
    return [it for it in member.addresses if it.version == address.version]
