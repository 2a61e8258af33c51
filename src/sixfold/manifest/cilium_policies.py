"""What is wrong with a CiliumNetworkPolicy, a clusterwide one, or a CiliumCIDRGroup.

Source: ``Rule.Sanitize`` of Cilium 1.19, and the CRDs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network

from sixfold.manifest import names
from sixfold.manifest.metadata import refused_values, said, selector
from sixfold.manifest.ordered_policies import exactly_one
from sixfold.manifest.path import Finding, Path
from sixfold.manifest.requests import is_token, regex
from sixfold.model.ciliumpolicy import (
    CIDRRule,
    CiliumCIDRGroup,
    CiliumClusterwideNetworkPolicy,
    CiliumEgressRule,
    CiliumIngressRule,
    CiliumPort,
    CiliumPortRule,
    CiliumService,
    CiliumSpec,
    FQDNSelector,
    ICMPRule,
)
from sixfold.model.datapath import IPNetwork
from sixfold.model.meta import LabelSelector, LabelSelectorRequirement
from sixfold.policy.languages.cilium import CiliumPolicy, CiliumRule
from sixfold.policy.languages.cilium_labels import (
    RESERVED,
    RESERVED_SOURCE,
    asks_reserved,
    plain_key,
    plain_selector,
)
from sixfold.policy.languages.cilium_resolver import means_resolver
from sixfold.policy.languages.cilium_types import icmp_type

_PORTS_MAX = 40
WORLDS = {"world", "world-ipv4", "world-ipv6"}
_LOG_MAX = 32
_NAME = re.compile(r"(?=.{1,255}\Z)[-a-zA-Z0-9_]+(\.[-a-zA-Z0-9_]+)*\.?\Z")
_PATTERN = re.compile(r"(?=.{1,255}\Z)(?!\*\*\.?\Z)[-a-zA-Z0-9_*]+(\.[-a-zA-Z0-9_*]+)*\.?\Z")


def cilium_policy(obj: CiliumPolicy, *, offline: bool) -> Iterator[Finding]:
    """Findings about all specs."""
    if obj.spec is None and not obj.specs:
        yield Finding(("spec",), "is required; add it, or specs")
    clusterwide = isinstance(obj, CiliumClusterwideNetworkPolicy)
    specs: list[tuple[Path, CiliumSpec]] = [(("spec",), obj.spec)] if obj.spec is not None else []
    specs += [(("specs", index), spec) for index, spec in enumerate(obj.specs or ())]
    for path, spec in specs:
        if spec.node_selector is not None and not clusterwide:
            message = "hosts are in no namespace; make it a CiliumClusterwideNetworkPolicy"
            yield Finding((*path, "nodeSelector"), message)
        yield from _spec(path, spec, offline=offline)


def cidr_group(obj: CiliumCIDRGroup) -> Iterator[Finding]:
    """Findings about the spec."""
    path: Path = ("spec", "externalCIDRs")
    for index, text in enumerate(obj.spec.external_cidrs):
        yield from _wrong((*path, index), _network(text))


def _spec(path: Path, spec: CiliumSpec, *, offline: bool) -> Iterator[Finding]:
    if spec.endpoint_selector is None and spec.node_selector is None:
        yield Finding((*path, "endpointSelector"), "is required; add it, {} is every endpoint")
    elif spec.endpoint_selector is not None and spec.node_selector is not None:
        message = "not beside endpointSelector; give each a spec of its own"
        yield Finding((*path, "nodeSelector"), message)
    if spec.endpoint_selector is not None:
        yield from _endpoints((*path, "endpointSelector"), spec.endpoint_selector)
    if spec.node_selector is not None:
        yield from _nodes((*path, "nodeSelector"), spec.node_selector)
    for section, rules in (("ingress", spec.ingress), ("ingressDeny", spec.ingress_deny)):
        for index, rule in enumerate(rules or ()):
            yield from _ingress((*path, section, index), rule)
    for name, egress in (("egress", spec.egress), ("egressDeny", spec.egress_deny)):
        for index, out in enumerate(egress or ()):
            yield from _egress((*path, name, index), out, offline=offline)
            if name == "egressDeny" and out.to_fqdns is not None:
                message = "names cannot be denied; deny addresses, or leave the name out of egress"
                yield Finding((*path, name, index, "toFQDNs"), message)
    if spec.log is not None:
        value = spec.log.value
        if len(value) > _LOG_MAX or not value.isprintable():
            message = f"give at most {_LOG_MAX} printable characters"
            yield Finding((*path, "log", "value"), message)


def _ingress(path: Path, rule: CiliumIngressRule) -> Iterator[Finding]:
    peers = {
        "fromEndpoints": rule.from_endpoints,
        "fromEntities": rule.from_entities,
        "fromCIDR": rule.from_cidr,
        "fromCIDRSet": rule.from_cidr_set,
    }
    yield from _one_kind(path, peers)
    yield from _common(path, "from", rule.from_endpoints, rule.from_cidr, rule.from_cidr_set)
    yield from _ports(path, rule)


def _egress(path: Path, rule: CiliumEgressRule, *, offline: bool) -> Iterator[Finding]:
    peers = {
        "toEndpoints": rule.to_endpoints,
        "toEntities": rule.to_entities,
        "toCIDR": rule.to_cidr,
        "toCIDRSet": rule.to_cidr_set,
        "toServices": rule.to_services,
        "toFQDNs": rule.to_fqdns,
    }
    yield from _one_kind(path, peers)
    yield from _common(path, "to", rule.to_endpoints, rule.to_cidr, rule.to_cidr_set)
    yield from refused_values(path, rule, offline=offline)
    for index, service in enumerate(rule.to_services or ()):
        yield from _service((*path, "toServices", index), service)
    for index, name in enumerate(rule.to_fqdns or ()):
        yield from _domain((*path, "toFQDNs", index), name)
    yield from _ports(path, rule)


def _one_kind(path: Path, peers: Mapping[str, Sequence[object] | None]) -> Iterator[Finding]:
    given = [name for name, value in peers.items() if value]
    if len(given) > 1:
        message = f"has {' and '.join(given)}; give each a rule of its own"
        yield Finding(path, message)


def _common(
    path: Path,
    side: str,
    chosen: Sequence[LabelSelector] | None,
    cidrs: Sequence[str] | None,
    sets: Sequence[CIDRRule] | None,
) -> Iterator[Finding]:
    for index, one in enumerate(chosen or ()):
        yield from _peers((*path, f"{side}Endpoints", index), one)
    for index, text in enumerate(cidrs or ()):
        yield from _wrong((*path, f"{side}CIDR", index), _network(text))
    for index, rule in enumerate(sets or ()):
        yield from _cidr_rule((*path, f"{side}CIDRSet", index), rule)


def _endpoints(path: Path, wanted: LabelSelector) -> Iterator[Finding]:
    """Keys may say where a label comes from; only Kubernetes' labels are here."""
    sources: list[tuple[Path, str]] = [(("matchLabels", key), key) for key in wanted.match_labels]
    sources += [
        (("matchExpressions", index, "key"), line.key)
        for index, line in enumerate(wanted.match_expressions)
    ]
    foreign = False
    for where, written in sources:
        source, colon, name = plain_key(written).partition(":")
        if source == "reserved" and name not in RESERVED:
            foreign = True
            message = f"{names.quoted(name)} is not reserved; give one of {', '.join(RESERVED)}"
            yield Finding((*path, *where), message)
        elif colon and source != "reserved":
            foreign = True
            message = f'no labels are from "{source}"; give a label of the pod'
            yield Finding((*path, *where), message)
    if not foreign:
        plain = {_checked(key): value for key, value in wanted.match_labels.items()}
        lines = [
            LabelSelectorRequirement(_checked(line.key), line.operator, line.values)
            for line in wanted.match_expressions
        ]
        yield from selector(path, LabelSelector(plain, lines))


def _nodes(path: Path, wanted: LabelSelector) -> Iterator[Finding]:
    """Labels of the node; ``reserved:host`` every host has."""
    yield from selector(path, plain_selector(wanted))


def _peers(path: Path, wanted: LabelSelector) -> Iterator[Finding]:
    """To be no reserved identity would mean pods and whoever else: say which."""
    yield from _endpoints(path, wanted)
    if asks_reserved(wanted):
        return
    for index, line in enumerate(wanted.match_expressions):
        if plain_key(line.key).startswith(RESERVED_SOURCE):
            message = "pods have no reserved labels; remove it, and name others in entities"
            yield Finding((*path, "matchExpressions", index, "key"), message)


def _checked(key: str) -> str:
    return plain_key(key).removeprefix(RESERVED_SOURCE)


def _network(text: str) -> IPNetwork | str:
    """An address alone is fine here, and so are host bits."""
    if "/" not in text:
        address = names.address(text)
        return address if isinstance(address, str) else ip_network(address)
    return names.cidr(text, lenient=True)


def _wrong(path: Path, parsed: IPNetwork | str) -> Iterator[Finding]:
    yield from said(path, parsed if isinstance(parsed, str) else None)


def _cidr_rule(path: Path, rule: CIDRRule) -> Iterator[Finding]:
    options = {
        "cidr": rule.cidr,
        "cidrGroupRef": rule.cidr_group_ref,
        "cidrGroupSelector": rule.cidr_group_selector,
    }
    yield from exactly_one(path, options)
    outer = _network(rule.cidr) if rule.cidr else None
    if outer is not None:
        yield from _wrong((*path, "cidr"), outer)
    if rule.cidr_group_selector is not None:
        yield from selector((*path, "cidrGroupSelector"), rule.cidr_group_selector)
    for index, text in enumerate(rule.except_):
        here, inner = (*path, "except", index), _network(text)
        yield from _wrong(here, inner)
        if isinstance(inner, str) or outer is None or isinstance(outer, str):
            continue
        if inner.version != outer.version or not inner.subnet_of(outer):  # type: ignore[arg-type]
            message = f"{text} is not a part of {outer}; give a block inside it"
            yield Finding(here, message, also=((*path, "cidr"),))


def _service(path: Path, service: CiliumService) -> Iterator[Finding]:
    options = {
        "k8sService": service.k8s_service,
        "k8sServiceSelector": service.k8s_service_selector,
    }
    yield from exactly_one(path, options)
    if service.k8s_service is not None and not service.k8s_service.service_name:
        yield Finding((*path, "k8sService", "serviceName"), "is required; add it")
    if service.k8s_service_selector is not None:
        here = (*path, "k8sServiceSelector", "selector")
        yield from selector(here, service.k8s_service_selector.selector)


def _domain(path: Path, name: FQDNSelector) -> Iterator[Finding]:
    options = {"matchName": name.match_name, "matchPattern": name.match_pattern}
    yield from exactly_one(path, options)
    if name.match_name and not _NAME.match(name.match_name):
        message = f"{names.quoted(name.match_name)} is no name; patterns go into matchPattern"
        yield Finding((*path, "matchName"), message)
    if name.match_pattern and not _PATTERN.match(name.match_pattern):
        message = f"{names.quoted(name.match_pattern)} is no pattern; give *.example.com, or *"
        yield Finding((*path, "matchPattern"), message)


def _ports(path: Path, rule: CiliumRule) -> Iterator[Finding]:
    if rule.to_ports and rule.icmps:
        yield Finding((*path, "icmps"), "not beside toPorts; give each a rule of its own")
    for index, each in enumerate(rule.to_ports or ()):
        here = (*path, "toPorts", index, "ports")
        if not 1 <= len(each.ports) <= _PORTS_MAX:
            yield Finding(here, f"{len(each.ports)} items; give 1 to {_PORTS_MAX}")
        for at, port in enumerate(each.ports):
            yield from _port((*here, at), port)
        if each.server_names:
            yield from _servers((*path, "toPorts", index), each, rule)
        if each.rules is not None and each.rules.dns is not None:
            yield from _questions((*path, "toPorts", index), each, rule)
        elif each.rules is not None:
            yield from _requests((*path, "toPorts", index), each, rule)
    for index, icmp in enumerate(rule.icmps or ()):
        yield from _icmp((*path, "icmps", index, "fields"), icmp)


def _servers(path: Path, each: CiliumPortRule, rule: CiliumRule) -> Iterator[Finding]:
    """What a handshake names is looked at where it leaves for the world."""
    here = (*path, "serverNames")
    outside = isinstance(rule, CiliumEgressRule) and (
        rule.to_fqdns
        or rule.to_cidr
        or rule.to_cidr_set
        or (rule.to_entities and set(rule.to_entities) <= WORLDS)
    )
    if not outside:
        message = (
            "handshakes are looked at where they leave for the world; give it to egress with "
            "toFQDNs, toCIDR, toCIDRSet, or toEntities: [world]"
        )
        yield Finding(here, message)
    if each.rules is not None:
        yield Finding((*path, "rules"), "what is inside TLS is not read; give one of the two")
    for index, name in enumerate(each.server_names):
        if not _PATTERN.match(name):
            message = f"{names.quoted(name)} is no name; give api.example.com, or *.example.com"
            yield Finding((*here, index), message)
    for index, port in enumerate(each.ports):
        if port.protocol not in ("TCP", "", "ANY"):
            yield Finding((*path, "ports", index, "protocol"), "TLS is over TCP; give TCP")
        if port.end_port or not port.port.isdecimal() or int(port.port) == 0:
            message = "names in handshakes are for one port each; give a number"
            yield Finding((*path, "ports", index, "endPort" if port.end_port else "port"), message)


def _questions(path: Path, each: CiliumPortRule, rule: CiliumRule) -> Iterator[Finding]:
    """Rules about names are the cluster resolver's to enforce: it sees no other server's."""
    here = (*path, "rules", "dns")
    assert each.rules is not None, "of rules about names only"
    if not isinstance(rule, CiliumEgressRule):
        yield Finding(here, "names are asked for, not answered; give it to egress of who asks")
        return
    if each.rules.http is not None:
        yield Finding((*path, "rules"), "has http and dns; give each a rule of its own")
    if not each.rules.dns:
        message = 'is empty; give [{matchPattern: "*"}] for every name, or leave rules out'
        yield Finding(here, message)
    for index, name in enumerate(each.rules.dns or ()):
        yield from _domain((*here, index), name)
    for index, port in enumerate(each.ports):
        if port.protocol == "SCTP":
            yield Finding((*path, "ports", index, "protocol"), "give UDP, TCP or ANY")
        if port.port != "53" or port.end_port:
            message = 'the cluster resolver answers at port 53; give "53"'
            yield Finding((*path, "ports", index, "port"), message)
    if not means_resolver(rule):
        message = (
            "only what the cluster resolver is asked is looked at; name it, by toEndpoints "
            "with k8s-app: kube-dns of namespace kube-system, or no peer at all"
        )
        yield Finding(here, message)


def _requests(path: Path, each: CiliumPortRule, rule: CiliumRule) -> Iterator[Finding]:
    """Rules about requests are judged where they arrive, by who sent them."""
    here = (*path, "rules", "http")
    if isinstance(rule, CiliumEgressRule):
        message = "requests are judged where they arrive; give it to ingress of the other side"
        yield Finding((*path, "rules"), message)
        return
    requests = each.rules.http if each.rules is not None else None
    if not requests:
        yield Finding(here, "is empty; give [{}] for every request, or leave rules out")
    for index, port in enumerate(each.ports):
        if port.protocol not in ("TCP", "", "ANY"):
            yield Finding((*path, "ports", index, "protocol"), "HTTP is over TCP; give TCP")
        if port.end_port or port.port == "0":
            message = "rules about requests are for one port each; give a number or a name"
            yield Finding((*path, "ports", index, "endPort" if port.end_port else "port"), message)
    for index, request in enumerate(requests or ()):
        for field in ("method", "path", "host"):
            yield from regex((*here, index, field), getattr(request, field))
        for at, text in enumerate(request.headers):
            if not is_token(text.partition(":")[0].strip()):
                yield Finding(
                    (*here, index, "headers", at), f'{names.quoted(text)}: give "Name: value"'
                )
        for at, one in enumerate(request.header_matches):
            yield from refused_values((*here, index, "headerMatches", at), one, offline=False)
            if not is_token(one.name):
                yield Finding((*here, index, "headerMatches", at, "name"), "is no name of a header")


def _port(path: Path, port: CiliumPort) -> Iterator[Finding]:
    here = (*path, "port")
    if not port.port:
        yield Finding(here, 'is required; add it, "0" is every port')
    elif not port.port.isdecimal():
        yield from said(here, names.port_name(port.port))
    elif int(port.port) > 65535:
        yield Finding(here, f"{port.port} is not a port; give 0 to 65535")
    if not port.end_port:
        return
    end, also = (*path, "endPort"), (here,)
    if not port.port.isdecimal() or int(port.port) == 0:
        yield Finding(end, "endPort needs a number in port; add the first port", also)
    elif port.end_port < int(port.port):
        message = f"{port.end_port} is below port {port.port}; give {port.port} to 65535"
        yield Finding(end, message, also)
    else:
        yield from said(end, names.port_number(port.end_port))


def _icmp(path: Path, icmp: ICMPRule) -> Iterator[Finding]:
    if not 1 <= len(icmp.fields) <= _PORTS_MAX:
        yield Finding(path, f"{len(icmp.fields)} items; give 1 to {_PORTS_MAX}")
    for index, field in enumerate(icmp.fields):
        if icmp_type(field) is None:
            family = field.family or "IPv4"
            message = f"{names.quoted(field.type)} is no ICMP type of {family}; give its number"
            yield Finding((*path, index, "type"), message)
