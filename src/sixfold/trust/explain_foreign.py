"""One connection with another trust domain, either way: what lets it out, or in.

Pure. Of the same services, names and rules that the proxy has. What the other side says to a
connection of ours is not known here; what ours says to one of theirs is all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sixfold.balancing.explain import explain_balancing
from sixfold.errors import NotFoundError
from sixfold.mesh.asked import Asked, allowing
from sixfold.mesh.authorized import authorized_abroad, foreign_caller, names
from sixfold.mesh.foreign import Foreign, why_closed
from sixfold.mesh.listeners import plan_listeners
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.streams import streams_of
from sixfold.mesh.tokens import NO_TOKEN, claims_of
from sixfold.model.endpoint import Endpoint
from sixfold.model.place import place_text
from sixfold.model.spiffe import parse, workload_id
from sixfold.model.world import World
from sixfold.policy.conditions import no_token
from sixfold.policy.decide import party_at, party_of
from sixfold.policy.explain import Side, explain_policy
from sixfold.policy.foreign import for_foreign
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.requests import Requests
from sixfold.routing.explain import identity_at
from sixfold.routing.plan import RoutingPlan
from sixfold.trust.question import Destination

Said = tuple[str, str, str]  # pattern, outcome, detail
SEEN = (
    "requests to port {} are judged one by one, and no tunnel is taken: over there its Service "
    "says that it is HTTP, or has a route; --method and --path ask about one"
)


class Answer(NamedTuple):
    """``why``: what stands in the way; "": nothing."""

    lines: tuple[Said, ...]
    why: str


def out(
    world: World, plan: PolicyPlan, routing: RoutingPlan, client: Endpoint | None, one: Foreign
) -> Answer:
    """From the Gateway's pod on."""
    by = f"by BackendTLSPolicy {one.policy}"
    if client is None:
        return _answer(("mesh", "closed", "only pods have an identity to show abroad"))
    if one.closed:
        return _answer(("mesh", "closed", f"{one.closed}; {by}"))
    subject = client.subject
    own = workload_id(world.config.trust_domain, subject.namespace, subject.service_account)
    where = ", ".join(place_text(*place) for place in one.places)
    lines: list[Said] = [
        ("mesh", "mTLS", f"{own} → {' or '.join(one.ids)}, as {one.host} at {where}; {by}")
    ]
    gateway = world.endpoints[one.gateway]
    for address, port in one.places:
        party = party_at(plan, identity_at(routing.ipcache, address), address)
        ends = party_of(plan, gateway, address.version), party
        side = explain_policy(world, plan, *ends, "TCP", port).egress
        assert side is not None, "a pod has policy"
        lines += _side("egress", side, f"{gateway.key} to {place_text(address, port)}")
        if not side.allow:
            why = f"egress of {side.endpoint} denied by {side.rule}"
            return Answer(tuple(lines), why)
    lines.append(("abroad", "-", f"whether it is let in, {one.domain} says"))
    return Answer(tuple(lines), "")


def into(
    world: World,
    plan: PolicyPlan,
    id_: str,
    destination: Destination,
    port: int,
    asked: Asked | None = None,
) -> Answer:
    """From another trust domain's workload to a service or pod of ours.

    port   that is dialled: of the service, or of the pod
    asked  a request; None: the connection alone
    """
    try:
        client = parse(id_)
    except ValueError as error:
        raise NotFoundError(f"from {error}") from None
    if client.trust_domain == world.config.trust_domain:
        raise NotFoundError(f"from {id_}: is of our own trust domain; give the pod")
    if closed := why_closed(world, client.trust_domain):
        return _answer(("federation", "closed", closed))
    known: Said = ("federation", "ok", f"{client.trust_domain} is federated")
    places = list(_places(world, destination, port))
    if not places:
        text = "no TLSRoute of a Gateway for other trust domains leads there"
        return _answer(known, ("gateway", "closed", text))
    lines = [known]
    for one in places:
        lines.append(
            (
                "gateway",
                "ok",
                f"gateway {one.gateway.key}: {one.host} → {one.server.key}:{one.port}",
            )
        )
        found = _judged(world, plan, id_, one, asked)
        lines += found.lines
        if found.why:
            return Answer(tuple(dict.fromkeys(lines)), found.why)
    return Answer(tuple(dict.fromkeys(lines)), "")


class _Place(NamedTuple):
    """Where a name for other trust domains leads."""

    host: str
    gateway: Endpoint
    server: Endpoint
    port: int


def _places(world: World, destination: Destination, port: int) -> Iterator[_Place]:
    """``port`` of the service that was asked about, else of the pod."""
    wanted = destination.service
    name = f"{wanted.metadata.namespace}/{wanted.metadata.name}" if wanted is not None else ""
    pods = {one.endpoint.key for one in destination.places if one.endpoint is not None}
    for gateway, host, to in _names(world):
        if name and to != (name, port):
            continue
        service = world.services[to.service]
        for one in explain_balancing(world, service, to.port, "TCP", None).candidates:
            server = world.endpoints.get(one.endpoint)
            if server is not None and (name or (server.key in pods and one.port == port)):
                yield _Place(host, gateway, server, one.port)


def _names(world: World) -> Iterator[tuple[Endpoint, str, ServicePort]]:
    """All names that Gateways tell other trust domains, and what they mean."""
    for pod, gateway in sorted(world.gateways_abroad.items()):
        listeners = plan_listeners(world)[gateway.key]
        for one in listeners:
            if one.listener.protocol != "HBONE" or pod not in world.endpoints:
                continue
            same = [it for it in listeners if it.listener.port == one.listener.port]
            for stream in streams_of(world, one, same):
                for to in (backend.to for backend in stream.way.backends):
                    if to is not None:
                        yield from ((world.endpoints[pod], host, to) for host in stream.hosts)


def _judged(world: World, plan: PolicyPlan, id_: str, one: _Place, asked: Asked | None) -> Answer:
    """Network policy is asked about the Gateway, AuthorizationPolicies about the identity."""
    version = 4 if one.server.ipv4 is not None or one.server.ipv6 is None else 6
    ends = party_of(plan, one.gateway, version), party_of(plan, one.server, version)
    side = explain_policy(world, plan, *ends, "TCP", one.port).ingress
    assert side is not None, "a pod has policy"
    lines = list(_side("ingress", side, f"{one.server.key} by {one.gateway.key}"))
    if not side.allow or side.audit:
        return Answer(tuple(lines), f"ingress of {side.endpoint} denied by {side.rule}")
    subject, own = one.server.subject, world.config.trust_domain
    server = workload_id(own, subject.namespace, subject.service_account)
    lines.append(("mesh", "mTLS", f"{id_} → {server}, as all that comes from abroad"))
    requests = Requests(world, plan)
    policies = requests.authorizations.of(one.server)
    caller = foreign_caller(id_, one.gateway, one.port)
    if one.port in requests.ports(one.server):
        others = for_foreign(policies, own)
        if asked is None and names(others, caller):
            lines.append(("authorization", "judged", SEEN.format(one.port)))
            return Answer(tuple(lines), "")
        if asked is not None:
            found = _asked(requests, one, asked)
            if isinstance(found, str):
                return Answer((*lines, ("requests", "DROPPED", found)), found)
            lines += found.lines
            caller = foreign_caller(id_, one.gateway, one.port, asked, found.claims)
    answer = authorized_abroad(policies, own, caller)
    what = f"{asked} " if caller.asked is not None else ""
    if answer.allow:
        said = f"{what}allowed by {answer.rule}"
        return Answer((*lines, ("authorization", "FORWARDED", said)), "")
    why = f"{what}denied by {answer.rule}"
    why += " (403)" if what else ""
    return Answer((*lines, ("authorization", "DROPPED", why)), why)


class _Asked(NamedTuple):
    """What lets a request come as far as AuthorizationPolicies."""

    lines: tuple[Said, ...]
    claims: Mapping[str, Any]


def _asked(requests: Requests, one: _Place, asked: Asked) -> _Asked | str:
    """Or why it does not come so far: rules about requests that the Gateway brings, and tokens."""
    lines: list[Said] = []
    if one.port in requests.written(one.server):
        found = allowing(requests.would_allow(one.server, one.port, one.gateway), asked)
        if found is None:
            return f"{asked}: no rule of {one.server.key} allows it (403)"
        lines.append(("requests", "FORWARDED", f"{asked} allowed by {found.rule}"))
    written = requests.authorizations.tokens(one.server)
    claims = claims_of(written, asked) if written else NO_TOKEN
    if claims is None:
        return f"{asked}: no token of these issuers, by {no_token(written)} (401)"
    if claims:
        who = f"{claims.get('iss')}/{claims.get('sub')}"
        text = f"of {who}, as it says: explain verifies no signature and no date"
        lines.append(("authorization", "token", text))
    return _Asked(tuple(lines), claims)


def _side(direction: str, side: Side, whose: str) -> Iterator[Said]:
    outcome = "AUDIT" if side.audit else "FORWARDED" if side.allow else "DROPPED"
    verb = "allowed" if side.allow else "denied"
    yield f"policy {direction}", outcome, f"{whose} {verb} by {side.rule}"
    for near in side.nearly:
        yield f"policy {direction}", "nearly", near


def _answer(*lines: Said) -> Answer:
    return Answer(lines, lines[-1][2])
