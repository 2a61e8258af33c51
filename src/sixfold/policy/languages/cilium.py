"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy v2 to ``ir``.

Rules about requests allow what the proxy sees, and nothing where there is none. A deny beats every
allow of this tier, NetworkPolicy's too. A direction that has rules is denied by
default, unless ``enableDefaultDeny`` says otherwise. A CIDR never means a pod or the host. Every
spec of an object becomes a policy of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sixfold.model.ciliumpolicy import (
    CIDRRule,
    CiliumClusterwideNetworkPolicy,
    CiliumEgressRule,
    CiliumIngressRule,
    CiliumNetworkPolicy,
    CiliumPort,
    CiliumPortRule,
    CiliumService,
    CiliumSpec,
    ICMPField,
)
from sixfold.model.datapath import ALLOW, DENY, EGRESS, INGRESS
from sixfold.model.domain import EVERY_NAME, matches, plain_name
from sixfold.model.identity import ANY_POD, HOST, RESOLVER, UNKNOWN, WORLD
from sixfold.model.meta import LabelSelector
from sixfold.model.policy import IPBlock
from sixfold.model.rule import Direction, Rule
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.block import parse_cidr
from sixfold.policy.external import externals
from sixfold.policy.languages.cilium_labels import (
    RESERVED,
    asks_reserved,
    endpoints,
    is_reserved,
    plain_selector,
    subject,
)
from sixfold.policy.languages.cilium_resolver import asks_all, at_resolver
from sixfold.policy.languages.cilium_types import icmp_type

CiliumPolicy = CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy
CiliumRule = CiliumIngressRule | CiliumEgressRule

# On one host nobody is behind the entities that are not here: they match nothing.
ENTITIES: Mapping[str, tuple[ir.Peer, ...]] = {
    "all": (ir.Reserved(UNKNOWN, "all"),),
    "world": (ir.Reserved(WORLD, "world"),),
    "world-ipv4": (ir.Addresses(IPBlock("0.0.0.0/0"), outside=True),),
    "world-ipv6": (ir.Addresses(IPBlock("::/0"), outside=True),),
    "host": (ir.Reserved(HOST, "host"),),
    "cluster": (ir.Reserved(HOST, "cluster"), ir.Reserved(ANY_POD, "cluster")),
}
THE_RESOLVER: tuple[ir.Peer, ...] = (ir.Reserved(RESOLVER, "kube-dns"),)
EVERY = (EVERY_NAME,)
NOBODY = ("remote-node", "kube-apiserver", "ingress", "init", "health", "unmanaged", "none")


def lower_cilium(key: str, policy: CiliumPolicy, world: World) -> Iterator[ir.Policy]:
    """One policy per spec, in their order."""
    specs = [("", policy.spec)] if policy.spec is not None else []
    specs += [(f"specs[{at}].", spec) for at, spec in enumerate(policy.specs or ())]
    for number, (prefix, spec) in enumerate(specs):
        lowering = _Lowering(policy, spec, prefix, world)
        yield ir.Policy(
            key=f"{key}#{number}" if number else key,
            title=key,
            subject=lowering.subject,
            lines=tuple(lowering.lines()),
            isolates=frozenset(_isolates(spec)),
            watches=frozenset(lowering.watches),
        )


def _isolates(spec: CiliumSpec) -> Iterator[int]:
    wanted = spec.enable_default_deny
    ingress = wanted.ingress if wanted is not None else None
    egress = wanted.egress if wanted is not None else None
    if ingress if ingress is not None else spec.ingress or spec.ingress_deny:
        yield INGRESS
    if egress if egress is not None else spec.egress or spec.egress_deny:
        yield EGRESS


class _Lowering:
    """One spec on its way; ``watches`` fills up as its lines are made."""

    def __init__(self, policy: CiliumPolicy, spec: CiliumSpec, prefix: str, world: World) -> None:
        self.policy = policy
        self.spec = spec
        self.prefix = prefix
        self.world = world
        self.watches: set[str] = set()

    @property
    def namespace(self) -> str | None:
        if isinstance(self.policy, CiliumNetworkPolicy):
            return self.policy.metadata.namespace
        return None

    @property
    def subject(self) -> ir.Pods | ir.Nodes:
        if self.spec.node_selector is not None:
            return ir.Nodes(plain_selector(self.spec.node_selector))
        assert self.spec.endpoint_selector is not None, "manifest refuses neither"
        return subject(self.spec.endpoint_selector, self.namespace)

    def lines(self) -> Iterator[ir.Line]:
        spec = self.spec
        yield from self._section("ingress", "ingressDeny", INGRESS, DENY, spec.ingress_deny)
        yield from self._section("ingress", "ingress", INGRESS, ALLOW, spec.ingress)
        yield from self._section("egress", "egressDeny", EGRESS, DENY, spec.egress_deny)
        yield from self._section("egress", "egress", EGRESS, ALLOW, spec.egress)

    def _section(
        self,
        name: Direction,
        section: str,
        direction: int,
        verdict: int,
        rules: Sequence[CiliumRule] | None,
    ) -> Iterator[ir.Line]:
        meta = self.policy.metadata
        place = self.prefix + section
        log = self.spec.log.value if self.spec.log is not None else ""
        for at, rule in enumerate(rules or ()):
            where = Rule(
                self.policy.kind,
                self.namespace or "",
                meta.name,
                name,
                at,
                section="" if place == name else place,
                log=log,
            )
            unseen, looked_into, asked, named = _by_l7(rule)
            if looked_into:
                self.watches.add("peer_authentications")
                if not self.world.has_mesh:
                    looked_into = []  # nobody would look
            ports = _ports(rule, unseen)
            if ports != ():
                yield ir.Line(where, direction, verdict, self._peers(rule, ports), ports)
                if verdict == ALLOW and asks_all(rule) and (there := at_resolver(ports)):
                    yield ir.Line(where, direction, verdict, THE_RESOLVER, there, names=EVERY)
            for each in looked_into:
                ports = tuple(_port(port, "TCP") for port in each.ports)
                peers = _pods_of(self._peers(rule, ports))
                yield ir.Line(where, direction, verdict, peers, ports, _requests(each))
            for each in named:
                servers = tuple(map(plain_name, each.server_names))
                ports = tuple(_port(port, "TCP") for port in each.ports)
                outside = self._peers(rule, ports)
                outward = ir.Outward(servers)
                yield ir.Line(where, direction, verdict, outside, ports, outward=outward)
            if isinstance(rule, CiliumEgressRule) and rule.to_fqdns and verdict == ALLOW:
                yield from self._external(where, rule)
            for each in asked:
                ports = tuple(_port(port) for port in each.ports)
                yield ir.Line(where, direction, verdict, THE_RESOLVER, ports, names=_names(each))

    def _external(self, where: Rule, rule: CiliumEgressRule) -> Iterator[ir.Line]:
        """External services among its names: the proxy has a part in what goes there."""
        self.watches |= {"service_entries", "destination_rules"}
        patterns = [plain_name(it.match_name or it.match_pattern) for it in rule.to_fqdns or ()]
        for one in externals(self.world):
            if not any(matches(pattern, one.host) for pattern in patterns):
                continue
            if rule.to_ports and not any(_has_port(each, one.port) for each in rule.to_ports):
                continue
            outward = ir.Outward(one.names, one.host if one.tls else "", first=True)
            ways = [(one.port, outward)]
            if one.tls is not None and one.target_port != one.port:
                ways.append((one.target_port, ir.Outward()))
            for port, way in ways:
                ports = (ir.Port("TCP", port),)
                peers = (ir.DomainName(one.host),)
                yield ir.Line(where, EGRESS, ALLOW, peers, ports, outward=way)

    def _peers(
        self, rule: CiliumRule, ports: tuple[ir.Port, ...] | None
    ) -> tuple[ir.Peer, ...] | None:
        """No kind of peer written: any peer if ports are, else nobody."""
        if isinstance(rule, CiliumIngressRule):
            written = (rule.from_endpoints, rule.from_entities, rule.from_cidr, rule.from_cidr_set)
            chosen, entities, cidrs, sets = written
            services = domains = None
        else:
            written = (rule.to_endpoints, rule.to_entities, rule.to_cidr, rule.to_cidr_set)
            chosen, entities, cidrs, sets = written
            services, domains = rule.to_services, rule.to_fqdns
        if all(one is None for one in (*written, services, domains)):
            return None if ports is not None else ()
        found = [peer for one in chosen or () for peer in self._endpoints(one)]
        found += [peer for entity in entities or () for peer in ENTITIES.get(entity, ())]
        found += [ir.Addresses(IPBlock(plain(text)), outside=True) for text in cidrs or ()]
        found += [peer for one in sets or () for peer in self._cidr_set(one)]
        found += [peer for one in services or () for peer in self._service(one)]
        if domains:
            names = (one.match_name or one.match_pattern for one in domains)
            found += [ir.DomainName(plain_name(name)) for name in names]
        return tuple(found)

    def _endpoints(self, selector: LabelSelector) -> tuple[ir.Peer, ...]:
        """Pods; or, where a reserved label is asked for, the entities that have it."""
        if asks_reserved(selector):
            return tuple(
                peer
                for name in RESERVED
                if is_reserved(selector, name)
                for peer in ENTITIES.get(name, ())
            )
        return (endpoints(selector, self.namespace),)

    def _cidr_set(self, rule: CIDRRule) -> Iterator[ir.Addresses]:
        cidrs = [rule.cidr] if rule.cidr else self._group(rule)
        for text in map(plain, cidrs):
            inside = [hole for hole in map(plain, rule.except_) if _within(hole, text)]
            if text not in inside:
                yield ir.Addresses(IPBlock(text, inside), outside=True)

    def _group(self, rule: CIDRRule) -> list[str]:
        """The CIDRs of the groups that a rule names or selects; of a missing group none."""
        self.watches.add("cidr_groups")
        selector = rule.cidr_group_selector
        return [
            cidr
            for name, group in sorted(self.world.cidr_groups.items())
            if name == rule.cidr_group_ref
            or (selector is not None and selector.matches(group.metadata.labels))
            for cidr in group.spec.external_cidrs
        ]

    def _service(self, wanted: CiliumService) -> Iterator[ir.Peer]:
        """The pods that services select, and the addresses that were written for them."""
        self.watches |= {"services", "slices"}
        for key, service in sorted(self.world.services.items()):
            if not self._means(wanted, service):
                continue
            if service.spec.selector:
                pods = LabelSelector(match_labels=service.spec.selector)
                yield ir.Pods(service.metadata.namespace, pods=pods)
            for address in self._written(key):
                yield ir.Addresses(IPBlock(plain(address)), outside=True)

    def _written(self, service: str) -> list[str]:
        """Addresses of the slices that somebody wrote for a service."""
        return [
            address
            for _, one in sorted(self.world.slices.items())
            if one.service == service and one.address_type != "FQDN"
            for endpoint in one.endpoints
            for address in endpoint.addresses
        ]

    def _means(self, wanted: CiliumService, service: Service) -> bool:
        meta = service.metadata
        if (chosen := wanted.k8s_service_selector) is not None:
            here = chosen.namespace in ("", meta.namespace)
            return here and chosen.selector.matches(meta.labels)
        named = wanted.k8s_service
        assert named is not None, "manifest refuses neither"
        namespace = named.namespace or self.namespace or "default"
        return (namespace, named.service_name) == (meta.namespace, meta.name)


def plain(text: str) -> str:
    """A CIDR; an address alone is one of full length."""
    return str(parse_cidr(text))


def _within(inner: str, outer: str) -> bool:
    one, other = parse_cidr(inner), parse_cidr(outer)
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


class _Sorted(NamedTuple):
    """Ports of a rule: without a word about what is said there; with, about requests, names that
    are asked for, servers that handshakes name."""

    unseen: list[CiliumPortRule]
    looked_into: list[CiliumPortRule]
    asked: list[CiliumPortRule]
    named: list[CiliumPortRule]


def _by_l7(rule: CiliumRule) -> _Sorted:
    found = _Sorted([], [], [], [])
    for each in rule.to_ports or ():
        if each.server_names:
            found.named.append(each)
        elif each.rules is None:
            found.unseen.append(each)
        else:
            (found.looked_into if each.rules.dns is None else found.asked).append(each)
    return found


def _names(each: CiliumPortRule) -> tuple[str, ...]:
    assert each.rules is not None, "of rules about names only"
    written = (one.match_name or one.match_pattern for one in each.rules.dns or ())
    return tuple(map(plain_name, written))


def _pods_of(peers: tuple[ir.Peer, ...] | None) -> tuple[ir.Peer, ...]:
    """Those of them who come through the proxy."""
    if peers is None:
        return (ir.Reserved(ANY_POD, "cluster"),)
    found: list[ir.Peer] = []
    for peer in peers:
        if isinstance(peer, ir.Pods) or peer == ir.Reserved(ANY_POD, "cluster"):
            found.append(peer)
        elif peer == ir.Reserved(UNKNOWN, "all"):
            found.append(ir.Reserved(ANY_POD, "cluster"))
    return tuple(found)


def _requests(each: CiliumPortRule) -> tuple[ir.Request, ...]:
    assert each.rules is not None, "of rules about requests only"
    return tuple(
        ir.Request(
            one.method,
            one.path,
            one.host,
            tuple(
                [*map(_header, one.headers)]
                + [(match.name.lower(), match.value or None) for match in one.header_matches]
            ),
        )
        for one in each.rules.http or ()
    )


def _header(text: str) -> tuple[str, str | None]:
    name, colon, value = text.partition(":")
    return name.strip().lower(), value.strip() if colon else None


def _ports(rule: CiliumRule, written: Sequence[CiliumPortRule]) -> tuple[ir.Port, ...] | None:
    """None is every port: none are written, or ANY of port 0."""
    if rule.to_ports and not written:
        return ()
    fields: list[ICMPField] = [one for icmp in rule.icmps or () for one in icmp.fields]
    if not written and not fields:
        return None
    ports = [_port(port) for each in written for port in each.ports]
    if ir.Port("ANY") in ports:
        return (ir.Port("ALL"),)
    return tuple(ports) + tuple(_icmp(field) for field in fields)


def _port(port: CiliumPort, default: str = "ANY") -> ir.Port:
    protocol = default if port.protocol in ("", "ANY") else port.protocol
    if not port.port.isdigit():
        return ir.Port(protocol, port.port)
    if int(port.port) == 0:
        return ir.Port(protocol)
    return ir.Port(protocol, int(port.port), port.end_port or None)


def _has_port(each: CiliumPortRule, number: int) -> bool:
    """Whether plain TCP to a port is among what a rule lists, without a word about it."""
    return (each.rules is None and not each.server_names) and any(
        port.first is None
        or (isinstance(port.first, int) and port.first <= number <= (port.last or port.first))
        for port in map(_port, each.ports)
        if port.protocol in ("TCP", "ANY")
    )


def _icmp(field: ICMPField) -> ir.Port:
    number = icmp_type(field)
    assert number is not None, "manifest refuses unknown types"
    return ir.Port("ICMPv6" if field.family == "IPv6" else "ICMP", number)
