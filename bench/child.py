"""A part of the bench in a process of its own, so that its memory and its heap are its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from bench.lab import LabError


def in_child(what: str, module: str, *arguments: str, within_s: float) -> dict[str, Any]:
    """What ``python -m module arguments`` prints as JSON; LabError when it fails."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{what}: not done within {within_s:g} s") from None
    if done.returncode:
        raise LabError(f"{what}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
