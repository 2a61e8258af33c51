"""Records of pods: what an agent leaves for its successor, one small file a pod.

They live in the state directory, because a pod that is over must stay over after a reboot.
Each is replaced whole; a file that cannot be read counts as absent, and the host is believed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from sixfold.model.workload import Pod
from sixfold.workloads.restore import PodRecord

log = logging.getLogger(__name__)


class PodRecords:
    """The directory of records, by pod uid."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, PodRecord] = {}

    def write(self, record: PodRecord) -> None:
        """Keep a record; nothing is written when it says nothing new."""
        if self._written.get(record.uid) == record:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(record.uid)
        aside = path.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(record))
        os.replace(aside, path)
        self._written[record.uid] = record

    def read(self, uid: str) -> PodRecord | None:
        try:
            return msgspec.json.decode(self._path(uid).read_bytes(), type=PodRecord)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            log.warning("%s: %s; pod taken as it is on the host", self._path(uid), error)
            return None

    def has(self, pod: Pod) -> bool:
        """Whether an agent has seen this very pod."""
        return self.read(pod.metadata.uid) is not None

    def remove(self, uid: str) -> None:
        self._written.pop(uid, None)
        self._path(uid).unlink(missing_ok=True)

    def keep_only(self, uids: Collection[str]) -> None:
        """Remove the records of all other pods."""
        for path in self._directory.glob("*.*"):
            if path.stem not in uids or path.suffix != ".json":
                path.unlink(missing_ok=True)

    def _path(self, uid: str) -> Path:
        return self._directory / f"{uid}.json"
