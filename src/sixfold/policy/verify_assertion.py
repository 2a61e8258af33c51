"""Assertions about who can reach whom, as an author writes them. YAML is the caller's matter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from sixfold.model.meta import LabelSelector, Object
from sixfold.model.policy import NetworkPolicyPort
from sixfold.policy.reach_ports import EVERY_PORT, NO_PORT, PORTS, PortSet

Kind = Literal["deny", "allow", "only", "isolated"]


class End(Object):
    """One side of a flow. Selectors and ``namespace`` narrow each other; empty is every workload.

    cidr   addresses outside, that are no workload's
    world  every such address
    """

    namespace: str = ""
    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None
    workload: str = ""  # ns/name
    cidr: str = ""
    host: bool = False
    world: bool = False


class Flows(Object):
    """From any of these to any of those; an absent side is anybody, absent ports are all.

    guards  of ``only``: which side is protected, or held back; the other says who may
    """

    from_: list[End] | None = msgspec.field(default=None, name="from")
    to: list[End] | None = None
    ports: list[NetworkPolicyPort] | None = None
    guards: Literal["from", "to"] = "to"


class Isolated(Object):
    """Workloads that nothing reaches (or that reach nothing) but what a rule allows."""

    namespace: str = ""
    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None
    workload: str = ""
    direction: Literal["ingress", "egress", "both"] = "both"


class Assertion(Object):
    """Exactly one of the four. ``only``: nobody but ``from`` reaches ``to``, on these ports.

    mayBeEmpty  it holds also when it is about nobody
    """

    name: str = ""
    deny: Flows | None = None
    allow: Flows | None = None
    only: Flows | None = None
    isolated: Isolated | None = None
    may_be_empty: bool = False

    @property
    def kinds(self) -> list[Kind]:
        """Those that are given."""
        kinds: tuple[Kind, ...] = ("deny", "allow", "only", "isolated")
        return [kind for kind in kinds if getattr(self, kind) is not None]

    @property
    def ends(self) -> list[End]:
        flows = [one for one in (self.deny, self.allow, self.only) if one is not None]
        return [end for one in flows for side in (one.from_, one.to) for end in side or ()]

    @property
    def workloads(self) -> set[str]:
        """Workloads that it names."""
        named = {end.workload for end in self.ends}
        return (named | {self.isolated.workload if self.isolated else ""}) - {""}


def port_set(ports: Iterable[NetworkPolicyPort] | None) -> PortSet:
    """Ports as written in an assertion; names are refused before."""
    if not ports:
        return EVERY_PORT
    found = NO_PORT
    for port in ports:
        assert not isinstance(port.port, str)
        first = port.port if port.port is not None else 0
        last = port.end_port or (port.port if port.port is not None else PORTS - 1)
        found |= PortSet.of(port.protocol, first, last)
    return found
