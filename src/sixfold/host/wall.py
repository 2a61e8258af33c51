"""The wall behind the programs: what a pod's link does when nobody has a program on it.

Theory of operation. A TCX program that lets a packet pass ends its classification; whatever tc
filters the link has besides are never asked. So a filter that drops everything, in both
directions, costs nothing while our programs are there, and closes the pod the moment they are
not: before they are attached, and when somebody removes their pins or detaches them while no
agent runs. The filter belongs to the link and goes with it. Source: sch_handle_ingress() in
net/core/dev.c; tc-bpf(8).
"""

from __future__ import annotations

import errno
import os
import struct

from sixfold.host import bpf
from sixfold.host.netlink import (
    ACK,
    CREATE,
    EXCLUSIVE,
    Netlink,
    NetlinkError,
    Request,
    attribute_text,
    attribute_u32,
    nested,
)

NEWQDISC, NEWTFILTER = 36, 44
CLSACT_HANDLE, CLSACT = 0xFFFF0000, 0xFFFFFFF1
SIDES = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
EVERY_PROTOCOL = 0x0300  # ETH_P_ALL, big-endian
SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS
# r0 = TC_ACT_SHOT; exit
DROP_ALL = struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)

_TC = struct.Struct("=BxxxiIII")  # tcmsg


class Wall:
    """The program that drops everything, loaded once; for links of the thread's namespace."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._program = bpf.load(SCHED_CLS, DROP_ALL, "sixfold_wall")

    def put_behind(self, ifindex: int) -> bool:
        """Fine when it is there already. False: this kernel has no clsact or no cls_bpf."""
        device = f"dev {ifindex}"
        flags = ACK | CREATE | EXCLUSIVE
        qdisc = _TC.pack(0, ifindex, CLSACT_HANDLE, CLSACT, 0) + attribute_text(1, "clsact")
        filters = [
            Request(NEWTFILTER, flags, _filter(ifindex, parent, self._program), f"{device} {side}")
            for side, parent in SIDES.items()
        ]
        for request in (Request(NEWQDISC, flags, qdisc, f"{device} clsact"), *filters):
            try:
                self._netlink.batch([request])
            except NetlinkError as error:
                if error.code == errno.ENOENT:
                    return False
                if error.code != errno.EEXIST:
                    raise
        return True

    def close(self) -> None:
        os.close(self._program)
        self._netlink.close()


def _filter(ifindex: int, parent: int, program: int) -> bytes:
    priority = 1
    return (
        _TC.pack(0, ifindex, 1, parent, priority << 16 | EVERY_PROTOCOL)
        + attribute_text(1, "bpf")
        + nested(
            2,
            attribute_u32(6, program),  # TCA_BPF_FD
            attribute_text(7, "sixfold_wall"),
            attribute_u32(8, 1),  # TCA_BPF_FLAGS: direct action
        )
    )
