"""Rules about the running system: is what was accepted in force, and is it all recorded?"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.trust.audit_finding import Evidence, Finding, Object

AGENT = Object("Agent", "", "sixfold")


def not_recorded(evidence: Evidence) -> Iterator[Finding]:
    """Z21."""
    live = evidence.live
    assert live is not None
    lost = [(live.flows_lost, "flow events"), (live.hits_lost, "hits of rules")]
    for count, what in lost:
        if count:
            yield Finding(
                "Z21",
                "medium",
                AGENT,
                f"{count} {what} are not recorded",
                "the kernel had no room for them while the agent was busy or away",
                "keep the agent running; `sixfold status` counts them",
            )


def lagging(evidence: Evidence) -> Iterator[Finding]:
    """Z22."""
    live = evidence.live
    assert live is not None
    if live.problem or live.applied != live.generation:
        yield Finding(
            "Z22",
            "high",
            AGENT,
            f"generation {live.generation} was accepted, {live.applied} is in force",
            live.problem or "the round for it has not ended",
            "sixfold status says what stands in the way; the agent tries again every second",
        )
