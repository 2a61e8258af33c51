"""What Envoy is told of connections to the world: whom it passes, and for whom it begins TLS.

Pure. Theory of operation. The kernel sends a pod's dial here, instead of out, when the rule that
allows it lets nothing pass but the proxy's (``policy/outward.py``). Nothing is dialled before it
is known what the client says: the name in its handshake picks a chain. ``passed`` goes on to the
address that was dialled, as it is; ``denied`` is closed; on a *carried* port requests are read, and
those to a host whose TLS is ours to begin go there in TLS, verified, at the address that was
dialled. All sockets are the pod's, marked, so that the kernel judges them as the pod's own and
knows them for the proxy's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2 as inputs
from envoy.extensions.matching.input_matchers.ip.v3 import ip_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.wrappers_pb2 import StringValue

from sixfold.mesh import logs
from sixfold.mesh import resources as parts
from sixfold.mesh.backend_tls import SYSTEM
from sixfold.mesh.external import Credentials, credentials, names_of
from sixfold.mesh.member import Member
from sixfold.mesh.messages import ADS, Name, Resource, extension, packed, resource
from sixfold.model.domain import EVERY_NAME, SUBDOMAINS
from sixfold.model.layers import same_objects
from sixfold.model.mesh import OUTWARD_MARK, OUTWARD_PORT
from sixfold.model.policy import IPBlock
from sixfold.model.world import World
from sixfold.policy.external import External, externals
from sixfold.policy.outward import Leaving, Seen

OUTWARD = "outward"  # cluster: where the client wanted to go
NOWHERE = "none"
PASSED, DENIED = "passed", "denied"  # chains
LABEL = "[-a-z0-9_]"
SOL_SOCKET, SO_MARK = 1, 36


class OutwardPlan(NamedTuple):
    """``needed``: names of all that a pod's proxy needs, by the pod: its listener, and whom that
    names."""

    resources: Mapping[Name, Resource] = MappingProxyType({})
    needed: Mapping[str, frozenset[Name]] = MappingProxyType({})


class OutwardPlanner:
    """Plans world after world: the same object as long as it is made of the same.

    connections_max  of one pod's, as client; 0: no limit
    """

    def __init__(self, connections_max: int = 0) -> None:
        self._connections_max = connections_max
        self._made_of: tuple[object, ...] = ()
        self._plan = OutwardPlan()

    def plan(
        self, world: World, leavings: Mapping[str, Leaving], members: Mapping[str, Member]
    ) -> OutwardPlan:
        """Listeners of the pods that have a leaving; clusters of those external services."""
        given = world.service_entries, world.destination_rules, world.secrets
        made_of: tuple[object, ...] = (leavings, members, *given) if leavings else ()
        if not same_objects(made_of, self._made_of):
            self._plan = self._build(world, leavings, members)
            self._made_of = made_of
        return self._plan

    def _build(
        self, world: World, leavings: Mapping[str, Leaving], members: Mapping[str, Member]
    ) -> OutwardPlan:
        if not leavings:
            return OutwardPlan()
        carried = {(one.host, one.port): one for one in externals(world) if one.tls is not None}
        wanted = {it for one in leavings.values() for it in one.carried} & carried.keys()
        made = {
            name: tuple(_external(carried[name], found))
            for name in wanted
            if isinstance(found := credentials(world, carried[name]), Credentials)
        }
        dialled = _dialled()
        resources = {it.key: it for one in made.values() for it in one} | {dialled.key: dialled}
        needed = {}
        for pod, leaving in leavings.items():
            if pod not in members:
                continue
            listener = _listener(members[pod], leaving, made.keys(), self._connections_max)
            resources[listener.key] = listener
            led = [it.key for name in leaving.carried for it in made.get(name, ())]
            needed[pod] = frozenset({listener.key, dialled.key, *led})
        return OutwardPlan(resources, needed)


def listener_name(pod: str) -> str:
    return f"outward|{pod}"


def cluster_of(host: str, port: int) -> str:
    return f"external|{host}|{port}"


# --- listeners ------------------------------------------------------------------------------------


def _listener(
    member: Member, leaving: Leaving, verified: Iterable[tuple[str, int]], connections: int
) -> Resource:
    states = parts.set_states([parts.state(parts.NETNS_STATE, member.netns)])
    ports = sorted({port for _, port in leaving.carried})
    log = parts.NETNS_STATE
    chains = [
        {
            "name": PASSED,
            "filters": [*parts.at_most(connections), states, _pass_on(OUTWARD, log)],
        },
        {"name": DENIED, "filters": [states, _pass_on(NOWHERE, log)]},
    ]
    for port in ports:
        hosts = [host for host, number in leaving.carried if number == port]
        manager = _requests(port, hosts, set(verified))
        chains.append(
            {
                "name": _carried(port),
                "filters": [
                    *parts.at_most(connections),
                    states,
                    extension("envoy.filters.network.http_connection_manager", manager),
                ],
            }
        )
    listener = listener_pb2.Listener(
        name=listener_name(member.pod),
        traffic_direction="OUTBOUND",
        listener_filters=[parts.ORIGINAL_DESTINATION, parts.HANDSHAKE],
        filter_chains=chains,
        filter_chain_matcher={
            "matcher_list": {
                "matchers": [
                    *({"predicate": _at(port), "on_match": _go(_carried(port))} for port in ports),
                    *({"predicate": _names(one), "on_match": _go(PASSED)} for one in leaving.seen),
                ]
            },
            "on_no_match": _go(DENIED),
        }
        if ports or leaving.seen
        else {"on_no_match": _go(DENIED)},
        **parts.listen_at(parts.on_loopback(member, OUTWARD_PORT)),
    )
    return resource(listener.name, listener)


def _carried(port: int) -> str:
    return f"carried|{port}"


def _pass_on(cluster: str, state: str) -> dict[str, Any]:
    log = logs.to_agent(als_pb2.TcpGrpcAccessLogConfig, logs.OUTWARD, state)
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=OUTWARD,
        cluster=cluster,
        idle_timeout=timedelta(0),
        access_log=[logs.failures(log)],
    )
    return extension("envoy.filters.network.tcp_proxy", proxy)


def _go(chain: str) -> dict[str, Any]:
    name = StringValue(value=chain)
    return {"action": {"name": chain, "typed_config": packed(name)}}


def _input(name: str, message: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": packed(message)}


def _at(port: int) -> dict[str, Any]:
    where = _input("envoy.matching.inputs.destination_port", inputs.DestinationPortInput())
    return {"single_predicate": {"input": where, "value_match": {"exact": str(port)}}}


def _names(seen: Seen) -> dict[str, Any]:
    said = _input("envoy.matching.inputs.server_name", inputs.ServerNameInput())
    text = "|".join(map(regex_of, seen.servers))
    match = {"safe_regex": {"google_re2": {}, "regex": text}}
    both = [_at(seen.port), {"single_predicate": {"input": said, "value_match": match}}]
    if seen.blocks is not None:
        both.append(_any_of([_inside(block) for block in seen.blocks]))
    return {"and_matcher": {"predicate": both}}


def _inside(block: IPBlock) -> dict[str, Any]:
    inside = _in_ranges([block.cidr])
    if not block.except_:
        return inside
    return {"and_matcher": {"predicate": [inside, {"not_matcher": _in_ranges(block.except_)}]}}


def _in_ranges(cidrs: Iterable[str]) -> dict[str, Any]:
    ranges = []
    for cidr in cidrs:
        address, _, length = cidr.partition("/")
        ranges.append({"address_prefix": address, "prefix_len": {"value": int(length)}})
    matcher = ip_pb2.Ip(cidr_ranges=ranges, stat_prefix=OUTWARD)
    where = _input("envoy.matching.inputs.destination_ip", inputs.DestinationIPInput())
    custom = extension("envoy.matching.matchers.ip", matcher)
    return {"single_predicate": {"input": where, "custom_match": custom}}


def _any_of(predicates: list[dict[str, Any]]) -> dict[str, Any]:
    return predicates[0] if len(predicates) == 1 else {"or_matcher": {"predicate": predicates}}


def regex_of(pattern: str) -> str:
    """As ``model/domain.py`` matches; a handshake's name is lower case here."""
    if pattern == EVERY_NAME:
        return ".+"
    more = pattern.startswith(SUBDOMAINS)
    labels = pattern.removeprefix(SUBDOMAINS).split(".")
    text = r"\.".join(
        f"{LABEL}+" if one == "*" else f"{LABEL}*".join(map(re.escape, one.split("*")))
        for one in labels
    )
    return rf"(?:{LABEL}+\.)+{text}" if more else text


# --- requests -------------------------------------------------------------------------------------


def _requests(
    port: int, hosts: Iterable[str], verified: set[tuple[str, int]]
) -> hcm.HttpConnectionManager:
    known = [
        {
            "name": host,
            "domains": [host, f"{host}:{port}"],
            "routes": [{"match": {"prefix": "/"}, **_led_to(host, port, verified)}],
        }
        for host in sorted(set(hosts))
    ]
    others = {
        "name": DENIED,
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 403}}],
    }
    return hcm.HttpConnectionManager(
        stat_prefix=OUTWARD,
        codec_type="AUTO",
        route_config={
            "virtual_hosts": [*known, others],
            "request_headers_to_remove": ["x-forwarded-proto"],
        },
        http_filters=[parts.ROUTER],
        upgrade_configs=[{"upgrade_type": "websocket"}],
        scheme_header_transformation={"scheme_to_overwrite": "https"},
        stream_idle_timeout=timedelta(0),
        generate_request_id={"value": False},
        skip_xff_append=True,
        server_header_transformation="PASS_THROUGH",
        access_log=[
            logs.to_agent(als_pb2.HttpGrpcAccessLogConfig, logs.EXTERNAL, parts.NETNS_STATE)
        ],
    )


def _led_to(host: str, port: int, verified: set[tuple[str, int]]) -> dict[str, Any]:
    if (host, port) not in verified:
        return {"direct_response": {"status": 502}}
    upgrades = [{"upgrade_type": "websocket"}]
    cluster = cluster_of(host, port)
    return {
        "route": {"cluster": cluster, "timeout": timedelta(0), "upgrade_configs": upgrades},
    }


# --- clusters -------------------------------------------------------------------------------------


def _bound() -> dict[str, Any]:
    mark = {
        "level": SOL_SOCKET,
        "name": SO_MARK,
        "int_value": OUTWARD_MARK,
        "state": "STATE_PREBIND",
    }
    return {**parts.from_the_pod(), "socket_options": [mark]}


def _dialled() -> Resource:
    cluster = cluster_pb2.Cluster(
        name=OUTWARD,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=parts.CONNECT_TIMEOUT,
        circuit_breakers=parts.no_limits(),
        upstream_bind_config=_bound(),
    )
    return resource(OUTWARD, cluster)


def _external(one: External, found: Credentials) -> Iterator[Resource]:
    options = http_protocol_options_pb2.HttpProtocolOptions(
        auto_config={"http_protocol_options": {}, "http2_protocol_options": {}}
    )
    name, certificates = cluster_of(one.host, one.port), []
    if found.shows is not None:
        kept = f"external|{found.secret}"
        certificates.append({"name": kept, "sds_config": ADS})
        yield parts.certificate(kept, found.shows.chain, found.shows.key)
    cluster = cluster_pb2.Cluster(
        name=name,
        type="ORIGINAL_DST",
        lb_policy="CLUSTER_PROVIDED",
        original_dst_lb_config={"upstream_port_override": {"value": one.target_port}},
        connect_timeout=parts.CONNECT_TIMEOUT,
        circuit_breakers=parts.no_limits(),
        upstream_bind_config=_bound(),
        transport_socket=extension(
            "envoy.transport_sockets.tls", _context(one, found.pem, certificates)
        ),
        typed_extension_protocol_options={parts.OPTIONS: packed(options)},
    )
    yield resource(name, cluster)


def _context(
    one: External, pem: bytes, certificates: list[dict[str, Any]]
) -> tls_pb2.UpstreamTlsContext:
    assert one.tls is not None, "of services whose TLS is ours to begin"
    names = [
        {"san_type": "URI" if "://" in text else "DNS", "matcher": {"exact": text}}
        for text in names_of(one)
    ]
    return tls_pb2.UpstreamTlsContext(
        sni=one.tls.sni or one.host,
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": certificates,
            "validation_context": {
                "trusted_ca": {"inline_bytes": pem} if pem else {"filename": SYSTEM},
                "match_typed_subject_alt_names": names,
            },
        },
    )
