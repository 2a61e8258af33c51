from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.errors import HostError
from sixfold.host.attachment import NAME_MAX, Attachment, check_alias, parse_alias


@given(
    st.from_regex(r"[a-z0-9-]{1,63}/[a-z0-9.-]{1,100}", fullmatch=True),
    st.none() | st.ip_addresses(v=4),
    st.none() | st.ip_addresses(v=6),
)
def test_successor_reads_from_the_alias_what_was_attached(name, ipv4, ipv6):
    attachment = Attachment(name, 7, "sf0", Path("/run/netns/x"), 9, ipv4, ipv6)
    assert parse_alias(attachment.alias) == (name, ipv4, ipv6)


@given(st.text(max_size=60))
def test_any_alias_of_anybody_is_read_without_error(alias):
    owner, *_ = parse_alias(alias)
    assert owner == alias.split(" ")[0]


def test_longest_name_leaves_room_for_both_addresses():
    longest = ip_address("255.255.255.255"), ip_address("1111:" * 7 + "1111")
    attachment = Attachment("n" * NAME_MAX, 7, "sf0", Path("/x"), 9, *longest)
    check_alias(attachment.name)
    assert len(attachment.alias) <= 255
    with pytest.raises(HostError, match="shorten the pod's name"):
        check_alias("n" * (NAME_MAX + 1))
