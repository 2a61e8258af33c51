"""What another resolver of this host is told, so that it asks ours for the names of ours.

Pure text. Only our zones go our way: everything else stays where the host's administrator has put
it, and ours asks there itself, so a resolver that sent us everything would ask itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.model.datapath import IPAddress

Lines = list[str]
Edge = tuple[IPAddress, int]  # address and port where the world asks


def _systemd_resolved(zones: Sequence[str], device: str) -> Lines:
    domains = " ".join(f"'~{zone}'" for zone in zones)
    return [
        "# systemd-resolved: run these (again after a restart of Sixfold or of the host)",
        f"resolvectl dns {device} {RESOLVER_IPV4} {RESOLVER_IPV6}",
        f"resolvectl domain {device} {domains}",
        f"resolvectl default-route {device} no",
    ]


def _dnsmasq(zones: Sequence[str], _: str) -> Lines:
    servers = [f"server=/{zone}/{RESOLVER_IPV4}" for zone in zones]
    allowed = [f"rebind-domain-ok=/{zones[0]}/"]
    return ["# dnsmasq: /etc/dnsmasq.d/sixfold.conf", *servers, *allowed]


def _unbound(zones: Sequence[str], _: str) -> Lines:
    lines = ["# unbound: /etc/unbound/unbound.conf.d/sixfold.conf", "server:"]
    for zone in zones:
        lines += [f'  domain-insecure: "{zone}"', f'  local-zone: "{zone}" transparent']
    lines.append(f'  private-domain: "{zones[0]}"')
    for zone in zones:
        lines += ["forward-zone:", f'  name: "{zone}"', f"  forward-addr: {RESOLVER_IPV4}"]
    return lines


def _bind(zones: Sequence[str], _: str) -> Lines:
    return [
        "// BIND: named.conf.local; with DNSSEC also validate-except in its options",
        *(
            f'zone "{zone}" {{ type forward; forward only; forwarders {{ {RESOLVER_IPV4}; }}; }};'
            for zone in zones
        ),
    ]


def _coredns(zones: Sequence[str], _: str) -> Lines:
    return [
        "# CoreDNS: Corefile",
        f"{' '.join(zones)} {{",
        f"    forward . {RESOLVER_IPV4} {RESOLVER_IPV6}",
        "}",
    ]


def _resolv_conf(_: Sequence[str], __: str) -> Lines:
    return [
        "# /etc/resolv.conf, first line. Then ours must know whom to ask for other names:",
        "# sixfold up --dns-upstream ADDRESS",
        f"nameserver {RESOLVER_IPV4}",
    ]


WRITERS: Mapping[str, Callable[[Sequence[str], str], Lines]] = MappingProxyType(
    {
        "systemd-resolved": _systemd_resolved,
        "dnsmasq": _dnsmasq,
        "unbound": _unbound,
        "bind": _bind,
        "coredns": _coredns,
        "resolv.conf": _resolv_conf,
    }
)


def configuration(server: str, zones: Sequence[str], device: str) -> Lines:
    """Lines for a resolver of ``WRITERS``; ``zones``: ours, the cluster domain first."""
    return WRITERS[server](zones, device)


def _parent(zone: str, edges: Sequence[Edge]) -> Lines:
    """Records for the zone above: RFC 1034's way, which every resolver of the world follows."""
    glue = [
        f"ns.dns.{zone}. IN {'A' if address.version == 4 else 'AAAA'} {address}"
        for address, _ in edges
    ]
    return [f"; in the zone above {zone}", f"{zone}. IN NS ns.dns.{zone}.", *glue]


def _unbound_stub(zone: str, edges: Sequence[Edge]) -> Lines:
    lines = ["server:", f'  domain-insecure: "{zone}"', f'  local-zone: "{zone}" transparent']
    lines += [f'  private-domain: "{zone}"', "stub-zone:", f'  name: "{zone}"']
    return [*lines, *(f"  stub-addr: {address}@{port}" for address, port in edges)]


def _bind_stub(zone: str, edges: Sequence[Edge]) -> Lines:
    servers = " ".join(f"{address};" for address, _ in edges)
    ports = {port for _, port in edges} - {53}
    note = ["// BIND asks port 53 of a static-stub, whatever you write"] if ports else []
    return [*note, f'zone "{zone}" {{ type static-stub; server-addresses {{ {servers} }}; }};']


def _knot_resolver(zone: str, edges: Sequence[Edge]) -> Lines:
    servers = ", ".join(f"'{address}@{port}'" for address, port in edges)
    return [
        f"trust_anchors.set_insecure({{'{zone}'}})",
        f"policy.add(policy.suffix(policy.STUB({{{servers}}}), policy.todnames({{'{zone}'}})))",
    ]


DELEGATIONS: Mapping[str, Callable[[str, Sequence[Edge]], Lines]] = MappingProxyType(
    {
        "zone": _parent,
        "unbound": _unbound_stub,
        "bind": _bind_stub,
        "knot-resolver": _knot_resolver,
    }
)


def delegation(server: str, zones: Sequence[str], edges: Sequence[Edge]) -> Lines:
    """What an outside resolver is told, so that it asks the edge for these zones."""
    return [line for zone in zones for line in DELEGATIONS[server](zone, edges)]
