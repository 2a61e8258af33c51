"""The way out: pods reach the world under the host's address, and nobody gets in by it.

One nftables table of our own, ``inet <instance>``; written in one transaction, so there is no
moment without it. Nothing of anybody else's table is read or changed.

  prerouting   from the host's or the resolver's own address, but not from the host: dropped.
               Linux sees to that for IPv4 only, and policy trusts both.
  postrouting  from a pod address, to no pod address, out of a device that is not ours:
               masquerade. Pod to pod never comes here: the datapath redirects it. And what
               the datapath has marked: from a client outside to a backend that is no pod.
  forward      only where forwarding was off before us: the devices of that day forward
               nothing to each other, as before, but what is marked, and what is said back.
               Devices that came later are not our business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import ip_network

from sixfold.host import netlink_nft as nft
from sixfold.host.netlink import NETLINK_NETFILTER, Netlink, NetlinkError, Request
from sixfold.host.netlink_route import GROUP
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6, Config
from sixfold.model.datapath import IPNetwork
from sixfold.model.service import NODE_PORTS

UPLINKS = "uplinks"
MARK_RELAYED = 0x08000000  # bpf/sixfold.h has the same
RELAY_PORTS = range(NODE_PORTS.stop, 65536)  # an answer must not look like a dialled node port


class Masquerade:
    """The table of one instance."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._table = config.instance
        self._netlink = Netlink(NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def setup(self, uplinks: Sequence[str]) -> list[str]:
        """Make the table as it should be, if it is not; returns what was done, for the log.

        uplinks  devices that must not forward to each other; none when the host was a router
        """
        rules = self._rules(uplinks)
        wanted = [(chain, comment) for chain, comment, _ in rules]
        if sorted(nft.comments(self._netlink, self._table)) == sorted(wanted):
            return []
        nft.transaction(self._netlink, self._requests(uplinks, rules))
        return [f"nft table inet {self._table}"]

    def remove(self) -> None:
        """Remove the table; absent is fine."""
        table = self._table
        nft.transaction(self._netlink, [nft.add_table(table), nft.delete_table(table)])

    def _requests(
        self, uplinks: Sequence[str], rules: list[tuple[str, str, tuple[bytes, ...]]]
    ) -> list[Request]:
        table = self._table
        return [
            nft.add_table(table),  # so that the deletion finds one
            nft.delete_table(table),
            nft.add_table(table),
            nft.add_chain(table, "prerouting", "filter", nft.PREROUTING, nft.PRIORITY_RAW),
            nft.add_chain(table, "postrouting", "nat", nft.POSTROUTING, nft.PRIORITY_SRCNAT),
            nft.add_chain(table, "forward", "filter", nft.FORWARD, nft.PRIORITY_FILTER),
            *nft.add_device_set(table, UPLINKS, uplinks),
            *(nft.add_rule(table, chain, comment, *parts) for chain, comment, parts in rules),
        ]

    def _rules(self, uplinks: Sequence[str]) -> list[tuple[str, str, tuple[bytes, ...]]]:
        """(chain, comment, expressions); a comment ends in a digest of its rule's content."""
        config = self._config
        ours = (config.host_ipv4, RESOLVER_IPV4, config.host_ipv6, RESOLVER_IPV6)
        rules = [("prerouting", f"{it} from elsewhere", _guard(ip_network(it))) for it in ours]
        rules += [
            ("postrouting", f"pods of {pool} to the world", _way_out(pool))
            for pool in (config.pod_ipv4, config.pod_ipv6)
        ]
        rules.append(("postrouting", "from outside to backends outside", _RELAYED))
        if uplinks:
            comment = f"no router between {' '.join(uplinks)}"[:200]
            rules.append(("forward", comment, _NO_ROUTER))
        return [
            (chain, f"{comment} #{_digest(parts, uplinks)}", parts)
            for chain, comment, parts in rules
        ]


_NO_ROUTER = (
    nft.device_in_set(nft.META_IIFNAME, UPLINKS),
    nft.device_in_set(nft.META_OIFNAME, UPLINKS),
    nft.marked(MARK_RELAYED, nft.EQUAL),
    nft.not_source_natted(),
    nft.drop(),
)
_RELAYED = (nft.marked(MARK_RELAYED), nft.masquerade(RELAY_PORTS))


def _guard(source: IPNetwork) -> tuple[bytes, ...]:
    return (
        nft.family_is(source.version),
        nft.device_group(nft.META_IIFGROUP, GROUP, nft.NOT_EQUAL),
        nft.device_is(nft.META_IIFNAME, "lo", nft.NOT_EQUAL),
        nft.source_in(source),
        nft.drop(),
    )


def _way_out(pool: IPNetwork) -> tuple[bytes, ...]:
    return (
        nft.family_is(pool.version),
        nft.device_group(nft.META_OIFGROUP, GROUP, nft.NOT_EQUAL),
        nft.source_in(pool),
        nft.destination_not_in(pool),
        nft.masquerade(),
    )


def available() -> str:
    """What is missing for masquerade, or ""."""
    netlink = Netlink(NETLINK_NETFILTER)
    try:
        nft.comments(netlink, "sixfold-probe")
    except NetlinkError as error:
        return str(error)
    finally:
        netlink.close()
    return ""


def _digest(parts: tuple[bytes, ...], uplinks: Sequence[str]) -> str:
    return hashlib.sha256(b"".join(parts) + repr(tuple(uplinks)).encode()).hexdigest()[:8]
