"""What is wrong with a Secret or a ConfigMap, beyond its shape. No finding tells a value."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Iterator, Mapping

from sixfold.manifest import names
from sixfold.manifest.path import Finding, Path
from sixfold.model.secret import CERTIFICATE, KEY, TLS_TYPE, ConfigMap, Secret

BYTES_MAX = 1 << 20  # of all values; as the API server has it
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def secret(obj: Secret) -> Iterator[Finding]:
    yield from _keys(("stringData",), obj.string_data)
    yield from _encoded(("data",), obj.data)
    yield from _size(("data",), obj.data, obj.string_data)
    if obj.type == TLS_TYPE:
        for name in (CERTIFICATE, KEY):
            if name not in obj.data and name not in obj.string_data:
                yield Finding(("data", name), f"is required of type {TLS_TYPE}; add it")


def config_map(obj: ConfigMap) -> Iterator[Finding]:
    yield from _keys(("data",), obj.data)
    yield from _encoded(("binaryData",), obj.binary_data)
    yield from _size(("data",), obj.data, obj.binary_data)
    for name in obj.data.keys() & obj.binary_data.keys():
        yield Finding(("binaryData", name), "is in data, too; keep one")


def _keys(path: Path, values: Mapping[str, str]) -> Iterator[Finding]:
    for name in values:
        if not _KEY.fullmatch(name):
            yield Finding(
                (*path, name), f"{names.quoted(name)} is no key; give letters, digits, -._"
            )


def _encoded(path: Path, values: Mapping[str, str]) -> Iterator[Finding]:
    yield from _keys(path, values)
    for name, value in values.items():
        try:
            b64decode(value, validate=True)
        except (Error, ValueError):
            yield Finding((*path, name), "is not base64; encode it, or give it as plain text")


def _size(path: Path, *values: Mapping[str, str]) -> Iterator[Finding]:
    size = sum(len(value) for given in values for value in given.values())
    if size > BYTES_MAX:
        yield Finding(path, f"has {size} bytes; give at most {BYTES_MAX}")
