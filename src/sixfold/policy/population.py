"""Who is there: endpoints, grouped by all that their policy table depends on.

Pure. A table depends on the identity and the profile (``table.profile_of``); pods that share
both share a table. An endpoint without an identity is in no group and gets no table: the kernel
then drops everything, because a workload that nobody attested may not talk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.model.layers import Layers, differing
from sixfold.policy.selector import Selection, SelectorIndex
from sixfold.policy.table import Profile, profile_of


@dataclass(slots=True)
class Moves:
    """What changed: endpoints, groups that are new, selections with other members.

    readdressed  an address, or what a named port means there, is not what it was
    newcomers    identities with a profile that nobody had before
    joined       endpoints that came to a group which had members already
    """

    keys: set[str]
    readdressed: bool = False
    newcomers: set[Identity] = field(default_factory=set)
    joined: list[str] = field(default_factory=list)
    selections: set[Selection] = field(default_factory=set)


class Population:
    """Endpoints by group, kept in step with the selector index."""

    def __init__(self, config: Config, index: SelectorIndex) -> None:
        self.endpoints: Mapping[str, Endpoint] = Layers()
        self._config = config
        self._index = index
        self._groups: dict[Identity, dict[Profile, dict[str, None]]] = {}  # an ordered set of keys

    def groups(self, identity: Identity) -> Mapping[Profile, Collection[str]]:
        """Keys of the endpoints of an identity, by profile."""
        return self._groups.get(identity, {})

    def sibling(self, key: str) -> str | None:
        """Another endpoint of the same group, which has been there for longer."""
        endpoint = self.endpoints[key]
        group = self._groups[endpoint.identity][profile_of(endpoint, self._config)]
        first = next(iter(group))
        return None if first == key else first

    def follow(self, endpoints: Mapping[str, Endpoint]) -> Moves:
        """Take over endpoints that came, went or are other objects than before."""
        known = self.endpoints
        moves = Moves(differing(known, endpoints))
        left: set[Identity] = set()
        for key in moves.keys:
            before, after = known.get(key), endpoints.get(key)
            if not moves.readdressed and _addresses(before) != _addresses(after):
                moves.readdressed = True
            if before is not None and after is not None and self._same_group(before, after):
                continue
            if before is not None:
                self._leave(key, before)
                left.add(before.identity)
            if after is not None:
                self._join(key, after, moves)
        self._forget_empty(left, moves)
        self.endpoints = endpoints if isinstance(endpoints, Layers) else Layers(endpoints)
        return moves

    def _same_group(self, before: Endpoint, after: Endpoint) -> bool:
        """Readiness and addresses come and go without any effect on the table."""
        return (
            before.identity == after.identity
            and before.subject == after.subject
            and profile_of(before, self._config) == profile_of(after, self._config)
        )

    def _leave(self, key: str, endpoint: Endpoint) -> None:
        profiles = self._groups.get(endpoint.identity, {})
        profile = profile_of(endpoint, self._config)
        if profile in profiles:
            profiles[profile].pop(key, None)
            if not profiles[profile]:
                del profiles[profile]

    def _join(self, key: str, endpoint: Endpoint, moves: Moves) -> None:
        identity, subject = endpoint.identity, endpoint.subject
        if identity == UNKNOWN:
            return
        known = self._index.subjects.get(identity)
        if known is None:
            if joined := self._index.add(identity, subject):
                moves.selections.update(joined)
        elif known is not subject and known != subject:  # it stands for another subject now
            moves.selections.update(self._index.remove(identity))
            moves.selections.update(self._index.add(identity, subject))
            moves.newcomers.add(identity)
        profiles = self._groups.setdefault(identity, {})
        profile = profile_of(endpoint, self._config)
        group = profiles.get(profile)
        if group is None:
            profiles[profile] = {key: None}
            moves.newcomers.add(identity)
        else:
            group[key] = None
            if identity not in moves.newcomers:
                moves.joined.append(key)

    def _forget_empty(self, left: Iterable[Identity], moves: Moves) -> None:
        for identity in left:
            if identity in self._groups and not self._groups[identity]:
                del self._groups[identity]
                moves.selections.update(self._index.remove(identity))


def _addresses(endpoint: Endpoint | None) -> tuple[object, ...]:
    if endpoint is None:
        return ()
    return endpoint.ipv4, endpoint.ipv6, endpoint.subject.named_ports
