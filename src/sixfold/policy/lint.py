"""What in these policies is probably not what its author meant?

Pure. Checks read the compiled form, so they hold for every language; what only NetworkPolicy has is
said where it is checked. A finding names a policy and a field path; lines are the reader's matter.
Severity: "warning" is worth a change, "info" is worth a look.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.datapath import ALLOW, EGRESS, INGRESS, IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.policy import NetworkPolicy
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.policy import ir
from sixfold.policy.block import includes, parse_cidr, span
from sixfold.policy.host import lockouts, of_host
from sixfold.policy.lint_authorizations import authorizations
from sixfold.policy.lint_cover import covers, numeric_ports
from sixfold.policy.lint_finding import Finding, Path, Severity
from sixfold.policy.lint_redundant import redundant
from sixfold.policy.meant import labels_around, means
from sixfold.policy.reach_parties import View

WIDE_BITS = 8  # a block of this length or shorter means "outside", not some pods
NAMES_MAX = 4
BY_THE_PROXY = (AuthorizationPolicy, RequestAuthentication)
DIRECTIONS = ((INGRESS, "ingress"), (EGRESS, "egress"))


def lint(view: View) -> list[Finding]:
    """All findings, by policy and place."""
    linter = _Linter(view)
    return sorted([*linter.findings(), *linter.redundant()], key=_order)


def lint_as_written(view: View) -> list[Finding]:
    """Those for which nothing has to be tried: all but what is redundant, by policy and place."""
    return sorted(_Linter(view).findings(), key=_order)


class _Linter:
    def __init__(self, view: View) -> None:
        self.view = view
        self.world = view.world
        self.endpoints = list(view.world.endpoints.values())
        self.of_namespace: defaultdict[str, list[Endpoint]] = defaultdict(list)
        for endpoint in self.endpoints:
            self.of_namespace[endpoint.namespace].append(endpoint)
        self._selected: dict[bytes, list[Endpoint]] = {}

    def findings(self) -> Iterator[Finding]:
        for policy in self.view.plan.policies.values():
            key = _object(policy)
            if why := self._selects_nothing(policy.subject):
                message = f"selects {why}"
                yield Finding(key, _subject_path(key), "selects-nothing", "warning", message)
                continue
            yield from self._lines(key, policy)
        yield from self._inert()
        yield from self._lockouts()
        yield from self._open()
        yield from authorizations(self.world)

    def redundant(self) -> Iterator[Finding]:
        """Of each rule it is tried whether anything changes without it: seconds, for many."""
        said = {
            (_object(policy), _path(line))
            for policy in self.view.plan.policies.values()
            for at, line in enumerate(policy.lines)
            if _shadow(policy, at) is not None or self._is_empty(line)
        }
        ruled = {
            key
            for key in {_object(one) for one in self.view.plan.policies.values() if one.lines}
            if not isinstance(self.world.policies[key], BY_THE_PROXY)  # its lines are not all of it
        }
        dead = {
            _object(policy)
            for policy in self.view.plan.policies.values()
            if self._selects_nothing(policy.subject)
        }
        yield from redundant(self.world, ruled - dead, said)

    def _lines(self, key: str, policy: ir.Policy) -> Iterator[Finding]:
        for at, line in enumerate(policy.lines):
            path = _path(line)
            shadow = _shadow(policy, at)
            if shadow is not None:
                message = f"{_place(shadow)} says the same and more; remove one of them"
                yield Finding(key, path, "shadowed", "warning", message)
            yield from self._peers(key, line, path)
            yield from self._names(key, policy, line, path)
            yield from _everybody(key, line, path)

    def _peers(self, key: str, line: ir.Line, path: Path) -> Iterator[Finding]:
        side = "from" if line.direction == INGRESS else "to"
        empty = []
        for at, peer in enumerate(line.peers or ()):
            here: Path = (*path, side, at) if line.rule.kind == "NetworkPolicy" else path
            if isinstance(peer, ir.Pods) and not self._select(peer):
                empty.append(peer)
                message = f"selects no workload: {self._why_nobody(peer)}"
                yield Finding(key, here, "selects-nothing", "warning", message)
            elif isinstance(peer, ir.Addresses):
                yield from self._block(key, peer, here)
            elif isinstance(peer, ir.DomainName):
                yield from self._domain(key, peer, here)
        if line.peers and len(empty) == len(line.peers):
            message = "no peer of this rule is anybody, so that it lets nothing pass"
            yield Finding(key, path, "no-effect", "warning", message)

    def _domain(self, key: str, peer: ir.DomainName, path: Path) -> Iterator[Finding]:
        if f".{peer.pattern}".endswith(f".{self.world.config.cluster_domain}"):
            message = f"{peer.pattern} is a name of the cluster; policy sees the pods behind it"
            yield Finding(key, path, "no-effect", "warning", message)

    def _block(self, key: str, peer: ir.Addresses, path: Path) -> Iterator[Finding]:
        network, config = parse_cidr(peer.block.cidr), self.world.config
        services = (config.service_ipv4, config.service_ipv6)
        if any(span(own).holds(span(network)) for own in services):
            message = f"{network} is of the service range; policy sees the pods behind, name these"
            yield Finding(key, (*path, "ipBlock"), "no-effect", "warning", message)
            return
        if network.prefixlen <= WIDE_BITS or peer.outside:
            return
        inside = [
            endpoint.key
            for endpoint in self.endpoints
            if any(_is_in(peer, one) for one in endpoint.addresses)
        ]
        pools = (config.pod_ipv4, config.pod_ipv6)
        if inside:
            message = f"{network} means {_some(inside)}, whose addresses change; use a selector"
            yield Finding(key, (*path, "ipBlock"), "cidr-instead-of-identity", "warning", message)
        elif any(span(pool).holds(span(network)) for pool in pools):
            message = f"{network} is of the pod range, where addresses change; use a selector"
            yield Finding(key, (*path, "ipBlock"), "cidr-instead-of-identity", "warning", message)

    def _names(self, key: str, policy: ir.Policy, line: ir.Line, path: Path) -> Iterator[Finding]:
        """A port name is the destination's: the subject's on ingress, the peers' on egress."""
        _, names = numeric_ports(line.ports)
        if not names:
            return
        targets = [] if isinstance(policy.subject, ir.Nodes) else self._select(policy.subject)
        if line.direction == EGRESS:
            pods = [peer for peer in line.peers or () if isinstance(peer, ir.Pods)]
            targets = [one for peer in pods for one in self._select(peer)]
            if line.peers is None or len(pods) < len(line.peers):
                targets = self.endpoints
        have = {(p.name, p.protocol) for one in targets for p in one.subject.named_ports}
        for name, protocol in sorted(names - have):
            known = sorted({n for n, p in have if p == protocol})
            hint = f"they have {', '.join(known[:NAMES_MAX])}" if known else "they name no port"
            message = f'no workload that is meant has a {protocol} port "{name}"; {hint}'
            yield Finding(key, (*path, "ports"), "unknown-port-name", "warning", message)

    def _inert(self) -> Iterator[Finding]:
        """Rules of a NetworkPolicy in a direction that its policyTypes leave out."""
        for key, policy in self.world.policies.items():
            if not isinstance(policy, NetworkPolicy):
                continue
            for name, rules in (("ingress", policy.spec.ingress), ("egress", policy.spec.egress)):
                if rules and name.capitalize() not in policy.spec.isolates:
                    message = (
                        f"policyTypes leaves out {name.capitalize()}, so these rules are inert"
                    )
                    yield Finding(key, ("spec", name), "no-effect", "warning", message)

    def _lockouts(self) -> Iterator[Finding]:
        """What policies for the host close together; said of the first of them."""
        for direction, message in lockouts(self.view.plan):
            keys = [
                _object(policy)
                for policy in self.view.plan.policies.values()
                if of_host(policy) and direction in policy.isolates
            ]
            yield Finding(min(keys), ("spec",), "host-lockout", "warning", message)

    def _open(self) -> Iterator[Finding]:
        """Namespaces in which some workloads are isolated by rules, and others forgotten."""
        kubernetes = self.world.config.posture == "kubernetes"
        for direction, name in DIRECTIONS:
            allowing: dict[str, str] = {}
            isolated: set[str] = set()
            for policy in self.view.plan.policies.values():
                if direction not in policy.isolates or isinstance(policy.subject, ir.Nodes):
                    continue
                for endpoint in self._select(policy.subject):
                    isolated.add(endpoint.key)
                    if any(line.direction == direction for line in policy.lines):
                        allowing.setdefault(endpoint.namespace, _object(policy))
            for namespace, key in allowing.items():
                keys = (endpoint.key for endpoint in self.of_namespace[namespace])
                if left := [one for one in keys if one not in isolated]:
                    where = "" if kubernetes else "upstream (not under posture zero-trust), "
                    message = (
                        f"{where}{name} of {_some(left)} is open: namespace {namespace} has no "
                        "deny-all base; add a policy with podSelector: {}"
                    )
                    severity: Severity = "warning" if kubernetes else "info"
                    path = _subject_path(key)
                    yield Finding(key, path, "allow-without-deny-base", severity, message)

    def _is_empty(self, line: ir.Line) -> bool:
        return bool(line.peers) and all(
            isinstance(peer, ir.Pods) and not self._select(peer) for peer in line.peers or ()
        )

    def _select(self, pods: ir.Pods) -> list[Endpoint]:
        key = msgspec.json.encode((pods.namespace, pods.namespaces, pods.pods))
        if (known := self._selected.get(key)) is None:
            where = self.endpoints
            if pods.namespace is not None:
                where = self.of_namespace[pods.namespace]
            known = [one for one in where if means(self.world, pods, one)]
            self._selected[key] = known
        return known

    def _selects_nothing(self, subject: ir.Pods | ir.Nodes) -> str:
        """Whom a subject misses, and why; "" when it is somebody."""
        if isinstance(subject, ir.Nodes):
            labels = self.world.config.labels
            if subject.labels.matches(labels):
                return ""
            has = ", ".join(f"{key}={value}" for key, value in labels.items())
            return f"no host: this one has {has} (sixfold up --node-labels)"
        return "" if self._select(subject) else f"no workload: {self._why_nobody(subject)}"

    def _why_nobody(self, pods: ir.Pods) -> str:
        """The part of a selector that nobody fulfils."""
        if pods.namespace is not None:
            if not self.of_namespace[pods.namespace]:
                return f"namespace {pods.namespace} has none"
            return f"none of namespace {pods.namespace} has these labels"
        names = {*self.world.namespaces, *self.of_namespace}
        if not any(pods.namespaces.matches(labels_around(self.world, name)) for name in names):
            return "no namespace has these labels"
        return "none in these namespaces has these labels"


def _order(finding: Finding) -> tuple[object, ...]:
    steps = [(isinstance(step, str), step) for step in finding.path]
    return finding.policy, steps, finding.check


def _everybody(key: str, line: ir.Line, path: Path) -> Iterator[Finding]:
    if line.verdict != ALLOW:
        return
    side = "from" if line.direction == INGRESS else "to"
    all_ports = line.ports is None
    ports = "all ports" if all_ports else "these ports"
    severity: Severity = "warning" if all_ports else "info"
    everyone = [p for p in line.peers or () if isinstance(p, ir.Pods) and p.everyone]
    if line.peers is None:
        message = f"{side} everybody, the world outside included, on {ports}; name peers"
        yield Finding(key, path, "empty-selector", severity, message)
    elif everyone:
        message = f"{side} every pod of every namespace, on {ports}; name labels"
        yield Finding(key, path, "empty-selector", severity, message)


def _shadow(policy: ir.Policy, at: int) -> ir.Line | None:
    """The line that leaves nothing for this one: any other, or in ordered tiers an earlier."""
    line = policy.lines[at]
    ordered = policy.tier is not ir.Tier.NETWORK_POLICY
    for number, other in enumerate(policy.lines):
        if number == at or (ordered and number > at):
            continue
        if not ordered and other.verdict != line.verdict:
            continue
        if covers(other, line) and (ordered or number < at or not covers(line, other)):
            return other
    return None


def _object(policy: ir.Policy) -> str:
    """Key of the object that a policy is of, or a part of."""
    return policy.key.partition("#")[0]


def _subject_path(key: str) -> Path:
    return ("spec",) if " " in key else ("spec", "podSelector")


def _path(line: ir.Line) -> Path:
    """Where a rule is written; sections may be nested: ``specs[1].egress``."""
    section = line.rule.section or line.rule.direction
    steps = [
        int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", section) if part
    ]
    head: Path = () if steps[0] == "specs" else ("spec",)
    return (*head, *steps, line.rule.index)


def _place(line: ir.Line) -> str:
    return f"{line.rule.section or line.rule.direction}[{line.rule.index}]"


def _is_in(peer: ir.Addresses, address: IPAddress) -> bool:
    return includes(peer.block, span(parse_cidr(str(address))))


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
