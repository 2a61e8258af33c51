"""Rules about those whom others vouch for: users by their tokens, other trust domains."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.mesh.foreign import foreign_services, why_closed
from sixfold.model.authorizationpolicy import AuthorizationPolicy, AuthorizationRule
from sixfold.model.backendtls import BACKEND_TLS
from sixfold.model.requestauthentication import REQUEST_AUTHENTICATION, RequestAuthentication
from sixfold.model.world import World
from sixfold.policy.conditions import conditions_of
from sixfold.policy.foreign import domains
from sixfold.trust.audit_finding import Evidence, Finding, Object

BY_TOKEN = "request.auth."  # attributes that only a token gives
LATE_S = 60.0  # after the hint, before a bundle counts as stale
REQUIRED = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}-required, namespace: {namespace}}}
spec:{selector}
  action: DENY
  rules: [{{from: [{{source: {{notRequestPrincipals: ["*"]}}}}]}}]"""


def tokens(evidence: Evidence) -> Iterator[Finding]:
    """Z18. A token of an issuer is for somebody; and one that nobody asks for proves nothing."""
    world = evidence.view.world
    given = [one for one in world.policies.values() if isinstance(one, RequestAuthentication)]
    asking = [
        one
        for one in world.policies.values()
        if isinstance(one, AuthorizationPolicy) and any(map(_asks, one.spec.rules or ()))
    ]
    for one in given:
        about = Object(REQUEST_AUTHENTICATION, one.metadata.namespace, one.metadata.name)
        for index, rule in enumerate(one.spec.jwt_rules):
            if not rule.audiences:
                yield Finding(
                    "Z18",
                    "high",
                    about,
                    f"a token of {rule.issuer} counts, whoever it was made for",
                    "no audiences: another service that is shown one can show it here",
                    f"audiences: [the name that {rule.issuer} has for this service]",
                    ("spec", "jwtRules", index),
                )
        without = sorted(
            {
                endpoint.workload
                for endpoint in world.endpoints.values()
                if one.selects(endpoint.namespace, endpoint.labels)
                and not any(it.selects(endpoint.namespace, endpoint.labels) for it in asking)
            }
        )
        if without and one.spec.jwt_rules:
            yield Finding(
                "Z18",
                "high",
                about,
                "whoever shows no token needs none",
                f"no AuthorizationPolicy asks for one at {', '.join(without)}",
                _required(one),
            )


def _asks(rule: AuthorizationRule) -> bool:
    """Whether a rule tells those with a token from those without."""
    sources = [one.source for one in rule.from_ or ()]
    return any(it.request_principals or it.not_request_principals for it in sources) or any(
        one.key.startswith(BY_TOKEN) for one in rule.when or ()
    )


def _required(one: RequestAuthentication) -> str:
    labels = ", ".join(f"{key}: {value}" for key, value in sorted(one.labels.items()))
    selector = f"\n  selector: {{matchLabels: {{{labels}}}}}" if labels else ""
    meta = one.metadata
    return REQUIRED.format(name=meta.name, namespace=meta.namespace, selector=selector)


def whole_domains(evidence: Evidence) -> Iterator[Finding]:
    """Z05. Whoever another trust domain vouches for is somebody of theirs, not of ours to know."""
    for about, domain, rule, whole in _abroad(evidence.view.world):
        if whole:
            yield Finding(
                "Z05",
                "high",
                about,
                f"whoever {domain} vouches for may call what it selects",
                f"{rule} names all of that trust domain, and whom it will ever name",
                f"name who is meant: principals: [{domain}/ns/NAMESPACE/sa/ACCOUNT]",
            )


def _abroad(world: World) -> Iterator[tuple[Object, str, str, bool]]:
    """What lets identities of other trust domains in: policy, domain, rule, whether all of it."""
    for one in world.policies.values():
        if isinstance(one, AuthorizationPolicy):
            about = Object(one.kind, one.metadata.namespace, one.metadata.name)
            audit = world.config.audit or one.metadata.namespace in world.audited
            given = conditions_of(one, audit=audit)
            for rule, domain, whole in domains([given], world.config.trust_domain):
                yield about, domain, str(rule), whole


def _unfederated(world: World) -> Iterator[Finding]:
    """What speaks of a trust domain that nobody asks about: closed, and perhaps forgotten."""
    said = {(about, domain): rule for about, domain, rule, _ in _abroad(world)}
    for one in foreign_services(world).values():
        about = Object(BACKEND_TLS, *one.policy.split("/"))
        said[about, one.domain] = f"service {one.port}"
    for (about, domain), what in sorted(said.items()):
        if closed := why_closed(world, domain):
            yield Finding(
                "Z20",
                "medium",
                about,
                f"{domain} is spoken of, and nothing is known of it",
                f"{what}: {closed}",
                f"apply a ClusterFederatedTrustDomain of {domain}, or delete what speaks of it",
            )


def stale_bundles(evidence: Evidence) -> Iterator[Finding]:
    """Z20. A root that is gone over there is still believed here."""
    yield from _unfederated(evidence.view.world)
    assert evidence.live is not None
    for one in evidence.live.bundles:
        age_s = evidence.live.now_s - one.heard_s
        if age_s <= one.hint_s + LATE_S or not (one.heard_s or one.problem):
            continue  # its word is young, or it is being asked for the first time
        said = f"heard {age_s / 3600:.1f} h ago" if one.heard_s else "not heard since the start"
        yield Finding(
            "Z20",
            "high",
            Object("ClusterFederatedTrustDomain", "", one.trust_domain),
            f"what is known of {one.trust_domain} is old: {one.roots} roots are believed on",
            f"{one.url}: {said}, and it wants to be asked every {one.hint_s:.0f} s"
            + (f"; {one.problem}" if one.problem else ""),
            "sixfold ca federated shows what stands in the way; delete the object to end it",
        )
