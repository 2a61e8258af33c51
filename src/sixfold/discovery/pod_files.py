"""What a pod finds in ``/etc/resolv.conf`` and ``/etc/hosts``.

Pure: text out. Source: kubelet's ``dnsPolicy: ClusterFirst`` and its managed hosts file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6, Config

NDOTS = 5
SEARCH_MAX = 32  # domains, as Kubernetes limits them


def search_path(config: Config, namespace: str, host_search: Sequence[str] = ()) -> list[str]:
    """Domains that a pod's short names are tried in, in order, each once."""
    domain = config.cluster_domain
    ours = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
    return list(dict.fromkeys((*ours, *host_search)))[:SEARCH_MAX]


def resolv_conf(config: Config, namespace: str, host_search: Sequence[str] = ()) -> str:
    """``/etc/resolv.conf`` of a pod; ``host_search`` are the host's own search domains."""
    search = " ".join(search_path(config, namespace, host_search))
    return (
        f"search {search}\n"
        f"nameserver {RESOLVER_IPV4}\n"
        f"nameserver {RESOLVER_IPV6}\n"
        f"options ndots:{NDOTS}\n"
    )


def hosts_file(
    pod: str,
    namespace: str,
    addresses: Iterable[IPv4Address | IPv6Address],
    *,
    hostname: str = "",
    subdomain: str = "",
    domain: str = "cluster.local",
) -> str:
    """``/etc/hosts`` of a pod; the hostname defaults to the pod's name."""
    names = hostname or pod
    if subdomain:
        names = f"{names}.{subdomain}.{namespace}.svc.{domain}\t{names}"
    return "".join(
        (
            "127.0.0.1\tlocalhost\n",
            "::1\tlocalhost ip6-localhost ip6-loopback\n",
            "fe00::0\tip6-localnet\n",
            "ff02::1\tip6-allnodes\n",
            "ff02::2\tip6-allrouters\n",
            *(f"{address}\t{names}\n" for address in addresses),
        )
    )
