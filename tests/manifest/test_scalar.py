from __future__ import annotations

import pytest

from sixfold.manifest.scalar import plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("80", 80, id="integer"),
        pytest.param("0644", 420, id="octal"),
        pytest.param("0x1f", 31, id="hexadecimal"),
        pytest.param("-5", -5, id="negative"),
        pytest.param("1.5", 1.5, id="float"),
        pytest.param("yes", True, id="YAML 1.1 boolean"),
        pytest.param("off", False, id="YAML 1.1 boolean off"),
        pytest.param("~", None, id="null"),
        pytest.param("", None, id="empty"),
        pytest.param("1:30", "1:30", id="no base 60"),
        pytest.param("2024-01-01", "2024-01-01", id="no dates"),
        pytest.param("10.0.0.1", "10.0.0.1", id="address"),
        pytest.param("0x_", "0x_", id="only underscores"),
        pytest.param("-", "-", id="dash"),
    ],
)
def test_scalars_are_typed_as_kubectl_types_them(text, value):
    assert plain(text) == value
    assert type(plain(text)) is type(value)


def test_integers_beyond_64_bits_become_floats_as_in_go():
    assert plain("9223372036854775807") == 2**63 - 1
    assert isinstance(plain("9223372036854775808"), float)
    assert isinstance(plain("9" * 5000), str)
