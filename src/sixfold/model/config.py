"""Settings of one Sixfold instance; the defaults are what ``sixfold up`` uses."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from sixfold.model.locality import Here, locality_of
from sixfold.model.mesh import Mtls
from sixfold.model.placement import NODE, Placement

Base = Literal["zero-trust", "kubernetes"]  # what holds where nothing else is said
PodRecords = Literal["disabled", "insecure", "verified"]  # as CoreDNS calls them

RESOLVER_IPV4 = IPv4Address("169.254.20.10")
RESOLVER_IPV6 = IPv6Address("fd00:5f::10")
GATEWAY_IPV4 = IPv4Address("169.254.1.1")
GATEWAY_IPV6 = IPv6Address("fe80::1")
HOST_MAC = "02:5f:00:00:00:01"  # host side of every veth
POD_MAC = "02:5f:00:00:00:02"  # pod side of every veth: redirects need no rewriting


@dataclass(frozen=True, slots=True)
class Config:
    """What an operator may set, by flag or in the state directory."""

    instance: str = "sixfold"  # names the run, state, bpffs and cgroup directories
    node: str = "localhost"
    posture: Base = "zero-trust"
    audit: bool = False  # what policy denies passes, and is told
    trace_calls: bool = False  # tell system calls of pods that meet nothing, too
    mtls: Mtls | None = None  # None: as the posture has it; see mtls_mode
    cluster_domain: str = "cluster.local"
    pod_ipv4: IPv4Network = IPv4Network("10.244.0.0/16")
    pod_ipv6: IPv6Network = IPv6Network("fd00:5f:244::/64")
    service_ipv4: IPv4Network = IPv4Network("10.96.0.0/16")
    service_ipv6: IPv6Network = IPv6Network("fd00:5f:96::/112")
    node_labels: tuple[str, ...] = ()  # "key=value", besides those that every node has
    devices: tuple[str, ...] = ()  # uplinks; "eth+": all that begin so; empty: found
    mtu: int = 0  # of pod interfaces; 0: that of the links with a default route
    ip_reuse_grace_s: float = 300.0
    dns_upstreams: tuple[str, ...] = ()  # empty: the host's /etc/resolv.conf
    dns_stub_domains: tuple[str, ...] = ()  # DOMAIN=IP,IP: asked there in place of upstreams
    catalog_listen: tuple[str, ...] = ()  # ADDRESS:PORT of loopback, or node:PORT
    metrics_address: str = ""  # ADDRESS:PORT of loopback; "": on a unix socket only
    dns_ttl_s: int = 5
    dns_edge: tuple[str, ...] = ()  # ADDRESS:PORT where global names are answered to the world
    dns_edge_zones: tuple[str, ...] = ()  # told there: services with an address outside
    trust_domain: str = "cluster.local"  # of SPIFFE IDs
    svid_ttl_s: float = 3600.0  # lifetime of X.509-SVIDs
    connection_grace_s: float = 86_400.0  # a connection may outlive its certificates by that
    bundle_endpoint: str = ""  # ADDRESS:PORT where the trust bundle is told; "": nowhere
    bundle_endpoint_pem: str = ""  # its certificates and key; "": an SVID of its own
    jwt_issuer: str = ""  # URL of the OpenID provider that this is, there; "": none
    ca_passphrase_file: str = ""  # first line: encrypts the authorities' keys; "": 0600 is all
    placement: Placement = NODE  # of pods' proxies: one for all, or one for each
    proxy_concurrency: int = 0  # of a proxy, threads; 0: the node's one for each CPU, others one
    proxy_drain_s: float = 0.0  # so long a replaced one may keep what is open; 0: until its end
    ca_vault_address: str = ""  # URL of the Vault or OpenBao that signs our intermediate; "": none
    ca_vault_mount: str = "pki"  # path of its PKI secrets engine
    ca_vault_token_file: str = ""  # read whenever it is asked
    ca_vault_cacert: str = ""  # PEM file that verifies it; "": what verifies the web
    dns_sd_domain: str = ""  # where services can be browsed for (RFC 6763); "" is nowhere
    dns_pods: PodRecords = "disabled"  # 192-0-2-1.ns.pod.cluster.local
    fqdn_min_ttl_s: float = 10.0  # for so long at least policy lets a resolved name through
    ipblock_matches_pods: bool = True  # NetworkPolicy ipBlock applies to pod addresses too

    @property
    def service_networks(self) -> frozenset[IPv4Network | IPv6Network]:
        """Where cluster addresses are from."""
        return frozenset((self.service_ipv4, self.service_ipv6))

    @property
    def mtls_mode(self) -> Mtls:
        """Of TCP between pods, where no PeerAuthentication says otherwise."""
        return self.mtls or ("strict" if self.posture == "zero-trust" else "disabled")

    @property
    def mtls_by(self) -> str:
        """Who says so."""
        return f"--mtls {self.mtls}" if self.mtls else f"posture {self.posture}"

    @property
    def labels(self) -> dict[str, str]:
        """Of the node: what kubelet gives every one, and what the operator gave this one."""
        given = dict(text.split("=", 1) for text in self.node_labels)
        return {
            "kubernetes.io/hostname": self.node,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            **given,
        }

    @property
    def here(self) -> Here:
        """Where the node is, as its labels say."""
        return Here(self.node, locality_of(self.labels))

    @property
    def host_ipv4(self) -> IPv4Address:
        """The node's own address towards its pods: the first of the pool."""
        return self.pod_ipv4[1]

    @property
    def host_ipv6(self) -> IPv6Address:
        return self.pod_ipv6[1]

    def answers(self, hostname: str) -> bool:
        """Whether a plain name lies in a zone that the cluster resolver answers by itself."""
        zones = filter(None, (self.cluster_domain.lower(), self.dns_sd_domain))
        return any(f".{hostname}".endswith(f".{zone}") for zone in zones)


DEFAULTS = Config()
