"""Is every workload, and every pair that talked, what zero trust asks of it?

Pure. Five questions: can it be found by name, is it balanced, is it on an allow-list, is it
authenticated with mTLS, is it observed. An answer is "" for yes, or says why not; a pair is two
workloads and a port of the second, as the kernel remembers their connections; of other trust
domains, who proved to be whom in tunnels and requests since the agent started. Who is gone is no
pair: so is who is federated no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sixfold.balancing.members import selects
from sixfold.mesh.foreign import foreign_services, why_closed
from sixfold.mesh.modes import PodModes, plan_modes
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.mesh import Mode
from sixfold.model.spiffe import parse
from sixfold.policy.decide import decide, party_of
from sixfold.policy.reach_parties import View
from sixfold.policy.requests import Requests
from sixfold.trust.audit import audit
from sixfold.trust.audit_finding import Evidence, PairSeen

Key = tuple[str, str, str]  # of a pair: from, to, port
QUESTIONS = ("discoverable", "balanced", "allow-listed", "authenticated", "observed")


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds of one workload, or of a pair; ``reasons`` in the order of the questions."""

    name: str  # "shop/Deployment/web"
    to: str = ""  # of a pair
    port: str = ""  # "8080/TCP"
    connections: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def exceptions(self) -> dict[str, str]:
        return {question: why for question, why in zip(QUESTIONS, self.reasons, strict=True) if why}


@dataclass(frozen=True, slots=True)
class Posture:
    workloads: tuple[Standing, ...]
    pairs: tuple[Standing, ...]

    @property
    def clean(self) -> bool:
        return not any(one.exceptions for one in (*self.workloads, *self.pairs))

    def counts(self, standings: tuple[Standing, ...]) -> dict[str, int]:
        """How many are fine, by question."""
        return {
            question: sum(not one.reasons[at] for one in standings)
            for at, question in enumerate(QUESTIONS)
        }


def posture(evidence: Evidence) -> Posture:
    """Of a running system."""
    assert evidence.live is not None
    view = evidence.view
    modes = plan_modes(view.world, Requests(view.world, view.plan).ports)
    asked = [*audit(evidence, ["Z23"])]
    unsuited = {f"{one.about.namespace}/{one.about.name}": one.message for one in asked}
    lost = f"{evidence.live.flows_lost} flows were lost" if evidence.live.flows_lost else ""
    dialled = {_workload(view, one.server) for one in evidence.live.pairs}
    found: dict[str, Standing] = {}
    for endpoint in view.world.endpoints.values():
        name = _name(endpoint)
        if name in found:
            continue
        services = [*_services(view, endpoint)]
        reasons = (
            "" if services or name not in dialled else "no service leads to it",
            next((unsuited[one] for one in services if one in unsuited), ""),
            _not_listed(view, endpoint),
            _plain(modes.get(endpoint.key)),
            lost,
        )
        found[name] = Standing(name, reasons=reasons)
    pairs = (
        *_pairs(view, evidence.live.pairs, unsuited, lost),
        *_from_abroad(view, evidence.live.from_abroad, unsuited, lost),
    )
    return Posture(tuple(found[name] for name in sorted(found)), pairs)


def _pairs(
    view: View, seen: tuple[PairSeen, ...], unsuited: Mapping[str, str], lost: str
) -> Iterator[Standing]:
    found: dict[Key, Standing] = {}
    abroad = {port.service: one for port, one in foreign_services(view.world).items()}
    for one in seen:
        to = _workload(view, one.server)
        if one.service in abroad and abroad[one.service].gateway == one.server:
            to = " or ".join(abroad[one.service].ids)
        key = _workload(view, one.client), to, f"{one.port}/{one.protocol}"
        if not all(key):
            continue
        server = view.world.endpoints[one.server]
        services = [*_services(view, server)]
        direct = not one.service and not any(_is_headless(view, it) for it in services)
        reasons: tuple[str, ...] = (
            "" if services else "no service leads to it",
            "dialled past its service" if direct else unsuited.get(one.service, ""),
            next((f"let in by {rule}" for rule in one.rules if "default-allow" in rule), "")
            or _only_told(view, one),
            "" if one.mtls else "plaintext",
            lost or ("" if all(one.rules) else "its rule is not known any more"),
        )
        _add(found, key, one.connections, reasons)
    yield from (found[key] for key in sorted(found))


def _from_abroad(
    view: View, seen: tuple[PairSeen, ...], unsuited: Mapping[str, str], lost: str
) -> Iterator[Standing]:
    """A tunnel, or requests, of an identity that the handshake proved: always mTLS."""
    found: dict[Key, Standing] = {}
    for one in seen:
        server = view.world.endpoints.get(one.server)
        if server is None or why_closed(view.world, parse(one.client).trust_domain):
            continue
        services = [*_services(view, server)]
        reasons = (
            "" if services else "no service leads to it",
            next((unsuited[it] for it in services if it in unsuited), ""),
            "",
            "" if one.mtls else "plaintext",
            lost or ("" if one.rules[1] else "its rule is not known any more"),
        )
        key = one.client, _name(server), f"{one.port}/{one.protocol}"
        _add(found, key, one.connections, reasons)
    yield from (found[key] for key in sorted(found))


def _add(found: dict[Key, Standing], key: Key, count: int, reasons: tuple[str, ...]) -> None:
    """To what is known of the same pair: an exception of one connection is the pair's."""
    if (before := found.get(key)) is not None:
        reasons = tuple(a or b for a, b in zip(before.reasons, reasons, strict=True))
        count += before.connections
    found[key] = Standing(*key, count, reasons)


def _not_listed(view: View, endpoint: Endpoint) -> str:
    table = view.plan.tables[endpoint.key]
    sides = {"ingress": table.ingress_default, "egress": table.egress_default}
    if table.audit is not None:
        rule = view.plan.rules.get(table.ingress_default)
        whole = rule is not None and rule.name == "audit"
        return f"told, not enforced: {rule.because}" if rule and whole else "in part told only"
    open_ = [
        side
        for side, default in sides.items()
        if (rule := view.plan.rules.get(default)) is not None and rule.name == "default-allow"
    ]
    return f"{' and '.join(open_)} open by default" if open_ else ""


def _only_told(view: View, seen: PairSeen) -> str:
    """Of what would not pass, were nothing in audit."""
    ends = (view.world.endpoints[seen.client], view.world.endpoints[seen.server])
    source, destination = (party_of(view.plan, one) for one in ends)
    protocol = PROTOCOL_NUMBERS[seen.protocol]
    verdict = decide(view.plan, source, destination, protocol, seen.port)
    told = any(side is not None and side.audit for side in (verdict.egress, verdict.ingress))
    return "passes only because of an audit" if told else ""


def _plain(pod: PodModes | None) -> str:
    if pod is None:
        return "mTLS is off"
    decided = [("", pod.every), *((f"port {port}: ", one) for port, one in pod.ports.items())]
    return "; ".join(
        f"{port}{one.mode.name.lower()} by {one.by}"
        for port, one in decided
        if one.mode != Mode.STRICT
    )


def _services(view: View, endpoint: Endpoint) -> Iterator[str]:
    for key, service in view.world.services.items():
        if selects(service, endpoint.namespace, endpoint.labels):
            yield key


def _is_headless(view: View, service: str) -> bool:
    return view.world.services[service].spec.headless


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.namespace}/{endpoint.workload}"


def _workload(view: View, pod: str) -> str:
    """Of a pod that is still there; "" of others."""
    endpoint = view.world.endpoints.get(pod)
    return _name(endpoint) if endpoint is not None else ""
