"""What a container does not see of the host, and where it is told that somebody looked for it.

What is ours on the host is not there in a container: its directories are covered. In their place
stand decoys: links that only CAP_SYS_PTRACE may follow, which no container has (shim/surroundings.h
says where they lead: nowhere). Nothing that runs in a pod has any business there; whoever opens
one is refused by the kernel, whose own check tells (bpf/refusal.bpf.c): the attempt stands in the
flow log, with the path. They cost nothing while nobody comes.
"""

from __future__ import annotations

from pathlib import Path

from sixfold.host.paths import BPFFS_ROOT, NETNS_ROOT, Paths, cgroup_root

SYS_CGROUP = Path("/sys/fs/cgroup")
COVERED = Path("/run")  # in every container, as /dev is
DECOYS_MAX = 128  # of shim/surroundings.h: those beyond are not there, and nobody is told
MEMORY = ("mem", "kmem", "port")
DEVICES = Path("/sys/class/block")


def hidden(paths: Paths) -> list[Path]:
    """Directories that a container sees empty but for decoys; all of /run is covered anyway."""
    groups = cgroup_root()
    wanted = (
        *(paths.state, paths.run, BPFFS_ROOT),
        SYS_CGROUP if groups.is_relative_to(SYS_CGROUP) else groups,
    )
    return [path for path in wanted if path.is_dir() and not path.is_relative_to(COVERED)]


def decoys(paths: Paths) -> list[Path]:
    """Where keys and sockets, pinned maps, control groups, namespaces and disks are on the host."""
    run = [paths.run] if paths.run.is_relative_to(COVERED) else _entries(paths.run)
    state = [paths.state] if paths.state.is_relative_to(COVERED) else _entries(paths.state)
    ours = [*state, *run, NETNS_ROOT, paths.bpffs, paths.cgroup]
    devices = (*MEMORY, *_disks())
    return [*ours, *(Path("/dev", name) for name in devices)][:DECOYS_MAX]


def _disks() -> list[str]:
    """Block devices, parts of them, too, that there is something on."""
    return [one.name for one in _entries(DEVICES) if (one / "size").read_text().strip() != "0"]


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
