"""What an audit may look at of the mesh, and of who is in a workload's network.

Nothing is judged here: the rules are trust's.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sixfold.agent.agent import Agent
from sixfold.agent.planning import Plans
from sixfold.host import doors, intruder
from sixfold.host.intruder import Attempt, Tried
from sixfold.host.layout import Connection, Plaintext
from sixfold.host.paths import Paths, cgroup_root
from sixfold.model.datapath import EGRESS, INGRESS, PROTOCOL_NUMBERS, IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import ANY_POD, UNKNOWN
from sixfold.model.mesh import ANY_PORT, TUNNEL_PORT, Mode
from sixfold.model.peerauthentication import PEER_AUTHENTICATION
from sixfold.model.place import place_text
from sixfold.observe.names import Names
from sixfold.policy.decide import decide, party_of
from sixfold.trust.audit_finding import (
    IntrusionSeen,
    PairSeen,
    PermissiveSeen,
    PlaintextSeen,
    StraySeen,
    UnguardedSeen,
)

TCP = PROTOCOL_NUMBERS["TCP"]
PROTOCOLS = {PROTOCOL_NUMBERS[name]: name for name in ("TCP", "UDP", "SCTP")}
PLAIN, MTLS = 0, 1  # enum transport
USUAL_PORT = 8080  # tried where a pod names no port


def pairs(
    at: Mapping[IPAddress, Endpoint], names: Names, connections: Iterable[Connection]
) -> Iterator[PairSeen]:
    """Of those that the kernel remembers, closed ones too, between two that are still there."""
    found: Counter[PairSeen] = Counter()
    for one in connections:
        client, server = at.get(one.source), at.get(one.destination)
        if (
            client is not None
            and server is not None
            and client.key != server.key
            and one.transport in (PLAIN, MTLS)
            and one.protocol in PROTOCOLS
            and (one.source_identity, one.destination_identity)
            == (client.identity, server.identity)
        ):
            service = names.services.get(one.service)
            seen = PairSeen(
                client.key,
                server.key,
                one.destination_port,
                PROTOCOLS[one.protocol],
                0,
                one.transport == MTLS,
                f"{service.namespace}/{service.name}" if service is not None else "",
                (_rule(names, one.rule[EGRESS]), _rule(names, one.rule[INGRESS])),
            )
            found[seen] += 1
    for seen, count in sorted(found.items(), key=str):
        yield replace(seen, connections=count)


def _rule(names: Names, number: int) -> str:
    return str(names.rules.get(number, ""))


def plaintext(seen: Iterable[PairSeen]) -> Iterator[PlaintextSeen]:
    """Those of them that went in no tunnel."""
    found: Counter[tuple[str, str, int, str]] = Counter()
    for one in seen:
        if not one.mtls:
            found[one.client, one.server, one.port, one.protocol] += one.connections
    for (source, destination, port, name), count in sorted(found.items()):
        yield PlaintextSeen(source, destination, port, name, count)


def permissive(
    agent: Agent, plans: Plans, came: Iterable[tuple[Plaintext, int, float]]
) -> Iterator[PermissiveSeen]:
    """Ports in mode PERMISSIVE, since when, and when somebody needed it."""
    by_server: dict[int, dict[int, float]] = {}
    for who, _, idle_s in came:
        ports = by_server.setdefault(who.server, {})
        ports[who.port] = min(idle_s, ports.get(who.port, idle_s))
    now_s = time.time()
    born = {
        kind: {
            f"{it.key.namespace}/{it.key.name}": _born_s(it.raw)
            for it in agent.objects.of(kind).values()
        }
        for kind in ("Pod", PEER_AUTHENTICATION)
    }
    for key, pod in plans.modes.items():
        idle = by_server.get(plans.world.endpoints[key].id, {})
        for port, decided in ((ANY_PORT, pod.every), *pod.ports.items()):
            if decided.mode != Mode.PERMISSIVE:
                continue
            object_ = decided.by.removeprefix(f"{PEER_AUTHENTICATION} ").partition(",")[0]
            since_s = max(born["Pod"].get(key, now_s), born[PEER_AUTHENTICATION].get(object_, 0.0))
            last = [s for p, s in idle.items() if p == port or (not port and p not in pod.ports)]
            yield PermissiveSeen(key, port, now_s - since_s, min(last, default=None))


def _born_s(raw: Mapping[str, object]) -> float:
    meta = raw["metadata"]
    assert isinstance(meta, dict)
    return datetime.fromisoformat(meta["creationTimestamp"]).timestamp()


def unguarded(agent: Agent, plans: Plans) -> Iterator[UnguardedSeen]:
    """Ports that are to be looked into, and that the kernel's table has otherwise."""
    wanted = {key: pod.looked_into for key, pod in plans.modes.items() if pod.looked_into}
    if not wanted:
        return
    lines = {(int(it.endpoint), it.port): it for it in agent.datapath.read().modes}
    for key, ports in sorted(wanted.items()):
        for port in sorted(ports):
            line = lines.get((int(plans.world.endpoints[key].id), port))
            if line is None or line.mode != Mode.STRICT or not line.looked_into:
                mode = line.mode.name.lower() if line is not None else "one like all others"
                yield UnguardedSeen(key, port, mode)


def strays(plans: Plans, paths: Paths) -> Iterator[StraySeen]:
    """Processes in the network of a pod of ours that are of no container."""
    pods = f"/{(paths.cgroup / 'pods').relative_to(cgroup_root())}/"
    named = {}
    for endpoint in plans.world.endpoints.values():
        if endpoint.netns and (inode := doors.namespace_at(Path(endpoint.netns))):
            named[inode] = endpoint.key
    for pid, inode in doors.namespaces():
        if inode in named:
            group = doors.control_group(pid)
            if group and not group.startswith(pods):
                yield StraySeen(named[inode], doors.command(pid), group)


def intrusions(
    plans: Plans, listening: Iterable[tuple[str, IPAddress, int]]
) -> list[IntrusionSeen]:
    """A stranger tries: what was answered. Each attempt stands in the flow log.

    listening  doors that pods are not to reach: process, address, port
    """
    planned = [*_past_the_proxy(plans), *_at_doors(plans, list(listening))]
    answered = intruder.attempt([one for one, _ in planned])
    return [seen for (_, seen), got in zip(planned, answered, strict=True) if got]


Planned = tuple[Attempt, IntrusionSeen]


def _past_the_proxy(plans: Plans) -> Iterator[Planned]:
    """At each pod of the mesh, by somebody whom policy lets, at a port that is strict."""
    for key, pod in sorted(plans.modes.items()):
        server = plans.world.endpoints[key]
        ports = sorted(pod.looked_into) or [
            *(one.port for one in server.publish_ports if one.protocol == "TCP"),
            USUAL_PORT,
        ]
        for address in server.addresses:
            for port in ports:
                client = _let_in(plans, server, port)
                if client is None:
                    continue
                if pod.of(port).mode == Mode.STRICT:
                    yield _planned("plaintext", client, key, address, port, port in pod.looked_into)
                yield _planned("tunnel", client, key, address, TUNNEL_PORT)
                break


def _let_in(plans: Plans, server: Endpoint, port: int) -> Endpoint | None:
    """Somebody whom policy lets dial the port: nothing but the mesh stands in his way."""
    table = plans.policy.tables.get(server.key)
    if table is None:
        return None
    named = {name for section in (table.main, table.admin) for name in section[INGRESS].peers}
    anybody = bool(named & {ANY_POD, UNKNOWN})
    for client in plans.world.endpoints.values():
        if client.key == server.key or not client.netns:
            continue
        if not anybody and client.identity not in named:
            continue
        parties = party_of(plans.policy, client), party_of(plans.policy, server)
        if decide(plans.policy, *parties, TCP, port).allow:
            return client
    return None


def _at_doors(plans: Plans, listening: list[tuple[str, IPAddress, int]]) -> Iterator[Planned]:
    """From every pod, at the node's own address where a door is on loopback."""
    config = plans.world.config
    for client in plans.world.endpoints.values() if listening else ():
        for process, address, port in listening:
            if address.is_loopback or address.is_unspecified:
                address = config.host_ipv4 if address.version == 4 else config.host_ipv6
            if client.netns:
                yield _planned("door", client, process, address, port)


def _planned(
    tried: Tried,
    client: Endpoint,
    target: str,
    address: IPAddress,
    port: int,
    looked_into: bool = False,
) -> Planned:
    source = client.ipv4 if address.version == 4 else client.ipv6
    attempt = Attempt(tried, Path(client.netns), source, address, port)
    return attempt, IntrusionSeen(tried, client.key, target, place_text(address, port), looked_into)
