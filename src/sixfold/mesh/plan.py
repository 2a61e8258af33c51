"""What the proxy should hold: World and compiled policy in, Envoy's resources out.

Pure. Theory of operation. A pod has five resources: where its connections are captured
(``outbound``), where tunnels to it end (``inbound``), who may use those (``routes``), and the way
to it for others, one for each of its addresses (``tunnel_to``). All but the routes are made of
the pod alone. Routes are made of its policy table and of the callers whom that names: they are
made anew when one of those changed. Cost follows the change; a resource that came out as it was
is the same resource, and nobody is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from itertools import count, zip_longest
from types import MappingProxyType
from typing import NamedTuple

from envoy.config.rbac.v3 import rbac_pb2

from sixfold.mesh import foreign_resources, resources, tokens
from sixfold.mesh.authorization import TCP, Authorization, Caller, policy_name
from sixfold.mesh.foreign import Export
from sixfold.mesh.http_plan import NO_KEYS_YET, HttpPlan, HttpPlanner
from sixfold.mesh.member import Member, member_of
from sixfold.mesh.messages import EXTENSION, ROUTE, Name, Resource
from sixfold.mesh.outward import OutwardPlan, OutwardPlanner
from sixfold.mesh.tokens import Keys
from sixfold.model.config import Config
from sixfold.model.datapath import INGRESS, Frontend, FrontendEntry, PolicyTable
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.model.layers import Layers, differing
from sixfold.model.spiffe import SpiffeId
from sixfold.model.world import World
from sixfold.policy.decide import lookup_names, names_of_pod
from sixfold.policy.outward import Leaving
from sixfold.policy.plan import PolicyPlan

Placed = tuple[Identity, Identity]  # CIDR identities of the IPv4 and the IPv6 address
NO_FRONTENDS: Mapping[Frontend, FrontendEntry] = MappingProxyType({})
NO_LEAVINGS: Mapping[str, Leaving] = MappingProxyType({})
NO_CIDRS: Placed = (UNKNOWN, UNKNOWN)
NOTHING: Mapping[Name, Resource] = MappingProxyType({})


class MeshPlan(NamedTuple):
    """What the proxy should hold, but for secrets: those are of ``identities``."""

    resources: Layers[Name, Resource]
    members: Mapping[str, Member]  # by pod
    http: HttpPlan = HttpPlan()
    outward: OutwardPlan = OutwardPlan()

    @property
    def identities(self) -> set[str]:
        return {member.id for member in self.members.values()}


def judged_anew(before: MeshPlan | None, plan: MeshPlan) -> set[str]:
    """Pods of which the proxy is told other rules than before, or takes other tokens."""
    if before is None:
        return set(plan.members)
    moved = {
        key
        for key, member in plan.members.items()
        for name in ((ROUTE, resources.routes_name(member)), (EXTENSION, tokens.filter_name(key)))
        if before.resources.get(name) is not plan.resources.get(name)
    }
    at_gateways, earlier = plan.http.narrowed, before.http.narrowed
    return moved | {key for key, one in at_gateways.items() if one != earlier.get(key)}


class _Known(NamedTuple):
    """One pod as it was planned; ``made``: all that it has."""

    endpoint: Endpoint
    cidrs: Placed
    table: PolicyTable | None
    member: Member
    made: tuple[Resource, ...]
    asked: object  # rules about requests to it, on which ports, and who is abroad


class MeshPlanner:
    """Plans world after world.

    netns            a path of the endpoint's namespace that is its alone, for ever
    connections_max  of one pod's, as client; 0: no limit
    carried_max      of all that one proxy passes on to processes; likewise
    """

    def __init__(
        self, netns: Callable[[Endpoint], str], connections_max: int = 0, carried_max: int = 0
    ) -> None:
        self._netns = netns
        self._connections_max = connections_max
        self._known: dict[str, _Known] = {}
        self._authorization = Authorization()
        self._http = HttpPlanner(connections_max, carried_max)
        self._outward = OutwardPlanner(connections_max)
        self._shared: tuple[Mapping[Name, Resource], ...] = ()  # of no pod, in groups
        self._alone: dict[str, Member] = {}
        application = resources.application(carried_max)
        self._resources: Layers[Name, Resource] = Layers({application.key: application})

    def plan(
        self,
        world: World,
        policy: PolicyPlan,
        frontends: Mapping[Frontend, FrontendEntry] = NO_FRONTENDS,
        keys: Keys = NO_KEYS_YET,
        leavings: Mapping[str, Leaving] = NO_LEAVINGS,
    ) -> MeshPlan:
        """``keys``: of issuers, as fetched; ``leavings``: what of pods' dials the proxy sees."""
        config = world.config
        members = self._members(world, policy)
        alone = {key: member for key, (_, _, member) in members.items()}
        self._alone = self._alone if alone == self._alone else alone
        http = self._http.plan(world, policy, frontends, self._alone, keys)
        gone = self._known.keys() - members.keys()
        touched: set[Identity] = set()
        for key, (endpoint, cidrs, member) in members.items():
            known = self._known.get(key)
            if known is None or known.endpoint is not endpoint or known.cidrs != cidrs:
                callers = _callers(member, endpoint.identity, cidrs)
                touched |= self._authorization.move(key, callers)
        for key in gone:
            touched |= self._authorization.move(key)
        puts: dict[Name, Resource] = {}
        dropped = {one.key for key in gone for one in self._known[key].made}
        lifetime = timedelta(seconds=config.svid_ttl_s / 2)
        now: dict[str, _Known] = {}
        for key, (endpoint, cidrs, member) in members.items():
            known, table = self._known.get(key), policy.tables.get(key)
            same = known is not None and known.member is member
            stale = table is not None and not touched.isdisjoint(self._authorization.names(table))
            narrowed = http.tunnels.get(key, {})
            exports = http.exports.get(key, ())
            ways = {
                (name, callers)
                for one, _ in exports
                for name in one.gateways
                if name in members
                for by, at, whose in [members[name]]
                for callers in [_callers(whose, by.identity, at)]
            }
            foreign = exports, ways, world.federated if exports else ()
            abroad = http.from_abroad.get(key, ())
            asked = (
                *(http.judged.get(key, ()), http.ports.get(key, frozenset()), narrowed),
                *(foreign, abroad),
            )
            stale = stale or (known is not None and known.asked != asked)
            if known is not None and same and known.table is table and not stale:
                now[key] = known._replace(endpoint=endpoint, cidrs=cidrs)
                continue
            fixed = known.made[:-1] if known is not None and same else self._fixed(member, lifetime)
            rules = self._rules(config, member, table, policy, without=asked[1])
            others = world.federated - {config.trust_domain}
            theirs = *_tunnels(exports, dict(ways), others, table, policy), *abroad
            routes = resources.routes(member, rules, asked[0], narrowed, theirs)
            made = (*fixed, routes)
            before = known.made if known is not None else ()
            puts.update((one.key, one) for one in made if one not in before)
            dropped |= {one.key for one in before} - {one.key for one in made}
            now[key] = _Known(endpoint, cidrs, table, member, made, asked)
        self._known = now
        outward = self._outward.plan(world, leavings, self._alone)
        groups = (outward.resources, *http.resources)
        for earlier, shared in zip_longest(self._shared, groups, fillvalue=NOTHING):
            for name in differing(earlier, shared):
                if name not in shared:
                    dropped.add(name)
                elif name not in earlier or earlier[name].version != shared[name].version:
                    puts[name] = shared[name]
        self._shared = groups
        if puts or dropped:
            self._authorization.forget({one.table for one in now.values() if one.table is not None})
            self._resources = self._resources.changed(puts, dropped - puts.keys())
        held = {key: one.member for key, one in now.items()}
        return MeshPlan(self._resources, held, http, outward)

    def _members(
        self, world: World, policy: PolicyPlan
    ) -> dict[str, tuple[Endpoint, Placed, Member]]:
        """Pods that have a namespace and an identity; who did not change is the same object."""
        found = {}
        for key, endpoint in world.endpoints.items():
            if not endpoint.netns or not endpoint.identity or not endpoint.addresses:
                continue
            known = self._known.get(key)
            if known is not None and known.endpoint is endpoint:
                member = known.member
            else:
                member = member_of(endpoint, world.config.trust_domain, self._netns(endpoint))
                if known is not None and known.member == member:
                    member = known.member
            found[key] = endpoint, policy.endpoint_cidrs.get(key, NO_CIDRS), member
        return found

    def _fixed(self, member: Member, lifetime: timedelta) -> tuple[Resource, ...]:
        """What is made of the pod alone."""
        return (
            resources.outbound(member, self._connections_max),
            resources.inbound(member),
            *(resources.tunnel_to(member, address, lifetime) for address in member.addresses),
        )

    def _rules(
        self,
        config: Config,
        member: Member,
        table: PolicyTable | None,
        policy: PolicyPlan,
        without: frozenset[int],
    ) -> rbac_pb2.RBAC:
        """Whoever is allowed, at each of the addresses; without a table nobody.

        without  ports where requests are judged: nothing passes there unseen
        """
        found: dict[str, rbac_pb2.Policy] = {}
        if table is None:
            return rbac_pb2.RBAC(action="ALLOW")
        for address in member.addresses:
            pool = config.pod_ipv4 if address.version == 4 else config.pod_ipv6
            everybody = (f"{SpiffeId(config.trust_domain)}/", pool)
            for name, one in self._authorization.policies(
                address, table, everybody, policy.rules, without
            ):
                turns = (name if turn == 1 else f"{name} #{turn}" for turn in count(1))
                found[next(unique for unique in turns if unique not in found)] = one
        return rbac_pb2.RBAC(action="ALLOW", policies=found)


def _tunnels(
    exports: Iterable[tuple[Export, Mapping[str, object]]],
    ways: Mapping[str, tuple[Caller, ...]],
    domains: frozenset[str],
    table: PolicyTable | None,
    policy: PolicyPlan,
) -> list[dict[str, object]]:
    """To what other trust domains know a pod by, for who comes by a Gateway that policy lets in."""
    found = []
    for one, narrowed in exports:
        if one.looked_into:
            continue
        policies: dict[str, rbac_pb2.Policy] = {}
        for caller in (it for name in one.gateways for it in ways.get(name, ())):
            if table is None or not domains or caller.address.version != one.address.version:
                continue
            decision = lookup_names(table, INGRESS, caller.names, TCP, one.port)
            if decision.allow:
                name = policy_name(decision.rule, policy.rules)
                named = policies.setdefault(name, rbac_pb2.Policy(permissions=[{"any": True}]))
                who = foreign_resources.of_gateway([caller.address], domains)
                named.principals.append(rbac_pb2.Principal(**who))
        found.append(foreign_resources.route(one, policies, narrowed))
    return found


def _callers(member: Member, identity: Identity, cidrs: Placed) -> tuple[Caller, ...]:
    return tuple(
        Caller(names_of_pod(identity, cidrs[address.version == 6]), member.id, address)
        for address in member.addresses
    )
