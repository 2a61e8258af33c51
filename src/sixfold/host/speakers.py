"""What the kernel is told of processes that their pods' proxies may not speak for."""

from __future__ import annotations

from collections.abc import Mapping

from sixfold.host import layout
from sixfold.host.changes import Changes
from sixfold.model.endpoint import EndpointId
from sixfold.model.mesh import SPEAKERS_MAX, Speakers

ANY = 0xFFFFFFFF  # no user and no group has that number


def advance(before: frozenset[Speakers], after: frozenset[Speakers], changes: Changes) -> None:
    """The writes that lead from one state to another."""
    if before != after:
        gone, new = dict(map(pack, before - after)), dict(map(pack, after - before))
        changes.replace("speakers", gone, new)


def read(packed: Mapping[bytes, bytes]) -> frozenset[Speakers]:
    """What the kernel has."""
    return frozenset(unpack(key, value) for key, value in packed.items())


def pack(one: Speakers) -> tuple[bytes, bytes]:
    """Key and value."""
    rest = [0] * (SPEAKERS_MAX - len(one.owners))
    users = [ANY if user is None else user for user, _ in one.owners]
    groups = [ANY if group is None else group for _, group in one.owners]
    value = layout.SPEAKERS.pack(len(one.owners), *users, *rest, *groups, *rest)
    return layout.U32.pack(one.endpoint), value


def unpack(key: bytes, value: bytes) -> Speakers:
    count, *numbers = layout.SPEAKERS.unpack(value)
    known = [None if one == ANY else one for one in numbers]
    owners = tuple(zip(known[:count], known[SPEAKERS_MAX : SPEAKERS_MAX + count], strict=True))
    return Speakers(EndpointId(layout.U32.unpack(key)[0]), owners)
