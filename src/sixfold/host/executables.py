"""What a process is made of: whose it is, which program it runs, and that program's digest.

The digest is of what really runs (``/proc/PID/exe``), whatever is now under its name.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path

from sixfold.trust.attested import Traits

DIGESTS_MAX = 256

_digests: OrderedDict[tuple[int, int, int, int], str] = OrderedDict()


def traits_of(pid: int) -> Traits:
    """OSError when the process is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    ids = {
        line.partition(":")[0]: int(line.split()[2])  # the effective one
        for line in status.splitlines()
        if line.startswith(("Uid:", "Gid:"))
    }
    exe = f"/proc/{pid}/exe"
    descriptor = os.open(exe, os.O_RDONLY)
    try:
        return Traits(ids["Uid"], ids["Gid"], os.readlink(exe), _digest(descriptor))
    finally:
        os.close(descriptor)


def _digest(descriptor: int) -> str:
    """SHA-256 of a file, in hex; of one that has not changed since, as it was."""
    status = os.fstat(descriptor)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
    found = _digests.get(key)
    if found is None:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        _digests[key] = found
        if len(_digests) > DIGESTS_MAX:
            _digests.popitem(last=False)
    return found
