"""What an audit may look at of the running system, gathered in one go.

Nothing is judged here: the rules are trust's.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from sixfold.agent.agent import Agent
from sixfold.agent.attestation import IdentitiesSeen
from sixfold.agent.doors import endpoint_place, listening_places, metrics_place
from sixfold.agent.events import FlowReader
from sixfold.agent.evidence_mesh import intrusions, pairs, permissive, plaintext, strays, unguarded
from sixfold.agent.planning import Plans
from sixfold.errors import UnavailableError
from sixfold.host import doors
from sixfold.host.layout import Connection
from sixfold.host.paths import Paths
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6, Config
from sixfold.model.datapath import PROTOCOL_NUMBERS, IPAddress
from sixfold.model.endpoint import Endpoint, by_address
from sixfold.model.identity import HOST, Identity
from sixfold.model.place import place_text
from sixfold.model.policies import POLICY_KINDS, key_of
from sixfold.policy.decide import Party, decide, party_at, party_of
from sixfold.trust.audit_finding import (
    BundleSeen,
    ConnectionSeen,
    DialsSeen,
    DoorSeen,
    Live,
    PairSeen,
    PolicySeen,
    PortSeen,
)
from sixfold.trust.bundle import REFRESH_HINT_S

TCP = PROTOCOL_NUMBERS["TCP"]
TUNNEL = 2  # enum transport
NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}


async def gather(
    agent: Agent,
    flows: FlowReader,
    paths: Paths,
    frontends: Iterable[Mapping[str, Any]],
    dials: Sequence[Any],
    identities: IdentitiesSeen,
    federated: Iterable[Mapping[str, Any]],
    came: tuple[PairSeen, ...],
    *,
    probe: bool = False,
) -> Live:
    """UnavailableError before the first round; reading the kernel is left to another thread.

    came   from other trust domains
    probe  strangers try, too: packets are sent from pods
    """
    plans = agent.plans
    if plans is None:
        raise UnavailableError("audit: nothing is planned yet; try again in a moment")
    connections = await asyncio.to_thread(lambda: [*agent.datapath.conntrack()])
    at = by_address(plans.world.endpoints.values())
    opened = [one for one in connections if one.is_open and not one.forwarded]
    talked = tuple(pairs(at, agent.names, connections))
    flows.drain()
    seen_doors = await asyncio.to_thread(lambda: [*_doors(agent, paths)])
    tried = await asyncio.to_thread(intrusions, plans, _for_strangers(agent)) if probe else []
    return Live(
        ports=tuple(map(_port_seen, frontends)),
        dials=tuple(msgspec.convert(dials, list[DialsSeen])),
        svids=identities.svids,
        policies=_policies(agent, flows),
        denied=tuple(_denied(plans, at, opened)),
        by_host=tuple(await asyncio.to_thread(_by_host, at, opened)),
        doors=tuple(seen_doors),
        bundles=tuple(map(_bundle_seen, federated)),
        pairs=talked,
        from_abroad=came,
        plaintext=tuple(plaintext(talked)),
        permissive=tuple(permissive(agent, plans, agent.datapath.plaintexts())),
        unguarded=tuple(unguarded(agent, plans)),
        strays=tuple(await asyncio.to_thread(lambda: [*strays(plans, paths)])),
        unfit=identities.unfit,
        intrusions=tuple(tried),
        now_s=time.time(),
        flows_lost=flows.log.lost,
        hits_lost=flows.statistics().get("rule_hits_lost", 0),
        generation=agent.generation,
        applied=agent.applied,
        problem=agent.problem,
    )


def _bundle_seen(one: Mapping[str, Any]) -> BundleSeen:
    hint_s = one["refresh_hint_s"] or REFRESH_HINT_S
    seen = one["trust_domain"], one["url"], one["roots"], one["heard_s"], hint_s, one["problem"]
    return BundleSeen(*seen)


def _port_seen(frontend: Mapping[str, Any]) -> PortSeen:
    return PortSeen(
        frontend["service"],
        frontend["port"],
        frontend["protocol"],
        frontend["algorithm"],
        frontend["why"],
        frontend["lifetime_s"],
        tuple(
            one["connections"] / one["weight"]
            for one in frontend["backends"]
            if one["state"] in ("active", "slow start") and one["weight"]
        ),
    )


def _policies(agent: Agent, flows: FlowReader) -> dict[str, PolicySeen]:
    """Ages since they were made: a rule that was changed since is younger, and given that long."""
    hits, now_s = flows.policy_hits(), time.time()
    found = {}
    for kind in POLICY_KINDS:
        for stored in agent.objects.of(kind).values():
            meta = stored.raw["metadata"]
            made_s = datetime.fromisoformat(meta["creationTimestamp"]).timestamp()
            key = key_of(kind, meta.get("namespace", ""), meta["name"])
            found[key] = PolicySeen(now_s - made_s, hits.get(key, {}))
    return found


def _denied(
    plans: Plans, at: Mapping[IPAddress, Endpoint], connections: Iterable[Connection]
) -> Iterator[ConnectionSeen]:
    """Those that the policy of today would not let begin; a tunnel is judged by what is in it."""
    for one in connections:
        if one.transport == TUNNEL:
            continue
        ends = (one.source, one.source_identity), (one.destination, one.destination_identity)
        source, destination = (_party(plans, at, *end) for end in ends)
        if source.key == destination.key:
            continue
        verdict = decide(plans.policy, source, destination, one.protocol, one.destination_port)
        if verdict.allow:
            continue
        sides = [side for side in (verdict.egress, verdict.ingress) if side and not side.allow]
        rule = plans.policy.rules.get(sides[0].rule)
        yield ConnectionSeen(
            _name(at, one.source),
            _name(at, one.destination),
            one.destination_port,
            NAMES[one.protocol],
            str(rule or "no policy table"),
        )


def _by_host(
    at: Mapping[IPAddress, Endpoint], connections: Iterable[Connection]
) -> list[ConnectionSeen]:
    """TCP that processes of the host have opened; the agent's probes are the agent's."""
    opened = {
        doors.Ends(one.source, one.source_port, one.destination, one.destination_port): one
        for one in connections
        if one.source_identity == HOST and one.destination in at and one.protocol == TCP
    }
    return [
        ConnectionSeen(
            str(ends.local), at[ends.remote].key, ends.remote_port, "TCP", owner=doors.command(pid)
        )
        for ends, pid in sorted(doors.owners(opened.keys()).items(), key=str)
        if pid != os.getpid()
    ]


def _doors(agent: Agent, paths: Paths) -> Iterator[DoorSeen]:
    config = agent.config
    places: set[tuple[IPAddress, int]] = set(listening_places(config))
    if config.metrics_address:
        places.add(metrics_place(config.metrics_address))
    places |= _endpoint(config)
    places |= {(address, 53) for address in (RESOLVER_IPV4, RESOLVER_IPV6)}
    meant = {place_text(*one) for one in places} | set(config.dns_edge)
    plans = agent.plans
    health = {one.port for one in plans.balancing.health_ports} if plans is not None else set()
    for one in doors.listeners({os.getpid(), agent.resolver.pid}):
        place = place_text(one.address, one.port)
        asked_for = place in meant or (one.protocol == "TCP" and one.port in health)
        yield DoorSeen(doors.command(one.pid), f"{place}/{one.protocol}", asked_for)
    closed = not paths.run.stat().st_mode & 0o077
    for path, mode in doors.sockets_below(paths.run):
        yield DoorSeen("sixfold", str(path), closed or not mode & 0o077, mode)


def _endpoint(config: Config) -> set[tuple[IPAddress, int]]:
    """Where the trust bundle is told: to whoever asks."""
    return {endpoint_place(config.bundle_endpoint)} if config.bundle_endpoint else set()


def _for_strangers(agent: Agent) -> list[tuple[str, IPAddress, int]]:
    """TCP doors that are not for pods; the resolver is, and the catalogue at the node."""
    resolver = (RESOLVER_IPV4, RESOLVER_IPV6)
    for_pods = {(address, 53) for address in resolver}
    for_pods |= _endpoint(agent.config)
    for_pods |= {it for it in listening_places(agent.config) if not it[0].is_loopback}
    found = {
        (doors.command(one.pid), one.address, one.port)
        for one in doors.listeners({os.getpid(), agent.resolver.pid})
        if one.protocol == "TCP" and (one.address, one.port) not in for_pods
    }
    return sorted(found, key=str)


def _party(
    plans: Plans, at: Mapping[IPAddress, Endpoint], address: IPAddress, identity: Identity
) -> Party:
    endpoint = at.get(address)
    if endpoint is not None:
        return party_of(plans.policy, endpoint, address.version)
    return party_at(plans.policy, identity, address)


def _name(at: Mapping[IPAddress, Endpoint], address: IPAddress) -> str:
    return at[address].key if address in at else str(address)
