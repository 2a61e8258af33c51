"""The programs' stacks fit every kernel that we support, not only the one that runs the tests."""

from __future__ import annotations

import ctypes
import struct

import pytest

from sixfold.host import bpf
from sixfold.host.datapath import KernelDatapath
from sixfold.host.programs import PROGRAMS

pytestmark = pytest.mark.root

LIMIT = 512
ROUNDED_TO = 32  # bytes, each frame: Linux before 6.8; later ones round to 16
CALL, PSEUDO_CALL, FRAME = 0x85, 1, 10
MOVE_REGISTER, ADD_NUMBER = 0xBF, 0x07

Instruction = tuple[int, int, int, int, int]  # opcode, to, from, offset, number


def instructions(program: int) -> list[Instruction]:
    """As verified; a call's offset is where its function starts."""
    (size,) = struct.unpack_from("<I", bpf.object_info(program, 64), 20)
    code = ctypes.create_string_buffer(size)
    asked = struct.pack("<16xIIQQ", 0, size, 0, ctypes.addressof(code)).ljust(256, b"\0")
    buffer = ctypes.create_string_buffer(asked, 256)
    attributes = struct.pack("<IIQ", program, 256, ctypes.addressof(buffer))
    bpf.bpf(bpf.OBJ_GET_INFO, ctypes.create_string_buffer(attributes, 16))
    found = struct.iter_unpack("<BBhi", code.raw)
    return [(op, registers & 15, registers >> 4, at, n) for op, registers, at, n in found]


def deepest(program: list[Instruction]) -> int:
    """Bytes of stack in the longest chain of calls."""
    calls = [
        (at, at + 1 + offset)
        for at, (op, _, source, offset, _) in enumerate(program)
        if op == CALL and source == PSEUDO_CALL
    ]
    starts = sorted({0, *(target for _, target in calls)})

    def function(at: int) -> int:
        return max(start for start in starts if start <= at)

    frame = dict.fromkeys(starts, 1)
    copies: set[int] = set()
    for at, (op, to, source, offset, number) in enumerate(program):
        used = 0
        if (op & 7 in (2, 3) and to == FRAME) or (op & 7 == 1 and source == FRAME):
            used = -offset
        elif op == MOVE_REGISTER:
            (copies.add if source == FRAME else copies.discard)(to)
        elif op == ADD_NUMBER and to in copies:
            used = -number
        frame[function(at)] = max(frame[function(at)], used)

    def depth(start: int) -> int:
        own = -(-frame[start] // ROUNDED_TO) * ROUNDED_TO
        return own + max((depth(to) for at, to in calls if function(at) == start), default=0)

    return depth(0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_stack_fits_kernels_that_round_up_more(datapath: KernelDatapath, name: str) -> None:
    program = instructions(datapath.programs[name])
    assert program
    assert deepest(program) <= LIMIT
