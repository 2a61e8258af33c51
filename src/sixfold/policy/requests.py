"""Which requests may a pod send to a port of another? Lines about requests, for the proxy.

Pure. Tables say who may reach which port, and the kernel has them; what is asked there, only the
proxy sees. A port of a pod is *looked into* when some line of its policies is about requests to
it: then whatever comes from pods must be HTTP. Allowed is what any line allows that matches the
caller: a line without requests allows all of them. Tiers above decide by tables alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sixfold.model.ciliumpolicy import is_about_requests
from sixfold.model.datapath import ALLOW, INGRESS, PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import ANY_POD, UNKNOWN
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.authorizations import Authorizations
from sixfold.policy.decide import Verdict, decide, party_of
from sixfold.policy.meant import means
from sixfold.policy.plan import PolicyPlan

TCP = PROTOCOL_NUMBERS["TCP"]


class Allowance(NamedTuple):
    """What one rule lets a caller ask; ``requests`` is None: everything."""

    rule: Rule
    requests: tuple[ir.Request, ...] | None


class Requests:
    """Of one world and its compiled policies."""

    def __init__(self, world: World, plan: PolicyPlan) -> None:
        self._world = world
        self._plan = plan
        self.authorizations = Authorizations(world)
        self._ports: dict[str, frozenset[int]] = {}
        self._told_only: dict[str, bool] = {}

    def ports(self, endpoint: Endpoint) -> frozenset[int]:
        """The ports of a pod that are looked into."""
        return self.written(endpoint) | self.authorizations.ports(endpoint)

    def written(self, endpoint: Endpoint) -> frozenset[int]:
        """Those that have lines about requests."""
        if (known := self._ports.get(endpoint.key)) is None:
            known = self._ports[endpoint.key] = self._looked_into(endpoint)
        return known

    def _looked_into(self, endpoint: Endpoint) -> frozenset[int]:
        return frozenset(
            number
            for policy in self._plan.about_requests.values()
            if self._selects(policy.subject, endpoint)
            for line in policy.lines
            if line.requests is not None
            for port in line.ports or ()
            for number in _numbers(port, endpoint)
        )

    def headers(self, server: Endpoint) -> frozenset[str]:
        """Names, in lower case, of what is looked at of requests to a pod."""
        lines = {
            name
            for policy in self._plan.about_requests.values()
            if self._selects(policy.subject, server)
            for line in policy.lines
            for request in line.requests or ()
            for name, _ in request.headers
        }
        return frozenset(lines).union(*(one.headers for one in self.authorizations.of(server)))

    def allowed(self, server: Endpoint, port: int, client: Endpoint) -> tuple[Allowance, ...]:
        """What a pod may ask of a port of another; nothing when either side's policy denies it."""
        verdict = self._verdict(server, port, client)
        if not verdict.allow or verdict.ingress is None:
            return ()
        decided = self._plan.rules[verdict.ingress.rule]
        if decided.tier or port not in self.written(server) or self.told_only(server):
            return (Allowance(decided, None),)
        return tuple(self._lines(server, port, client))

    def denied_by(self, server: Endpoint, port: int, client: Endpoint) -> Rule | None:
        """The rule by which no connection is allowed, of either side; None: some are."""
        verdict = self._verdict(server, port, client)
        for side in (verdict.egress, verdict.ingress):
            if side is not None and not side.allow:
                return self._plan.rules.get(side.rule)
        return None

    def _verdict(self, server: Endpoint, port: int, client: Endpoint) -> Verdict:
        ends = party_of(self._plan, client), party_of(self._plan, server)
        return decide(self._plan, *ends, TCP, port)

    def would_allow(self, server: Endpoint, port: int, client: Endpoint) -> tuple[Allowance, ...]:
        """The same, were what is in audit in force."""
        if port not in self.written(server) or not self.told_only(server):
            return self.allowed(server, port, client)
        return tuple(self._lines(server, port, client))

    def told_only(self, server: Endpoint) -> bool:
        """Whether what lines about requests do not allow passes, and is told: all that isolates
        the pod is in audit, or the pod is."""
        if (known := self._told_only.get(server.key)) is None:
            isolating = [
                one.audit
                for one in self._plan.policies.values()
                if one.tier is ir.Tier.NETWORK_POLICY
                and INGRESS in one.isolates
                and self._selects(one.subject, server)
            ]
            known = self.authorizations.in_audit(server) or (bool(isolating) and all(isolating))
            self._told_only[server.key] = known
        return known

    def _lines(self, server: Endpoint, port: int, client: Endpoint) -> Iterator[Allowance]:
        for policy in self._plan.policies.values():
            if policy.tier is not ir.Tier.NETWORK_POLICY or not self._selects(
                policy.subject, server
            ):
                continue
            for line in policy.lines:
                if (
                    line.direction == INGRESS
                    and line.verdict == ALLOW
                    and _has(line.ports, port, server)
                    and self._is_peer(line, client)
                ):
                    yield Allowance(line.rule, line.requests)

    def _selects(self, subject: ir.Pods | ir.Nodes, endpoint: Endpoint) -> bool:
        return isinstance(subject, ir.Pods) and means(self._world, subject, endpoint)

    def _is_peer(self, line: ir.Line, client: Endpoint) -> bool:
        if line.peers is None:
            return True
        for peer in line.peers:
            if isinstance(peer, ir.Pods) and means(self._world, peer, client):
                return True
            if isinstance(peer, ir.Reserved) and peer.identity in (ANY_POD, UNKNOWN):
                return True
            if isinstance(peer, ir.Addresses) and not peer.outside:
                return True  # the table has decided that it is in there, or not
        return False


def unseen(world: World) -> list[str]:
    """What is to be said of policies about requests where nobody looks at requests."""
    if world.has_mesh:
        return []
    return [
        f"{policy.kind} {key.rpartition(' ')[2]}: its rules about requests let nothing pass, for "
        "there is no mesh: sixfold up --mtls strict"
        for key, policy in sorted(world.policies.items())
        if is_about_requests(policy)
    ]


def _numbers(port: ir.Port, endpoint: Endpoint) -> Iterator[int]:
    """Of a port of a line about requests, which is one number or name; of TCP."""
    if isinstance(port.first, int):
        yield port.first
    for named in endpoint.subject.named_ports:
        if (named.name, named.protocol) == (port.first, "TCP"):
            yield named.port


def _has(ports: tuple[ir.Port, ...] | None, number: int, endpoint: Endpoint) -> bool:
    return ports is None or any(
        port.first is None
        or (isinstance(port.first, int) and port.first <= number <= (port.last or port.first))
        or number in _numbers(port, endpoint)
        for port in ports
        if port.protocol in ("TCP", "ANY", "ALL")
    )
