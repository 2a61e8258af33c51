"""Who is behind a headless service now, for who still dials an address that is not of it any more?

Pure. Only where a pod asks for redirects (``model/discovery.py``). A successor frontend stands at
an address of nobody's, made of the service's number: 240.0.0.0/4 and 100::/64. The kernel looks it
up instead of the retired address (``bpf/lib/freshness.h``), at the port that the client dialled,
which is the backends' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from sixfold.balancing.members import IPAddress, Member, families, target_port
from sixfold.balancing.ways import Way
from sixfold.model.service import IPFamily, Service, ServicePort

IPV4, IPV6 = int(IPv4Address("240.0.0.0")), int(IPv6Address("100::"))


def successor_ways(service: Service, members: Sequence[Member], number: int) -> Iterator[Way]:
    """One for each family; ``number`` is the service's."""
    ports: dict[tuple[int, str], ServicePort] = {}
    for port in service.spec.ports:
        for member in members:
            if (target := target_port(port, member)) is not None:
                ports.setdefault((target, port.protocol), port)
    dialled = tuple((target, port) for (target, _), port in sorted(ports.items(), key=_key))
    for family in families(service) if dialled else ():
        yield Way("ClusterIP", _address(number, family), dialled)


def _key(item: tuple[tuple[int, str], ServicePort]) -> tuple[int, str]:
    return item[0]


def _address(number: int, family: IPFamily) -> IPAddress:
    return IPv4Address(IPV4 | number) if family == "IPv4" else IPv6Address(IPV6 | number)
