"""What names resolve to, as the agent knows it: learned, kept, let go.

The rules are in ``discovery/learned.py``; here are the clock, the database and the log. Nothing is
opened here: ``World.domains`` has what is known, and the planners do the rest.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address

from sixfold.discovery.learned import Learned, Lesson, Pair, not_of_the_world
from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress
from sixfold.model.domain import DomainMatcher, matches
from sixfold.model.rule import Rule
from sixfold.observe import Names
from sixfold.policy import ir
from sixfold.policy.plan import PolicyPlan
from sixfold.serve.dns_control import Resolved
from sixfold.store import Database
from sixfold.store.learned import LearnedNames
from sixfold.workloads.pod_state import format_time

log = logging.getLogger(__name__)

SAY_AGAIN_S = 60.0  # how often the same trouble is worth a line


class Learning:
    """``names`` is for the world; ``narrowed`` is set when less is known than was planned."""

    def __init__(self, config: Config, database: Database, names: Names) -> None:
        self._config = config
        self._stored = LearnedNames(database)
        self._learned = Learned({Pair(*row): at_s for row, at_s in self._stored.load().items()})
        self._names = names
        self._matcher = DomainMatcher()
        self._said: dict[str, float] = {}
        self.refused = 0
        self.narrowed = False
        for name, addresses in self._learned.names.items():
            names.add_domain(name, addresses)

    @property
    def names(self) -> Mapping[str, frozenset[IPAddress]]:
        return self._learned.names

    def next_deadline(self) -> float | None:
        return self._learned.next_deadline()

    def take(self, message: Resolved, host: Collection[IPAddress]) -> tuple[bool, tuple[Pair, ...]]:
        """Learn an answer: whether all of it may be open now, and what of it is news."""
        wanted: dict[IPAddress, float] = {}
        for text, ttl_s in message.addresses.items():
            address = ip_address(text)
            if reason := not_of_the_world(address, self._config, host):
                self._refuse(message.name, address, reason)
            else:
                wanted[address] = max(float(ttl_s), self._config.fqdn_min_ttl_s)
        lesson = self._learned.learn(message.name, wanted, time.time())
        for address, reason in lesson.refused:
            self._refuse(message.name, address, reason)
        self._keep(lesson)
        return not lesson.refused, lesson.fresh

    def expire(self, dependent: Mapping[IPAddress, frozenset[str]]) -> bool:
        """Let go of what is over; ``dependent``: patterns whose rules open connections rest on."""
        gone = self._learned.expire(
            time.time(),
            lambda pair: any(
                matches(one, pair.name) for one in dependent.get(pair.address, frozenset())
            ),
        )
        return self._forget(gone)

    def due(self) -> frozenset[IPAddress]:
        """Addresses of what is over."""
        return frozenset(pair.address for pair in self._learned.due(time.time()))

    def follow(self, patterns: frozenset[str]) -> bool:
        """Let go of names that no policy means any more."""
        if patterns == self._matcher.patterns:
            return False
        self._matcher = matcher = DomainMatcher(patterns)
        return self._forget(self._learned.retain(lambda name: bool(matcher.of(name))))

    def summary(self) -> dict[str, int]:
        """For ``sixfold status``."""
        found = {"names": len(self._learned.names), "addresses": len(self._learned)}
        return {**found, "refused": self.refused}

    def entries(self) -> list[dict[str, object]]:
        """For ``sixfold fqdn cache list``."""
        now_s = time.time()
        return [
            {
                "name": pair.name,
                "address": str(pair.address),
                "ttl_s": max(0, round(life.expires_s - now_s)),
                "expires": format_time(life.expires_s),
                "held": life.held,
                "patterns": sorted(self._matcher.of(pair.name)),
            }
            for pair, life in sorted(self._learned, key=lambda item: (item[0].name, str(item[0])))
        ]

    def _keep(self, lesson: Lesson) -> None:
        pairs = (*lesson.fresh, *lesson.renewed)
        if pairs:
            self._stored.put((pair, self._learned.expires_s(pair)) for pair in pairs)
        for pair in lesson.fresh:
            self._names.add_domain(pair.name, [pair.address])

    def _forget(self, gone: Sequence[Pair]) -> bool:
        if gone:
            self._stored.remove(gone)
            self.narrowed = True
        return bool(gone)

    def _refuse(self, name: str, address: IPAddress, reason: str) -> None:
        self.refused += 1
        now_s = time.time()
        if now_s - self._said.get(reason, 0.0) >= SAY_AGAIN_S:
            self._said[reason] = now_s
            log.error("name %s → %s: not opened: %s", name, address, reason)


def rules_of_names(plan: PolicyPlan, number: Callable[[Rule], int]) -> dict[int, set[str]]:
    """Numbers of the rules that name domains, with their patterns."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for policy in plan.policies.values():
        for line in policy.lines:
            for peer in line.peers or ():
                if isinstance(peer, ir.DomainName):
                    found[number(line.rule)].add(peer.pattern)
    return found
