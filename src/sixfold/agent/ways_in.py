"""Admission of the ways into a service from outside: numbers are handed out, conflicts refused.

As the Kubernetes API server does it: a service keeps the node ports that it has; what a manifest
leaves out is allocated, from the upper part of the range while that lasts, so that a number which
somebody writes in the lower part is likely to be free (KEP-3668).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

from sixfold.errors import Problem, SixfoldError
from sixfold.manifest import Loaded
from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress
from sixfold.model.kinds import Resource
from sixfold.model.meta import Key
from sixfold.model.pool import POOL_KIND, CiliumLoadBalancerIPPool
from sixfold.model.service import NODE_PORTS, Service, ServicePort, ServiceSpec
from sixfold.model.serviceentry import SERVICE_ENTRY, ServiceEntry
from sixfold.store import Objects

STATIC_BAND = min(max(16, len(NODE_PORTS) // 32), 128)  # lowest numbers, left to manifests
Written = tuple[Loaded, dict[str, Any]]  # a service of this apply, and what will be stored of it


@dataclass(frozen=True, slots=True)
class _Refused:
    item: Loaded
    path: str
    message: str

    def problem(self) -> Problem:
        return Problem(self.item.source, self.item.line, self.path, self.message)


def admit_ways_in(
    written: Sequence[Written], loaded: Sequence[Loaded], objects: Objects, config: Config
) -> list[Problem]:
    """Fill node ports and defaults into the services; returns what cannot be.

    loaded  all of this apply
    """
    refused = [*_node_ports(written, objects), *_external(loaded, objects, config)]
    pools = [item for item in loaded if item.key.kind == POOL_KIND]
    refused += _overlaps(pools, objects, config)
    return [one.problem() for one in refused]


def _node_ports(written: Sequence[Written], objects: Objects) -> Iterator[_Refused]:
    outside = [one for one in written if _spec(one).type in ("NodePort", "LoadBalancer")]
    if not outside:
        return
    here = {item.key for item, _ in written}
    taken = {
        number: str(key)
        for key, stored in objects.of("Service").items()
        if key not in here
        for number in _numbers(stored.object.spec)
    }
    lacking: list[tuple[Written, list[dict[str, Any]]]] = []
    for one in outside:
        item, raw = one
        raw["spec"].setdefault("externalTrafficPolicy", "Cluster")
        if _spec(one).type == "LoadBalancer":
            raw["spec"].setdefault("allocateLoadBalancerNodePorts", True)
        ports = [dict(port) for port in raw["spec"]["ports"]]
        raw["spec"]["ports"] = ports
        _keep(ports, item.key, objects)
        for index, port in enumerate(ports):
            number = port.get("nodePort")
            if not number:
                port.pop("nodePort", None)
            elif taken.setdefault(number, str(item.key)) != str(item.key):
                message = f"{number} is already allocated, to {taken[number]}; give another"
                yield _Refused(item, f"spec.ports[{index}].nodePort", message)
        yield from _health_port(one, objects, taken)
        if _spec(one).type == "NodePort" or raw["spec"]["allocateLoadBalancerNodePorts"]:
            lacking.append((one, ports))
    for (item, _), ports in lacking:
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                continue
            try:
                port["nodePort"] = _allocate(port, ports, taken)
                taken[port["nodePort"]] = str(item.key)
            except SixfoldError as error:
                yield _Refused(item, f"spec.ports[{index}].nodePort", str(error))
    for item, raw in outside:
        if raw["spec"].get("healthCheckNodePort") != 0:
            continue
        try:
            number = raw["spec"]["healthCheckNodePort"] = _free(taken)
            taken[number] = str(item.key)
        except SixfoldError as error:
            yield _Refused(item, "spec.healthCheckNodePort", str(error))


def _numbers(spec: ServiceSpec) -> Iterator[int]:
    numbers = (spec.health_check_node_port, *(port.node_port for port in spec.ports))
    return filter(None, numbers)


def _health_port(one: Written, objects: Objects, taken: dict[int, str]) -> Iterator[_Refused]:
    """The number that is written, else the one that the service has; 0: it is to get one."""
    item, raw = one
    number = raw["spec"].pop("healthCheckNodePort", None)
    if _spec(one).type != "LoadBalancer" or raw["spec"]["externalTrafficPolicy"] != "Local":
        return
    old = objects.get(item.key)
    number = number or (old.object.spec.health_check_node_port if old else None) or 0
    raw["spec"]["healthCheckNodePort"] = number
    if number in taken:
        message = f"{number} is already allocated, to {taken[number]}; give another"
        yield _Refused(item, "spec.healthCheckNodePort", message)
    elif number:
        taken[number] = str(item.key)


def _keep(ports: Sequence[dict[str, Any]], key: Key, objects: Objects) -> None:
    """Numbers that the service has already, where the manifest gives none."""
    old = objects.get(key)
    known = {_place(port): port.node_port for port in old.object.spec.ports} if old else {}
    given = {(port.get("nodePort"), port.get("protocol", "TCP")) for port in ports}
    for port in ports:
        protocol = port.get("protocol", "TCP")
        number = known.get((port["port"], protocol))
        if number and not port.get("nodePort") and (number, protocol) not in given:
            port["nodePort"] = number


def _place(port: ServicePort) -> tuple[int, str]:
    return port.port, port.protocol


def _allocate(
    port: Mapping[str, Any], ports: Sequence[Mapping[str, Any]], taken: Mapping[int, str]
) -> int:
    """The same for both protocols of one port number, else the next free one."""
    used = {(it.get("nodePort"), it.get("protocol", "TCP")) for it in ports}
    for other in ports:
        number = other.get("nodePort")
        same = other["port"] == port["port"]
        if number and same and (number, port.get("protocol", "TCP")) not in used:
            return int(number)
    return _free(taken)


def _free(taken: Mapping[int, str]) -> int:
    for band in (NODE_PORTS[STATIC_BAND:], NODE_PORTS[:STATIC_BAND]):
        if (free := next((it for it in band if it not in taken), None)) is not None:
            return free
    raise SixfoldError(
        f"all {len(NODE_PORTS)} node ports are taken; delete a service, or give a LoadBalancer "
        "allocateLoadBalancerNodePorts: false"
    )


def _external(loaded: Sequence[Loaded], objects: Objects, config: Config) -> Iterator[_Refused]:
    """An address and port mean one service, and none of them is a pod's or a cluster address."""
    given = [item for item in loaded if any(_outer(item.object))]
    if not given:
        return
    here = {item.key for item in loaded}
    taken = {
        (outer.address, *place): str(key)
        for kind in ("Service", SERVICE_ENTRY)
        for key, stored in objects.of(kind).items()
        if key not in here and not stored.deleting
        for outer in _outer(stored.object)
        for place in outer.places
    }
    for item in given:
        for path, address, places in _outer(item.object):
            if pool := _pool_of(address, config):
                yield _Refused(item, path, f"{address} is in our pool {pool}; give another")
            for port, protocol in places:
                owner = taken.setdefault((address, port, protocol), str(item.key))
                if owner != str(item.key):
                    message = f"{address}:{port}/{protocol} is {owner}'s; give another"
                    yield _Refused(item, path, message)


class _Outer(NamedTuple):
    """An address that somebody chose for a service: it is not handed out here."""

    path: str
    address: IPAddress
    places: list[tuple[int, str]]  # port, protocol


def _outer(obj: Resource) -> Iterator[_Outer]:
    if isinstance(obj, Service):
        field, texts = "externalIPs", obj.spec.external_ips
        places = [_place(port) for port in obj.spec.ports]
    elif isinstance(obj, ServiceEntry):
        field, texts = "addresses", obj.spec.addresses
        places = [(port.number, "TCP") for port in obj.spec.ports]
    else:
        return
    for index, text in enumerate(texts):
        yield _Outer(f"spec.{field}[{index}]", ip_address(text), places)


def _overlaps(pools: Sequence[Loaded], objects: Objects, config: Config) -> Iterator[_Refused]:
    here = {item.key for item in pools}
    others = [
        (str(key), stored.object)
        for key, stored in objects.of(POOL_KIND).items()
        if key not in here
    ]
    for item in pools:
        assert isinstance(item.object, CiliumLoadBalancerIPPool)
        for index, (first, last) in enumerate(item.object.ranges()):
            path = f"spec.blocks[{index}]"
            for address in dict.fromkeys((first, last)):
                if pool := _pool_of(address, config):
                    yield _Refused(item, path, f"{address} is in our pool {pool}; give another")
            for name, other in others:
                for start, stop in other.ranges():
                    if start.version == first.version and start <= last and first <= stop:
                        yield _Refused(item, path, f"overlaps {start} to {stop} of {name}")
        others.append((str(item.key), item.object))


def _pool_of(address: IPAddress, config: Config) -> str:
    pools = (config.pod_ipv4, config.pod_ipv6, config.service_ipv4, config.service_ipv6)
    return next((str(it) for it in pools if it.version == address.version and address in it), "")


def _spec(one: Written) -> ServiceSpec:
    assert isinstance(one[0].object, Service)
    return one[0].object.spec
