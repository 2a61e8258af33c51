"""One loaded datapath for all twin tests, in a namespace with nothing but interfaces."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sixfold.host.datapath import KernelDatapath
from sixfold.host.programs import OBJECTS

sys.path.insert(0, str(Path(__file__).parent))  # for crafted.py

CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="module")
def datapath() -> Iterator[KernelDatapath]:
    """Loaded, in a fresh network namespace with the interfaces ``sfa`` to ``sfc``."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not OBJECTS.joinpath("endpoint.bpf.o").exists():
        pytest.skip("datapath not built; run python hatch_build.py")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert libc.unshare(CLONE_NEWNET) == 0
    instance = f"twin{uuid.uuid4().hex[:8]}"
    try:
        for name in ("sfa", "sfb", "sfc"):
            command = ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"]
            subprocess.run(command, check=True)
        opened = KernelDatapath.open(instance)
        yield opened
        opened.close()
    finally:
        KernelDatapath.remove(instance)
        libc.setns(home, CLONE_NEWNET)
        os.close(home)
