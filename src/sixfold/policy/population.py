"""Who is there: endpoints, grouped by all that their policy table depends on.

Pure. A table depends on the identity and the profile (``table.profile_of``); pods that share
both share a table. An endpoint without an identity is in a group that nobody selects: its table
is closed, because a workload that nobody attested may not talk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.model.layers import Layers, differing
from sixfold.policy.selector import Selection, SelectorIndex
from sixfold.policy.table import NO_PROFILE, Profile, profile_of

Change = tuple[str, Endpoint | None, Endpoint | None]  # key, before, after


class Group:
    """Endpoints with one table; ``size`` counts them."""

    __slots__ = ("identity", "profile", "size")

    def __init__(self, identity: Identity, profile: Profile) -> None:
        self.identity = identity
        self.profile = profile
        self.size = 0

    @property
    def kind(self) -> tuple[Identity, Profile]:
        return self.identity, self.profile


@dataclass(slots=True)
class Moves:
    """What changed: endpoints, groups that are new or gone, selections with other members.

    readdressed  an address, or what a named port means there, is not what it was
    renamed      identities that stand for another subject than before
    """

    keys: Collection[str]
    readdressed: bool = False
    came: dict[Group, None] = field(default_factory=dict)  # in order
    gone: set[Group] = field(default_factory=set)
    renamed: set[Identity] = field(default_factory=set)
    selections: set[Selection] = field(default_factory=set)


class Population:
    """Endpoints by group, kept in step with the selector index."""

    def __init__(self, config: Config, index: SelectorIndex) -> None:
        self.endpoints: Mapping[str, Endpoint] = Layers()
        self.group_of: Layers[str, Group] = Layers()
        self._index = index
        self._profiled = config.posture == "zero-trust"
        self._config = config
        self._groups: dict[Identity, dict[Profile, Group]] = {}
        self._probed: Counter[int] = Counter()

    def groups(self, identity: Identity) -> Collection[Group]:
        """The groups of an identity, one for each profile."""
        return self._groups.get(identity, {}).values()

    @property
    def probed(self) -> frozenset[int]:
        """Ports that the node's own probes dial, on any endpoint."""
        return frozenset(+self._probed)

    def hold_back(self, groups: Mapping[str, Group]) -> None:
        """Endpoints that are about to come, but for which ``take_in`` is called, if ever."""
        self.group_of = self.group_of.changed(groups)

    def like(self, key: str, endpoint: Endpoint | None, held: Mapping[str, Group]) -> str | None:
        """Who of those held back has the table that this endpoint is to have: itself, if it had
        that before."""
        if endpoint is None:
            return None
        kind = endpoint.identity, self._profile(endpoint)
        those = {key: held[key]} if key in held else held
        found = next((one for one, its in those.items() if its.kind == kind), None)
        same = found is not None and self.endpoints[found].subject == endpoint.subject
        return found if same else None

    def take_in(self, keys: Iterable[str]) -> None:
        """Endpoints that were held back, as if they had come with the first."""
        for key in keys:
            group = self.group_of[key]
            profiles = self._groups.setdefault(group.identity, {})
            if not profiles:
                self._index.add(group.identity, self.endpoints[key].subject)
            profiles[group.profile] = group
            group.size += 1

    def follow(self, endpoints: Mapping[str, Endpoint]) -> Moves:
        """Take over endpoints that came, went or are other objects than before."""
        known = self.endpoints
        moves = Moves(differing(known, endpoints) if known else endpoints.keys())
        puts: dict[str, Group] = {}
        left: dict[Group, None] = {}
        held_back = self.group_of
        for key, before, after in _changes(known, endpoints, moves.keys):
            if not moves.readdressed:
                moves.readdressed = before is None or _addresses(before) != _addresses(after)
            if before is not None and before.probe_ports:
                self._probed.subtract(before.probe_ports)
            if after is not None and after.probe_ports:
                self._probed.update(after.probe_ports)
            if before is None and key in held_back:
                continue
            if before is not None:
                if after is not None and self._same_group(before, after):
                    continue
                left[self._leave(before)] = None
            if after is not None:
                puts[key] = self._join(after, moves)
        self._forget_empty(left, moves)
        gone = [key for key in moves.keys if key not in endpoints] if known else ()
        self.group_of = self.group_of.changed(puts, gone)
        self.endpoints = endpoints if isinstance(endpoints, Layers) else Layers(endpoints)
        return moves

    def _profile(self, endpoint: Endpoint) -> Profile:
        return profile_of(endpoint, self._config) if self._profiled else NO_PROFILE

    def _same_group(self, before: Endpoint, after: Endpoint) -> bool:
        """Readiness and addresses come and go without any effect on the table."""
        return (
            before.identity == after.identity
            and before.subject == after.subject
            and self._profile(before) == self._profile(after)
        )

    def _leave(self, endpoint: Endpoint) -> Group:
        group = self._groups[endpoint.identity][self._profile(endpoint)]
        group.size -= 1
        return group

    def _join(self, endpoint: Endpoint, moves: Moves) -> Group:
        identity, subject = endpoint.identity, endpoint.subject
        if identity != UNKNOWN:
            known = self._index.subjects.get(identity)
            if known is None:
                if joined := self._index.add(identity, subject):
                    moves.selections.update(joined)
            elif known is not subject and known != subject:  # it stands for another subject now
                moves.selections.update(self._index.remove(identity))
                moves.selections.update(self._index.add(identity, subject))
                moves.renamed.add(identity)
        profiles = self._groups.get(identity)
        if profiles is None:
            profiles = self._groups[identity] = {}
        profile = self._profile(endpoint) if self._profiled else NO_PROFILE
        group = profiles.get(profile)
        if group is None:
            group = profiles[profile] = Group(identity, profile)
            moves.came[group] = None
        group.size += 1
        return group

    def _forget_empty(self, left: Iterable[Group], moves: Moves) -> None:
        for group in left:
            if group.size:
                continue
            moves.came.pop(group, None)
            moves.gone.add(group)
            profiles = self._groups[group.identity]
            del profiles[group.profile]
            if not profiles:
                del self._groups[group.identity]
                if group.identity != UNKNOWN:
                    moves.selections.update(self._index.remove(group.identity))


def _changes(
    known: Mapping[str, Endpoint], endpoints: Mapping[str, Endpoint], keys: Iterable[str]
) -> Iterator[Change]:
    if not known:
        for key, endpoint in endpoints.items():
            yield key, None, endpoint
        return
    for key in keys:
        yield key, known.get(key), endpoints.get(key)


def _addresses(endpoint: Endpoint | None) -> tuple[object, ...]:
    if endpoint is None:
        return ()
    return endpoint.ipv4, endpoint.ipv6, endpoint.subject.named_ports
