"""Which devices of this host face the world?

Pure. Named by the operator, or found: a device with a default route, or with an address that
others can reach. Never loopback, never a device of ours. What is bridged past the host, or
between devices without an address, is not the host's traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sixfold.host.netlink_route import DYING_GROUP, GROUP, IPAddress, Link, Route


def find(
    links: Iterable[Link],
    addresses: Iterable[tuple[int, IPAddress, int]],
    routes: Iterable[Route],
    wanted: Sequence[str] = (),
) -> dict[str, Link]:
    """Uplinks by name.

    wanted  names; ``eth+`` is every name that begins with ``eth``, as in iptables and Cilium.
            What is not there yet is taken when it comes.
    """
    others = [
        link for link in links if link.name != "lo" and link.group not in (GROUP, DYING_GROUP)
    ]
    if wanted:
        return {link.name: link for link in others if any(_fits(link.name, it) for it in wanted)}
    facing = {route.ifindex for route in routes if route.destination.prefixlen == 0}
    facing |= {
        index for index, address, _ in addresses if not address.is_link_local
        if not address.is_loopback
    }  # fmt: skip
    return {link.name: link for link in others if link.index in facing}


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern
