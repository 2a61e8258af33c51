"""Who is there: endpoints, grouped by all that their policy table depends on.

Pure. A table depends on the identity and the profile (``table.profile_of``); pods that share
both share a table. An endpoint without an identity is in no group and gets no table: the kernel
then drops everything, because a workload that nobody attested may not talk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.policy.selector import Selection, SelectorIndex
from sixfold.policy.table import Profile, profile_of


@dataclass(slots=True)
class Moves:
    """What changed: endpoints, groups that have new members, selections with other members.

    readdressed  an address, or what a named port means there, is not what it was
    """

    keys: set[str]
    readdressed: bool = False
    joined: set[Identity] = field(default_factory=set)
    selections: set[Selection] = field(default_factory=set)


class Population:
    """Endpoints by group, kept in step with the selector index."""

    def __init__(self, config: Config, index: SelectorIndex) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self._config = config
        self._index = index
        self._groups: dict[Identity, dict[Profile, set[str]]] = {}

    def groups(self, identity: Identity) -> Mapping[Profile, set[str]]:
        """Keys of the endpoints of an identity, by profile."""
        return self._groups.get(identity, {})

    def follow(self, endpoints: Mapping[str, Endpoint]) -> Moves:
        """Take over endpoints that came, went or are other objects than before."""
        known = self.endpoints
        keys = {key for key, one in endpoints.items() if known.get(key) is not one}
        keys |= known.keys() - endpoints.keys()
        moves = Moves(keys)
        for key in keys:
            before, after = known.get(key), endpoints.get(key)
            moves.readdressed |= _addresses(before) != _addresses(after)
            if before is not None and after is not None and self._same_group(before, after):
                continue
            if before is not None:
                self._leave(key, before)
            if after is not None:
                self._join(key, after, moves)
        self._forget_empty(moves)
        self.endpoints = dict(endpoints)
        return moves

    def _same_group(self, before: Endpoint, after: Endpoint) -> bool:
        """Readiness and addresses come and go without any effect on the table."""
        return (
            before.identity == after.identity
            and before.subject == after.subject
            and profile_of(before, self._config) == profile_of(after, self._config)
        )

    def _leave(self, key: str, endpoint: Endpoint) -> None:
        for profile, keys in list(self._groups.get(endpoint.identity, {}).items()):
            keys.discard(key)
            if not keys:
                del self._groups[endpoint.identity][profile]

    def _join(self, key: str, endpoint: Endpoint, moves: Moves) -> None:
        identity = endpoint.identity
        if identity == UNKNOWN:
            return
        known = self._index.subjects.get(identity)
        if known != endpoint.subject:
            if known is not None:  # the number stands for another subject now
                moves.selections.update(self._index.remove(identity))
            moves.selections.update(self._index.add(identity, endpoint.subject))
        group = self._groups.setdefault(identity, {})
        group.setdefault(profile_of(endpoint, self._config), set()).add(key)
        moves.joined.add(identity)

    def _forget_empty(self, moves: Moves) -> None:
        for identity in [one for one, groups in self._groups.items() if not groups]:
            del self._groups[identity]
            moves.selections.update(self._index.remove(identity))


def _addresses(endpoint: Endpoint | None) -> tuple[object, ...]:
    if endpoint is None:
        return ()
    return endpoint.ipv4, endpoint.ipv6, endpoint.subject.named_ports
