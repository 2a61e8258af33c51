"""Where measurements happen: namespaces, links and processes that are gone when a run ends.

Everything is registered before it is made and undone in reverse order, also after Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

LOAD_SOURCE = Path(__file__).parent / "load.c"
COMMAND_TIMEOUT_S = 60.0

# Equal in every namespace that sends or receives.
SETTINGS = {
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/ipv4/tcp_slow_start_after_idle": "0",  # who waits for his turn loses no window
}


class LabError(Exception):
    """A measurement could not be made; the message says which and why."""


class Lab:
    """One run's belongings."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.prefix = f"bench{os.getpid()}"
        self.directory = directory
        self.stack = stack
        self._load: Path | None = None

    @property
    def load(self) -> Path:
        """The load generator, compiled at first use."""
        if self._load is None:
            binary = self.directory / "load"
            target = ["-target", "x86_64-linux-musl", "-static", "-O2"]
            run(
                [
                    sys.executable,
                    "-m",
                    "ziglang",
                    "cc",
                    *target,
                    str(LOAD_SOURCE),
                    "-o",
                    str(binary),
                ]
            )
            self._load = binary
        return self._load

    def namespace(self, name: str) -> Path:
        """A new network namespace with our settings and loopback up."""
        path = NETNS_ROOT / f"{self.prefix}-{name}"
        self.stack.callback(netns.delete, path)
        netns.create(path, lambda: None)
        settle(path)
        ip(path, "link set lo up")
        return path

    def spawn(self, path: Path, *argv: str) -> int:
        """A process that runs in a namespace until the end of this run; its pid."""
        process = subprocess.Popen(
            inside(path, *argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.stack.callback(_end, process)
        return process.pid


@contextmanager
def laboratory() -> Iterator[Lab]:
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="sixfold-bench-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        yield Lab(stack, directory)


def run(
    argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = COMMAND_TIMEOUT_S
) -> str:
    """The output of a command that must work."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)[:200]}: no end within {timeout_s:g} s") from None
    if done.returncode:
        raise LabError(f"{' '.join(argv)[:200]}: exit {done.returncode}: {done.stderr[-600:]}")
    return done.stdout


def inside(path: Path, *argv: str) -> list[str]:
    """The command line that runs another in a network namespace."""
    return ["nsenter", f"--net={path}", *argv]


def ip(path: Path, *lines: str) -> None:
    """``ip -batch`` in a namespace."""
    run(inside(path, "ip", "-batch", "-"), stdin="\n".join(lines) + "\n")


def settle(path: Path) -> None:
    """Our settings, in a namespace of ours or of a pod."""

    def write() -> None:
        for key, value in SETTINGS.items():
            Path("/proc/sys", key).write_text(value)

    netns.run_inside(path, write)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
