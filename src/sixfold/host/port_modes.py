"""What the kernel is told of the mesh: one line for each port that has a mode of its own."""

from __future__ import annotations

from collections.abc import Mapping

from sixfold.host import layout
from sixfold.host.changes import Changes
from sixfold.model.endpoint import EndpointId
from sixfold.model.mesh import Mode, PortMode

MESH, IS_IN_USE = map(layout.U32.pack, (5, 1))  # RUNTIME_MESH


def advance(before: frozenset[PortMode], after: frozenset[PortMode], changes: Changes) -> None:
    """The writes that lead from one state to another.

    A mesh that was in use stays so: connections outlive the modes they were opened under.
    """
    if after and not before:
        changes.put("runtime", MESH, IS_IN_USE)
    if before != after:
        changes.replace("modes", dict(map(pack, before - after)), dict(map(pack, after - before)))


def read(packed: Mapping[bytes, bytes], orphans: Changes) -> frozenset[PortMode]:
    """What the kernel has; nonsense is to be deleted."""
    lines = {key: unpack(key, value) for key, value in packed.items()}
    for key, line in lines.items():
        if line is None:
            orphans.delete("modes", key)
    return frozenset(line for line in lines.values() if line is not None)


def pack(line: PortMode) -> tuple[bytes, bytes]:
    """Key and value."""
    return (
        layout.PORT_MODE_KEY.pack(line.endpoint, layout.pack_port(line.port)),
        layout.PORT_MODE.pack(line.ifindex, line.mode, line.looked_into, line.looks_out),
    )


def unpack(key: bytes, value: bytes) -> PortMode | None:
    """None: somebody wrote nonsense."""
    endpoint, port = layout.PORT_MODE_KEY.unpack(key)
    ifindex, mode, looked_into, looks_out = layout.PORT_MODE.unpack(value)
    if mode not in [*Mode]:
        return None
    place = EndpointId(endpoint), layout.unpack_port(port)
    return PortMode(*place, Mode(mode), ifindex, bool(looked_into), bool(looks_out))
