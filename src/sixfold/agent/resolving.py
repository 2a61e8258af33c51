"""What a pod is answered when it asks for a name, who answers, and why: ``sixfold resolve``.

Walks the search path as libc does. Each step is answered from the zone that is loaded, and who
answers it is read from the kernel's own maps, now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from sixfold.agent.planning import Plans
from sixfold.discovery.answers import ALL
from sixfold.discovery.explain import candidates
from sixfold.discovery.globalnames import PlannedName, choose
from sixfold.discovery.stubs import Servers, stub_of
from sixfold.discovery.wire import TYPE_NUMBERS
from sixfold.discovery.zone import (
    Owner,
    Rcode,
    Sees,
    ZoneTree,
    hidden_owners,
    lookup,
    reverse_name,
)
from sixfold.host.name_elements import is_large
from sixfold.host.names import NameTable
from sixfold.model.names import NAME_TYPE, NOTHING, NameKey
from sixfold.model.world import World
from sixfold.policy.questions import Limit
from sixfold.trust.hidden import why_hidden
from sixfold.trust.question import sources


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, if it is somebody in particular."""

    sees: Sees
    why_hidden: Callable[[Owner], str]
    limit: Limit | None = None  # None: it may ask for every name


KERNEL, PROCESS, UPSTREAM = "kernel", "resolver", "upstream"
EVERYWHERE = ip_network("0.0.0.0/0")
TURNS = 64  # so many draws show every weight that counts
PROCESS_TYPES = ("SOA", "ANY")  # never the kernel's


def resolve(
    world: World,
    zone: ZoneTree,
    table: NameTable,
    name: str,
    type_: str,
    namespace: str,
    who: Asker | None = None,
) -> list[dict[str, Any]]:
    """The questions in the order in which libc asks them, up to the one that has an answer."""
    steps: list[dict[str, Any]] = []
    for fqdn in _questions(world, name, type_, namespace):
        steps.append(_step(zone, table, fqdn, type_, who))
        if steps[-1]["records"] or steps[-1]["by"] == UPSTREAM:
            break
    return steps


def explain_global(step: dict[str, Any], names: Sequence[PlannedName]) -> dict[str, Any]:
    """The step, if it asks for a global name: which of its addresses are answered now."""
    found = next((one for one in names if one.hostname == step["name"]), None)
    version = {"A": 4, "AAAA": 6}.get(step["type"], 0)
    if found is None or step["by"] != UPSTREAM:
        return step
    turns = [choose(found, EVERYWHERE, version, n / TURNS, inside=True) for n in range(TURNS)]
    records = list(dict.fromkeys(address for turn in turns for address in turn.addresses))
    states = ", ".join(
        f"{one.name} {'' if one.inside.well else 'not '}well" for one in found.regions
    )
    return step | {
        "rcode": "NOERROR" if records else "NODATA",
        "by": PROCESS,
        "why": f"a global name, {found.policy}: {states}",
        "ttl_s": found.ttl_s,
        "records": records,
    }


def explain_stub(step: dict[str, Any], stubs: Mapping[str, Servers]) -> dict[str, Any]:
    """The step, if a stub domain's servers are asked: which."""
    domain = stub_of(step["name"], stubs) if step["by"] == UPSTREAM else None
    if domain is None:
        return step
    return step | {"why": f"stub domain {domain}: {', '.join(stubs[domain])}"}


def asker_of(plans: Plans, source: str, namespace: str) -> Asker | None:
    """A pod, as it asks; None for who is told everything."""
    client = sources(plans.world, plans.routing, source, namespace)[0]
    if client.endpoint is None:
        return None
    view = plans.views.of.get(client.endpoint.id, NOTHING)

    def why(owner: Owner) -> str:
        service = plans.world.services.get(owner)
        if service is None:
            return f"policy lets {client.name} reach no port of {owner}"
        said = why_hidden(plans.world, plans.policy, plans.routing, client, service)
        return f"{owner}: {said}"

    limit = plans.limits.get(client.endpoint.key)
    return Asker(partial(plans.views.sees, view), why, limit)


def _questions(world: World, name: str, type_: str, namespace: str) -> list[str]:
    try:
        address = ip_address(name)
    except ValueError:
        return list(candidates(world, name.lower(), namespace))
    return [reverse_name(address) if type_ == "PTR" else name]


def _step(
    zone: ZoneTree, table: NameTable, fqdn: str, type_: str, who: Asker | None
) -> dict[str, Any]:
    answer = lookup(zone, fqdn, type_, None if who is None else who.sees)
    limit = None if who is None else who.limit
    missing = answer is not None and answer.rcode is Rcode.NXDOMAIN
    if limit is not None and not missing and limit.refuses(fqdn):
        return {
            "name": fqdn,
            "type": type_,
            "rcode": Rcode.REFUSED.name,
            "by": PROCESS,
            "why": limit.why,
            "ttl_s": None,
            "records": [],
        }
    if answer is None:
        alone = "." not in fqdn
        return {
            "name": fqdn,
            "type": type_,
            "rcode": "NXDOMAIN" if alone else "",
            "by": PROCESS if alone else UPSTREAM,
            "why": "a single label is never asked upstream" if alone else "not in our zones",
            "ttl_s": None,
            "records": [],
        }
    by, why = _who(table, fqdn, type_)
    if limit is not None:
        by, why = PROCESS, "it sees what is asked, as policy says which names may be"
    if who is not None and (hidden := sorted(hidden_owners(zone, fqdn, who.sees))):
        alone = limit is None and len(hidden) == 1
        by = KERNEL if table.denies(fqdn) and alone else PROCESS
        why = f"hidden: {'; '.join(map(who.why_hidden, hidden))}"
    if answer.beyond:
        why = f"an alias; upstream is asked for {answer.beyond}"
    found = (*answer.answers, *answer.authority)
    nodata = answer.rcode == Rcode.NOERROR and not answer.answers
    return {
        "name": fqdn,
        "type": type_,
        "rcode": "NODATA" if nodata else answer.rcode.name,
        "by": by,
        "why": why,
        "ttl_s": found[0].ttl_s,
        "records": [text for rrset in answer.answers for text in rrset.rdata],
    }


def _who(table: NameTable, fqdn: str, type_: str) -> tuple[str, str]:
    if type_ in PROCESS_TYPES:
        return PROCESS, f"{type_} is not the kernel's to answer"
    answer = table.lookup(NameKey(ALL, fqdn, TYPE_NUMBERS[type_]))
    if answer is not None:
        if answer.passes:
            return PROCESS, "the set is longer than a packet; over UDP it is truncated"
        where = "name_sets" if is_large(answer) else "names"
        return KERNEL, f"{answer.answers} records in map {where}"
    name = table.lookup(NameKey(ALL, fqdn, NAME_TYPE))
    if name is not None and name.passes:
        return PROCESS, "an alias is not the kernel's to answer"
    if not table.denies(fqdn):
        return PROCESS, "the kernel denies nothing there"
    return KERNEL, "the name is there, without this type" if name else "no such name in map names"
