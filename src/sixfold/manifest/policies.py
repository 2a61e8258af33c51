"""What is wrong with a NetworkPolicy, beyond its shape. Source: networking/v1 validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

from sixfold.manifest import names
from sixfold.manifest.metadata import said, selector
from sixfold.manifest.path import Finding, Path
from sixfold.model.datapath import IPNetwork
from sixfold.model.policy import IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort


def policy(obj: NetworkPolicy, *, offline: bool = False) -> Iterator[Finding]:
    """Findings about the spec."""
    yield from selector(("spec", "podSelector"), obj.spec.pod_selector)
    for index, rule in enumerate(obj.spec.ingress or ()):
        yield from _rule(("spec", "ingress", index), "from", rule.from_, rule.ports, offline)
    for index, egress in enumerate(obj.spec.egress or ()):
        yield from _rule(("spec", "egress", index), "to", egress.to, egress.ports, offline)


def _rule(
    path: Path,
    side: str,
    peers: Sequence[NetworkPolicyPeer] | None,
    ports: Sequence[NetworkPolicyPort] | None,
    offline: bool,
) -> Iterator[Finding]:
    for index, peer in enumerate(peers or ()):
        yield from _peer((*path, side, index), peer, offline)
    for index, port in enumerate(ports or ()):
        yield from _port((*path, "ports", index), port)


def _peer(path: Path, peer: NetworkPolicyPeer, offline: bool) -> Iterator[Finding]:
    selects = peer.pod_selector is not None or peer.namespace_selector is not None
    if peer.ip_block is None and not selects:
        wanted = "give podSelector, namespaceSelector or ipBlock; podSelector: {} is everyone here"
        yield Finding(path, f"an empty peer; {wanted}")
    if peer.ip_block is not None and selects:
        yield Finding(path, "ipBlock stands alone; make the selector an item of its own")
    if peer.pod_selector is not None:
        yield from selector((*path, "podSelector"), peer.pod_selector)
    if peer.namespace_selector is not None:
        yield from selector((*path, "namespaceSelector"), peer.namespace_selector)
    if peer.ip_block is not None:
        yield from _block((*path, "ipBlock"), peer.ip_block, offline)


def _block(path: Path, block: IPBlock, offline: bool) -> Iterator[Finding]:
    outer = names.cidr(block.cidr, lenient=offline)
    if isinstance(outer, str):
        yield Finding((*path, "cidr"), outer)
    for index, text in enumerate(block.except_):
        here = (*path, "except", index)
        inner = names.cidr(text, lenient=offline)
        if isinstance(inner, str):
            yield Finding(here, inner)
        elif isinstance(outer, str):
            continue
        elif not _strictly_inside(inner, outer):
            message = f"{text} is not a part of {outer}; give a smaller block inside it"
            yield Finding(here, message, also=((*path, "cidr"),))


def _strictly_inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    match inner, outer:
        case (IPv4Network(), IPv4Network()) | (IPv6Network(), IPv6Network()):
            return inner != outer and inner.subnet_of(outer)  # type: ignore[arg-type]
    return False


def _port(path: Path, port: NetworkPolicyPort) -> Iterator[Finding]:
    if port.port is not None:
        yield from said((*path, "port"), names.port(port.port))
    if port.end_port is None:
        return
    here, also = (*path, "endPort"), ((*path, "port"),)
    if not isinstance(port.port, int):
        yield Finding(here, "endPort needs a number in port; add the first port", also)
    elif port.end_port < port.port:
        message = f"{port.end_port} is below port {port.port}; give {port.port} to 65535"
        yield Finding(here, message, also)
    else:
        yield from said(here, names.port_number(port.end_port))
