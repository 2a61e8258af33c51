"""Debian packages of peers: installed when missing, if we may; no service is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.lab import run

BINARIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
POLICY = Path("/usr/sbin/policy-rc.d")  # it says no to services while packages are installed
TIMEOUT_S = 180


def missing(packages: Mapping[str, str]) -> dict[str, str]:
    """By binary, why it cannot be measured. ``packages`` by binary; several words are several."""
    wanted = [package for binary, package in packages.items() if not which(binary)]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = f"apt-get install -y -qq --no-install-recommends {' '.join(wanted)}"
        ours = not POLICY.exists()
        if ours:
            POLICY.write_text("#!/bin/sh\nexit 101\n")
            POLICY.chmod(0o755)
        try:
            subprocess.run(
                ["sh", "-c", f"apt-get update -qq && {install}"],
                env=environment,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        finally:
            if ours:
                POLICY.unlink()
    return {
        binary: f"no {binary}, and apt-get could not install {package}"
        for binary, package in packages.items()
        if not which(binary)
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    if not shutil.which("dpkg-query"):
        return {}
    lines = run(["dpkg-query", "-W", "-f=${Package} ${Version}\n", *packages]).splitlines()
    return dict(line.split(" ", 1) for line in lines)


def which(binary: str) -> str:
    """Where it is; "" when it is not."""
    return shutil.which(binary, path=os.pathsep.join((os.environ.get("PATH", ""), *BINARIES))) or ""
