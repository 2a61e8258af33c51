"""Links of one instance: which program is attached where, pinned under its ``links``.

    links/<program>             a cgroup, or the tracepoint
    links/<program>_<ifindex>   an interface

They are held as well: while we live, a lost pin detaches nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host import bpf
from sixfold.host.paths import cgroup_root
from sixfold.host.programs import TRACEPOINT, TRACEPOINTS, expedited_rcu


class Links:
    """Attach, detach, and look whether it is still so."""

    def __init__(self, root: Path, programs: Mapping[str, int]) -> None:
        self.root = root / "links"
        self._programs = programs
        self._numbers: dict[str, int] = {}  # of programs, as the kernel counts them
        self._held: dict[Path, int] = {}

    def close(self) -> None:
        """Let go; what is pinned goes on."""
        for link in self._held.values():
            os.close(link)
        self._held.clear()

    def path(self, name: str, ifindex: int | None = None) -> Path:
        return self.root / (name if ifindex is None else f"{name}_{ifindex}")

    def matching(self, pattern: str) -> set[Path]:
        """Those whose pin is there, or was."""
        held = (path for path in self._held if fnmatchcase(path.name, pattern))
        return {*self.root.glob(pattern), *held}

    def attach(self, path: Path, name: str, target: int, attach_type: int) -> None:
        """``target``: an interface, or a descriptor of a cgroup."""
        try:
            link = bpf.link_create(self._programs[name], target, attach_type)
        except OSError as error:
            raise HostError(
                f"attach {name} to {path.name}: {bpf.symbol(error)}: "
                "needs root, Linux 6.6 or newer (TCX), and an interface that exists"
            ) from error
        try:
            bpf.pin(link, path)
        except OSError:
            os.close(link)
            raise
        self._held[path] = link

    def detach(self, path: Path) -> None:
        """Fine when it is not there."""
        if (link := self._held.pop(path, None)) is not None:
            with contextlib.suppress(OSError):  # the pin may be lost
                bpf.link_detach(link)
            os.close(link)
        detach(path)

    def is_attached(self, path: Path, name: str, *, ifindex: int = 0, cgroup: int = 0) -> bool:
        """Whether the pinned link runs our program there; what is gone leaves target 0.

        Neither: at the root of cgroup v2, or the tracepoint.
        """
        try:
            link = self._held.get(path) or self._held.setdefault(path, bpf.get(path))
        except FileNotFoundError:
            return False
        found = bpf.link_info(link, cgroup=not ifindex)
        if name in TRACEPOINTS:  # it cannot go away
            alive = True
        else:
            wanted = ifindex or cgroup
            alive = found.target == wanted if wanted else found.target != 0
        return alive and found.program_id == self._number(name)

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = bpf.program_id(self._programs[name])
        return self._numbers[name]

    def forget_dead(self) -> Iterator[None]:
        """A link outlives its interface, attached to nothing; looked at one by one."""
        for path in self.matching("*_endpoint_*"):
            if path not in self._held and not path.exists():
                continue  # detached meanwhile
            link = self._held.get(path) or self._held.setdefault(path, bpf.get(path))
            if bpf.link_info(link, cgroup=False).target == 0:
                self.detach(path)
            yield

    def keep_in_cgroup(
        self, cgroup: Path, programs: Mapping[str, int], *, wanted: bool = True
    ) -> list[str]:
        """Have these there, by attach type, or have them not; returns those that were missing."""
        number = 0 if cgroup == cgroup_root() else cgroup.stat().st_ino
        paths = {name: self.path(name) for name in programs}
        off = [
            name
            for name, path in paths.items()
            if self.is_attached(path, name, cgroup=number) != wanted
        ]
        if not off:
            return []
        place = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with expedited_rcu():
                for name in off:
                    self.detach(paths[name])
                    if wanted:
                        target = 0 if programs[name] == TRACEPOINT else place
                        self.attach(paths[name], name, target, programs[name])
        finally:
            os.close(place)
        return off if wanted else []

    def pin_again(self) -> Iterator[str]:
        """Pins that somebody removed, one by one."""
        for path, link in list(self._held.items()):
            if path in self._held and not path.exists():
                bpf.pin(link, path)
                yield path.name


def detach(path: Path) -> None:
    """Detach a pinned link and unpin it; fine when either is not there."""
    with contextlib.suppress(FileNotFoundError):
        link = bpf.get(path)
        with contextlib.suppress(OSError):
            bpf.link_detach(link)
        os.close(link)
        path.unlink()
