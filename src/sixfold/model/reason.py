"""Why the datapath dropped a packet: one append-only list, shared by kernel, flows and docs.

Numbers follow Cilium's where it has the same reason. ``bpf/sixfold.h`` holds the same list;
``tests/twin/test_layout.py`` compares them, and every number has a line in ``docs/drops.md``.
"""

from __future__ import annotations

from enum import IntEnum


class DropReason(IntEnum):
    """A drop reason as the kernel reports it; 0 means not dropped."""

    NONE = 0
    INVALID_SOURCE_MAC = 130
    INVALID_SOURCE_IP = 132  # spoofed
    POLICY_DENIED = 133  # no rule allows it: the default deny, by name of its table
    INVALID_PACKET = 134  # truncated or lying headers
    CT_FULL = 135  # conntrack could not take the flow: fail closed
    UNSUPPORTED_L2 = 166  # VLAN, or neither IP nor ARP
    NO_NAT_MAPPING = 167  # every backend has this client's port already, by another address
    SOURCE_RANGE = 177  # outside the service's loadBalancerSourceRanges
    UNSUPPORTED_L4 = 142
    FRAGMENT_UNKNOWN = 157  # fragment whose first was never seen
    NO_BACKEND = 158  # packet to a service address that no socket hook translated
    POLICY_DENY = 181  # an explicit deny rule
    EXTENSION_HEADERS = 156  # IPv6 extension chain longer than the bound, or malformed
    ARP_STRANGER = 191  # ARP or neighbour discovery in somebody else's name
    ICMP_UNRELATED = 192  # ICMP error about a connection that is not there
    NO_ENDPOINT = 193  # interface has no endpoint record: fail closed
    IP_OPTIONS = 194  # IPv4 source routing and other options
    MTLS_REQUIRED = 208  # plaintext to a port of a pod that is strict
    TUNNEL_PORT = 209  # to where tunnels end, by somebody who is not the proxy
    PROXY_AWAY = 210  # a dial that needs the proxy: refused, nobody took it
    PROXY_REQUIRED = 211  # to the world, past the proxy that has to see it
    CAPABILITY_DENIED = 212  # a system call of a pod's process: it lacks a capability
    NOT_ATTESTED = 213  # a dial: the pod's identity is not for the process that dials
    READ_ONLY = 214  # a system call of a pod's process: to write what is there to read
    NO_PROCESS = 215  # a system call of a pod's process: about one that it does not see
    NAME_HIDDEN = 207  # a question, answered as if the name did not exist: policy hides it
    MULTICAST = 206  # to a group or to everybody: pods have one neighbour, the gateway
