"""Where a proxy has its files: the node's in the run directory, a pod's own in one for each.

A pod's is named by the number of its network namespace, which no other pod ever has; who it is of
stands in a file there. No directory is made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sixfold.host.paths import Paths

_PUT_ASIDE = re.compile(r"proxy-(\d+)\.sock")


class ProxyHome(NamedTuple):
    """Files of one proxy; ``pod`` is namespace/name, "" for the node's."""

    pod: str
    directory: Path
    log_file: Path

    @property
    def configuration(self) -> Path:
        return self.directory / "proxy.json"

    @property
    def admin_socket(self) -> Path:
        return self.directory / "proxy.sock"

    @property
    def xds_socket(self) -> Path:
        """Where the agent tells it its configuration."""
        return self.directory / "xds.sock"

    @property
    def pid_file(self) -> Path:
        return self.directory / "proxy.pid"

    @property
    def pod_file(self) -> Path:
        return self.directory / "pod"

    def put_aside(self, pid: int) -> Path:
        """Admin socket of a process that another has come after."""
        return self.admin_socket.with_name(f"proxy-{pid}.sock")

    def pid(self) -> int:
        """The last process that was started; 0: none was."""
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def pids_before(self) -> set[int]:
        """Those that it has come after, and that have not been seen to end."""
        found = map(_PUT_ASIDE.fullmatch, (path.name for path in self.directory.glob("proxy-*")))
        return {int(match[1]) for match in found if match}


def home_of_node(paths: Paths) -> ProxyHome:
    return ProxyHome("", paths.run, paths.state / "proxy.log")


def home_of_pod(paths: Paths, pod: str, cookie: int) -> ProxyHome:
    log_file = paths.state / "proxies" / f"{pod.replace('/', '.', 1)}.log"
    return ProxyHome(pod, _homes(paths) / str(cookie), log_file)


def homes_of_pods(paths: Paths) -> Iterator[tuple[int, ProxyHome]]:
    """All that there are, with the numbers of their namespaces."""
    directories = _homes(paths).iterdir() if _homes(paths).exists() else ()
    for directory in sorted(directories):
        try:
            pod = (directory / "pod").read_text()
        except FileNotFoundError:  # it is being made, or removed
            continue
        yield int(directory.name), home_of_pod(paths, pod, int(directory.name))


def _homes(paths: Paths) -> Path:
    return paths.run / "proxies"
