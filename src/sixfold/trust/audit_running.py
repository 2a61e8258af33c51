"""Rules about the running system: is what was accepted in force and recorded, and nothing else?"""

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


def outlived(evidence: Evidence) -> Iterator[Finding]:
    """Z16."""
    assert evidence.live is not None
    for one in evidence.live.denied:
        namespace, _, name = one.source.partition("/")
        yield Finding(
            "Z16",
            "high",
            Object("Pod", namespace, name) if name else AGENT,
            f"its connection to {one.destination} port {one.port}/{one.protocol} is open",
            f"denied today by {one.rule}",
            "sixfold status says whether a round is under way; a change cuts what it denies",
        )


def doors(evidence: Evidence) -> Iterator[Finding]:
    """Z19. Who may reach which of our sockets is in docs/doors.md."""
    assert evidence.live is not None
    for door in evidence.live.doors:
        if not door.meant:
            mode = f", mode {door.mode:04o}" if door.mode else ""
            yield Finding(
                "Z19",
                "critical",
                Object("Process", "", door.process),
                f"listens on {door.place}{mode}, where others reach it",
                "it is none of the doors that this configuration opens",
                "sixfold down, and up without it; docs/doors.md lists what is meant to be open",
            )
    for one in evidence.live.intrusions:
        if one.tried == "door":
            yield Finding(
                "Z19",
                "critical",
                Object("Process", "", one.target),
                f"answers {one.stranger} at {one.place}",
                "a connection from the pod was accepted",
                "let policy keep pods from the node (no fromEntities or ipBlock that holds it)",
            )


def without_identity(evidence: Evidence) -> Iterator[Finding]:
    """Z25. The host is one identity, whatever runs on it."""
    assert evidence.live is not None
    for one in evidence.live.by_host:
        namespace, _, name = one.destination.partition("/")
        yield Finding(
            "Z25",
            "high",
            Object("Pod", namespace, name),
            f"{one.owner or 'a process of the host'} is connected to its port "
            f"{one.port}/{one.protocol}",
            "whoever runs on the host is the host to policy, and has no identity of its own",
            "run it as a pod; or narrow what the host may dial (fromEntities: [host], node policy)",
        )
