"""Whose connections are to be cut because nobody answers them, of backends that are no pods.

Pure. An endpoint that its slice does not list any more is gone: what it had is cut. One that is
listed but not healthy keeps its TCP connections, which may only be slow and have timeouts of their
own; connected UDP has none, and would send there for ever, so it is cut and dials anew. An
endpoint that terminates keeps all it has. Unconnected UDP is picked anew by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sixfold.balancing.members import address_of, receivers, target_port
from sixfold.balancing.written import by_service, written_members
from sixfold.model.datapath import PROTOCOL_NUMBERS, IPAddress
from sixfold.model.seen import NOTHING_SEEN
from sixfold.model.world import World

Place = tuple[IPAddress, int, int]  # address, port, protocol
UDP = PROTOCOL_NUMBERS["UDP"]


def places_in_use(world: World) -> frozenset[Place]:
    """Where connections through services to written endpoints may go on."""
    found: set[Place] = set()
    for key, slices in by_service(world.slices).items():
        if (service := world.services.get(key)) is None:
            continue
        members = written_members(slices)
        seen = world.seen.get(key, NOTHING_SEEN)
        healthy = {id(one) for one in receivers(service, members, seen)}
        for member in members:
            for port in service.spec.ports:
                protocol, number = PROTOCOL_NUMBERS[port.protocol], target_port(port, member)
                if protocol == UDP and id(member) not in healthy and not member.terminating:
                    continue
                address = address_of(member, "IPv4") or address_of(member, "IPv6")
                if address is not None and number is not None:
                    found.add((address, number, protocol))
    return frozenset(found)


def by_address(places: Iterable[Place]) -> Mapping[IPAddress, set[tuple[int, int]]]:
    """Port and protocol of places, by address."""
    found: dict[IPAddress, set[tuple[int, int]]] = {}
    for address, port, protocol in places:
        found.setdefault(address, set()).add((port, protocol))
    return found
