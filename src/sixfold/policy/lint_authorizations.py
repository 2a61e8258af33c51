"""AuthorizationPolicies that say less, or more, than they seem to.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.endpoint import Endpoint
from sixfold.model.spiffe import workload_id
from sixfold.model.world import World
from sixfold.policy import conditions as of
from sixfold.policy.authorizations import Authorizations
from sixfold.policy.conditions import Clauses, How, conditions_of
from sixfold.policy.lint_finding import Finding, Path

LOCAL = "cluster.local/"


def authorizations(world: World) -> Iterator[Finding]:
    """Rules about requests where nobody looks at any, and rules that name nobody."""
    all_ = Authorizations(world)
    for key, policy in sorted(world.policies.items()):
        if not isinstance(policy, AuthorizationPolicy):
            continue
        selected = [
            one for one in world.endpoints.values() if policy.selects(one.namespace, one.labels)
        ]
        for at, rule in enumerate(conditions_of(policy).rules):
            path: Path = ("spec", "rules", at)
            blind = [one.key for one in selected if rule.of_requests and not _seen(all_, one, rule)]
            if blind:
                means = "matches nothing" if policy.spec.action == "ALLOW" else "denies by the rest"
                message = (
                    f"of {blind[0]} no port is known to be HTTP, so there this {means}; name "
                    "one http (of a Service or container), or list it in ports"
                )
                yield Finding(key, path, "not-http", "warning", message)
            for name in _nobody(world, rule):
                message = f"{name} is no workload here"
                yield Finding(key, path, "selects-nothing", "warning", message)


def _seen(all_: Authorizations, endpoint: Endpoint, rule: Clauses) -> bool:
    ports = all_.ports(endpoint)
    return bool(ports if rule.ports is None else ports & rule.ports)


def _nobody(world: World, rule: Clauses) -> Iterator[str]:
    domain = world.config.trust_domain
    known = {
        of.PRINCIPAL: {
            str(workload_id(domain, one.namespace, one.subject.service_account)).partition("//")[2]
            for one in world.endpoints.values()
        },
        of.SERVICE_ACCOUNT: {
            f"{one.namespace}/{one.subject.service_account}" for one in world.endpoints.values()
        },
        of.NAMESPACE: {one.namespace for one in world.endpoints.values()},
    }
    for condition in (one for each in (*rule.sources, rule.when) for one in each):
        for text in condition.values if condition.key in known else ():
            name = text.text
            if condition.key == of.PRINCIPAL and name.startswith(LOCAL):
                name = f"{domain}/{name.removeprefix(LOCAL)}"
            if text.how is How.EXACT and name not in known[condition.key]:
                yield text.text
