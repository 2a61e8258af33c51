"""One agent per instance: two locks, held by its process, released by the kernel when it dies.

The file in the run directory says which process it is. The state directory itself is locked as
well, because a run directory is easily swept away, and two agents would fight over every pod.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host.paths import Paths


@contextlib.contextmanager
def held(paths: Paths) -> Iterator[None]:
    """Both locks; HostError with the other's pid when there is another agent."""
    with (paths.run / "agent.lock").open("a+") as file:
        state = os.open(paths.state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for descriptor in (state, file.fileno()):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield
        except BlockingIOError:
            raise HostError(
                f"{file.name}: an agent runs already (pid {holder(paths) or 'unknown'}); "
                "use sixfold apply, or sixfold down first"
            ) from None
        finally:
            os.close(state)


def holder(paths: Paths) -> int | None:
    """The process of the agent that runs, also of one that lost its run directory."""
    for path in (paths.state, paths.run / "agent.lock"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
            for line in Path("/proc/locks").read_text().splitlines():
                words = line.split()
                if "FLOCK" in words and where in words:
                    return int(words[words.index(where) - 1])
    return None
