"""What does a proxy need of all that there is: one pod's own, or the node's beside such?

Pure. A pod's own gets the pod's listeners with what they name, one SVID, and the ways to whom both
sides' policy lets the pod dial; of services with routes all ways, for who is denied is told so. The
node's gets no listener and no SVID of those that have one of their own. Ways hold no secret.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from sixfold.mesh import copies, foreign_resources
from sixfold.mesh.authorization import Names, allowed
from sixfold.mesh.http import applications_of, common_applications
from sixfold.mesh.http_routes import cluster_of
from sixfold.mesh.logs import RUNTIME_LAYER
from sixfold.mesh.member import Member
from sixfold.mesh.messages import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTE,
    RUNTIME,
    SECRET,
    Name,
)
from sixfold.mesh.plan import MeshPlan
from sixfold.mesh.ports import Span
from sixfold.mesh.resources import APPLICATION, BUNDLE, client_secret, cluster_name, routes_name
from sixfold.mesh.stream_resources import listener_name, stream_cluster
from sixfold.mesh.tokens import filter_name
from sixfold.model.datapath import EGRESS, INGRESS, PolicyTable
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import UNKNOWN
from sixfold.policy.decide import names_of_pod
from sixfold.policy.plan import PolicyPlan

SIDES = ("outbound", "requests", "inbound")
Kind = tuple[PolicyTable | None, tuple[Names, ...]]  # all that policy knows of a pod


def listeners(plan: MeshPlan, pod: str) -> list[Name]:
    """Those that are in a pod's namespace."""
    named = LISTENER, listener_name(pod)  # while some Service has a TLSRoute
    gateway = plan.http.gateways.get(pod, ())
    more = (
        *gateway,
        *plan.outward.needed.get(pod, ()),
        *([named] if named in plan.resources else []),
    )
    return [(LISTENER, f"{side}|{pod}") for side in SIDES] + [
        name for name in more if name[0] == LISTENER
    ]


def needed_by_one(plan: MeshPlan, pod: str, reached: Collection[str]) -> Iterator[Name]:
    """Of a proxy that is a pod's own; ``reached``: those whom the pod may dial."""
    yield from _own(plan, plan.members[pod])
    yield from plan.http.tables
    yield from _secrets([plan.members[pod]])
    yield from plan.outward.needed.get(pod, ())
    yield RUNTIME, RUNTIME_LAYER
    yield CLUSTER, APPLICATION
    for name in common_applications():
        yield CLUSTER, name
    for one in reached:
        for address in plan.members[one].addresses:
            yield CLUSTER, cluster_name(address)
    for port, behind in plan.http.behind.items():
        yield CLUSTER, cluster_of(port)
        yield ENDPOINTS, cluster_of(port)
        if pod in behind:
            for name in applications_of(port):
                yield CLUSTER, name
    for port in plan.http.dialled:
        yield CLUSTER, stream_cluster(port)
    yield from _abroad(plan, pod, reached)


def _abroad(plan: MeshPlan, pod: str, reached: Collection[str]) -> Iterator[Name]:
    """Ways to and from other trust domains: by Gateways that it may dial, or as one itself."""
    for port, one in plan.http.foreign.items():
        if one.gateway in reached:
            yield CLUSTER, foreign_resources.cluster_name(port)
    for export, _ in plan.http.exports.get(pod, ()):
        yield CLUSTER, foreign_resources.end_name(export.address, export.port)
    for port in plan.http.known.get(pod, ()):
        yield CLUSTER, foreign_resources.pods_name(port)
        yield ENDPOINTS, cluster_of(port)


def needed_by_node(plan: MeshPlan, names: Iterable[Name], alone: Collection[str]) -> Iterator[Name]:
    """Of the node's, for all pods but those that are alone with their own.

    Without a listener it asks for no tables of routes, and would be waited for in vain.
    """
    others = [one for pod, one in plan.members.items() if pod not in alone]
    theirs = {name for pod in alone for name in _own(plan, plan.members[pod])}
    theirs |= set() if others else set(plan.http.tables)
    ours = {name for one in others for name in plan.http.gateways.get(one.pod, ())}
    secrets = set(_secrets(others))
    for name in names:
        if name in secrets if _is_svid(name) else name not in theirs or name in ours:
            yield name


def _own(plan: MeshPlan, member: Member) -> Iterator[Name]:
    """What is of nobody else."""
    yield from listeners(plan, member.pod)
    yield from plan.http.gateways.get(member.pod, ())
    yield ROUTE, routes_name(member)
    yield EXTENSION, filter_name(member.pod)
    yield LISTENER, copies.cluster_name(member)  # while some route makes copies
    yield CLUSTER, copies.cluster_name(member)


def _secrets(members: Iterable[Member]) -> Iterator[Name]:
    yield SECRET, BUNDLE
    for id_ in {one.id for one in members}:
        yield SECRET, id_
        yield SECRET, client_secret(id_)


def _is_svid(name: Name) -> bool:
    return (name[0] == SECRET and "spiffe://" in name[1]) or name == (SECRET, BUNDLE)


class Reach:
    """Whom may a pod dial, at any port of TCP? Remembers what tables say."""

    def __init__(self) -> None:
        self._known: dict[tuple[PolicyTable, int, Names], list[Span]] = {}

    def of(
        self,
        pods: Collection[str],
        members: Iterable[str],
        endpoints: Mapping[str, Endpoint],
        policy: PolicyPlan,
    ) -> dict[str, frozenset[str]]:
        """Of each of these pods those of the members that both sides' policy lets it dial."""
        if not pods:
            return {}
        kinds = {pod: _kind(endpoints[pod], policy) for pod in members}
        alike: defaultdict[Kind, list[str]] = defaultdict(list)
        for pod, kind in kinds.items():
            alike[kind].append(pod)
        before, self._known = self._known, {}
        reached = {
            client: [server for server in alike if self._meet(client, server, before)]
            for client in {kinds[pod] for pod in pods}
        }
        return {
            pod: frozenset(one for kind in reached[kinds[pod]] for one in alike[kind]) - {pod}
            for pod in pods
        }

    def _meet(
        self,
        client: Kind,
        server: Kind,
        before: Mapping[tuple[PolicyTable, int, Names], list[Span]],
    ) -> bool:
        (calls, client_names), (answers, server_names) = client, server
        if calls is None or answers is None:
            return False
        for mine, theirs in zip(client_names, server_names, strict=True):
            sides = (calls, EGRESS, theirs), (answers, INGRESS, mine)
            for side in sides:
                if side not in self._known:
                    self._known[side] = before[side] if side in before else _spans(*side)
            out, into = (self._known[side] for side in sides)
            if any(a <= d and c <= b for a, b in out for c, d in into):
                return True
        return False


def _kind(endpoint: Endpoint, policy: PolicyPlan) -> Kind:
    cidrs = policy.endpoint_cidrs.get(endpoint.key, (UNKNOWN, UNKNOWN))
    names = tuple(names_of_pod(endpoint.identity, cidr) for cidr in cidrs)
    return policy.tables.get(endpoint.key), names


def _spans(table: PolicyTable, direction: int, names: Names) -> list[Span]:
    return [span for one in allowed(table, names, direction) for span in one.spans]
