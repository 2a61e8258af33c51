"""What of a pod's connections to the world does the proxy have to see, and which does it pass?

Pure. The tables say who reaches which address and port outside; of some entries they say besides
that only the proxy may (``ir.Outward``): it reads the name in the handshake, or begins TLS itself.
A pod has a *leaving* when a line about that selects it. Which addresses a line is about the kernel
has decided when the proxy asks; it decides by port, by block, and by what is said. Of lines about
domain names any counts whose port it is: an address is of several names, and so is a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sixfold.model.config import Config
from sixfold.model.datapath import ALLOW, EGRESS
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import Subject
from sixfold.model.layers import same_objects
from sixfold.model.policy import IPBlock
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.meant import means
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.table import default_rule


class Seen(NamedTuple):
    """TLS to a port passes if it names one of these; ``blocks`` None: wherever it goes."""

    rule: Rule
    port: int
    servers: tuple[str, ...]
    blocks: tuple[IPBlock, ...] | None = None


class Leaving(NamedTuple):
    """Of one pod; ``carried``: ports where the proxy takes HTTP, and begins TLS for hosts.

    denied  names what is neither
    """

    seen: tuple[Seen, ...]
    carried: tuple[tuple[str, int], ...]
    denied: Rule


class OutwardPlanner:
    """Plans world after world: the same object as long as nothing that it was made of changes."""

    def __init__(self) -> None:
        self._made_of: tuple[object, ...] = ()
        self._plan: Mapping[str, Leaving] = {}

    def plan(self, world: World, policy: PolicyPlan) -> Mapping[str, Leaving]:
        """The leaving of each pod that has one."""
        made_of: tuple[object, ...] = ()
        if policy.about_outside:
            made_of = (policy.about_outside, world.endpoints, world.namespaces)
        if not same_objects(made_of, self._made_of):
            found = dict(_leavings(world, policy)) if made_of else {}
            self._made_of = made_of
            if found != self._plan:
                self._plan = found
        return self._plan


def leaving_of(world: World, policy: PolicyPlan, endpoint: Endpoint) -> Leaving | None:
    """Of one pod; None: the proxy sees nothing of it."""
    titles: set[str] = set()
    seen: list[Seen] = []
    carried: dict[tuple[str, int], None] = {}
    for one in policy.about_outside.values():
        if not (isinstance(one.subject, ir.Pods) and means(world, one.subject, endpoint)):
            continue
        for line in one.lines:
            if line.outward is None or line.direction != EGRESS or line.verdict != ALLOW:
                continue
            titles.add(one.title)
            for port in _numbers(line):
                if line.outward.carried:
                    carried[line.outward.carried, port] = None
                elif line.outward.servers:
                    seen.append(Seen(line.rule, port, line.outward.servers, _blocks(line)))
    if not titles:
        return None
    return Leaving(tuple(seen), tuple(carried), default_rule("egress", sorted(titles), Config()))


def _leavings(world: World, policy: PolicyPlan) -> Iterator[tuple[str, Leaving]]:
    """Pods that policy cannot tell apart have one."""
    known: dict[Subject, Leaving | None] = {}
    for key, endpoint in world.endpoints.items():
        subject = endpoint.subject
        if subject not in known:
            known[subject] = leaving_of(world, policy, endpoint)
        if (found := known[subject]) is not None:
            yield key, found


def _numbers(line: ir.Line) -> Iterator[int]:
    for port in line.ports or ():
        assert isinstance(port.first, int), "manifest refuses names and ranges"
        yield port.first


def _blocks(line: ir.Line) -> tuple[IPBlock, ...] | None:
    found = [peer.block for peer in line.peers or () if isinstance(peer, ir.Addresses)]
    return tuple(found) if found else None
