"""What is wrong with the ways into a Service from outside, and with pools of addresses for them.

Source: core/v1 validation of Service; cilium.io LB IPAM.
"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.path import Finding, Path
from sixfold.model.pool import WANTED_IPS, CiliumLoadBalancerIPPool, PoolBlock
from sixfold.model.service import NODE_PORTS, Service, ServiceSpec

_SPEC: Path = ("spec",)
_BALANCERS_ONLY = "means nothing without type LoadBalancer; remove it"
# Annotations that would widen or turn around who gets in: not to be passed over in silence.
_REFUSED = {
    "lbipam.cilium.io/sharing-key": "an address belongs to one service; remove it",
    "io.cilium/lb-ipam-sharing-key": "an address belongs to one service; remove it",
    "service.cilium.io/type": "a service has the ways in that its type says; remove it",
    "service.beta.kubernetes.io/load-balancer-source-ranges": "give "
    "spec.loadBalancerSourceRanges in its place",
}
_RANGES_POLICY = "service.cilium.io/src-ranges-policy"


def ways_in(obj: Service) -> Iterator[Finding]:
    """Findings about node ports, load balancer and external addresses."""
    spec = obj.spec
    outside = spec.type in ("NodePort", "LoadBalancer")
    if spec.headless and outside:
        yield Finding((*_SPEC, "clusterIP"), f'"None" is not for type {spec.type}; remove it')
    yield from _node_ports(spec)
    yield from _external(spec)
    if spec.external_traffic_policy and not (outside or spec.external_ips):
        message = "means nothing without type NodePort or LoadBalancer, or externalIPs; remove it"
        yield Finding((*_SPEC, "externalTrafficPolicy"), message)
    yield from _balancer(spec)
    yield from _annotations(obj)


def pool(obj: CiliumLoadBalancerIPPool) -> Iterator[Finding]:
    """Findings about blocks; that pools do not overlap is for whoever knows the others."""
    path: Path = ("spec", "blocks")
    if not obj.spec.blocks:
        yield Finding(path, "no addresses to give; add a block")
    for index, block in enumerate(obj.spec.blocks):
        yield from _block((*path, index), block)


def _node_ports(spec: ServiceSpec) -> Iterator[Finding]:
    seen: dict[tuple[int, str], int] = {}
    yield from _health_port(spec)
    for index, port in enumerate(spec.ports):
        number, here = port.node_port, (*_SPEC, "ports", index, "nodePort")
        if not number:
            continue
        if spec.type not in ("NodePort", "LoadBalancer"):
            message = "means nothing without type NodePort or LoadBalancer; remove it"
            yield Finding(here, message, also=((*_SPEC, "type"),))
        elif number not in NODE_PORTS:
            yield Finding(here, _not_in_range(number))
        elif (first := seen.setdefault((number, port.protocol), index)) != index:
            yield Finding(here, f"{number}/{port.protocol} is ports[{first}] too; give another")


def _health_port(spec: ServiceSpec) -> Iterator[Finding]:
    number, here = spec.health_check_node_port, (*_SPEC, "healthCheckNodePort")
    if not number:
        return
    if spec.type != "LoadBalancer" or spec.external_traffic_policy != "Local":
        message = "means nothing without type LoadBalancer and externalTrafficPolicy Local"
        yield Finding(here, f"{message}; remove it", also=((*_SPEC, "externalTrafficPolicy"),))
    elif number not in NODE_PORTS:
        yield Finding(here, _not_in_range(number))
    elif any(number == port.node_port for port in spec.ports):
        yield Finding(here, f"{number} is a nodePort of this service, too; give another")


def _not_in_range(number: int) -> str:
    range_ = f"give {NODE_PORTS[0]} to {NODE_PORTS[-1]}"
    return f"{number} is not in the range of node ports; {range_}"


def _external(spec: ServiceSpec) -> Iterator[Finding]:
    path = (*_SPEC, "externalIPs")
    if spec.external_ips and (spec.headless or spec.type == "ExternalName"):
        yield Finding(path, "a service without a cluster address has none; remove it")
    for index, text in enumerate(spec.external_ips):
        yield from _reachable((*path, index), text)


def _balancer(spec: ServiceSpec) -> Iterator[Finding]:
    given = {
        "loadBalancerIP": spec.load_balancer_ip,
        "loadBalancerClass": spec.load_balancer_class,
        "loadBalancerSourceRanges": spec.load_balancer_source_ranges,
        "allocateLoadBalancerNodePorts": spec.allocate_load_balancer_node_ports is not None,
    }
    if spec.type != "LoadBalancer":
        for name, value in given.items():
            if value:
                yield Finding((*_SPEC, name), _BALANCERS_ONLY, also=((*_SPEC, "type"),))
        return
    if spec.load_balancer_ip:
        yield from _reachable((*_SPEC, "loadBalancerIP"), spec.load_balancer_ip)
    for index, text in enumerate(spec.load_balancer_source_ranges):
        parsed = names.cidr(text.strip(), lenient=False)
        if isinstance(parsed, str):
            yield Finding((*_SPEC, "loadBalancerSourceRanges", index), parsed)


def _annotations(obj: Service) -> Iterator[Finding]:
    for key, value in obj.metadata.annotations.items():
        here: Path = ("metadata", "annotations", key)
        if key in _REFUSED:
            yield Finding(here, f"not supported: {_REFUSED[key]}")
        elif key == _RANGES_POLICY and value != "allow":
            yield Finding(here, f"{names.quoted(value)} is not supported; give allow, or remove it")
        elif key in WANTED_IPS:
            for text in value.split(","):
                yield from _reachable(here, text.strip())


def _reachable(path: Path, text: str) -> Iterator[Finding]:
    parsed = names.address(text)
    if isinstance(parsed, str):
        yield Finding(path, f"{parsed}; give one")
    elif names.is_special(parsed):
        yield Finding(path, f"{text} cannot be dialled from outside; give another address")


def _block(path: Path, block: PoolBlock) -> Iterator[Finding]:
    if bool(block.cidr) == bool(block.start) or (block.stop and block.cidr):
        yield Finding(path, "give a cidr, or start and stop")
        return
    if block.cidr:
        network = names.cidr(block.cidr)
        if isinstance(network, str):
            yield Finding((*path, "cidr"), network)
        elif names.is_special(network.network_address):
            yield Finding((*path, "cidr"), f"{network} cannot be dialled from outside")
        return
    yield from _reachable((*path, "start"), block.start)
    if block.stop:
        yield from _reachable((*path, "stop"), block.stop)
        first, last = names.address(block.start), names.address(block.stop)
        if isinstance(first, str) or isinstance(last, str):
            return
        if first.version != last.version or int(first) > int(last):
            yield Finding((*path, "stop"), f"{block.stop} does not come after {block.start}")
