"""cilium.io CiliumLoadBalancerIPPool: addresses for Services of type LoadBalancer, as written."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal

import msgspec

from sixfold.model.datapath import IPAddress
from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written
from sixfold.model.service import Service

POOL_KIND = "CiliumLoadBalancerIPPool"
NAMESPACE_LABEL = "io.kubernetes.service.namespace"  # what serviceSelector sees besides labels
NAME_LABEL = "io.kubernetes.service.name"
WANTED_IPS = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips")  # annotations of a Service


class PoolBlock(Object):
    """A cidr, or addresses from start to stop; stop absent: the one."""

    cidr: str = ""
    start: str = ""
    stop: str = ""


class PoolSpec(Object):
    blocks: list[PoolBlock]
    service_selector: LabelSelector | None = None
    disabled: bool = False  # gives nothing new; what it gave stays
    allow_first_last_ips: Literal["Yes", "No", ""] = msgspec.field(
        default="", name="allowFirstLastIPs"
    )


class CiliumLoadBalancerIPPool(Object):
    metadata: ObjectMeta
    spec: PoolSpec
    api_version: str = written("cilium.io/v2")
    kind: str = written("CiliumLoadBalancerIPPool")
    status: dict[str, Any] = {}

    def takes(self, service: Service) -> bool:
        """Whether its selector means this service; absent: every one."""
        meta = service.metadata
        seen = {**meta.labels, NAMESPACE_LABEL: meta.namespace, NAME_LABEL: meta.name}
        return self.spec.service_selector is None or self.spec.service_selector.matches(seen)

    def ranges(self) -> Iterator[tuple[IPAddress, IPAddress]]:
        """First and last address of each block, those left out that are not to be used."""
        for block in self.spec.blocks:
            if not block.cidr:
                start = ip_address(block.start)
                yield start, ip_address(block.stop) if block.stop else start
                continue
            network = ip_network(block.cidr, strict=False)
            first, last = network[0], network[-1]
            if self.spec.allow_first_last_ips == "No" and network.num_addresses > 2:
                first, last = first + 1, last - 1
            yield first, last


def size(first: IPv4Address | IPv6Address, last: IPv4Address | IPv6Address) -> int:
    return int(last) - int(first) + 1
