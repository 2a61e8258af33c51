"""What does the host's own policy close that its operator cannot do without?

Pure. Nothing is exempt in the kernel: an operator may lock himself out. So it is said before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sixfold.model.datapath import EGRESS, INGRESS, PROTOCOL_NUMBERS, IPAddress
from sixfold.model.identity import WORLD
from sixfold.model.rule import Rule
from sixfold.policy import ir
from sixfold.policy.decide import Party, lookup, lookup_names, names_of, party_at
from sixfold.policy.plan import PolicyPlan

SSH_PORT, DNS_PORT = 22, 53


def closed_to_the_world(plan: PolicyPlan, direction: int, protocol: str, port: int) -> Rule | None:
    """The rule by which no address outside may talk to the host on this port of it; or by which
    the host talks to none on this port of theirs. None: somebody may."""
    if plan.host is None:
        return None
    parties = [
        Party(WORLD),
        *(Party(WORLD, cidr) for cidr in plan.cidrs.values()),
        *(Party(WORLD, domains=(one,)) for one in plan.domain_sets.values()),
    ]
    number = PROTOCOL_NUMBERS[protocol]
    decisions = [
        lookup_names(plan.host, direction, tuple(names_of(one)), number, port) for one in parties
    ]
    return None if any(one.allow for one in decisions) else plan.rules[decisions[0].rule]


def ends_session(plan: PolicyPlan, client: IPAddress, port: int) -> Rule | None:
    """The rule that ends a TCP session of this client to this port of the host; None: it stays."""
    if plan.host is None:
        return None
    tcp = PROTOCOL_NUMBERS["TCP"]
    decision = lookup(plan.host, INGRESS, party_at(plan, WORLD, client), tcp, port)
    return None if decision.allow else plan.rules[decision.rule]


def lockouts(plan: PolicyPlan) -> Iterator[tuple[int, str]]:
    """Directions in which something is closed that is seldom meant to be, and what."""
    if closed_to_the_world(plan, INGRESS, "TCP", SSH_PORT):
        yield (
            INGRESS,
            "nobody outside reaches TCP/22 of the host: whoever administers it over SSH is locked "
            "out; allow it, or try it first with the annotation sixfold.dev/enforcement: audit",
        )
    if closed_to_the_world(plan, EGRESS, "UDP", DNS_PORT):
        yield (
            EGRESS,
            "the host reaches no UDP/53 outside: neither it nor the cluster resolver, which asks "
            "for pods, can resolve names of the world; allow it to your DNS servers",
        )


def summary(plan: PolicyPlan) -> str:
    """That a policy selects the host, and what it closes; "" when none does."""
    if plan.host is None:
        return ""
    closed = [text.partition(":")[0] for _, text in lockouts(plan)]
    return "; ".join(["", "a policy selects the host", *closed])


def warnings(plan: PolicyPlan, kinds: Collection[str]) -> list[str]:
    """What the policies for the host close, if one may be among objects of these kinds."""
    if "CiliumClusterwideNetworkPolicy" not in kinds:
        return []
    return [text for _, text in lockouts(plan)]


def of_host(policy: ir.Policy) -> bool:
    """Whether hosts are what it is for."""
    return isinstance(policy.subject, ir.Nodes)
