"""Rules about policies: who is open, and who is meant by the wrong name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from sixfold.model.datapath import ALLOW, EGRESS, INGRESS
from sixfold.model.identity import UNKNOWN, WORLD
from sixfold.model.policies import Policy, key_of
from sixfold.policy.lint import lint_as_written
from sixfold.policy.lint_finding import Finding as LintFinding
from sixfold.policy.reach_parties import View
from sixfold.policy.reach_ports import EVERY_PORT
from sixfold.trust.audit_finding import Evidence, Finding, Object

OUTSIDE = (WORLD, UNKNOWN)  # names of an address that no rule mentions
DIRECTIONS = ((INGRESS, "ingress", "Ingress"), (EGRESS, "egress", "Egress"))
BASE = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: default-deny, namespace: {namespace}}}
spec: {{podSelector: {{}}, policyTypes: [{types}]}}"""


def unselected(evidence: Evidence) -> Iterator[Finding]:
    """Z01. Under posture zero-trust nobody is: what no policy selects is closed."""
    for about, directions in _defaults(evidence):
        types = ", ".join(title for _, name, title in DIRECTIONS if name in directions)
        yield Finding(
            "Z01",
            "critical",
            about,
            f"no policy selects it: {' and '.join(directions)} open to everybody",
            f"its default is default-allow (posture {evidence.view.world.config.posture})",
            BASE.format(namespace=about.namespace, types=types),
        )


def _defaults(evidence: Evidence) -> Iterator[tuple[Object, list[str]]]:
    """Workloads with a direction in which the posture's default lets everything pass."""
    view = evidence.view
    found: defaultdict[Object, dict[str, None]] = defaultdict(dict)
    for key, endpoint in view.world.endpoints.items():
        table = view.plan.tables[key]
        for default, name in (
            (table.ingress_default, "ingress"),
            (table.egress_default, "egress"),
        ):
            rule = view.plan.rules.get(default)
            if rule is not None and rule.name == "default-allow":
                kind, _, workload = endpoint.workload.partition("/")
                found[Object(kind, endpoint.namespace, workload)][name] = None
    for about, names in sorted(found.items()):
        yield about, list(names)


def without_base(evidence: Evidence) -> Iterator[Finding]:
    """Z02. Of posture zero-trust the base is built in, so that only clusters are worse off."""
    for finding in _linted(evidence.view):
        if finding.check == "allow-without-deny-base" and finding.severity == "warning":
            about = _policy(evidence, finding.policy)
            direction = "Egress" if finding.message.startswith("egress") else "Ingress"
            yield Finding(
                "Z02",
                "high",
                about,
                finding.message.partition("; ")[0],
                "policies of the namespace allow in that direction, and leave these out",
                BASE.format(namespace=about.namespace, types=direction),
                finding.path,
            )


def by_address(evidence: Evidence) -> Iterator[Finding]:
    """Z06. An address is whoever has it now."""
    for finding in _linted(evidence.view):
        if finding.check == "cidr-instead-of-identity":
            yield Finding(
                "Z06",
                "medium",
                _policy(evidence, finding.policy),
                finding.message.partition("; ")[0],
                "the block holds addresses of pods, which are given to others later",
                "name them by podSelector, and namespaceSelector",
                finding.path,
            )


def everybody(evidence: Evidence) -> Iterator[Finding]:
    """Z09. Egress to everywhere is Z17's; on stated ports somebody may be meant to be public."""
    for finding in _linted(evidence.view):
        if finding.check == "empty-selector" and finding.severity == "warning":
            if any(str(step).startswith("egress") for step in finding.path):
                continue
            yield Finding(
                "Z09",
                "medium",
                _policy(evidence, finding.policy),
                finding.message.partition("; ")[0],
                "a rule without peers, or with an empty selector, on every port",
                "name who is meant, and on which ports "
                "(sixfold suggest writes it from what was seen)",
                finding.path,
            )


def unused(evidence: Evidence) -> Iterator[Finding]:
    """Z10. What nobody uses is only of use to an intruder."""
    assert evidence.live is not None
    for policy in evidence.view.plan.policies.values():
        for line in policy.lines:
            key = key_of(line.rule.kind, line.rule.namespace, line.rule.name)
            seen = evidence.live.policies.get(key)
            if seen is None or line.verdict != ALLOW or seen.age_s < evidence.unused_s:
                continue
            if not seen.hits.get(line.rule.place):
                yield Finding(
                    "Z10",
                    "low",
                    _policy(evidence, key),
                    f"{line.rule.place} has let no connection pass",
                    f"none in the {seen.age_s / 86400:.0f} days since the policy is there",
                    "remove the rule, in audit first: annotate the policy "
                    "sixfold.dev/enforcement=audit and see whether flows miss it",
                )


def open_egress(evidence: Evidence) -> Iterator[Finding]:
    """Z17. What no policy selects is Z01's."""
    view = evidence.view
    found: dict[Object, None] = {}
    for key, endpoint in view.world.endpoints.items():
        table = view.plan.tables[key]
        rule = view.plan.rules.get(table.egress_default)
        if rule is not None and rule.name == "default-allow":
            continue
        if view.ports(table, EGRESS, OUTSIDE) == EVERY_PORT:
            kind, _, workload = endpoint.workload.partition("/")
            found[Object(kind, endpoint.namespace, workload)] = None
    for about in sorted(found):
        yield Finding(
            "Z17",
            "high",
            about,
            "it may dial everything outside, on every port",
            "its table lets an address that no rule mentions pass, on all ports",
            "name what it needs: ipBlock, toFQDNs or domainNames, with ports "
            f"(sixfold suggest -n {about.namespace} writes it from what was seen)",
        )


@lru_cache(maxsize=1)
def _linted(view: View) -> tuple[LintFinding, ...]:
    """Three rules ask the same view."""
    return tuple(lint_as_written(view))


def _policy(evidence: Evidence, key: str) -> Object:
    policy: Policy = evidence.view.world.policies[key]
    return Object(policy.kind, policy.metadata.namespace, policy.metadata.name)
