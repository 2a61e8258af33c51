"""Records of pods: what an agent leaves for its successor, one small file a pod.

They live in the state directory, because a pod that is over must stay over after a reboot.
Each is replaced whole: written aside, the old one removed, then renamed. Renaming over the old one
would make ext4 flush it to disk first, 1 ms each time; so between two of these steps there may be
only the new file, and it is read. A record that cannot be read counts as absent: then the host is
believed. One that cannot be written, on a full disk say, holds no pod up: it is written later.
"""

from __future__ import annotations

import logging
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
        self._trouble = ""

    def write(self, record: PodRecord) -> None:
        """Keep a record; nothing is written when it says nothing new."""
        if self._written.get(record.uid) == record:
            return
        try:
            self._replace(record)
        except OSError as error:
            if str(error) != self._trouble:
                log.warning("records of pods: %s; written when they can be", error)
            self._trouble = str(error)
        else:
            self._trouble = ""
            self._written[record.uid] = record

    def _replace(self, record: PodRecord) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, aside = self._path(record.uid), self._path(record.uid, ".new")
        aside.write_bytes(msgspec.json.encode(record))
        path.unlink(missing_ok=True)
        aside.rename(path)

    def read(self, uid: str) -> PodRecord | None:
        for path in (self._path(uid), self._path(uid, ".new")):
            try:
                return msgspec.json.decode(path.read_bytes(), type=PodRecord)
            except FileNotFoundError:
                continue
            except msgspec.MsgspecError as error:
                log.warning("%s: %s; pod taken as it is on the host", path, error)
                return None
        return None

    def has(self, pod: Pod) -> bool:
        """Whether an agent has seen this very pod."""
        return self.read(pod.metadata.uid) is not None

    def remove(self, uid: str) -> None:
        self._written.pop(uid, None)
        for suffix in (".json", ".new"):
            self._path(uid, suffix).unlink(missing_ok=True)

    def keep_only(self, uids: Collection[str]) -> None:
        """Remove the records of all other pods."""
        for path in self._directory.glob("*.*"):
            if path.stem not in uids:
                path.unlink(missing_ok=True)

    def _path(self, uid: str, suffix: str = ".json") -> Path:
        return self._directory / f"{uid}{suffix}"
