"""The value of an unquoted YAML scalar, as kubectl reads it.

YAML 1.1 booleans and octal numbers, but no dates and no base-60 numbers: 1:30 and 2024-01-01
are text. Source: go-yaml v2, which kubectl uses.
"""

from __future__ import annotations

import re
from typing import Any

_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_INTEGER = re.compile(
    r"[-+]?(0b_*[01][01_]*|0o_*[0-7][0-7_]*|0x_*[0-9a-fA-F][0-9a-fA-F_]*|0[0-7_]*|[1-9][0-9_]*)\Z"
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_DIGITS_MAX = 250  # longer numbers overflow even a float; no field holds one
_NUMBER_STARTS = frozenset("-+.0123456789")


def plain(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_STARTS or len(text) > _DIGITS_MAX:
        return text
    if _INTEGER.match(text):
        return _integer(text.replace("_", ""))
    return float(text) if _FLOAT.match(text) else text


def _integer(text: str) -> int | float:
    digits = text.lstrip("+-")
    base = 0 if digits[:2] in ("0b", "0o", "0x") else 8 if digits[0] == "0" else 10
    value = int(digits, base) * (-1 if text[0] == "-" else 1)
    return value if abs(value) < 1 << 63 else float(value)  # as Go does beyond 64 bits
