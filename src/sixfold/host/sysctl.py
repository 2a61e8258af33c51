"""Kernel settings that an instance changes on the host, and how they were before.

The earlier values are on disk before the first change, so that a crash in between loses
nothing. A setting that someone changed after us is theirs: ``restore`` leaves it alone.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host.whole import write_whole

ROOT = Path("/proc/sys")


def read(key: str) -> str:
    """Value of ``net/ipv4/ip_forward``, of the calling thread's namespace."""
    return (ROOT / key).read_text().strip()


class Sysctls:
    """Settings of one instance; ``record`` is the file with the earlier values."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def earlier(self) -> dict[str, tuple[str, str]]:
        """Key → (value before us, value we gave)."""
        try:
            found = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {key: (before, given) for key, (before, given) in found.items()}

    def set(self, values: dict[str, str]) -> list[str]:
        """Give the settings these values; returns the keys that had another."""
        changed = [key for key, value in values.items() if read(key) != value]
        if not changed:
            return []
        earlier = self.earlier()
        for key in changed:
            before = earlier[key][0] if key in earlier else read(key)
            earlier[key] = (before, values[key])
        self._record.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._record, json.dumps(earlier, indent=1).encode())
        for key in changed:
            try:
                (ROOT / key).write_text(values[key])
            except OSError as error:
                raise HostError(
                    f"sysctl {key}: cannot be set to {values[key]}: {error.strerror}; "
                    "/proc/sys is read-only here, or this needs root"
                ) from error
        return changed

    def restore(self) -> None:
        """Give back what was there, in reverse order."""
        for key, (before, given) in reversed(self.earlier().items()):
            with suppress(OSError):  # a device that has gone took its settings with it
                if read(key) == given:
                    (ROOT / key).write_text(before)
        self._record.unlink(missing_ok=True)
