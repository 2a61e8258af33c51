"""What the API is told: answers made of the agent's state, nothing decided here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from sixfold import __version__
from sixfold.agent.agent import CONTROLLERS, Agent, pod_key
from sixfold.agent.attestation import IdentitiesSeen
from sixfold.agent.ca import Ca
from sixfold.agent.carried import so_far
from sixfold.agent.dials import dials_seen
from sixfold.agent.events import FlowReader
from sixfold.agent.evidence import gather
from sixfold.agent.patterns import denials, patterns
from sixfold.agent.recorded import connections_of
from sixfold.agent.relaxations import Relaxations
from sixfold.agent.shown import endpoint_view, slice_view
from sixfold.balancing.pools import Assigned
from sixfold.balancing.show import list_frontends
from sixfold.discovery.plan import zone_settings
from sixfold.errors import ManifestError, NotFoundError, Problem, SixfoldError, UnavailableError
from sixfold.host.layout import Load, Place
from sixfold.host.node import HOST_DEVICE
from sixfold.host.paths import Paths
from sixfold.manifest import Loaded, decode
from sixfold.mesh.backend_tls import status_of as tls_status
from sixfold.mesh.external import status_of_rule
from sixfold.mesh.foreign import status_of as foreign_status
from sixfold.mesh.said import with_requests
from sixfold.mesh.status import status_of, status_of_class, status_of_gateway, status_of_set
from sixfold.mesh.traffic import status_of as traffic_status
from sixfold.model.config import RESOLVER_IPV4
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.flow import Flow
from sixfold.model.gateway import Gateway
from sixfold.model.listenerset import ListenerSet
from sixfold.model.meta import Key
from sixfold.model.policies import POLICY_KINDS, key_of
from sixfold.observe import FlowFilter, compact, response
from sixfold.serve.api import ApplyRequest, DeleteRequest, ExplainRequest, Source
from sixfold.store import Stored
from sixfold.trust.audit_finding import Live
from sixfold.trust.explain import explain

FOLLOW_PERIOD_S = 0.05
LINES_AT_ONCE = 64  # of flows; about 5 ms


class AgentHandlers:
    """Implements ``serve.api.Handlers``."""

    def __init__(
        self,
        agent: Agent,
        flows: FlowReader,
        stop: asyncio.Event,
        svids: Callable[[], dict[str, Any]],
        identities_seen: Callable[[], IdentitiesSeen],
        ca: Ca,
        relaxations: Relaxations,
        paths: Paths,
    ) -> None:
        self._agent = agent
        self.svids = svids
        self.authorities, self.change_authorities = ca.show, ca.change
        self._federated = ca.federated
        self._identities_seen = identities_seen
        self._relaxations = relaxations
        self._paths = paths
        self._flows = flows
        self._stop = stop
        self._started_s = time.monotonic()

    def status(self) -> dict[str, Any]:
        agent = self._agent
        pods = agent.pods().values()
        return {
            "agent": {
                "pid": os.getpid(),
                "version": __version__,
                "generation": agent.generation,
                "applied": agent.applied,
                "node": agent.config.node,
                "instance": agent.config.instance,
                "posture": agent.effective.posture,
                "audit": agent.config.audit,
                "mtls": agent.effective.mtls_mode,
                "mtls_given": agent.config.mtls is not None,
                "trust_domain": agent.config.trust_domain,
                "ipblock_matches_pods": agent.config.ipblock_matches_pods,
                "node_labels": [f"{key}={value}" for key, value in agent.config.labels.items()],
                "devices": sorted(agent.network.uplinks),
                "pod_networks": [str(agent.config.pod_ipv4), str(agent.config.pod_ipv6)],
                "zones": list(zone_settings(agent.config).origins),
                "edge": list(agent.config.dns_edge),
                "edge_zones": list(agent.config.dns_edge_zones),
                "device": HOST_DEVICE,
                "uptime_s": round(time.monotonic() - self._started_s, 1),
                "problem": agent.problem,
                "repairs": agent.repairs[-10:],
            },
            "pods": {
                "total": len(pods),
                "ready": sum(pod.ready for pod in pods),
                "finished": sum(pod.finished for pod in pods),
                "unsettled": agent.unsettled(),
            },
            "services": len(agent.objects.of("Service")),
            "policies": sum(len(agent.objects.of(kind)) for kind in POLICY_KINDS),
            "flows": {"seen": self._flows.log.seen, "lost": self._flows.log.lost},
            "drops": self._flows.statistics(),
            "fqdn": agent.learning.summary(),
            "patterns": patterns(agent),
            "denials": denials(agent),
        }

    async def apply(self, request: ApplyRequest) -> dict[str, Any]:
        loaded = await asyncio.to_thread(_decode, request)  # large ones take seconds
        results = await self._agent.apply(loaded, dry_run=request.dry_run)
        problem = ""
        if request.wait and not request.dry_run:
            try:
                keys = {put.key for put in results}
                await self._unless_stopped(self._agent.settled(request.timeout_s, keys))
            except UnavailableError as error:  # it is taken all the same
                problem = str(error)
        return {
            "results": [{**put.key._asdict(), "action": put.action} for put in results],
            "generation": self._agent.generation,
            "problem": problem,
            "warnings": self._agent.warnings({put.key.kind for put in results}),
        }

    async def delete(self, request: DeleteRequest) -> dict[str, Any]:
        keys = [Key(item.kind, item.namespace, item.name) for item in request.keys]
        missing = [key for key in keys if self._agent.objects.get(key) is None]
        if missing and not request.ignore_missing:
            raise NotFoundError("\n".join(f"{key}: not found" for key in missing))
        found = [key for key in keys if key not in missing]
        pods = set(self._agent.pods())
        await self._agent.delete(found, request.grace_s)
        if request.wait:
            await self._unless_stopped(self._agent.gone(found, pods, request.timeout_s))
        return {"results": [{**key._asdict(), "action": "deleted"} for key in found]}

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for something, but not longer than there is an agent."""
        waiting = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not waiting.done():
            waiting.cancel()
            raise UnavailableError("the agent stops; the next one goes on with it (sixfold up)")
        waiting.result()

    def objects(self, kind: str, namespace: str, name: str) -> list[Mapping[str, Any]]:
        items: list[Mapping[str, Any]]
        match kind:
            case "Endpoints":
                items = [endpoint_view(item) for item in self._endpoints()]
            case "EndpointSlice":
                plans = self._agent.plans
                slices = plans.balancing.slices.values() if plans else ()
                items = [slice_view(one) for group in slices for one in group if one.made]
                items += [stored.raw for stored in self._agent.objects.of(kind).values()]
            case _:
                items = [self._with_status(item) for item in self._agent.objects.of(kind).values()]
                if kind in POLICY_KINDS:
                    items = self._with_hits(items)
        found = [
            item
            for item in items
            if namespace in ("", item["metadata"].get("namespace", ""))
            and name in ("", item["metadata"]["name"])
        ]
        if name and not found:
            raise NotFoundError(f"{Key(kind, namespace, name)}: not found")
        return sorted(found, key=_sort_key)

    def _endpoints(self) -> Sequence[Endpoint]:
        return list(self._agent.plans.world.endpoints.values()) if self._agent.plans else []

    def _with_status(self, stored: Stored) -> Mapping[str, Any]:
        raw, status = stored.raw, {}
        match stored.key.kind:
            case "Pod":
                raw = {**raw, "spec": {**raw["spec"], "nodeName": self._agent.config.node}}
                status = self._agent.runner.status(pod_key(stored.key)) or {"phase": "Pending"}
            case kind if kind in CONTROLLERS:
                status = self._agent.statuses.get(stored.key, {})
            case "Namespace":
                status = {"phase": "Terminating" if stored.deleting else "Active"}
            case "GlobalName":
                status = self._agent.statuses.get(stored.key, {})
            case "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute":
                if self._agent.plans is not None:
                    status = status_of(self._agent.plans.world, stored.object)
            case "TrafficPolicy":
                if self._agent.plans is not None:
                    status = traffic_status(self._agent.plans.world, stored.object)
            case "BackendTLSPolicy":
                if self._agent.plans is not None:
                    told = foreign_status if stored.object.is_federated else tls_status
                    status = told(self._agent.plans.world, stored.object)
            case "DestinationRule":
                if self._agent.plans is not None:
                    status = status_of_rule(self._agent.plans.world, stored.object)
            case "Posture":
                status = self._relaxations.status()
            case "GatewayClass":
                status = status_of_class(stored.object)
            case "Gateway":
                status = self._gateway(stored.object)
            case "ListenerSet":
                status = self._listener_set(stored.object)
            case "CiliumLoadBalancerIPPool":
                status = self._agent.balancers.status_of_pool(stored.object)
            case "Service":
                status = self._agent.balancers.status(pod_key(stored.key))
        return {**raw, "status": status} if status else raw

    def _gateway(self, gateway: Gateway) -> dict[str, Any]:
        agent = self._agent
        if agent.plans is None:
            return {}
        given = agent.balancers.assigned.get(gateway.made, Assigned(()))
        lacking = self._unserved(gateway)
        return status_of_gateway(agent.plans.world, gateway, given.addresses, given.lacks, lacking)

    def _listener_set(self, one: ListenerSet) -> dict[str, Any]:
        plans = self._agent.plans
        gateway = plans.world.gateways.get(one.gateway) if plans is not None else None
        if plans is None or gateway is None:
            return {}
        said = {it["type"]: it for it in self._gateway(gateway).get("conditions", ())}
        held = said.get("Programmed", {"status": "True"})
        why = "" if held["status"] == "True" else held["message"]
        return status_of_set(plans.world, one, self._unserved(gateway), why)

    def _unserved(self, gateway: Gateway) -> str:
        mesh = self._agent.mesh
        return mesh.unserved(gateway.made) if mesh else "there is no proxy yet"

    def _with_hits(self, policies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Policies with the kernel's counters as their status."""
        by_policy = self._flows.policy_hits()
        found: list[Mapping[str, Any]] = []
        for item in policies:
            meta = item["metadata"]
            hits = by_policy.get(key_of(item["kind"], meta.get("namespace", ""), meta["name"]), {})
            rules = [{"rule": rule, "hits": count} for rule, count in sorted(hits.items())]
            found.append({**item, "status": {"hits": sum(hits.values()), "rules": rules}})
        return found

    async def flows(self, parameters: Mapping[str, Sequence[str]]) -> AsyncIterator[bytes]:
        wanted = FlowFilter.parse(parameters, time.time_ns())
        follow = parameters.get("follow", ["false"])[0] == "true"
        last = parameters.get("last")
        everything = "since" in parameters and last is None
        count = int(last[0]) if last else None if everything else 0 if follow else 20
        self._flows.drain()
        log = self._flows.log
        cursor, lost = log.seen, log.lost
        search = log.search(wanted, count)
        for _ in search.steps():
            await asyncio.sleep(0)
        async for lines in _lines(await so_far(self._agent, search.found)):
            yield lines
        while follow and not self._stop.is_set():
            await asyncio.sleep(FOLLOW_PERIOD_S)
            batch = log.read(cursor)
            cursor = batch.cursor
            # the kernel's ring was full, or ours came round before this reader
            for source, count in (
                ("PERF_EVENT_RING_BUFFER", log.lost - lost),
                ("HUBBLE_RING_BUFFER", batch.missed),
            ):
                if count:
                    yield _line({"lost_events": {"source": source, "num_events_lost": count}})
            lost = log.lost
            async for lines in _lines(filter(wanted.matches, batch.flows)):
                yield lines

    def flows_lost(self) -> int:
        return self._flows.log.lost

    def explain(self, request: ExplainRequest) -> Any:
        plans = self._agent.plans
        if plans is None:
            raise SixfoldError("explain: nothing is planned yet; try again in a moment")
        return explain(
            plans.world,
            plans,
            request.source,
            request.destination,
            request.port,
            request.protocol,
            request.namespace,
            request.asked,
        )

    def balancing(self, namespace: str, name: str) -> list[Mapping[str, Any]]:
        plans = self._agent.plans
        if plans is None:
            raise UnavailableError("balancing: nothing is planned yet; try again in a moment")
        if name and f"{namespace}/{name}" not in plans.world.services:
            raise NotFoundError(f"{Key('Service', namespace, name)}: not found")
        loads = self._agent.datapath.loads()

        def load(address: IPAddress, port: int, protocol: int) -> Load:
            return loads.get(Place(address, port, protocol), Load())

        lifetime_s = self._agent.backends.lifetime_s
        found = list_frontends(plans.world, load, namespace, name, lifetime_s)
        return [*with_requests(plans.world, found)]

    async def connections(self, service: str, port: int, protocol: str) -> list[dict[str, Any]]:
        return await connections_of(self._agent.datapath, self._flows, service, port, protocol)

    def resolve(self, name: str, type_: str, namespace: str, source: str) -> dict[str, Any]:
        found: dict[str, Any] = {"asked": name, "type": type_, "as": source, "denied": ""}
        if source:
            way = self.explain(
                ExplainRequest(source, str(RESOLVER_IPV4), 53, "UDP", namespace=namespace)
            )
            namespace = source.split("/")[0] if "/" in source else namespace
            if not way.allowed:
                return {**found, "denied": way.lines[-1], "steps": []}
        return {**found, "steps": self._agent.resolve(name, type_, namespace, source)}

    def dials(self) -> list[Any]:
        return [*dials_seen(self._agent)]

    async def evidence(self, *, probe: bool) -> Live:
        """For an audit; with ``probe`` strangers try."""
        return await gather(
            self._agent,
            self._flows,
            self._paths,
            self.balancing("", ""),
            self.dials(),
            self._identities_seen(),
            self._federated(),
            self._agent.mesh.foreign.pairs if self._agent.mesh is not None else (),
            probe=probe,
        )

    def names(self) -> dict[str, Any]:
        names = self._agent.names
        return {
            "identities": {str(n): list(labels) for n, labels in names.labels.items()},
            "rules": {str(number): str(rule) for number, rule in names.rules.items()},
            "services": {str(n): f"{s.namespace}/{s.name}" for n, s in names.services.items()},
            "endpoints": {str(item.id): item.key for item in self._endpoints()},
        }

    def fqdn(self) -> list[Any]:
        return list(self._agent.learning.entries())

    def routes(self) -> list[Any]:
        return list(self._agent.network.routes())

    def log(self, key: Key, parameters: Mapping[str, str]) -> AsyncIterator[str]:
        self._require_pod(key)
        return self._agent.runner.log(
            pod_key(key),
            container=parameters.get("container", ""),
            tail=int(parameters["tail"]) if "tail" in parameters else None,
            since_s=float(parameters["since"]) if "since" in parameters else None,
            timestamps=parameters.get("timestamps") == "true",
            previous=parameters.get("previous") == "true",
            follow=parameters.get("follow") == "true",
        )

    def exec_target(self, key: Key, container: str) -> dict[str, Any]:
        self._require_pod(key)
        return self._agent.runner.exec_target(pod_key(key), container)

    def _require_pod(self, key: Key) -> None:
        if self._agent.objects.get(key) is None:
            raise NotFoundError(f"{key}: not found")

    async def restart_proxy(self, pod: str) -> dict[str, Any]:
        if self._agent.mesh is None:
            raise UnavailableError(
                "proxy: none runs; nothing asks for mTLS (sixfold up --mtls strict)"
            )
        return await self._agent.mesh.restart(pod)

    def shutdown(self) -> None:
        self._stop.set()


def _decode(request: ApplyRequest) -> list[Loaded]:
    """All objects of a request, or all their problems."""
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    seen: dict[Key, Source] = {}
    blank = [Source()] * (len(request.objects) - len(request.sources))
    for raw, source in zip(request.objects, [*request.sources, *blank], strict=True):
        try:
            item = decode(raw, source.source or "api", line=source.line)
        except ManifestError as error:
            problems += error.problems
            continue
        if item.key in seen:
            first = seen[item.key]
            message = f"{item.key} is written twice, also at {first.source}:{first.line}; keep one"
            problems.append(Problem(source.source, source.line, "metadata.name", message))
        seen[item.key] = source
        loaded.append(item)
    if problems:
        raise ManifestError(problems)
    return loaded


def _sort_key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


async def _lines(flows: Iterable[Flow]) -> AsyncIterator[bytes]:
    """Some at a time: a long answer must not hold the loop, nor outlive its reader."""
    left = iter(flows)
    while some := list(islice(left, LINES_AT_ONCE)):
        yield b"".join(_line({**response(flow), "text": compact(flow)}) for flow in some)
        await asyncio.sleep(0)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=str) + b"\n"
