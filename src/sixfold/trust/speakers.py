"""Which of a pod's processes may the mesh's proxy speak for?

Pure. A ClusterSPIFFEID names users, groups and programs; of these the kernel sees user and group
when a process dials. What else it asks for (path, sha256) only the Workload API can tell.
"""

from __future__ import annotations

from sixfold.model.mesh import SPEAKERS_MAX, Owner, Speakers
from sixfold.model.meta import namespace_labels
from sixfold.model.world import World
from sixfold.trust.attested import Selectors, alternatives

ANYBODY: Owner = (None, None)
NUMBERS_END = 0xFFFFFFFF  # of users and groups


def plan_speakers(world: World) -> frozenset[Speakers]:
    """One for each pod for which not every process may speak; of more than fit the rest may not."""
    if not world.spiffe_ids or not world.has_proxy:
        return frozenset()
    found = []
    for endpoint in world.endpoints.values():
        name = endpoint.namespace
        around = namespace_labels(name, world.namespaces.get(name, {}))
        asked = alternatives(world.spiffe_ids.values(), around, endpoint.labels)
        owners = {owner for one in asked if (owner := owner_of(one)) is not None}
        if asked and ANYBODY not in owners:
            known = sorted(owners, key=str)[:SPEAKERS_MAX]
            found.append(Speakers(endpoint.id, tuple(known)))
    return frozenset(found)


def owner_of(selectors: Selectors) -> Owner | None:
    """User and group that they ask for, None each for any; None: nobody has both of two."""
    users = {one for one in selectors if one.startswith("unix:uid:")}
    groups = {one for one in selectors if one.startswith("unix:gid:")}
    if len(users) > 1 or len(groups) > 1:
        return None
    user, group = (
        int(one.rpartition(":")[2]) if one else None
        for one in (next(iter(users), ""), next(iter(groups), ""))
    )
    if any(one is not None and one >= NUMBERS_END for one in (user, group)):
        return None
    return user, group
