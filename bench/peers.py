"""What Sixfold is measured against: two pods' worth of namespaces, and what joins them.

veth      one veth pair, nothing in between: the limit
routed    a host namespace that forwards; no filter, no services
nftables  the same with kube-proxy's scheme: conntrack, a verdict map from service to chain,
          a chain per service and backend with DNAT; allowed pairs in a set, all else dropped
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench import packages
from bench.lab import Lab, inside, ip, run

PORT = 9000
CLIENT, SERVER = "10.66.0.2", "10.66.0.3"
SERVICES_FROM = IPv4Address("10.96.0.0")
NFT_LOAD_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One way from a client to a server; both are namespaces."""

    name: str
    client: Path
    server: Path
    address: str  # what the client dials
    port: int = PORT


def veth(lab: Lab) -> Peer:
    client, server = lab.namespace("veth-a"), lab.namespace("veth-b")
    ip(client, f"link add eth0 type veth peer name eth0 netns {server.name}")
    ip(client, f"addr add {CLIENT}/24 dev eth0", "link set eth0 up")
    ip(server, f"addr add {SERVER}/24 dev eth0", "link set eth0 up")
    return Peer("veth", client, server, SERVER)


def routed(lab: Lab, name: str = "routed") -> Peer:
    host, client, server = (lab.namespace(f"{name}-{which}") for which in "hab")
    forwarding = inside(host, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    run(forwarding)
    for pod, address, device in ((client, CLIENT, "poda"), (server, SERVER, "podb")):
        gateway = str(IPv4Address(address) + (8 << 8))
        ip(host, f"link add {device} type veth peer name eth0 netns {pod.name}")
        ip(host, f"addr add {gateway}/32 dev {device}", f"link set {device} up")
        ip(
            pod,
            f"addr add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {gateway} dev eth0",
            f"route add default via {gateway}",
        )
        ip(host, f"route add {address}/32 dev {device}")
    return Peer(name, client, server, SERVER)


def nftables(lab: Lab, services: int) -> Peer:
    peer = routed(lab, f"nft-{services}")
    host = peer.client.with_name(peer.client.name.removesuffix("-a") + "-h")
    run(inside(host, "nft", "-f", "-"), stdin=ruleset(services), timeout_s=NFT_LOAD_TIMEOUT_S)
    tested = str(SERVICES_FROM + services)  # the last; in a hash it makes no difference
    return Peer(f"nftables, {services:,} services", peer.client, peer.server, tested, 80)


def ruleset(services: int) -> str:
    """kube-proxy's nftables mode without what it has for masquerading: a little favoured."""
    numbers = range(1, services + 1)
    places = {number: str(SERVICES_FROM + number) for number in numbers}
    chains = "\n".join(
        f"chain endpoint-{n} {{ meta l4proto tcp dnat to {SERVER}:{PORT}; }}\n"
        f"chain service-{n} {{ numgen random mod 1 vmap {{ 0 : goto endpoint-{n} }}; }}"
        for n in numbers
    )
    verdicts = ", ".join(f"{places[n]} . tcp . 80 : goto service-{n}" for n in numbers)
    others = ", ".join(
        f"{CLIENT} . {IPv4Address('172.16.0.0') + n} . 443" for n in numbers if n < services
    )
    return f"""
table ip kube-proxy {{
{chains}
map service-ips {{
 type ipv4_addr . inet_proto . inet_service : verdict
 elements = {{ {verdicts} }}
}}
set allowed {{
 type ipv4_addr . ipv4_addr . inet_service
 elements = {{ {CLIENT} . {SERVER} . {PORT}, {others} }}
}}
chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
chain nat-prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
chain forward {{
 type filter hook forward priority filter; policy drop;
 ct state vmap {{ established : accept, related : accept, invalid : drop }}
 ip saddr . ip daddr . th dport @allowed accept
}}
}}
"""


def why_no_nftables() -> str:
    """Install nft(8) if it is missing and we may; else the reason, "" when it is there."""
    return packages.missing({"nft": "nftables"}).get("nft", "")
