"""What the kernel is told of the mesh: one line for each port that has a mode of its own."""

from __future__ import annotations

from sixfold.host import layout
from sixfold.model.endpoint import EndpointId
from sixfold.model.mesh import Mode, PortMode


def pack(line: PortMode) -> tuple[bytes, bytes]:
    """Key and value."""
    return (
        layout.PORT_MODE_KEY.pack(line.endpoint, layout.pack_port(line.port)),
        layout.PORT_MODE.pack(line.ifindex, line.mode),
    )


def unpack(key: bytes, value: bytes) -> PortMode | None:
    """None: somebody wrote nonsense."""
    endpoint, port = layout.PORT_MODE_KEY.unpack(key)
    ifindex, mode = layout.PORT_MODE.unpack(value)
    if mode not in [*Mode]:
        return None
    return PortMode(EndpointId(endpoint), layout.unpack_port(port), Mode(mode), ifindex)
