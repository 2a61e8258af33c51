"""The bpf(2) system call: maps, pins, links, test runs. No policy, no state of its own.

Sources: linux/bpf.h (union bpf_attr). Batches carry thousands of entries per call; a map
type without batches (none of ours) would have to loop.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct, pack, unpack_from
from typing import NamedTuple, NoReturn

from sixfold.errors import HostError

SYS_BPF = 321  # x86_64
MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY = 1, 2, 3, 4
PROG_LOAD, OBJ_PIN, OBJ_GET, PROG_ATTACH, PROG_TEST_RUN = 5, 6, 7, 8, 10
OBJ_GET_INFO = 15
MAP_LOOKUP_BATCH, MAP_UPDATE_BATCH, MAP_DELETE_BATCH = 24, 26, 27
LINK_CREATE, LINK_UPDATE, LINK_DETACH = 28, 29, 34
ITER_CREATE, TRACE_ITER = 33, 28  # the latter of enum bpf_attach_type
TCX_INGRESS, TCX_EGRESS = 46, 47
HASH_TYPES = frozenset({1, 5, 9, 10})  # of all CPUs, or each; with or without LRU
PERCPU_TYPES = frozenset({5, 6, 10})
BATCH = 4096

_MAP = Struct("<IIQQQ")
_BATCH = Struct("<QQQQIIQQ")

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]


def bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """One call; raises OSError. A ctypes buffer is written back to by the kernel."""
    if isinstance(attributes, bytes):
        attributes = ctypes.create_string_buffer(attributes, len(attributes))
    result = _syscall(SYS_BPF, command, ctypes.addressof(attributes), len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def symbol(error: OSError) -> str:
    """The errno as the manual pages write it."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, len(content) or 1)


def load(kind: int, instructions: bytes, name: str) -> int:
    """A program of a few instructions, without maps; larger ones come from objects."""
    code, licence = _buffer(instructions), _buffer(b"GPL\0")
    head = pack("<IIQQ", kind, len(instructions) // 8, _address(code), _address(licence))
    return bpf(PROG_LOAD, head + bytes(24) + pack("<16s", name.encode()[:15]))


def pin(fd: int, path: Path) -> None:
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf(OBJ_PIN, pack("<QII", _address(name), fd, 0))


def get(path: Path) -> int:
    """A new file descriptor of what is pinned there; FileNotFoundError when nothing is."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(OBJ_GET, pack("<QII", _address(name), 0, 0))


def object_info(fd: int, size: int) -> bytes:
    """The first ``size`` bytes of struct bpf_{map,prog,link}_info."""
    buffer = ctypes.create_string_buffer(size)
    attributes = _buffer(pack("<IIQ", fd, size, _address(buffer)))
    bpf(OBJ_GET_INFO, attributes)
    return buffer.raw


class MapDefinition(NamedTuple):
    """What makes two maps interchangeable."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


def map_definition(fd: int) -> MapDefinition:
    kind, _, key_size, value_size, max_entries, flags = unpack_from("<6I", object_info(fd, 80))
    return MapDefinition(kind, key_size, value_size, max_entries, flags)


def map_id(fd: int) -> int:
    return int(unpack_from("<II", object_info(fd, 80))[1])


def program_id(fd: int) -> int:
    return int(unpack_from("<II", object_info(fd, 64))[1])


class LinkInfo(NamedTuple):
    """``target`` is the interface of a TCX link (0 = gone), the cgroup id of a cgroup link."""

    program_id: int
    target: int


def link_info(fd: int, *, cgroup: bool) -> LinkInfo:
    raw = object_info(fd, 64)
    _, _, program = unpack_from("<III", raw)
    target = unpack_from("<Q" if cgroup else "<I", raw, 16)[0]
    return LinkInfo(program, target)


def link_create(program: int, target: int, attach_type: int) -> int:
    """``target`` is an interface index in the caller's namespace, or a cgroup's descriptor."""
    return bpf(LINK_CREATE, pack("<IIII16x", program, target, attach_type, 0))


def attach_to_map(program: int, sockets: int, attach_type: int) -> None:
    """Have a map of sockets run a program for each that joins; there as long as the map."""
    bpf(PROG_ATTACH, pack("<IIIII", sockets, program, attach_type, 0, 0))


def iterate(link: int) -> int:
    """What the link's program writes, as a file to read once."""
    return bpf(ITER_CREATE, pack("<II", link, 0))


def link_update(link: int, program: int) -> None:
    """Swap the program; no packet goes without."""
    bpf(LINK_UPDATE, pack("<IIII", link, program, 0, 0))


def link_detach(link: int) -> None:
    bpf(LINK_DETACH, pack("<I", link))


class ProgramRun(NamedTuple):
    """What BPF_PROG_TEST_RUN returned."""

    verdict: int
    packet: bytes
    duration_ns: int  # per run


def run_program(
    program: int, packet: bytes, *, context: bytes = b"", repeat: int = 1, flags: int = 0
) -> ProgramRun:
    """Run a program on a packet; ``context`` is a struct __sk_buff, ``flags`` BPF_F_TEST_*."""
    into, out = _buffer(packet), ctypes.create_string_buffer(len(packet) + 1500)
    given, got = _buffer(context), ctypes.create_string_buffer(256)
    attributes = _buffer(
        pack(
            "<IIIIQQIIIIQQIII4x",
            *(program, 0, len(packet), len(out), _address(into), _address(out), repeat, 0),
            *(len(context), len(context) and len(got)),
            *(_address(given) if context else 0, _address(got) if context else 0),
            *(flags, 0, 0),
        )
    )
    bpf(PROG_TEST_RUN, attributes)
    verdict, _, size = unpack_from("<III", attributes, 4)
    return ProgramRun(verdict, out.raw[:size], unpack_from("<I", attributes, 36)[0])


class Map:
    """One open map; keys and values are bytes of the exact sizes."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        self.definition = map_definition(fd)
        self._value_size = self.definition.value_size
        if self.definition.type in PERCPU_TYPES:
            self._value_size = (self._value_size + 7 & ~7) * possible_cpus()

    def close(self) -> None:
        os.close(self.fd)

    @property
    def is_hash(self) -> bool:
        return self.definition.type in HASH_TYPES

    def lookup(self, key: bytes) -> bytes | None:
        """A per-CPU map gives the values of all CPUs, one after the other."""
        given, value = _buffer(key), ctypes.create_string_buffer(self._value_size)
        try:
            bpf(MAP_LOOKUP, _MAP.pack(self.fd, 0, _address(given), _address(value), 0))
        except FileNotFoundError:
            return None
        return value.raw

    def is_empty(self) -> bool:
        """Also of maps that have no batches: of sockets."""
        key = ctypes.create_string_buffer(self.definition.key_size)
        try:
            bpf(MAP_NEXT_KEY, _MAP.pack(self.fd, 0, 0, _address(key), 0))
        except FileNotFoundError:
            return True
        return False

    def update(self, entries: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> None:
        """Put all."""
        if not entries:
            return
        puts = entries if isinstance(entries, dict) else dict(entries)
        keys, values = [*puts], [*puts.values()]
        for start in range(0, len(keys), BATCH):
            self._update_batch(keys[start : start + BATCH], values[start : start + BATCH])

    def _update_batch(self, keys: list[bytes], values: list[bytes]) -> None:
        key, value = _buffer(b"".join(keys)), _buffer(b"".join(values))
        attributes = _BATCH.pack(0, 0, _address(key), _address(value), len(keys), self.fd, 0, 0)
        command = MAP_UPDATE_BATCH
        if len(keys) == 1:  # a third of the cost of a batch of one
            attributes = _MAP.pack(self.fd, 0, _address(key), _address(value), 0)
            command = MAP_UPDATE
        try:
            bpf(command, attributes)
        except OSError as error:
            self._refused(error)

    def fill(self, stretches: Sequence[tuple[int, bytes | bytearray]]) -> None:
        """Put stretches of an array that may be mapped, each from the index where it begins."""
        if not stretches:
            return
        size = self._value_size
        first = min(at for at, _ in stretches) * size
        end = max(at * size + len(values) for at, values in stretches)
        with self._memory(first, end) as (memory, start):
            for at, values in stretches:
                begin = at * size - start
                memory[begin : begin + len(values)] = values

    def read(self, count: int) -> bytes:
        """The first values of an array that may be mapped, one after the other."""
        size = min(count, self.definition.max_entries) * self._value_size
        if not size:
            return b""
        with self._memory(0, size) as (memory, _):
            return memory[:size]

    @contextmanager
    def _memory(self, first: int, end: int) -> Iterator[tuple[mmap.mmap, int]]:
        """The kernel's own memory of these bytes of an array, and where it begins."""
        assert not self._value_size % 8, "the kernel pads others"
        start = first & -mmap.PAGESIZE
        try:
            memory = mmap.mmap(self.fd, end - start, offset=start)
        except OSError as error:
            self._refused(error)
        with memory:
            yield memory, start

    def _refused(self, error: OSError) -> NoReturn:
        raise HostError(
            f"put {self.name}: {symbol(error)}: the map holds {self.definition.max_entries} "
            "entries at most; apply less, or free memory"
        ) from error

    def delete(self, keys: Iterable[bytes]) -> int:
        """Delete what is there of these; returns how many were asked."""
        wanted = list(keys)
        for key in wanted:
            given = _buffer(key)
            with suppress(FileNotFoundError):
                bpf(MAP_DELETE, _MAP.pack(self.fd, 0, _address(given), 0, 0))
        return len(wanted)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Everything; what changes meanwhile may be missed or seen twice."""
        for keys, values in self.batches():
            yield from zip(keys, values, strict=True)

    def batches(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """The same, some thousand keys and their values at a time."""
        key_size, value_size = self.definition.key_size, self._value_size
        keys = ctypes.create_string_buffer(key_size * BATCH)
        values = ctypes.create_string_buffer(value_size * BATCH)
        token = ctypes.create_string_buffer(max(64, key_size))
        first, done = True, False
        while not done:
            attributes = _buffer(
                _BATCH.pack(
                    *(0 if first else _address(token), _address(token)),
                    *(_address(keys), _address(values), BATCH, self.fd, 0, 0),
                )
            )
            try:
                bpf(MAP_LOOKUP_BATCH, attributes)
            except FileNotFoundError:
                done = True
            first = False
            (count,) = unpack_from("<I", attributes, 32)
            raw_keys, raw_values = keys.raw, values.raw
            yield (
                [raw_keys[at : at + key_size] for at in range(0, count * key_size, key_size)],
                [
                    raw_values[at : at + value_size]
                    for at in range(0, count * value_size, value_size)
                ],
            )


def _cut(raw: bytes, size: int, count: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, count * size, size)]


def possible_cpus() -> int:
    """How many values a per-CPU entry has."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1
