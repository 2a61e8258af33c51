"""What root must be allowed to do here: what the agent needs, and what it hands to workloads.

``packaging/sixfold.service`` grants just these; a test holds the two equal. Numbers are those of
linux/capability.h.
"""

from __future__ import annotations

from pathlib import Path

from sixfold.errors import HostError

NEEDED = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
HANDED_ON = {  # the rest of what root has in a container (shim/container.h)
    "CAP_CHOWN": 0,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_NET_RAW": 13,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}


def missing() -> list[str]:
    """What the agent needs and this process lacks."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("CapEff:")]
    effective = int(line.split()[1], 16)
    return [name for name, bit in NEEDED.items() if not effective >> bit & 1]


def require() -> None:
    """HostError when any is missing: half an agent would fail later, and less clearly."""
    if lacking := missing():
        raise HostError(
            f"capabilities: this process lacks {', '.join(lacking)}; run as root, where nothing "
            "drops them (sixfold doctor)"
        )
