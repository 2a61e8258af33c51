"""On which TCP ports does somebody listen in a network namespace?"""

from __future__ import annotations

from pathlib import Path

from sixfold.host import netns

LISTEN = "0A"


def listening_ports(namespace: Path) -> set[int]:
    """All of them, whatever the address."""

    def read() -> set[int]:
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == LISTEN:
                    found.add(int(local.rpartition(":")[2], 16))
        return found

    return netns.run_inside(namespace, read)
