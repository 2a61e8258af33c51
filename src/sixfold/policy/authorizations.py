"""Which AuthorizationPolicies are about a pod, and on which of its ports must requests be seen?

Pure. The same of RequestAuthentications, which are about requests only. A port is looked into when
a policy says something of requests to it, and it is known to be HTTP: by the ``appProtocol`` or the
name of a service's port that leads to it, by the name of its containerPort (``http``, ``http-web``,
``grpc``…); or when nothing says what it is, and the policy names the port. A port that is called
something else is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.endpoint import Endpoint
from sixfold.model.posture import in_audit
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.service import Service, ServicePort
from sixfold.model.world import World
from sixfold.policy.conditions import Authorization, conditions_of

HTTP = frozenset({"http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"})
OTHERS = frozenset(
    {
        "tcp",
        "tls",
        "https",
        "mongo",
        "mysql",
        "redis",
        "postgres",
        "postgresql",
        "kubernetes.io/wss",
    }
)


class Authorizations:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, tuple[Authorization, ...]] = {}
        self._gateways = {one.made for one in world.gateways.values() if world.is_ours(one)}
        self._policies = [
            one for one in world.policies.values() if isinstance(one, AuthorizationPolicy)
        ]
        self._authentications = sorted(
            (one for one in world.policies.values() if isinstance(one, RequestAuthentication)),
            key=lambda one: (one.metadata.namespace, one.metadata.name),
        )
        self._policies.sort(key=lambda one: (one.metadata.namespace, one.metadata.name))

    def of(self, endpoint: Endpoint) -> tuple[Authorization, ...]:
        """All that select a pod, by name."""
        if (known := self._known.get(endpoint.key)) is None:
            known = self._known[endpoint.key] = self._about(endpoint, of_gateways=False)
        return known

    def at_gateway(self, endpoint: Endpoint) -> tuple[Authorization, ...]:
        """All about what clients ask of a Gateway, by its pod."""
        return self._about(endpoint, of_gateways=True) if endpoint.key in self._gateways else ()

    def _about(self, endpoint: Endpoint, *, of_gateways: bool) -> tuple[Authorization, ...]:
        audit = self.in_audit(endpoint)
        return tuple(
            conditions_of(one, audit=audit)
            for one in self._policies
            if bool(one.gateways) == of_gateways
            and one.selects(endpoint.namespace, endpoint.labels)
        )

    def in_audit(self, endpoint: Endpoint) -> bool:
        """Whether everything about a pod is told only."""
        world = self._world
        if world.config.audit or endpoint.namespace in world.audited:
            return True
        relaxed = in_audit(world.relaxations, endpoint.namespace, endpoint.labels)
        return any(not one.ports for one in relaxed)

    def tokens(self, endpoint: Endpoint) -> tuple[RequestAuthentication, ...]:
        """Whose tokens a pod takes, or the Gateway that it is of, by name."""
        of_gateway = endpoint.key in self._gateways
        return tuple(
            one
            for one in self._authentications
            if one.spec.jwt_rules
            and bool(one.gateways) == of_gateway
            and one.selects(endpoint.namespace, endpoint.labels)
        )

    def strict_by(self, endpoint: Endpoint) -> str:
        """The policy that lets nobody through who proves no identity; "" when none does."""
        return next((one.name for one in self.of(endpoint) if _is_in_force(one)), "")

    def ports(self, endpoint: Endpoint) -> frozenset[int]:
        """Ports of a pod that are looked into."""
        rules = [rule for one in self.of(endpoint) for rule in one.rules if rule.of_requests]
        tokens = () if endpoint.key in self._gateways else self.tokens(endpoint)
        if not rules and not tokens:
            return frozenset()
        declared = self.declared(endpoint)
        http = {port for port, is_http in declared.items() if is_http}
        found = set(http) if tokens else set()
        for rule in rules:
            named = rule.ports
            if named is None:
                found |= http
            else:
                found |= {port for port in named if declared.get(port, True)}
        return frozenset(found)

    def declared(self, endpoint: Endpoint) -> Mapping[int, bool]:
        """TCP ports that something says are HTTP, or are not."""
        found = {
            port.port: said
            for port in endpoint.publish_ports
            if port.protocol == "TCP" and (said := _said(port.name)) is not None
        }
        for service in self._by_namespace.get(endpoint.namespace, ()):
            if service.spec.selector and service.spec.selector.items() <= endpoint.labels.items():
                found.update(_declared_by(service, endpoint))
        return found

    @cached_property
    def _by_namespace(self) -> Mapping[str, list[Service]]:
        found: dict[str, list[Service]] = {}
        for service in self._world.services.values():
            found.setdefault(service.metadata.namespace, []).append(service)
        return found


def _is_in_force(one: Authorization) -> bool:
    return one.action in ("ALLOW", "DENY") and not one.audit


def _declared_by(service: Service, endpoint: Endpoint) -> Iterator[tuple[int, bool]]:
    for port in service.spec.ports:
        said = _spoken(port)
        if said is None or port.protocol != "TCP":
            continue
        target = port.port if port.target_port is None else port.target_port
        if isinstance(target, int):
            yield target, said
            continue
        for named in endpoint.publish_ports:
            if (named.name, named.protocol) == (target, "TCP"):
                yield named.port, said


def says_http(port: ServicePort) -> bool:
    """Whether a port of a Service is said to be HTTP."""
    return _spoken(port) is True


def _spoken(port: ServicePort) -> bool | None:
    return _said(port.name if port.app_protocol is None else port.app_protocol)


def _said(name: str) -> bool | None:
    """Whether a name means HTTP, by what is before a dash; None: it means nothing."""
    for word in (name.lower(), name.lower().partition("-")[0]):
        if word in HTTP or word in OTHERS:
            return word in HTTP
    return None
