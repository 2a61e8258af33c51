"""Balancers in front of the same four servers: ours, kube-proxy's two ways, and two proxies.

All stand on one forwarding host between a client's and a server's namespace. The service that is
dialled is the last of many. What the others have behind them nobody meets on the way, so with
nftables and iptables they share their chains: a packet's way is kube-proxy's, loading is not
measured. A proxy has no table of services: it listens once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from bench import packages
from bench.lab import Lab, inside, ip, run
from bench.peers import CLIENT, SERVER, Peer, routed
from bench.schedule import alone
from sixfold.host import netns
from sixfold.host.datapath import KernelDatapath
from sixfold.model.algorithm import Algorithm
from sixfold.model.config import HOST_MAC, POD_MAC
from sixfold.model.datapath import (
    ALLOW,
    ANY_PROTOCOL,
    EGRESS,
    INGRESS,
    Backend,
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import FIRST_ALLOCATED, Identity

PORTS = (9000, 9001, 9002, 9003)  # a server process each
BACKENDS, TCP, LOAD_TIMEOUT_S = len(PORTS), 6, 60.0
FIRST_SERVICE, FIRST_BACKEND = IPv4Address("10.96.0.0"), IPv4Address("10.128.0.0")
PACKAGES = {
    "nft": "nftables",
    "iptables-legacy-restore": "iptables",
    "haproxy": "haproxy",
    "nginx": "nginx-light libnginx-mod-stream",
}
MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def crowd(services: int) -> dict[Frontend, FrontendEntry]:
    """Services with four backends each, all different."""
    return {
        Frontend.at(FIRST_SERVICE + n, 80, TCP): FrontendEntry(
            n + 1,
            tuple(Backend.at(FIRST_BACKEND + BACKENDS * n + b, 8080) for b in range(BACKENDS)),
        )
        for n in range(1, services + 1)
    }


def sixfold(lab: Lab, services: int) -> Peer:
    """The kernel's part alone, filled as the agent fills it; policy of both sides is judged."""
    name = f"ours-{services}"
    peer = routed(lab, name)
    host = _host(peer)
    instance = f"{lab.prefix}{name}"
    lab.stack.callback(KernelDatapath.remove, instance)
    for pod, device in ((peer.client, "poda"), (peer.server, "podb")):
        address = CLIENT if device == "poda" else SERVER
        gateway = IPv4Address(address) + (8 << 8)
        ip(host, f"link set {device} address {HOST_MAC}")
        ip(
            pod,
            f"link set eth0 address {POD_MAC}",
            f"neigh replace {gateway} lladdr {HOST_MAC} dev eth0 nud permanent",
        )
    with netns.inside(host):
        datapath = KernelDatapath.open(instance)
        lab.stack.callback(datapath.close)
        ends = [
            EndpointEntry(
                socket.if_nametoindex(device),
                EndpointId(number),
                Identity(FIRST_ALLOCATED + number),
                IPv4Address(address),
                None,
                netns_cookie=netns.run_inside(path, netns.cookie),
            )
            for number, (device, address, path) in enumerate(
                (("poda", CLIENT, peer.client), ("podb", SERVER, peer.server)), 1
            )
        ]
        for end in ends:
            datapath.attach(end.ifindex)
        frontends = crowd(services - 1)
        tested = Frontend.at(FIRST_SERVICE + services, 80, TCP)
        servers = tuple(Backend.at(IPv4Address(SERVER), port) for port in PORTS)
        frontends[tested] = FrontendEntry(services, servers, Algorithm.LEAST_CONNECTIONS)
        everything = PolicyTable.of(
            [
                PolicyEntry(direction, Identity(0), ANY_PROTOCOL, 0, 0, ALLOW, 1)
                for direction in (INGRESS, EGRESS)
            ],
            2,
            3,
        )
        datapath.apply(
            Datapath(
                endpoints={end.ifindex: end for end in ends},
                policies={end.id: everything for end in ends},
                frontends=frontends,
                host_netns_cookie=netns.cookie(),
            )
        )
    return _dialled(peer, f"Sixfold, {services:,}", tested.address)


def nftables(lab: Lab, services: int) -> Peer:
    peer = routed(lab, f"nft-{services}")
    run(inside(_host(peer), "nft", "-f", "-"), stdin=_ruleset(services), timeout_s=LOAD_TIMEOUT_S)
    return _dialled(peer, f"nftables, {services:,}", FIRST_SERVICE + services)


def _ruleset(services: int) -> str:
    """kube-proxy's nftables mode, without what it has for masquerading: a little favoured."""
    places = {n: f"{FIRST_SERVICE + n} . tcp . 80" for n in range(1, services + 1)}
    verdicts = ", ".join(
        f"{place} : goto service-{'tested' if n == services else 'other'}"
        for n, place in places.items()
    )
    servers = [f"{SERVER}:{port}" for port in PORTS]
    others = [f"{FIRST_BACKEND + number}:8080" for number in range(BACKENDS)]
    chains = []
    for name, backends in (("tested", servers), ("other", others)):
        chains += [
            f"chain endpoint-{name}-{number} {{ meta l4proto tcp dnat to {backend}; }}"
            for number, backend in enumerate(backends)
        ]
        ways = ", ".join(f"{number} : goto endpoint-{name}-{number}" for number in range(BACKENDS))
        chains.append(f"chain service-{name} {{ numgen random mod {BACKENDS} vmap {{ {ways} }}; }}")
    return "\n".join(
        [
            "table ip kube-proxy {",
            *chains,
            "map service-ips {",
            "type ipv4_addr . inet_proto . inet_service : verdict",
            f"elements = {{ {verdicts} }}",
            "}",
            "chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }",
            "chain nat-prerouting {",
            "type nat hook prerouting priority dstnat; policy accept; jump services;",
            "}",
            "}",
        ]
    )


def iptables(lab: Lab, services: int) -> Peer:
    peer = routed(lab, f"ipt-{services}")
    command = inside(_host(peer), packages.which("iptables-legacy-restore"))
    run(command, stdin=_rules(services), timeout_s=LOAD_TIMEOUT_S)
    return _dialled(peer, f"iptables, {services:,}", FIRST_SERVICE + services)


def _rules(services: int) -> str:
    """kube-proxy's iptables mode: a rule a service, one after the other; backends by chance."""
    lines = ["*nat", ":KUBE-SERVICES - [0:0]"]
    servers = [f"{SERVER}:{port}" for port in PORTS]
    others = [f"{FIRST_BACKEND + number}:8080" for number in range(BACKENDS)]
    for name, backends in (("TESTED", servers), ("OTHER", others)):
        lines.append(f":KUBE-SVC-{name} - [0:0]")
        lines += [f":KUBE-SEP-{name}-{number} - [0:0]" for number in range(BACKENDS)]
        for number, backend in enumerate(backends):
            left = BACKENDS - number
            chance = f"-m statistic --mode random --probability {1 / left:.10f} "
            target = f"-j KUBE-SEP-{name}-{number}"
            lines += [
                f"-A KUBE-SVC-{name} {chance if left > 1 else ''}{target}",
                f"-A KUBE-SEP-{name}-{number} -p tcp -m tcp -j DNAT --to-destination {backend}",
            ]
    lines.append("-A PREROUTING -j KUBE-SERVICES")
    lines += [
        f"-A KUBE-SERVICES -d {FIRST_SERVICE + n}/32 -p tcp -m tcp --dport 80 "
        f"-j KUBE-SVC-{'TESTED' if n == services else 'OTHER'}"
        for n in range(1, services + 1)
    ]
    return "\n".join([*lines, "COMMIT", ""])


def haproxy(lab: Lab) -> Peer:
    servers = "\n".join(f"    server s{port} {SERVER}:{port}" for port in PORTS)
    settings = f"""
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen service
    bind *:80
    balance leastconn
{servers}
"""
    return _proxy(lab, "haproxy", settings, lambda path: ["-db", "-f", path])


def nginx(lab: Lab) -> Peer:
    servers = "\n".join(f"        server {SERVER}:{port};" for port in PORTS)
    settings = f"""
load_module {MODULE};
daemon off;
master_process off;
error_log stderr crit;
pid {lab.directory}/nginx.pid;
events {{ worker_connections 8000; }}
stream {{
    upstream service {{
        least_conn;
{servers}
    }}
    server {{
        listen 80 backlog=1024;
        tcp_nodelay on;
        proxy_pass service;
    }}
}}
"""
    return _proxy(lab, "nginx", settings, lambda path: ["-c", path])


def _proxy(lab: Lab, name: str, settings: str, options: Callable[[str], list[str]]) -> Peer:
    """One thread, on the CPU that everybody shares; nothing logged."""
    peer = routed(lab, name)
    path = lab.directory / f"{name}.conf"
    path.write_text(settings)
    lab.spawn(_host(peer), *alone(packages.which(name), *options(str(path))))
    gateway = IPv4Address(CLIENT) + (8 << 8)
    return _dialled(peer, name, gateway)


def _host(peer: Peer) -> Path:
    """The namespace between client and server of a routed peer."""
    return peer.client.with_name(peer.client.name.removesuffix("-a") + "-h")


def _dialled(peer: Peer, name: str, address: IPv4Address) -> Peer:
    return Peer(name, peer.client, peer.server, str(address), 80)
