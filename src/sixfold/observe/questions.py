"""From what the resolver refused to a flow: who asked for which name, and what denies it.

Pure. What it answered is told by the kernel, as any connection to it.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from sixfold.model.flow import Flow, Peer, Verdict
from sixfold.model.identity import RESOLVER
from sixfold.model.reason import DropReason
from sixfold.model.rule import Rule
from sixfold.observe.names import Names, peer_at

PROTOCOLS = {"UDP": 17, "TCP": 6}
PORT = 53


class Question(NamedTuple):
    """``audit``: it was answered all the same."""

    client: str
    port: int
    resolver: str
    protocol: str
    name: str
    type: str
    audit: bool


def refused(asked: Question, denied: Rule, names: Names, now_ns: int) -> Flow:
    resolver = ip_address(asked.resolver)
    return Flow(
        now_ns,
        Verdict.AUDIT if asked.audit else Verdict.DROPPED,
        "egress",
        PROTOCOLS[asked.protocol],
        peer_at(names, ip_address(asked.client), asked.port),
        Peer(resolver, PORT, RESOLVER, labels=names.labels_of(RESOLVER)),
        DropReason.POLICY_DENIED,
        egress_rule=denied,
        node=names.node,
        extra={
            "asked": f"{asked.name or '.'} {asked.type}: "
            + ("not among the names it may ask for" if asked.audit else "REFUSED")
        },
    )
