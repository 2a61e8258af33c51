"""Does a suggestion allow exactly what was seen? Asked of the compiled policies, not of their text.

Pure. The world is that of the suggestion alone. Addresses outside that were taken for everybody,
and the node, are left out: the notes of the suggestion speak of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network

from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import FIRST_ALLOCATED, Identity, Subject
from sixfold.model.policy import NetworkPolicy
from sixfold.model.world import World
from sixfold.policy.reach_parties import View
from sixfold.policy.reach_ports import NO_PORT, PortSet
from sixfold.policy.reach_probe import ALLOWED, Probes
from sixfold.policy.reach_show import Reach
from sixfold.policy.suggest import Observations, Side, Workload
from sixfold.policy.suggest_selector import common


def world_of(found: Observations, config: Config | None = None) -> World:
    """The workloads that flows speak of, when there is nothing else to know them by."""
    endpoints = {}
    for number, (workload, labels) in enumerate(sorted(found.labels.items())):
        subject = Subject(workload.namespace, "default", tuple(common(labels).items()), ())
        endpoint = Endpoint(
            workload.namespace,
            f"{workload.kind}/{workload.name}",
            f"{workload.kind}/{workload.name}",
            subject,
            identity=Identity(FIRST_ALLOCATED + number),
        )
        endpoints[endpoint.key] = endpoint
    return World(config=config or Config(), endpoints=endpoints)


def differences(
    world: World, policies: Iterable[NetworkPolicy], found: Observations
) -> tuple[list[str], list[str]]:
    """Flows that were seen and would be denied; flows that nobody saw and would be allowed."""
    named = {f"{one.metadata.namespace}/{one.metadata.name}": one for one in policies}
    config = replace(world.config, posture="zero-trust")
    view = View(replace(world, config=config, policies=named))
    probes = Probes(view)
    denied = []
    seen: defaultdict[tuple[str, str], PortSet] = defaultdict(PortSet)
    for flow in sorted(found.seen, key=str):
        ends = [_names(side) for side in (flow.source, flow.destination)]
        port = PortSet.of(flow.protocol, flow.port, flow.port)
        for source in ends[0]:
            for destination in ends[1]:
                seen[source, destination] |= port
        probe = {"protocol": flow.protocol, "port": flow.port}
        answer = probes.answer({"from": ends[0][0], "to": ends[1][0], **probe})
        if answer.get("verdict") not in (ALLOWED, None):
            denied.append(f"{ends[0][0]} → {ends[1][0]} {flow.protocol}/{flow.port}")
    return denied, _unseen(view, seen)


def _unseen(view: View, seen: dict[tuple[str, str], PortSet]) -> list[str]:
    unseen = []
    for edge in Reach(view).edges():
        ends = [_address(name) for name in (edge.source, edge.destination)]
        if None in ends:
            continue
        more = edge.ports - seen.get((str(ends[0]), str(ends[1])), NO_PORT)
        if more:
            unseen.append(f"{ends[0]} → {ends[1]} {more}")
    return unseen


def _names(side: Side) -> tuple[str, ...]:
    """What probes and reach may call a side; the first is exact."""
    if isinstance(side, Workload):
        whole = f"{side.namespace}/{side.kind}/{side.name}"
        return whole, f"{side.namespace}/{side.name}"
    return (str(side),)


def _address(name: str) -> str | None:
    """A name of reach as it was seen: single addresses without their length, None if not asked."""
    if name in ("host", "resolver", "world") or "except" in name:
        return None
    try:
        network = ip_network(name)
    except ValueError:
        return name
    return str(ip_address(network.network_address)) if network.num_addresses == 1 else None
