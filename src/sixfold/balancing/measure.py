"""How many backends has each service, in which state, and how busy are they? For metrics.

Pure, and quick: one pass over the services and their members, for all of them at once.
``show.py`` says more, of a few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sixfold.balancing.labels import LabelIndex
from sixfold.balancing.members import Member, panics, target_port
from sixfold.balancing.show import state_of
from sixfold.balancing.written import by_service, written_members
from sixfold.model.datapath import PROTOCOL_NUMBERS, IPAddress
from sixfold.model.seen import NOTHING_SEEN
from sixfold.model.service import Service
from sixfold.model.world import World

Loads = Mapping[tuple[IPAddress, int, int], tuple[int, int]]  # by address, port, protocol
Backend = tuple[str, str, str]  # of a service: port, protocol, endpoint
NONE = (0, 0)


class Measured(NamedTuple):
    """One service.

    panic  all are used, because too few are healthy
    loads  connections to each backend of each port, of both families: open now, and ever
    """

    namespace: str
    name: str
    states: Mapping[str, int]
    panic: bool
    loads: Mapping[Backend, tuple[int, int]]


def measure(world: World, loads: Loads) -> Iterator[Measured]:
    """Every service that has endpoints of its own, in no order."""
    index, written = LabelIndex.of(world.endpoints), by_service(world.slices)
    for key, service in world.services.items():
        if service.spec.type == "ExternalName":
            continue
        seen = world.seen.get(key, NOTHING_SEEN)
        members: list[Member] = [
            *index.selected_by(service),
            *written_members(written.get(key, ())),
        ]
        yield Measured(
            service.metadata.namespace,
            service.metadata.name,
            Counter(state_of(service, member, seen) for member in members),
            panics(service, members, seen),
            {} if service.spec.headless else _loads(service, members, loads),
        )


def _loads(
    service: Service, members: Sequence[Member], loads: Loads
) -> dict[Backend, tuple[int, int]]:
    found: dict[Backend, tuple[int, int]] = {}
    for port in service.spec.ports:
        protocol, text = PROTOCOL_NUMBERS[port.protocol], str(port.port)
        for member in members:
            number = target_port(port, member)
            if number is None:
                continue
            backend = (text, port.protocol, member.key)
            active, total = found.get(backend, NONE)  # addresses of one slice have one name
            for address in (member.ipv4, member.ipv6):
                if address is not None and (load := loads.get((address, number, protocol))):
                    active, total = active + load[0], total + load[1]
            found[backend] = (active, total)
    return found
