"""Rules about discovery: do clients ask again, or keep addresses for longer than they may?

Z24, live, from what the kernel counted (``bpf/lib/freshness.h``). RETIRED is certain: no answer of
ours had that address for longer than its TTL. EXPIRED is a suspicion, so it takes many
connections. NO_LOOKUP takes a while: who asked before we watched is not to be blamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sixfold.trust.audit_finding import DialsSeen, Evidence, Finding, Object

CONNECTIONS_MIN = 20
WATCHED_MIN_S = 600.0
Kind = Literal["RETIRED", "EXPIRED", "NO_LOOKUP"]


def caches_addresses(evidence: Evidence) -> Iterator[Finding]:
    """Z24."""
    assert evidence.live is not None
    for seen in evidence.live.dials:
        yield from (_finding(kind, seen) for kind in kinds(seen))


def kinds(seen: DialsSeen) -> Iterator[Kind]:
    """What is found of a pod and a service."""
    if seen.retired:
        yield "RETIRED"
    many = seen.connections >= CONNECTIONS_MIN
    if many and seen.expired * 2 >= seen.connections and seen.late * 2 >= seen.connections:
        yield "EXPIRED"
    if seen.unasked == seen.connections > 0 and seen.watched_s >= WATCHED_MIN_S:
        yield "NO_LOOKUP"


def _redirected(seen: DialsSeen) -> str:
    return f"; {seen.redirected} were led to who serves now" if seen.redirected else ""


def _finding(kind: Kind, seen: DialsSeen) -> Finding:
    namespace, _, name = seen.pod.partition("/")
    of = f"{seen.connections} connections to addresses of {seen.service}"
    match kind:
        case "RETIRED":
            message = f"dials {seen.address}, which is no address of {seen.service} any more"
            evidence = (
                f"{seen.retired} of {of}, later than the TTL of {seen.ttl_s} s after it was "
                f"out of DNS{_redirected(seen)}"
            )
            fix = (
                "let the client resolve again for each connection, and close pooled ones; "
                f"or give {seen.service} a cluster address"
            )
        case "EXPIRED":
            message = f"keeps answers for {seen.service} for longer than their TTL"
            evidence = (
                f"{seen.expired} of {of} came later than {seen.ttl_s} s after the last answer, "
                f"up to {seen.longest_s:.0f} s"
            )
            fix = "have its resolver honour TTLs (JVM: networkaddress.cache.ttl)"
        case "NO_LOOKUP":
            message = f"dials addresses of {seen.service} and never asks for its name"
            evidence = f"all of {of} in {seen.watched_s / 60:.0f} min"
            fix = f"let it dial {seen.service} by name; where it learns addresses elsewhere, "
            fix += "all is well"
    about = Object("Pod", namespace, name)
    return Finding("Z24", "medium", about, f"{kind}: {message}", evidence, fix)
