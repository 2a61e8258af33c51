"""cilium.io: CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, CiliumCIDRGroup, as written.

``None`` is absent, ``[]`` is written and empty: for peers that makes a difference.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sixfold.model.meta import LabelSelector, Object, ObjectMeta, written

Entity = Literal[
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "init",
    "health",
    "unmanaged",
    "none",
]
CiliumProtocol = Literal["ANY", "TCP", "UDP", "SCTP", ""]


class CIDRRule(Object):
    """A CIDR of one's own or those of groups; less the exceptions."""

    cidr: str = ""
    cidr_group_ref: str = ""
    cidr_group_selector: LabelSelector | None = None
    except_: list[str] = msgspec.field(default_factory=list, name="except")


class CiliumPort(Object):
    """``port`` is a number in quotes (0: all ports) or a name; protocol absent: ANY."""

    port: str = ""
    end_port: int | None = None
    protocol: CiliumProtocol = ""


class HeaderMatch(Object):
    """``value`` empty: the header is there, whatever it says."""

    name: str
    value: str = ""


class HTTPRequestRule(Object):
    """All that is written must hold. Regular expressions that match the whole text."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: list[str] = []  # "Name", or "Name: value"
    header_matches: list[HeaderMatch] = []


class FQDNSelector(Object):
    """Exactly one field."""

    match_name: str = ""
    match_pattern: str = ""


class L7Rules(Object):
    """At most one kind. ``dns``: names that may be asked for."""

    http: list[HTTPRequestRule] | None = None
    dns: list[FQDNSelector] | None = None


class CiliumPortRule(Object):
    """``server_names``: what a TLS handshake has to name."""

    ports: list[CiliumPort] = []
    rules: L7Rules | None = None
    server_names: list[str] = []


class ICMPField(Object):
    """``type`` is a number or a name of Cilium's list."""

    type: int | str
    family: Literal["IPv4", "IPv6", ""] = "IPv4"


class ICMPRule(Object):
    fields: list[ICMPField] = []


class CiliumServiceName(Object):
    service_name: str = ""
    namespace: str = ""


class CiliumServiceSelector(Object):
    """``namespace`` absent: services of every namespace."""

    selector: LabelSelector
    namespace: str = ""


class CiliumService(Object):
    """Exactly one field."""

    k8s_service: CiliumServiceName | None = None
    k8s_service_selector: CiliumServiceSelector | None = None


class CiliumIngressRule(Object):
    """Of ``ingress`` and ``ingressDeny``: at most one kind of peer."""

    from_endpoints: list[LabelSelector] | None = None
    from_entities: list[Entity] | None = None
    from_cidr: list[str] | None = msgspec.field(default=None, name="fromCIDR")
    from_cidr_set: list[CIDRRule] | None = msgspec.field(default=None, name="fromCIDRSet")
    to_ports: list[CiliumPortRule] | None = None
    icmps: list[ICMPRule] | None = None


class CiliumEgressRule(Object):
    """Of ``egress`` and ``egressDeny``: at most one kind of peer."""

    to_endpoints: list[LabelSelector] | None = None
    to_entities: list[Entity] | None = None
    to_cidr: list[str] | None = msgspec.field(default=None, name="toCIDR")
    to_cidr_set: list[CIDRRule] | None = msgspec.field(default=None, name="toCIDRSet")
    to_services: list[CiliumService] | None = None
    to_fqdns: list[FQDNSelector] | None = msgspec.field(default=None, name="toFQDNs")
    to_ports: list[CiliumPortRule] | None = None
    icmps: list[ICMPRule] | None = None


class EnableDefaultDeny(Object):
    """Absent: a direction that has rules is denied by default."""

    ingress: bool | None = None
    egress: bool | None = None


class CiliumLog(Object):
    value: str = ""


class CiliumSpec(Object):
    """One rule set, for the endpoints that it selects, or (clusterwide only) for hosts."""

    endpoint_selector: LabelSelector | None = None
    node_selector: LabelSelector | None = None
    ingress: list[CiliumIngressRule] | None = None
    ingress_deny: list[CiliumIngressRule] | None = None
    egress: list[CiliumEgressRule] | None = None
    egress_deny: list[CiliumEgressRule] | None = None
    enable_default_deny: EnableDefaultDeny | None = None
    log: CiliumLog | None = None
    labels: list[Any] | None = None
    description: str = ""


class CiliumNetworkPolicy(Object):
    """``spec`` and each of ``specs`` stand for themselves."""

    metadata: ObjectMeta
    spec: CiliumSpec | None = None
    specs: list[CiliumSpec] | None = None
    api_version: str = written("cilium.io/v2")
    kind: str = written("CiliumNetworkPolicy")
    status: dict[str, Any] = {}


class CiliumClusterwideNetworkPolicy(Object):
    metadata: ObjectMeta
    spec: CiliumSpec | None = None
    specs: list[CiliumSpec] | None = None
    api_version: str = written("cilium.io/v2")
    kind: str = written("CiliumClusterwideNetworkPolicy")
    status: dict[str, Any] = {}


class CiliumCIDRGroupSpec(Object):
    external_cidrs: list[str] = msgspec.field(name="externalCIDRs")


class CiliumCIDRGroup(Object):
    """CIDRs by name, for ``cidrGroupRef``; by its labels, for ``cidrGroupSelector``."""

    metadata: ObjectMeta
    spec: CiliumCIDRGroupSpec
    api_version: str = written("cilium.io/v2")
    kind: str = written("CiliumCIDRGroup")


def is_about_requests(policy: object) -> bool:
    """Whether somebody has to look at requests for it."""
    return any(
        each.rules is not None
        for spec in _specs(policy)
        for rule in spec.ingress or ()
        for each in rule.to_ports or ()
    )


def is_about_servers(policy: object) -> bool:
    """Whether somebody has to look at the names in handshakes for it."""
    return any(
        each.server_names
        for spec in _specs(policy)
        for rule in spec.egress or ()
        for each in rule.to_ports or ()
    )


def _specs(policy: object) -> list[CiliumSpec]:
    if not isinstance(policy, CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy):
        return []
    return [spec for spec in (policy.spec, *(policy.specs or ())) if spec is not None]
