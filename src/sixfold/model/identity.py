"""Identities: the numbers by which the kernel knows who sends and who receives.

Reserved numbers are Cilium's; 128 is ours. A pod's identity is one number per unique
(namespace, service account, labels, named ports): two pods that policy cannot tell apart
share it. Named ports belong to it because egress rules may name a port of the destination.
"""

from __future__ import annotations

from typing import NewType

import msgspec

Identity = NewType("Identity", int)

UNKNOWN = Identity(0)
HOST = Identity(1)
WORLD = Identity(2)
RESOLVER = Identity(128)  # the cluster DNS address
ANY_POD = Identity(129)  # every pod that has an identity: a peer in rules, nobody's own
FIRST_ALLOCATED = 256
LAST_ALLOCATED = 65535
FIRST_CIDR = 1 << 24  # local CIDR identities, one per CIDR that a policy names
OUTSIDE = 1 << 25  # added to a CIDR identity: its addresses in the world, not pods and host
FIRST_DOMAIN = 1 << 26  # one per set of domain patterns that an address was learned for
LAST_DOMAIN = (1 << 27) - 1

RESERVED_NAMES = {
    UNKNOWN: "reserved:unknown",
    HOST: "reserved:host",
    WORLD: "reserved:world",
    RESOLVER: "reserved:resolver",
    ANY_POD: "reserved:pods",
}


class NamedPort(msgspec.Struct, frozen=True, order=True):
    """A containerPort with a name: what ``port: http`` in a policy or service refers to."""

    name: str
    protocol: str
    port: int


class Subject(msgspec.Struct, frozen=True):
    """Everything of a pod that policy can see; equal subjects share an identity."""

    namespace: str
    service_account: str
    labels: tuple[tuple[str, str], ...]  # sorted by key
    named_ports: tuple[NamedPort, ...]  # sorted
