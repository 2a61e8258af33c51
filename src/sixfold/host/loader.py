"""Loading of compiled programs, by libbpf: relocation, BTF and map creation are its trade.

``libbpf.so.1`` comes with iproute2 on Debian and Ubuntu. Maps are pinned by name, so that
libbpf reuses those of an earlier load; what it cannot reuse is reported, never replaced.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Container, Iterator
from ctypes import c_char_p, c_int, c_void_p
from functools import cache
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host.bpf import MapDefinition, symbol

WARN = 0  # enum libbpf_print_level; 1 is info
VERIFIER_LOG_MAX = 1 << 24
LOG_KEPT = 2000  # characters at the end of a verifier log: that is where the reason is

_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_messages: list[str] = []


@cache
def _vsnprintf() -> Callable[..., int]:
    function = ctypes.CDLL(None).vsnprintf
    function.argtypes = [c_void_p, ctypes.c_size_t, c_char_p, c_void_p]
    return function


def _print(level: int, form: bytes, arguments: int) -> int:
    """What libbpf has to say goes into the error, not to the terminal."""
    if level > WARN:
        return 0
    line = ctypes.create_string_buffer(VERIFIER_LOG_MAX)
    length = _vsnprintf()(line, len(line), form, arguments)
    _messages.append(line.value.decode(errors="replace"))
    return length


_print_callback = _PRINT(_print)


@cache
def _libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise HostError(
            "libbpf.so.1: not found: it loads the datapath; apt-get install libbpf1"
        ) from None
    for name, result, arguments in (
        ("bpf_object__open_file", c_void_p, [c_char_p, c_void_p]),
        ("bpf_object__load", c_int, [c_void_p]),
        ("bpf_object__close", None, [c_void_p]),
        ("bpf_object__next_map", c_void_p, [c_void_p, c_void_p]),
        ("bpf_object__next_program", c_void_p, [c_void_p, c_void_p]),
        ("bpf_map__name", c_char_p, [c_void_p]),
        ("bpf_map__set_pin_path", c_int, [c_void_p, c_char_p]),
        ("bpf_map__set_max_entries", c_int, [c_void_p, ctypes.c_uint]),
        ("bpf_map__set_type", c_int, [c_void_p, ctypes.c_uint]),
        ("bpf_map__type", ctypes.c_uint, [c_void_p]),
        ("bpf_map__key_size", ctypes.c_uint, [c_void_p]),
        ("bpf_map__value_size", ctypes.c_uint, [c_void_p]),
        ("bpf_map__max_entries", ctypes.c_uint, [c_void_p]),
        ("bpf_map__map_flags", ctypes.c_uint, [c_void_p]),
        ("bpf_map__fd", c_int, [c_void_p]),
        ("bpf_program__name", c_char_p, [c_void_p]),
        ("bpf_program__fd", c_int, [c_void_p]),
        ("bpf_program__set_autoload", c_int, [c_void_p, ctypes.c_bool]),
        ("bpf_program__expected_attach_type", c_int, [c_void_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(_print_callback)
    return library


class BpfObject:
    """One object file: open it, look at its maps, load it, take what you need, close it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._library = _libbpf()
        _messages.clear()
        self._object = self._library.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            raise HostError(f"{path}: not a BPF object: build it (python hatch_build.py)")

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, *exception: object) -> None:
        self._library.bpf_object__close(self._object)

    def _maps(self) -> Iterator[tuple[str, int]]:
        """Without ``.rodata``: constants belong to the programs, and bpffs takes no dots."""
        pointer = None
        while pointer := self._library.bpf_object__next_map(self._object, pointer):
            name = self._library.bpf_map__name(pointer).decode()
            if "." not in name:
                yield name, pointer

    def _programs(self) -> Iterator[tuple[str, int]]:
        pointer = None
        while pointer := self._library.bpf_object__next_program(self._object, pointer):
            yield self._library.bpf_program__name(pointer).decode(), pointer

    def definitions(self) -> dict[str, MapDefinition]:
        """The maps, as the object declares them; a ring buffer's size is rounded by libbpf."""
        library = self._library
        return {
            name: MapDefinition(
                library.bpf_map__type(pointer),
                library.bpf_map__key_size(pointer),
                library.bpf_map__value_size(pointer),
                library.bpf_map__max_entries(pointer),
                library.bpf_map__map_flags(pointer),
            )
            for name, pointer in self._maps()
        }

    def attach_types(self) -> dict[str, int]:
        """Programs, with the expected attach type of their section."""
        return {
            name: self._library.bpf_program__expected_attach_type(pointer)
            for name, pointer in self._programs()
        }

    def redefine(self, name: str, *, max_entries: int, type: int | None = None) -> None:
        """Another size or type for a map; tests make full ones of them."""
        pointer = dict(self._maps())[name]
        if type is not None:
            self._library.bpf_map__set_type(pointer, type)
        self._library.bpf_map__set_max_entries(pointer, max_entries)

    def load(self, maps: Path, without: Container[str] = ()) -> dict[str, int]:
        """Load its programs, with all its maps reused from or pinned into a directory.

        without  programs that are left out

        Returns descriptors of the programs, the caller's to close.
        """
        programs = {name: it for name, it in self._programs() if name not in without}
        for name, pointer in self._programs():
            self._library.bpf_program__set_autoload(pointer, name in programs)
        for name, pointer in self._maps():
            self._library.bpf_map__set_pin_path(pointer, os.fsencode(maps / name))
        code = self._library.bpf_object__load(self._object)
        if code:
            why = "".join(_messages)[-LOG_KEPT:].strip()
            error = symbol(OSError(-code, ""))
            raise HostError(
                f"load {self._path.name}: {error}: {why}; "
                "needs root and Linux 6.6 or newer (sixfold doctor)"
            )
        return {
            name: os.dup(self._library.bpf_program__fd(pointer))
            for name, pointer in programs.items()
        }
