"""How pods have dialled addresses of services themselves: the kernel's counts, under names."""

from __future__ import annotations

from sixfold.agent.agent import Agent
from sixfold.host.freshness import read_dials
from sixfold.trust.audit_finding import DialsSeen


def dials_seen(agent: Agent) -> list[DialsSeen]:
    """Of pods and services that are there, in order of their numbers."""
    services = agent.names.services
    endpoints = agent.plans.world.endpoints.values() if agent.plans else ()
    pods = {int(one.id): one.key for one in endpoints}
    return [
        DialsSeen(
            pod=pods[one.endpoint],
            service=f"{services[one.owner].namespace}/{services[one.owner].name}",
            watched_s=one.watched_s,
            longest_s=one.longest_s,
            connections=one.connections,
            retired=one.retired,
            expired=one.expired,
            late=one.late,
            unasked=one.unasked,
            redirected=one.redirected,
            address=str(one.address or ""),
            ttl_s=agent.config.dns_ttl_s,
        )
        for one in sorted(read_dials(agent.datapath.maps))
        if one.endpoint in pods and one.owner in services
    ]
