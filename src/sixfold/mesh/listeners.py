"""Which listeners does a Gateway have, and which routes are attached to which of them?

Pure. Listeners of one port must be told apart by what a client says first: the host of a request,
the name in a TLS handshake. Those of one object that cannot are in conflict, and none of them is
served; those of a ListenerSet give way to the Gateway's, and to older sets'. A route is attached to
the listeners that its parentRef means, that let its namespace and kind in, and whose hostname goes
with one of its own. Source: Gateway API 1.5, Gateway, ListenerSet, and GEPs 709, 718, 1713.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sixfold.mesh.certificates import Shown, shown
from sixfold.mesh.condition import Condition
from sixfold.mesh.routes import let
from sixfold.model.gateway import GROUP, Gateway, Listener
from sixfold.model.httproute import ParentReference, Route
from sixfold.model.listenerset import ListenerSet, sets_of
from sixfold.model.streamroute import StreamRoute
from sixfold.model.world import World
from sixfold.policy.authorizations import Authorizations

EVERY_HOST = "*"
KINDS = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "HBONE": ("TLSRoute",),
}
KINDS_OF_ENDED_TLS = ("TLSRoute", "TCPRoute")
GATEWAY, SET = (GROUP, "Gateway"), (GROUP, "ListenerSet")
PARENTS = (GATEWAY, SET)
SECRET = ("", "Secret")
KINDS_WRONG = "InvalidRouteKinds"


AnyRoute = Route | StreamRoute


class Attached(NamedTuple):
    """A route at a listener; ``hosts``: those of both."""

    route: AnyRoute
    hosts: tuple[str, ...]


class ListenerPlan(NamedTuple):
    """One listener.

    kinds  of routes that may be attached
    wrong  what it refers to, and cannot have
    certs  what it shows, by the Secret's name
    set    that it is of; None: the Gateway's own
    """

    gateway: Gateway
    listener: Listener
    kinds: tuple[str, ...]
    conflict: Condition | None
    wrong: Condition | None
    certs: Mapping[str, Shown] = {}
    attached: tuple[Attached, ...] = ()
    set: ListenerSet | None = None

    @property
    def owner(self) -> Gateway | ListenerSet:
        return self.set or self.gateway

    @property
    def section(self) -> str:
        """Its name among all of the Gateway."""
        return f"{self.set.key}/{self.listener.name}" if self.set else self.listener.name

    @property
    def served(self) -> bool:
        return self.conflict is None and (self.wrong is None or self.wrong.reason == KINDS_WRONG)

    @property
    def host(self) -> str:
        return self.listener.hostname or EVERY_HOST


def bare_listeners(world: World) -> Mapping[str, tuple[ListenerPlan, ...]]:
    """Of every Gateway that is ours, by its key; without their routes."""
    gateways = {key: one for key, one in world.gateways.items() if world.is_ours(one)}
    return {key: _listeners(world, one) for key, one in gateways.items()}


def plan_listeners(world: World) -> Mapping[str, tuple[ListenerPlan, ...]]:
    """The same, with their routes."""
    found = bare_listeners(world)
    attached: dict[tuple[str, str], list[Attached]] = {}
    routes = [*world.routes.values(), *world.streams.values()]
    for route in sorted(routes, key=age_of):
        for parent in route.spec.parent_refs:
            if (parent.group, parent.kind) not in PARENTS:
                continue
            where, _ = attach(world, found, route, parent)
            for one, hosts in where:
                at = attached.setdefault((one.gateway.key, one.section), [])
                at.append(Attached(route, hosts))
    return {
        key: tuple(
            one._replace(attached=tuple(attached.get((key, one.section), ()))) for one in some
        )
        for key, some in found.items()
    }


def attach(
    world: World,
    gateways: Mapping[str, tuple[ListenerPlan, ...]],
    route: AnyRoute,
    parent: ParentReference,
) -> tuple[tuple[tuple[ListenerPlan, tuple[str, ...]], ...], Condition]:
    """The listeners that a route has at one of its parents, and its condition Accepted."""
    key = f"{parent.namespace or route.metadata.namespace}/{parent.name}"
    parents = [
        one
        for one in gateways.get(_gateway_of(world, parent, key), ())
        if (one.set.key if one.set else one.gateway.key) == key
        and (one.set is not None) == (parent.kind == "ListenerSet")
    ]
    what, in_set = f"{parent.kind.lower()} {key}", parent.kind == "ListenerSet"
    if not parents:
        of = "that a gateway of ours lets in" if in_set else "of a class of ours"
        return (), _refused("NoMatchingParent", f"there is no {what} {of}")
    meant = [
        one
        for one in parents
        if parent.section_name in ("", one.listener.name)
        and parent.port in (None, one.listener.port)
    ]
    if not meant:
        text = f"{what} has no listener with that sectionName and port"
        return (), _refused("NoMatchingParent", text)
    open_ = [one for one in meant if _lets_in(world, one, route)]
    if not open_:
        text = f"no listener of {what} lets a {route.kind} of this namespace in"
        return (), _refused("NotAllowedByListeners", text)
    wanted = getattr(route.spec, "hostnames", [])
    if not wanted and any(one.listener.protocol == "HBONE" for one in open_):
        text = "it has no hostnames: by which others would know what it leads to"
        return (), _refused("NoMatchingListenerHostname", text)
    found = [(one, hosts) for one in open_ if (hosts := common(one.host, wanted))]
    if not found:
        text = f"its hostnames are none of those of {what}"
        return (), _refused("NoMatchingListenerHostname", text)
    return tuple(found), Condition("Accepted", True, "Accepted", "attached")


def _gateway_of(world: World, parent: ParentReference, key: str) -> str:
    """The Gateway that a parent is, or that a set is of; "": there is none."""
    if parent.kind != "ListenerSet":
        return key
    found = world.listener_sets.get(key)
    return found.gateway if found is not None else ""


def common(host: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """The hosts that a listener and a route both mean; a route without any means all."""
    hosts = [*wanted] or [EVERY_HOST]
    return tuple(dict.fromkeys(both for one in hosts if (both := _narrower(host, one))))


def covers(wide: str, narrow: str) -> bool:
    """Whether every host that one means is meant by the other. ``*.a.b``: whatever is below."""
    if wide in (EVERY_HOST, narrow):
        return True
    return wide.startswith("*.") and narrow.removeprefix("*").endswith(wide[1:])


def rank(host: str) -> tuple[bool, int]:
    """Smaller is more specific: a name, then the longest wildcard."""
    return host.startswith("*"), -len(host)


def owner(host: str, listeners: Iterable[ListenerPlan]) -> str:
    """The hostname of the listener that a host belongs to: the most specific."""
    return min((one.host for one in listeners if covers(one.host, host)), key=rank)


def _narrower(one: str, other: str) -> str:
    if covers(one, other):
        return other
    return one if covers(other, one) else ""


def let_in(world: World, gateway: Gateway) -> list[ListenerSet]:
    """By precedence. Tunnels of other trust domains are alone at their Gateway."""
    sets = world.listener_sets.values() if not gateway.is_federated else ()
    return sets_of(gateway, sets, world.namespaces)


def _listeners(world: World, gateway: Gateway) -> tuple[ListenerPlan, ...]:
    """A Gateway's own, and then those of its sets, if it serves anything itself."""
    found = [*_of_one(world, gateway, None, gateway.spec.listeners)]
    if any(one.served for one in found):
        for one in let_in(world, gateway):
            before = [it.listener for it in found if it.set is None or it.conflict is None]
            found += _of_one(world, gateway, one, before)
    return tuple(found)


def _of_one(
    world: World, gateway: Gateway, of: ListenerSet | None, before: Sequence[Listener]
) -> Iterator[ListenerPlan]:
    """Of a Gateway, or of one of its sets; ``before``: those that it gives way to."""
    listeners = (of or gateway).spec.listeners
    conflicts = dict(_conflicts(listeners, before if of else ()))
    unread = _unread(world, gateway)
    for one in listeners:
        kinds, wrong = _kinds(one)
        certs, unshown = _shown(world, of or gateway, one)
        wrong = unshown or (unread if one.protocol in ("TLS", "TCP") else None) or wrong
        yield ListenerPlan(
            *(gateway, one, kinds, conflicts.get(one.name), wrong, certs),
            set=of,
        )


def _unread(world: World, gateway: Gateway) -> Condition | None:
    """Why connections that nobody reads are not taken: who may have them, only requests tell."""
    endpoint = world.endpoints.get(gateway.made)
    policies = Authorizations(world).at_gateway(endpoint) if endpoint is not None else ()
    if all(one.audit or one.action == "AUDIT" for one in policies):
        return None
    names = ", ".join(one.name for one in policies)
    text = f"AuthorizationPolicy {names} is about the gateway, and nobody reads what comes here"
    return Condition("ResolvedRefs", False, "UnsupportedValue", text)


def _conflicts(
    listeners: Sequence[Listener], before: Sequence[Listener]
) -> Iterator[tuple[str, Condition]]:
    """Of equal ones of an object none is served: nobody could say which was meant."""
    groups = {(one.port, _first_word(one)) for one in (*before, *listeners)}
    same = Counter((one.port, one.hostname) for one in (*before, *listeners))
    for one in listeners:
        if any(port == one.port and said != _first_word(one) for port, said in groups):
            text = f"port {one.port} has listeners of several protocols"
            yield one.name, Condition("Conflicted", True, "ProtocolConflict", text)
        elif same[one.port, one.hostname] > 1:
            text = f"port {one.port} has several listeners of host {one.hostname or EVERY_HOST}"
            yield one.name, Condition("Conflicted", True, "HostnameConflict", text)


def _first_word(listener: Listener) -> str:
    """What tells listeners of a port apart: HTTPS and TLS do by the same."""
    return "TLS" if listener.protocol == "HTTPS" else listener.protocol


def _kinds(listener: Listener) -> tuple[tuple[str, ...], Condition | None]:
    """Kinds of routes, and what is wrong with those that are asked for."""
    known = KINDS[listener.protocol]
    if listener.protocol == "TLS" and listener.tls is not None and listener.tls.certificate_refs:
        known = KINDS_OF_ENDED_TLS
    asked = listener.allowed_routes.kinds
    if not asked:
        return known, None
    kinds = tuple(one.kind for one in asked if one.group == GROUP and one.kind in known)
    if len(kinds) == len(asked):
        return kinds, None
    text = f"{listener.protocol} takes routes of kind {' and '.join(known)} only"
    return kinds, Condition("ResolvedRefs", False, KINDS_WRONG, text)


def _shown(
    world: World, owner: Gateway | ListenerSet, listener: Listener
) -> tuple[dict[str, Shown], Condition | None]:
    """The certificates of a listener; or what is wrong with the first that it cannot have."""
    found: dict[str, Shown] = {}
    for one in listener.tls.certificate_refs if listener.tls is not None else ():
        own = owner.metadata.namespace
        there = one.namespace or own
        name = f"{there}/{one.name}"
        secret = world.secrets.get(name)
        if (one.group, one.kind) != SECRET:
            text = f"{one.kind} {name}: only Secrets are certificates"
        elif not let(world, (GROUP, owner.kind, own), (*SECRET, there, one.name)):
            text = f"{name}: no ReferenceGrant in its namespace lets {owner.kind}s refer to it"
            return {}, Condition("ResolvedRefs", False, "RefNotPermitted", text)
        elif secret is None:
            text = f"there is no secret {name}"
        elif isinstance(shows := shown(secret), Shown):
            found[name] = shows
            continue
        else:
            text = f"secret {name}: {shows}"
        return {}, Condition("ResolvedRefs", False, "InvalidCertificateRef", text)
    return found, None


def _lets_in(world: World, one: ListenerPlan, route: AnyRoute) -> bool:
    if one.conflict is not None or route.kind not in one.kinds:
        return False
    namespaces, theirs = one.listener.allowed_routes.namespaces, route.metadata.namespace
    match namespaces.from_:
        case "All":
            return True
        case "Same":
            return theirs == one.owner.metadata.namespace
        case "Selector":
            assert namespaces.selector is not None
            return namespaces.selector.matches(world.namespaces.get(theirs, {}))
        case "None":
            return False


def age_of(route: AnyRoute) -> tuple[str, str, str]:
    meta = route.metadata
    return meta.creation_timestamp or "9", meta.namespace, meta.name


def _refused(reason: str, message: str) -> Condition:
    return Condition("Accepted", False, reason, message)
