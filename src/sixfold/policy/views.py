"""Which names is each workload told? Those of the services that it may reach.

Pure: the compiled policy in, a view for each endpoint out; the tables are read as the kernel
reads them. A service is seen by who is allowed at least one of its ports at one of its workloads,
ready or not, by both sides, in one IP version; a headless service at any port, because its
name is its workloads, and an ExternalName whose name, or any address, it may reach outside. Who
serves a service sees it. So is each pod seen, where pods have names.
Besides, everybody sees the services of a namespace that says so (``World.told``), and in posture
``kubernetes``, or when everything is in audit, all of them. What has nobody behind it cannot be
reached, and is not seen. Names without an owner are none of our business.

Theory of operation. Endpoints that no policy tells apart have one *face*: one table, and one set
of names by which the tables of others mean them. An owner's *offer* is a set of ports for each
face behind it; owners with one offer are judged together. What a face sees is kept as one bit for
each owner; it is worked out from candidates only: faces that its own table names, or, where that
lets it go anywhere, faces whose tables name it. A change of offers is looked at by every face, a
new face at every candidate. Faces that see the same share a view. Its number stays while all who
had it still share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Set

from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.layers import Layers, differing, kept
from sixfold.model.names import EVERYTHING, LINE_BITS, NOTHING, Lines, ViewPlan
from sixfold.model.world import World
from sixfold.policy.offers import NONE, Face, Offer, Offers, Slices, addresses
from sixfold.policy.plan import PolicyPlan


def open_views(world: World) -> bool:
    """Whether everybody is told everything."""
    return world.config.posture == "kubernetes" or world.config.audit


class ViewPlanner:
    """Plans views, world after world; the cost follows the change (see the module's head).

    number  of a service by name: the same for the same service, always; not 0
    fresh   a number for a new view, never given before; above EVERYTHING
    """

    def __init__(self, number: Callable[[str], int], fresh: Callable[[], int]) -> None:
        self._fresh = fresh
        self._offers = Offers(number)
        self._seen: dict[Face, dict[int, int]] = {}  # lines of each face
        self._public: set[str] = set()
        self._endpoints: Mapping[str, Endpoint] = {}  # where everybody sees everything
        self._plan = ViewPlan()
        self._written: dict[str, tuple[Endpoint, tuple[str, ...]]] = {}  # with its addresses

    def plan(
        self,
        world: World,
        policy: PolicyPlan,
        slices: Slices,
        changed_slices: Set[str] | None = None,
        hosts: tuple[IPAddress, ...] = (),
    ) -> ViewPlan:
        """Views of this world; the same object as long as nothing changes.

        changed_slices  services whose slices are not what they were; None: not known
        hosts           addresses of the node, beside those in its pools
        """
        if open_views(world):
            return self._open(world)
        before = self._offers.numbers
        changed, moved = self._offers.follow(world, policy, slices, changed_slices, hosts)
        numbers = self._offers.numbers
        for owner in self._follow_public(world):
            changed[owner] = numbers.get(owner, 0) or before.get(owner, 0)
        if self._look(changed) or moved or numbers is not self._plan.owners:
            self._plan = self._shared(world.config)
        return self._plan

    def _open(self, world: World) -> ViewPlan:
        changed = differing(self._endpoints, world.endpoints)
        if changed:
            gone = (self._endpoints[key].id for key in changed if key in self._endpoints)
            puts = {world.endpoints[key].id: EVERYTHING for key in changed & world.endpoints.keys()}
            of = self._plan.of
            assert isinstance(of, Layers)
            self._plan = ViewPlan(of.changed(puts, set(gone) - puts.keys()))
            self._endpoints = kept(world.endpoints)
        return self._plan

    def _follow_public(self, world: World) -> set[str]:
        now: set[str] = set()
        if world.told:
            now = {key for key in world.services if key.partition("/")[0] in world.told}
        changed, self._public = now ^ self._public, now
        return changed

    def _look(self, changed: Mapping[str, int]) -> bool:
        """Bring what each face sees up to date; whether anything is other than it was.

        changed  owners that offer something else now, with their numbers
        """
        offers, members = self._offers, self._offers.members
        for face in [face for face, ids in members.items() if not ids]:
            del members[face]
        gone = self._seen.keys() - members.keys()
        for face in gone:
            del self._seen[face]
        differs = bool(gone)
        groups: defaultdict[Offer | None, dict[int, int]] = defaultdict(dict)  # None: public
        for owner, number in changed.items():
            offer = None if owner in self._public else offers.of.get(owner, NONE)
            _mark(groups[offer], number)
        for face, lines in self._seen.items():
            for offer, bits in groups.items():
                differs |= _put(lines, bits, seen=offer is None or offers.sees(face, offer))
        for face in members.keys() - self._seen.keys():
            self._seen[face] = lines = {}
            differs = True
            for offer in offers.candidates(face):
                if offers.sees(face, offer):
                    for owner in offers.owners[offer]:
                        _mark(lines, offers.numbers[owner])
            for owner in self._public:
                _mark(lines, offers.numbers[owner])
        return differs

    def _shared(self, config: Config) -> ViewPlan:
        """One view for all that see the same."""
        groups: dict[frozenset[tuple[int, int]], set[EndpointId]] = {}
        for face, lines in self._seen.items():
            groups.setdefault(frozenset(lines.items()), set()).update(self._offers.members[face])
        held: defaultdict[int, set[EndpointId]] = defaultdict(set)
        for id_, view in self._plan.of.items():
            held[view].add(id_)
        of: dict[EndpointId, int] = {}
        seen: dict[int, Lines] = {}
        for content, ids in groups.items():
            view = NOTHING
            if content:
                view = self._view(content, ids, held)
                known = self._plan.seen.get(view)
                same = known is not None and known.items() == content
                seen[view] = known if known is not None and same else dict(content)
            of.update(dict.fromkeys(ids, view))
        puts = {id_: view for id_, view in of.items() if self._plan.of.get(id_) != view}
        gone = self._plan.of.keys() - of.keys()
        known_of = self._plan.of
        assert isinstance(known_of, Layers)
        return ViewPlan(
            known_of.changed(puts, gone), self._clients(of, config), seen, self._offers.numbers
        )

    def _view(
        self,
        content: frozenset[tuple[int, int]],
        ids: set[EndpointId],
        held: Mapping[int, set[EndpointId]],
    ) -> int:
        """The number of a group's view: one that stands, or whose holders are all in it."""
        numbers = {self._plan.of.get(id_, NOTHING) for id_ in ids} - {NOTHING}
        for view in numbers:
            if self._plan.seen[view].items() == content:
                return view
        return next((view for view in sorted(numbers) if held[view] <= ids), 0) or self._fresh()

    def _clients(self, of: Mapping[EndpointId, int], config: Config) -> Mapping[str, int]:
        written = {}
        for key, endpoint in self._offers.endpoints.items():
            known = self._written.get(key)
            if known is None or known[0] is not endpoint:  # an address as text costs much
                known = endpoint, tuple(addresses(endpoint))
            written[key] = known
        self._written = written
        found = {text: of[one.id] for one, texts in written.values() for text in texts}
        own = dict.fromkeys(map(str, (config.host_ipv4, config.host_ipv6)), EVERYTHING)
        return {**found, **own}


def _mark(lines: dict[int, int], number: int) -> None:
    line, bit = number // LINE_BITS, 1 << number % LINE_BITS
    lines[line] = lines.get(line, 0) | bit


def _put(lines: dict[int, int], bits: Lines, *, seen: bool) -> bool:
    """Set or clear bits; whether one of them was the other way."""
    differs = False
    for line, mask in bits.items():
        old = lines.get(line, 0)
        new = old | mask if seen else old & ~mask
        if new != old:
            differs = True
            if new:
                lines[line] = new
            else:
                del lines[line]
    return differs
