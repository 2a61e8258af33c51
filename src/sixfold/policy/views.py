"""Which names is each workload told? Those of the services that it may reach.

Pure: the compiled policy in, a view for each endpoint out; the tables are read as the kernel
reads them. A service is seen by who is allowed at least one of its ports at one of its workloads,
ready or not, by both sides, in one IP version; a headless service at any port, because its
name is its workloads, and an ExternalName whose name, or any address, it may reach outside. Who
serves a service sees it. So is each pod seen, where pods have names.
Besides, everybody sees the services of a namespace that is public (``World.public``), and in
posture ``kubernetes``, or when everything is in audit, all of them. What has nobody behind it
cannot be reached, and is not seen. Names without an owner are none of our business.

Theory of operation. Endpoints that no policy tells apart have one *face*: one table, and one set
of names by which the tables of others mean them. An owner's *offer* is a set of ports for each
face behind it; owners with one offer are judged together. What a face sees is kept as one bit for
each owner; it is worked out from candidates only: faces that its own table names, or, where that
lets it go anywhere, faces whose tables name it. A change of an offer is looked at by the faces that
may reach some of it, a new face at every candidate. Faces that see the same share a view. Its
number stays while all who had it still share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set

from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.layers import Layers, differing, kept
from sixfold.model.names import EVERYTHING, LINE_BITS, NOTHING, Lines, ViewPlan
from sixfold.model.world import World
from sixfold.policy.offers import NONE, Face, Offer, Offers, Slices
from sixfold.policy.plan import PolicyPlan

Content = frozenset[tuple[int, int]]  # lines, to be compared


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
        self._content: dict[Face, Content] = {}  # the same, as they are in the plan
        self._alike: defaultdict[Content, set[Face]] = defaultdict(set)
        self._holders: defaultdict[int, set[EndpointId]] = defaultdict(set)  # of each view
        self._texts: dict[EndpointId, tuple[str, ...]] = {}  # addresses
        self._clients: Layers[str, int] = Layers()
        self._public: set[str] = set()
        self._endpoints: Mapping[str, Endpoint] = {}  # where everybody sees everything
        self._plan = ViewPlan()

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
        if not self._clients:
            own = (world.config.host_ipv4, world.config.host_ipv6)
            self._clients = Layers(dict.fromkeys(map(str, own), EVERYTHING))
        before, endpoints = self._offers.numbers, self._offers.endpoints
        changed, moved = self._offers.follow(world, policy, slices, changed_slices, hosts)
        numbers = self._offers.numbers
        for owner in self._follow_public(world):
            changed[owner] = numbers.get(owner, 0) or before.get(owner, 0)
        faces = self._look(changed)
        if faces or moved or numbers is not self._plan.owners:
            came = [world.endpoints[key] for key in moved & world.endpoints.keys()]
            gone = {endpoints[key].id for key in moved & endpoints.keys()}
            faces |= {self._offers.face(one.key) for one in came}
            self._plan = self._regrouped(faces, came, gone - {one.id for one in came})
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
        if public := world.public:
            now = {key for key in world.services if key.partition("/")[0] in public}
        changed, self._public = now ^ self._public, now
        return changed

    def _look(self, changed: Mapping[str, int]) -> set[Face]:
        """Bring what each face sees up to date; returns the faces that see something else now.

        changed  owners that offer something else now, with their numbers
        """
        offers, members = self._offers, self._offers.members
        for face in self._seen.keys() - members.keys():
            del self._seen[face]
            self._leave(face)
        groups: defaultdict[Offer | None, dict[int, int]] = defaultdict(dict)  # None: public
        for owner, number in changed.items():
            offer = None if owner in self._public else offers.of.get(owner, NONE)
            _mark(groups[offer], number)
        differ = set()
        for offer, bits in groups.items() if self._seen else ():
            clients = set() if offer is None else offers.clients(offer)
            for face, lines in self._seen.items():
                seen = offer is None or (face in clients and offers.sees(face, offer))
                if _put(lines, bits, seen=seen):
                    differ.add(face)
        for face in members.keys() - self._seen.keys():
            self._seen[face] = lines = {}
            differ.add(face)
            for offer in offers.candidates(face):
                if offers.sees(face, offer):
                    for owner in offers.owners[offer]:
                        _mark(lines, offers.numbers[owner])
            for owner in self._public:
                _mark(lines, offers.numbers[owner])
        return differ

    def _leave(self, face: Face) -> None:
        """Take a face out of those that see the same as it did."""
        content = self._content.pop(face, None)
        if content is not None:
            self._alike[content].discard(face)
            if not self._alike[content]:
                del self._alike[content]

    def _regrouped(
        self, faces: Set[Face], came: Iterable[Endpoint], gone: Set[EndpointId]
    ) -> ViewPlan:
        """The next plan: one view for all that see the same.

        faces  those that see something else than in the last one, or are other endpoints'
        came   endpoints that are new, or were of another face
        """
        for face in faces:
            self._leave(face)
            self._content[face] = frozenset(self._seen[face].items())
            self._alike[self._content[face]].add(face)
        known, seen = self._plan.of, dict(self._plan.seen)
        puts: dict[EndpointId, int] = {}
        for content in {self._content[face] for face in faces}:
            ids = {id_ for face in self._alike[content] for id_ in self._offers.members[face]}
            view = self._view(content, ids) if content else NOTHING
            if content and (view not in seen or seen[view].items() != content):
                seen[view] = dict(content)
            puts.update((id_, view) for id_ in ids if known.get(id_) != view)
        self._hold(puts, gone)
        assert isinstance(known, Layers)
        of = known.changed(puts, gone)
        self._tell(of, puts, came, gone)
        seen = {view: lines for view, lines in seen.items() if view in self._holders}
        return ViewPlan(of, self._clients, seen, self._offers.numbers)

    def _view(self, content: Content, ids: set[EndpointId]) -> int:
        """The number of a group's view: one that stands, or whose holders are all in it."""
        numbers = {self._plan.of.get(id_, NOTHING) for id_ in ids} - {NOTHING}
        for view in numbers:
            if self._plan.seen[view].items() == content:
                return view
        whole = (view for view in sorted(numbers) if self._holders[view] <= ids)
        return next(whole, 0) or self._fresh()

    def _hold(self, puts: Mapping[EndpointId, int], gone: Set[EndpointId]) -> None:
        for id_ in puts.keys() | gone:
            view = self._plan.of.get(id_, NOTHING)
            self._holders[view].discard(id_)
            if not self._holders[view]:
                del self._holders[view]
        for id_, view in puts.items():
            if view != NOTHING:
                self._holders[view].add(id_)

    def _tell(
        self,
        of: Mapping[EndpointId, int],
        puts: Mapping[EndpointId, int],
        came: Iterable[Endpoint],
        gone: Set[EndpointId],
    ) -> None:
        """Bring the views of addresses up to date."""
        left = {text for id_ in gone for text in self._texts.pop(id_)}
        for one in came:
            left.update(self._texts.get(one.id, ()))
            self._texts[one.id] = tuple(map(str, one.addresses))
        ids = puts.keys() | {one.id for one in came}
        told = {text: of[id_] for id_ in ids for text in self._texts[id_]}
        self._clients = self._clients.changed(told, left - told.keys())


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
