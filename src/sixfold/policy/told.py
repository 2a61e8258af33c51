"""Whose policy is told only, and for which ports: namespaces in audit, relaxations, everything.

Pure. What a policy says of itself (``in audit``) is in what it grants, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from sixfold.model.config import Config
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.identity import Subject
from sixfold.model.posture import Relaxation, in_audit
from sixfold.model.world import World
from sixfold.policy.entries import Match


class Told(NamedTuple):
    """Of one workload. ``everything``: by whose word; "" by nobody's. ``ports``: likewise."""

    everything: str = ""
    ports: Mapping[Match, str] = MappingProxyType({})


ENFORCED = Told()


class Audited:
    """Of one world after the other."""

    def __init__(self, config: Config) -> None:
        self._everybody = told_of_all(config)
        self._namespaces: frozenset[str] = frozenset()
        self._relaxations: tuple[Relaxation, ...] = ()

    def changed(self, world: World) -> set[str]:
        """Namespaces in which this world has others in audit."""
        before, now = self._relaxations, world.relaxations
        some = [one for one in before if one not in now] + [one for one in now if one not in before]
        return {*(self._namespaces ^ world.audited), *(one.namespace for one in some)}

    def follow(self, world: World) -> None:
        self._namespaces, self._relaxations = world.audited, world.relaxations

    def of(self, subject: Subject) -> Told:
        """What is told of a workload, and not enforced."""
        if self._everybody.everything:
            return self._everybody
        if subject.namespace in self._namespaces:
            return Told(f"namespace {subject.namespace}")
        if not self._relaxations:  # as nearly always; there may be a hundred thousand to ask for
            return ENFORCED
        relaxed = in_audit(self._relaxations, subject.namespace, dict(subject.labels))
        ports = {
            (PROTOCOL_NUMBERS[port.protocol], port.port, 16): str(one)
            for one in relaxed
            for port in one.ports
        }
        return Told(next((str(one) for one in relaxed if not one.ports), ""), ports)


def told_of_all(config: Config) -> Told:
    """What is told of whoever it is: of the host, too."""
    return Told("up --audit") if config.audit else ENFORCED
