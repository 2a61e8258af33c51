"""Rules about the mesh: what goes in plaintext, who may call, and what gets past the proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sixfold.mesh.authorization import ANYBODY, allowed
from sixfold.mesh.modes import PodModes, plan_modes
from sixfold.model.datapath import INGRESS, PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import Identity
from sixfold.model.mesh import TUNNEL_PORT, Mode
from sixfold.model.rule import Rule
from sixfold.policy.decide import lookup_names
from sixfold.policy.reach_parties import View, parties
from sixfold.policy.reach_ports import PortSet
from sixfold.policy.requests import Requests
from sixfold.trust.audit_finding import Evidence, Finding, IntrusionSeen, Object
from sixfold.trust.audit_tokens import whole_domains

TCP = PROTOCOL_NUMBERS["TCP"]
CLIENTS_SHOWN = 3
STRICT = """apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec:{selector}
  mtls: {{mode: STRICT}}"""


def plaintext(evidence: Evidence) -> Iterator[Finding]:
    """Z03. What today's modes would not let in any more is history."""
    assert evidence.live is not None
    modes = _modes(evidence)
    endpoints = evidence.view.world.endpoints
    found: dict[tuple[str, int, str], _Plain] = {}
    for seen in evidence.live.plaintext:
        pod = modes.get(seen.server)
        if seen.protocol == "TCP" and pod is not None and pod.of(seen.port).mode == Mode.STRICT:
            continue
        plain = found.setdefault((seen.server, seen.port, seen.protocol), _Plain())
        plain.clients.add(seen.client)
        plain.connections += seen.connections
    for (server, port, protocol), plain in sorted(found.items()):
        names = sorted(plain.clients)
        shown = ", ".join(names[:CLIENTS_SHOWN])
        shown += f" and {len(names) - CLIENTS_SHOWN} more" if len(names) > CLIENTS_SHOWN else ""
        pod = modes.get(server)
        if protocol != "TCP":
            why, fix = "no tunnel takes it", "carry it over TCP, or encrypt it in the application"
        elif pod is None:
            why, fix = "mTLS is off", "sixfold up --mtls strict"
        else:
            decided = pod.of(port)
            why = f"{decided.mode.name.lower()} by {decided.by}"
            fix = _strict(endpoints.get(server), decided.by)
        yield Finding(
            "Z03",
            "critical" if protocol == "TCP" else "medium",
            _pod(server),
            f"port {port}/{protocol} is talked to in plaintext by {shown}",
            f"{plain.connections} connections outside of any tunnel; {why}",
            fix,
        )
    for one in evidence.live.intrusions:
        if one.tried == "plaintext" and not one.looked_into:
            yield intrusion("Z03", one, "a strict port answers plaintext")


@dataclass
class _Plain:
    """Of one port."""

    clients: set[str] = field(default_factory=set)
    connections: int = 0


def permissive(evidence: Evidence) -> Iterator[Finding]:
    """Z04. A migration that is over."""
    assert evidence.live is not None
    modes = _modes(evidence)
    for seen in evidence.live.permissive:
        idle_s = seen.for_s if seen.idle_s is None else min(seen.for_s, seen.idle_s)
        if idle_s < evidence.unused_s:
            continue
        decided = modes[seen.pod].of(seen.port) if seen.pod in modes else None
        port = f"port {seen.port}" if seen.port else "every port without a mode of its own"
        last = "no client in plaintext was seen"
        if seen.idle_s is not None:
            last = f"the last client in plaintext came {seen.idle_s / 86400:.0f} days ago"
        yield Finding(
            "Z04",
            "medium",
            _pod(seen.pod),
            f"{port} takes plaintext too, and nobody needs it",
            f"{last}, in {seen.for_s / 86400:.0f} days",
            _strict(evidence.view.world.endpoints.get(seen.pod), decided.by if decided else ""),
        )


def any_identity(evidence: Evidence) -> Iterator[Finding]:
    """Z05. mTLS says who calls; without a rule that asks, it is not worth having."""
    view, modes = evidence.view, _modes(evidence)
    found: dict[Object, dict[str, PortSet]] = {}
    for key, pod in modes.items():
        endpoint, table = view.world.endpoints[key], view.plan.tables[key]
        default = view.plan.rules.get(table.ingress_default)
        if default is not None and default.name == "default-allow":
            continue  # Z01 has it
        kind, _, name = endpoint.workload.partition("/")
        for one in allowed(table, ANYBODY):
            open_ = PortSet.join(one.spans) - _disabled(pod)
            if open_:
                rules = found.setdefault(Object(kind, endpoint.namespace, name), {})
                rule = str(view.plan.rules.get(one.rule, one.rule))
                rules[rule] = rules.get(rule, PortSet()) | open_
    for about, rules in sorted(found.items()):
        ports = PortSet.join(span for one in rules.values() for span in one.spans)
        yield Finding(
            "Z05",
            "high",
            about,
            f"whoever has an identity may call it, on {', '.join(ports.texts())}",
            f"the proxy asks for a certificate of the trust domain, and for none in particular: "
            f"{', '.join(sorted(rules))}",
            "name who is meant: podSelector or namespaceSelector in `from`",
        )
    yield from whole_domains(evidence)


def _disabled(pod: PodModes) -> PortSet:
    """Ports that are in no tunnel."""
    exceptions = {port: one.mode for port, one in pod.ports.items()}
    named = PortSet.join((port, port) for port in exceptions)
    off = PortSet.join((port, port) for port, mode in exceptions.items() if mode == Mode.DISABLED)
    return (PortSet.of("TCP") - named) | off if pod.every.mode == Mode.DISABLED else off


def unproved(evidence: Evidence) -> Iterator[Finding]:
    """Z07. Who comes through no proxy shows no certificate, and nobody reads its requests."""
    view = evidence.view
    ports = [(key, port) for key, pod in _modes(evidence).items() for port in pod.looked_into]
    outsiders = dict(_outsiders(view)) if ports else {}
    for key, port in sorted(ports):
        found: dict[int, set[str]] = {}
        for names, who in outsiders.items():
            decision = lookup_names(view.plan.tables[key], INGRESS, names, TCP, port)
            if decision.allow:
                found.setdefault(decision.rule, set()).add(who)
        for number, them in found.items():
            rule, who = view.plan.rules.get(number), " and ".join(sorted(them))
            if rule is not None and rule.kind != "builtin":
                yield Finding(
                    "Z07",
                    "high",
                    _pod(key),
                    f"port {port}/TCP: requests are judged, but not those of {who}",
                    f"{rule} lets them in at the port, past the proxy and without mTLS",
                    _narrower(rule),
                )


def _outsiders(view: View) -> Iterator[tuple[tuple[Identity, ...], str]]:
    """What tables may call those that are no workloads."""
    for group in parties([view]):
        who = "the host" if group.kind == "host" else "the world"
        if group.kind in ("host", "world", "name"):
            yield from ((face.names, who) for face in group.faces if face is not None)


def _narrower(rule: Rule) -> str:
    if rule.index < 0:
        return "add a default deny for ingress; run who needs the port as a pod"
    owner = f"{rule.kind} {rule.namespace}/{rule.name}"
    return f"take {rule.place} out of {owner}; run who needs the port as a pod"


def bypassed(evidence: Evidence) -> Iterator[Finding]:
    """Z08. By what the kernel has, and by what a stranger tried (``--probe``)."""
    assert evidence.live is not None
    for seen in evidence.live.unguarded:
        yield Finding(
            "Z08",
            "critical",
            _pod(seen.pod),
            f"port {seen.port}/TCP: its rules about requests can be gone around",
            f"the kernel takes the port for {seen.mode}, and sends nobody to the proxy",
            "sixfold status says whether a round is under way; the agent repairs it within 5 s",
        )
    for one in evidence.live.intrusions:
        if one.tried == "plaintext" and one.looked_into:
            yield intrusion("Z08", one, "its rules about requests can be gone around")
        elif one.tried == "tunnel":
            yield intrusion("Z08", one, f"the tunnel port ({TUNNEL_PORT}) answers who is no proxy")


def intrusion(number: str, one: IntrusionSeen, what: str) -> Finding:
    return Finding(
        number,
        "critical",
        _pod(one.target),
        f"{one.place}: {what}",
        f"{one.stranger} sent a packet there past its proxy, and got an answer",
        "report it: the datapath has a hole; sixfold flows --from "
        f"{one.stranger} shows what was let through",
    )


def _modes(evidence: Evidence) -> Mapping[str, PodModes]:
    view = evidence.view
    return plan_modes(view.world, Requests(view.world, view.plan).ports)


def _strict(endpoint: Endpoint | None, by: str) -> str:
    """What makes a workload's ports strict: a word of the flag, or an object more narrow."""
    if by.startswith("relaxation "):
        return f"take it out of the Posture ({by})"
    if endpoint is None or by.startswith(("--mtls", "posture")):
        return "sixfold up --mtls strict"
    labels = ", ".join(f"{key}: {value}" for key, value in endpoint.subject.labels)
    selector = f"\n  selector: {{matchLabels: {{{labels}}}}}" if labels else ""
    name = endpoint.workload.partition("/")[2]
    return STRICT.format(name=name, namespace=endpoint.namespace, selector=selector)


def _pod(key: str) -> Object:
    namespace, _, name = key.partition("/")
    return Object("Pod", namespace, name)
