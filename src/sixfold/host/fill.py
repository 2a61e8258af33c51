"""How full are the maps? By the kernel's own count, without looking at an entry.

``bpf/count.bpf.c`` writes one record for each map of the machine; a read costs some tens of
microseconds, whatever is in them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from struct import Struct

from sixfold.host import bpf

FILLED = Struct("<I4xq")
READ_BYTES = 1 << 16


def entries(program: int, maps: Mapping[str, bpf.Map]) -> dict[str, int]:
    """Entries of these maps, of those that are hashes; ``program``: its descriptor."""
    named = {bpf.map_id(one.fd): name for name, one in maps.items() if one.is_hash}
    link = bpf.link_create(program, 0, bpf.TRACE_ITER)
    try:
        reader = bpf.iterate(link)
    finally:
        os.close(link)
    with os.fdopen(reader, "rb", buffering=0) as file:
        raw = b"".join(iter(lambda: file.read(READ_BYTES), b""))
    return {named[id_]: count for id_, count in FILLED.iter_unpack(raw) if id_ in named}
