"""Is the whole set as it should be? Every rule asked of one body of evidence.

Pure. Rules are plugged in here, each a function in a file of its subject; ``sixfold audit`` is
its face. A rule says nothing where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Collection

from sixfold.trust import (
    audit_balancing,
    audit_discovery,
    audit_identity,
    audit_mesh,
    audit_policy,
    audit_running,
    audit_tokens,
    relaxed,
)
from sixfold.trust.audit_finding import SEVERITIES, Evidence, Finding, Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "Z01",
        "critical",
        "a workload that no policy selects is open",
        audit_policy.unselected,
    ),
    Rule(
        "Z02",
        "high",
        "an allow-list without a base that denies",
        audit_policy.without_base,
        anti_pattern="an allow-list without default deny",
    ),
    Rule(
        "Z03",
        "critical",
        "workloads talk in plaintext",
        audit_mesh.plaintext,
        offline=False,
    ),
    Rule(
        "Z04",
        "medium",
        "a port takes plaintext, and nobody needs it",
        audit_mesh.permissive,
        offline=False,
    ),
    Rule(
        "Z05",
        "high",
        "mTLS, and any identity may call",
        audit_mesh.any_identity,
        anti_pattern="encryption without authorization",
    ),
    Rule(
        "Z06",
        "medium",
        "a policy names addresses where it means workloads",
        audit_policy.by_address,
        anti_pattern="trust by address",
    ),
    Rule(
        "Z07",
        "high",
        "requests are judged on a port that some reach without mTLS",
        audit_mesh.unproved,
    ),
    Rule(
        "Z08",
        "critical",
        "rules about requests can be gone around",
        audit_mesh.bypassed,
        offline=False,
    ),
    Rule(
        "Z09",
        "medium",
        "a rule lets in everybody, on every port",
        audit_policy.everybody,
    ),
    Rule(
        "Z10",
        "low",
        "a rule that nobody uses",
        audit_policy.unused,
        offline=False,
    ),
    Rule(
        "Z11",
        "high",
        "a certificate that is valid for too long, or not for long enough",
        audit_identity.lifetimes,
        offline=False,
    ),
    Rule(
        "Z12",
        "high",
        "certificates are not renewed",
        audit_identity.stalled,
        offline=False,
    ),
    Rule(
        "Z13",
        "high",
        "a certificate that is no X.509-SVID",
        audit_identity.malformed,
        offline=False,
    ),
    Rule(
        "Z14",
        "medium",
        "unlike workloads share an identity",
        audit_identity.shared,
    ),
    Rule(
        "Z15",
        "high",
        "a process that nobody attested",
        audit_identity.unattested,
    ),
    Rule(
        "Z16",
        "high",
        "a connection outlived the policy that allowed it",
        audit_running.outlived,
        offline=False,
    ),
    Rule(
        "Z17",
        "high",
        "everything outside may be dialled, on every port",
        audit_policy.open_egress,
    ),
    Rule(
        "Z18",
        "high",
        "tokens of users that count for too much, or that nobody asks for",
        audit_tokens.tokens,
    ),
    Rule(
        "Z19",
        "critical",
        "a socket of Sixfold is open where it should not be",
        audit_running.doors,
        offline=False,
    ),
    Rule(
        "Z20",
        "high",
        "what is known of another trust domain is old, or nothing",
        audit_tokens.stale_bundles,
        offline=False,
    ),
    Rule(
        "Z21",
        "medium",
        "decisions were not recorded",
        audit_running.not_recorded,
        offline=False,
    ),
    Rule(
        "Z22",
        "high",
        "the datapath lags behind what was accepted",
        audit_running.lagging,
        offline=False,
        anti_pattern="a datapath that nobody can look into",
    ),
    Rule(
        "Z23",
        "medium",
        "long-lived connections on a rotation that suits short ones",
        audit_balancing.long_lived_on_a_rotation,
        anti_pattern="an unexamined default",
    ),
    Rule(
        "Z24",
        "medium",
        "a client keeps addresses for longer than an answer holds",
        audit_discovery.caches_addresses,
        offline=False,
        anti_pattern="cached discovery",
    ),
    Rule(
        "Z25",
        "high",
        "a process of the host talks to a workload, and has no identity",
        audit_running.without_identity,
        offline=False,
    ),
    Rule(
        "Z26",
        "medium",
        "the posture is relaxed; low: for a time that has an end",
        relaxed.relaxations,
    ),
)


def audit(evidence: Evidence, numbers: Collection[str] = ()) -> list[Finding]:
    """The findings of these rules (all, when none are named), the most severe first."""
    asked = [
        rule
        for rule in RULES
        if (not numbers or rule.number in numbers) and (rule.offline or evidence.live is not None)
    ]
    found = [finding for rule in asked for finding in rule.check(evidence)]
    return sorted(found, key=lambda one: (-SEVERITIES.index(one.severity), one.rule, one.about))
