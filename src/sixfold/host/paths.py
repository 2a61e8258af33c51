"""Where an instance lives on this machine: directories, mounts and names of namespaces.

Everything derives from the instance's name, so that several coexist. The run and state
directories may be moved by ``SIXFOLD_RUN_DIR`` and ``SIXFOLD_STATE_DIR``; the rest may not,
because the kernel, ``ip netns`` and the agent's successor must find it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sixfold.errors import HostError

BPFFS_ROOT = Path("/sys/fs/bpf")
NETNS_ROOT = Path("/run/netns")  # where iproute2 looks: pods are visible in ``ip netns``
NAME_MAX = 255  # of one path component


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of one instance; no directory is made here."""

    instance: str = "sixfold"

    def __post_init__(self) -> None:
        if not self.instance or not all(c.isalnum() or c in "-_" for c in self.instance):
            raise HostError(
                f"instance {self.instance!r}: not a name for directories and namespaces; "
                "use letters, digits, - and _"
            )

    @property
    def run(self) -> Path:
        """Sockets, pids, pod directories: gone after a reboot."""
        return Path(os.environ.get("SIXFOLD_RUN_DIR") or f"/run/{self.instance}")

    @property
    def state(self) -> Path:
        """Database, logs and keys: kept over a reboot."""
        return Path(os.environ.get("SIXFOLD_STATE_DIR") or f"/var/lib/{self.instance}")

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def catalog_socket(self) -> Path:
        """Where the catalogue is told: Consul's HTTP API, targets for Prometheus."""
        return self.run / "catalog.sock"

    @property
    def metrics_socket(self) -> Path:
        """Where Prometheus' text is read."""
        return self.run / "metrics.sock"

    @property
    def workload_socket(self) -> Path:
        """The SPIFFE Workload API: in a directory that everybody may enter, unlike ``run``."""
        return self.run.with_name(f"{self.run.name}-workload") / "api.sock"

    @property
    def bpffs(self) -> Path:
        """Pinned programs, maps and links."""
        return BPFFS_ROOT / self.instance

    @property
    def cgroup(self) -> Path:
        """The instance's subtree of cgroup v2."""
        return cgroup_root() / self.instance

    @property
    def netns_prefix(self) -> str:
        """Start of the file name of every namespace of ours; no other instance shares it."""
        return f"{self.instance}."

    def netns(self, name: str) -> Path:
        """Namespace of the pod named ``namespace/pod``; namespaces have no dots, pods may."""
        file = self.netns_prefix + name.replace("/", ".", 1)
        if len(file) > NAME_MAX:
            raise HostError(
                f"pod {name}: network namespace name {file!r} is {len(file)} bytes, the file "
                f"system takes {NAME_MAX}; shorten the pod's name"
            )
        return NETNS_ROOT / file

    def netns_owner(self, path: Path) -> str | None:
        """The pod that a namespace path belongs to; None when it is not this instance's."""
        if not path.name.startswith(self.netns_prefix):
            return None
        namespace, dot, pod = path.name.removeprefix(self.netns_prefix).partition(".")
        return f"{namespace}/{pod}" if dot and namespace and pod else None


@cache
def cgroup_root() -> Path:
    """Mount point of cgroup v2, also in hybrid mode; HostError when there is none."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount_point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(mount_point.replace("\\040", " "))
    raise HostError(
        "cgroup v2: not mounted; mount it (mount -t cgroup2 none /sys/fs/cgroup/unified)"
    )
