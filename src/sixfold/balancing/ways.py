"""Ways into a service: at which addresses and ports is it dialled, and by whom?

Pure. Source: core/v1 ServiceSpec. The node port is one of every address of the node: the kernel
knows it by the unspecified address of its family. What comes in from outside goes to pods of this
host under its client's own address, and to other endpoints under the host's; the latter not with
externalTrafficPolicy Local.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

import msgspec

from sixfold.balancing.members import IPAddress, cluster_addresses, families
from sixfold.model.datapath import FrontendFlag, IPNetwork
from sixfold.model.service import IPFamily, Service, ServicePort

Kind = Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"]
ANY_NODE: Mapping[IPFamily, IPAddress] = {"IPv4": IPv4Address(0), "IPv6": IPv6Address(0)}


class Way(msgspec.Struct, frozen=True):
    """One address of a service, with the number under which each of its ports is dialled there.

    alone  nobody else is behind the address: a port that the service lacks is refused
    """

    kind: Kind
    address: IPAddress
    ports: tuple[tuple[int, ServicePort], ...]
    flags: FrontendFlag = FrontendFlag(0)
    alone: bool = False


def ways(service: Service) -> Iterator[Way]:
    """In the order in which ``lb list`` shows them; none of a headless service."""
    addresses = cluster_addresses(service)
    if not addresses:
        return
    ports = tuple((port.port, port) for port in service.spec.ports)
    for address in addresses:
        yield Way("ClusterIP", address, ports, alone=True)
    if numbered := tuple((it.node_port, it) for it in service.spec.ports if it.node_port):
        for family in families(service):
            yield Way("NodePort", ANY_NODE[family], numbered, FrontendFlag.OUTSIDE)
    for address in balancer_addresses(service):
        yield Way("LoadBalancer", address, ports, _balancer_flags(service), alone=True)
    for address in external_addresses(service):
        yield Way("ExternalIP", address, ports, FrontendFlag.OUTSIDE)


def balancer_addresses(service: Service) -> tuple[IPAddress, ...]:
    """Those that a pool has given to a service of type LoadBalancer."""
    if service.spec.type != "LoadBalancer":
        return ()
    found = (entry.get("ip") for entry in service.status.get("loadBalancer", {}).get("ingress", ()))
    return tuple(ip_address(text) for text in found if text)


def external_addresses(service: Service) -> tuple[IPAddress, ...]:
    return tuple(ip_address(text) for text in service.spec.external_ips)


def local_only(service: Service) -> bool:
    """Whether an external load balancer is to send its traffic only where endpoints are."""
    spec = service.spec
    return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"


def source_ranges(service: Service) -> Sequence[IPNetwork]:
    """Who outside may dial its load balancer's address; empty: everybody."""
    if service.spec.type != "LoadBalancer":
        return ()
    return [ip_network(text.strip()) for text in service.spec.load_balancer_source_ranges]


def _balancer_flags(service: Service) -> FrontendFlag:
    flags = FrontendFlag.OUTSIDE | FrontendFlag.ANNOUNCED
    return flags | FrontendFlag.RANGES if source_ranges(service) else flags
