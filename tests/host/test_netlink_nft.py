import os
import uuid
from ipaddress import ip_network

import pytest

from sixfold.host import netlink_nft as nft
from sixfold.host import netns
from sixfold.host.netlink import NETLINK_NETFILTER, Netlink, NetlinkError
from sixfold.host.paths import NETNS_ROOT

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="nf_tables needs root"),
]


@pytest.fixture
def netfilter():
    """nf_tables of a namespace of its own."""
    path = NETNS_ROOT / f"t4-{uuid.uuid4().hex[:8]}"
    with netns.create(path, lambda: Netlink(NETLINK_NETFILTER)) as netlink:
        yield netlink
    netns.delete(path)


def test_comments_come_back_in_order_of_the_rules(netfilter):
    rules = [("first", nft.source_in(ip_network("192.0.2.0/24"))), ("second", nft.drop())]
    nft.transaction(
        netfilter,
        [
            nft.add_table("ours"),
            nft.add_chain("ours", "out", "filter", nft.FORWARD, nft.PRIORITY_FILTER),
            *(nft.add_rule("ours", "out", comment, expression) for comment, expression in rules),
        ],
    )
    assert nft.comments(netfilter, "ours") == [("out", "first"), ("out", "second")]
    assert nft.comments(netfilter, "theirs") == []


def test_refused_transaction_changes_nothing_and_says_why(netfilter):
    broken = [
        nft.add_table("broken"),
        nft.add_rule("broken", "no-such-chain", "x", nft.masquerade()),
    ]
    with pytest.raises(NetlinkError, match=r"nft add rule inet broken no-such-chain: ENOENT"):
        nft.transaction(netfilter, broken)
    with pytest.raises(NetlinkError, match="nft delete table inet broken: ENOENT"):
        nft.transaction(netfilter, [nft.delete_table("broken")])


def test_chain_of_others_that_drops_forwarded_packets_is_found(netfilter):
    def chain(table, policy):
        return [
            nft.add_table(table),
            nft.add_chain(
                table, "FORWARD", "filter", nft.FORWARD, nft.PRIORITY_FILTER, policy=policy
            ),
        ]

    nft.transaction(netfilter, chain("open", nft.ACCEPT))
    assert nft.dropping_forward_chains(netfilter) == []
    nft.transaction(netfilter, chain("docker", nft.DROP))
    assert nft.dropping_forward_chains(netfilter) == [("inet", "docker", "FORWARD")]
