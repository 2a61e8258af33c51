"""Refused system calls of pods, as the kernel tells them (bpf/refusal.bpf.c)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.events import EventReader
from sixfold.host.paths import cgroup_root
from sixfold.model.refusal import CHANGES, OF_PROCESSES, PATHS, QUESTIONS, Refusal


def confine(maps: Mapping[str, Map], pods: Path) -> None:
    """Have told what is refused to processes below a control group."""
    level = len(pods.relative_to(cgroup_root()).parts)
    maps["system_calls"].update(_known())
    confinement = layout.CONFINEMENT.pack(pods.stat().st_ino, level)
    maps["confinement"].update({bytes(4): confinement})


@cache
def _known() -> dict[bytes, bytes]:
    """What there is to know of each system call: always the same, and written at each repair."""
    return {
        layout.U32.pack(call): layout.SYSTEM_CALL_KNOWN.pack(
            sum(1 << one for one in capabilities),
            PATHS.get(call, 0),
            call in CHANGES,
            call in OF_PROCESSES,
        )
        for call, capabilities in QUESTIONS.items()
    }


def drain(reader: EventReader) -> list[Refusal]:
    """What was told since last time, oldest first."""
    return [_unpack(raw) for raw in reader.drain()[0]]


def _unpack(raw: bytes) -> Refusal:
    time_ns, pod, pid, uid, untold, capability, call, *names = layout.REFUSAL_EVENT.unpack(raw)
    command, path = (name.partition(b"\0")[0].decode(errors="replace") for name in names)
    return Refusal(time_ns, pod, pid, uid, capability, call, command, path, untold)


def executable(pid: int) -> str:
    """Path of what it runs; "" when it is gone."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return ""


def numbers(pods: Path) -> dict[int, str]:
    """UIDs of the pods that have a control group, by its number."""
    found = {}
    for path in pods.iterdir() if pods.is_dir() else ():
        with suppress(FileNotFoundError):  # it ended meanwhile
            if path.is_dir():
                found[path.stat().st_ino] = path.name
    return found
