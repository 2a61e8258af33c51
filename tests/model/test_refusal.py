import pytest

from sixfold.model.refusal import (
    CALLS_MAX,
    COMPAT,
    NUMBERS,
    QUESTIONS,
    SYSTEM_CALLS,
    call_name,
    capability_name,
)

CALLS = {name: number for number, name in SYSTEM_CALLS.items()}


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("SYS_ADMIN", "mount"),
        ("SYS_ADMIN", "bpf"),
        ("SYS_PTRACE", "openat"),
        ("NET_ADMIN", "sendto"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_who_is_refused_what_a_capability_is_for_has_attempted_it(capability, call):
    assert NUMBERS[capability] not in QUESTIONS[CALLS[call]]


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("SYS_ADMIN", "mmap"),
        ("SYS_PTRACE", "read"),
        ("NET_ADMIN", "openat"),
        ("SYS_RESOURCE", "setsockopt"),
        ("DAC_READ_SEARCH", "openat"),
    ],
)
def test_what_the_kernel_asks_in_passing_is_no_attempt(capability, call):
    assert NUMBERS[capability] in QUESTIONS[CALLS[call]]


def test_32_bit_calls_have_numbers_of_their_own():
    brk, umount = COMPAT + 45, COMPAT + 52
    assert NUMBERS["SYS_ADMIN"] in QUESTIONS[brk]
    assert NUMBERS["SYS_ADMIN"] not in QUESTIONS[umount]
    assert call_name(umount) == "32-bit 52"
    assert QUESTIONS.keys() == set(range(CALLS_MAX))


def test_what_is_not_listed_keeps_its_number():
    assert (call_name(165), call_name(511)) == ("mount", "511")
    assert (capability_name(21), capability_name(63)) == ("CAP_SYS_ADMIN", "capability 63")
