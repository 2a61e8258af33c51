"""Which tunnels that are open must end, now that requests are looked into, or a policy denies them?

Envoy judges a tunnel when it is made. What network policy denies later, the kernel cuts; what
AuthorizationPolicies deny it does not know, and a connection that nobody looks into must not stay
on a port that is looked into now. Pure; the caller closes sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sixfold.agent.planning import Plans
from sixfold.host.layout import GIVEN, MTLS, OUTWARD, Connection
from sixfold.mesh.authorized import authorized, caller_of
from sixfold.mesh.http_plan import HttpPlan
from sixfold.model.endpoint import by_address
from sixfold.model.rule import Rule
from sixfold.policy.authorizations import Authorizations


class Cut(NamedTuple):
    """``rule``: what denies it; None: its port is looked into now, so it has to begin anew."""

    connection: Connection
    rule: Rule | None


def cut(open_: Iterable[Connection], plans: Plans, http: HttpPlan) -> Iterator[Cut]:
    """Of all connections that are open. Those whose requests are looked into are among those of
    the second kind: their sockets are others, which nobody closes."""
    authorizations = Authorizations(plans.world)
    at = by_address(plans.world.endpoints.values())
    for one in open_:
        client, server = at.get(one.source), at.get(one.destination)
        if one.transport != MTLS or not one.is_open or client is None or server is None:
            continue
        if one.destination_port in http.ports.get(server.key, ()):
            yield Cut(one, None)
        elif server.key in http.tunnels:
            caller = caller_of(client, plans.world.config.trust_domain, one.destination_port)
            answer = authorized(authorizations.of(server), caller)
            if not answer.allow:
                yield Cut(one, answer.rule)


def no_longer_passed(
    open_: Iterable[Connection], before: Plans, after: Plans
) -> Iterator[Connection]:
    """The proxy's connections to the world on ports where it passes less than it did. Which names
    they were passed by nobody has kept: those that still are allowed begin anew."""
    ports: dict[object, set[int]] = {}
    for key, now in after.leavings.items():
        was = before.leavings.get(key)
        if was is None or was is now:
            continue
        lost = {one.port for one in was.seen if one not in now.seen}
        lost |= {port for host, port in was.carried if (host, port) not in now.carried}
        if lost:
            ports |= dict.fromkeys(after.world.endpoints[key].addresses, lost)
    for one in open_ if ports else ():
        if one.transport in (OUTWARD, GIVEN) and one.destination_port in ports.get(one.source, ()):
            yield one
